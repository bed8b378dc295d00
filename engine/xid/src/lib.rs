//! Lines of the NVIDIA driver in the kernel log: all published forms, and the fault each one stands for.
//!
//! The hook and the node agent read them with this one reader. Faults of bare XID numbers, as an exporter shows them, are
//! `engine_core::watch::xid`; a test here holds that both say the same.

include!(concat!(env!("OUT_DIR"), "/xid_table.rs"));

mod record;

pub use record::{Record, record};

/// What a line of the driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `xid-48`, `sxid-20034`, or `off-bus` where the driver gives no number.
    pub code: String,
    /// PCI address in the long form, `00000000:1B:00.0`.
    pub device: String,
    /// The message behind the number.
    pub message: String,
    /// What to make of it.
    pub meaning: Meaning,
}

/// What a code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A fault with this word.
    Fault(&'static str),
    /// The application's own doing.
    Application,
    /// Nothing that anybody has to do anything about.
    Quiet,
}

/// Reads one line of a kernel log, whatever stands before the driver's own words.
pub fn read(line: &str) -> Option<Line> {
    let at = line.find("NVRM: ").or_else(|| line.find("SXid ("))?;
    if line[at..].starts_with("SXid") {
        return sxid(&line[at + "SXid (".len()..]);
    }
    let own = &line[at + "NVRM: ".len()..];
    if let Some(rest) = own.strip_prefix("Xid (") {
        return xid(rest);
    }
    // Some drivers tell the loss without a number.
    let rest = own.strip_prefix("GPU ")?;
    let rest = rest.strip_prefix("at ").unwrap_or(rest);
    let (address, message) = rest.split_once(": ")?;
    message.starts_with("GPU has fallen off the bus").then(|| Line {
        code: "off-bus".to_owned(),
        device: device(address),
        message: message.to_owned(),
        meaning: Meaning::Fault("gpu-off-bus"),
    })
}

/// `PCI:0000:05:00): 79, pid=..`, `0000:05:00): 13, ..`, `PCI:0000:01:00 GPU-I:05): 94, ..`.
fn xid(rest: &str) -> Option<Line> {
    let (address, rest) = rest.split_once("): ")?;
    let address = address.split(' ').next()?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u32 = rest[..digits].parse().ok()?;
    let message = rest[digits..].trim_start_matches([',', ' ']).to_owned();
    Some(Line {
        code: format!("xid-{number}"),
        device: device(address),
        meaning: meaning(number, &message),
        message,
    })
}

/// `PCI:0000:00:00.0): 20034, Fatal, Link 30 ..` of an NVSwitch.
fn sxid(rest: &str) -> Option<Line> {
    let (address, rest) = rest.split_once("): ")?;
    let (number, message) = rest.split_once(',')?;
    let number: u32 = number.trim().parse().ok()?;
    let message = message.trim().to_owned();
    let fatal = message.starts_with("Fatal");
    let fault = if fatal { "nvswitch-sxid-fatal" } else { "nvswitch-sxid-nonfatal" };
    Some(Line {
        code: format!("sxid-{number}"),
        device: device(address),
        message,
        meaning: Meaning::Fault(fault),
    })
}

/// Brings an address into the form of nvidia-smi; one that is none stays as it is, without odd characters.
fn device(text: &str) -> String {
    let text = text.strip_prefix("PCI:").unwrap_or(text);
    let (front, function) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<&str> = front.split(':').collect();
    let hex =
        |t: &str, max: usize| !t.is_empty() && t.len() <= max && t.bytes().all(|b| b.is_ascii_hexdigit());
    match parts[..] {
        [domain, bus, slot] if hex(domain, 8) && hex(bus, 2) && hex(slot, 2) && hex(function, 1) => {
            format!("{domain:0>8}:{bus:0>2}:{slot:0>2}.{function}").to_ascii_uppercase()
        }
        _ => text.chars().filter(|c| c.is_ascii_alphanumeric() || ":.-".contains(*c)).take(32).collect(),
    }
}

/// Says what a number stands for; for some of them the message decides. The table is `knowledge/xid.yaml`.
pub fn meaning(number: u32, message: &str) -> Meaning {
    use Meaning::{Application, Fault, Quiet};
    let found = XIDS.binary_search_by_key(&number, |entry| entry.0).ok().map(|i| XIDS[i]);
    match found {
        Some((154, ..)) if message.contains("to 0x0 (None)") => Quiet,
        Some((_, _, nonfatal, _)) if !nonfatal.is_empty() && message.contains("Nonfatal") => Fault(nonfatal),
        Some((_, fault, ..)) if !fault.is_empty() => Fault(fault),
        Some((.., "xid-app-annotate")) => Application,
        Some((.., "none")) => Quiet,
        _ => Fault("gpu-xid-other"),
    }
}

/// Whether the words before the driver's own are the kernel's: nothing, a time in brackets, or a syslog line whose
/// program is the kernel. A user can write such a line through syslog, and cannot write this front.
pub fn from_kernel(line: &str) -> bool {
    let Some(at) =
        line.find("NVRM: ").or_else(|| line.find("nvidia-nvswitch")).or_else(|| line.find("SXid ("))
    else {
        return false;
    };
    let mut words = line[..at].split_whitespace().peekable();
    let times = match words.peek() {
        None => return true,
        Some(w) if w.starts_with('[') => {
            return line[..at].trim_end().ends_with(']') && bracket_only(&line[..at]);
        }
        // `2026-11-21T14:33:18.000001+00:00 gpu001 kernel:` or `Nov 21 14:33:18 gpu001 kernel:`
        Some(w) if w.starts_with(|c: char| c.is_ascii_digit()) => 1,
        Some(_) => 3,
    };
    words.nth(times + 1) == Some("kernel:")
}

fn bracket_only(front: &str) -> bool {
    let inside = front.trim().trim_start_matches('[').trim_end_matches(']').trim();
    inside.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> (String, String, Meaning) {
        let l = read(line).unwrap_or_else(|| panic!("not read: {line}"));
        (l.code, l.device, l.meaning)
    }

    #[test]
    fn every_published_form_is_read() {
        let fault = Meaning::Fault;
        for (line, code, device, meaning) in [
            (
                "NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                "xid-79",
                "00000000:05:00.0",
                fault("gpu-off-bus"),
            ),
            (
                "[ 4242.123457] NVRM: Xid (PCI:0000:1b:00): 48, pid=12, name=python, DBE",
                "xid-48",
                "00000000:1B:00.0",
                fault("gpu-ecc-uncorrectable"),
            ),
            (
                "NVRM: Xid (0000:05:00): 13, Graphics Exception",
                "xid-13",
                "00000000:05:00.0",
                Meaning::Application,
            ),
            (
                "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
                "xid-94",
                "00000000:01:00.0",
                fault("gpu-contained-error"),
            ),
            (
                "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x0)",
                "xid-149",
                "00000018:01:00.0",
                fault("nvlink-down"),
            ),
            (
                "NVRM: Xid (PCI:0018:01:00): 145, RLW_CTRL Nonfatal XC0 i0 Link 08 (0x1 0x2)",
                "xid-145",
                "00000018:01:00.0",
                fault("nvlink-errors"),
            ),
            (
                "NVRM: Xid (PCI:0000:05:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
                "xid-154",
                "00000000:05:00.0",
                fault("gpu-recovery-action-set"),
            ),
            (
                "NVRM: Xid (PCI:0000:05:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
                "xid-154",
                "00000000:05:00.0",
                Meaning::Quiet,
            ),
            (
                "NVRM: GPU 0000:9a:00.0: GPU has fallen off the bus.",
                "off-bus",
                "00000000:9A:00.0",
                fault("gpu-off-bus"),
            ),
            (
                "NVRM: GPU at 0000:9a:00.0: GPU has fallen off the bus.",
                "off-bus",
                "00000000:9A:00.0",
                fault("gpu-off-bus"),
            ),
            (
                "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
                "sxid-20034",
                "00000000:00:00.0",
                fault("nvswitch-sxid-fatal"),
            ),
            (
                "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 11001, Non-fatal, Link 12 x",
                "sxid-11001",
                "00000000:00:00.0",
                fault("nvswitch-sxid-nonfatal"),
            ),
            ("NVRM: Xid (PCI:0000:05:00): 9999, new", "xid-9999", "00000000:05:00.0", fault("gpu-xid-other")),
        ] {
            assert_eq!(told(line), (code.to_owned(), device.to_owned(), meaning), "{line}");
        }
    }

    #[test]
    fn other_lines_of_the_driver_are_no_faults() {
        for line in [
            "NVRM: GPU at PCI:0000:1b:00: GPU-5f0c1c7a",
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
            "NVRM: Xid (PCI:0000:05:00): ",
            "NVRM: Xid (PCI:0000:05:00): many, pid=1",
            "NVRM: Xid (",
            "Xid (PCI:0000:05:00): 79",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        assert_eq!(read("NVRM: Xid (`reboot`\u{1b}[2J): 79, x").unwrap().device, "reboot2J");
    }

    #[test]
    fn what_a_user_writes_into_syslog_is_not_the_kernel() {
        for line in [
            "NVRM: Xid (PCI:0000:05:00): 79",
            "[ 4242.123457] NVRM: Xid",
            "Nov 21 14:33:18 gpu001 kernel: NVRM: Xid",
            "Nov 21 14:33:18 gpu001 kernel: [ 4242.1] NVRM: Xid",
            "2026-11-21T14:33:18.5+00:00 gpu001 kernel: NVRM: Xid",
            "[ 42.1] nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Fatal",
        ] {
            assert!(from_kernel(line), "{line}");
        }
        for line in [
            "Nov 21 14:33:18 gpu001 mallory: NVRM: Xid",
            "Nov 21 14:33:18 gpu001 mallory: kernel: NVRM: Xid",
            "2026-11-21T14:33:18.5+00:00 gpu001 mallory[12]: kernel: [ 1.0] NVRM: Xid",
            "[mallory] NVRM: Xid",
            "[1.0] mallory: kernel: [2.0] NVRM: Xid",
        ] {
            assert!(!from_kernel(line), "{line}");
        }
    }

    /// What a bare number stands for in the engine is what a line with that number stands for here.
    #[test]
    fn a_line_stands_for_the_fault_of_its_number() {
        let mut faults = 0;
        for number in 0..2_000 {
            let line = read(&format!("NVRM: Xid (PCI:0000:1b:00): {number}, x")).unwrap();
            match engine_core::watch::xid::fault_of(number) {
                Some(word) => {
                    faults += 1;
                    assert_eq!(line.meaning, Meaning::Fault(word), "{number}");
                }
                // The number alone says nothing: an application's, one that informs, one whose message decides, a new one.
                None => assert!(
                    matches!(
                        line.meaning,
                        Meaning::Application
                            | Meaning::Quiet
                            | Meaning::Fault("gpu-xid-other" | "gpu-recovery-action-set")
                    ),
                    "{number}: {line:?}"
                ),
            }
        }
        assert!(faults > 30, "{faults}");
        // A message only ever makes it milder.
        for number in 144..=150 {
            assert_eq!(meaning(number, "Nonfatal"), Meaning::Fault("nvlink-errors"));
        }
    }

    proptest::proptest! {
        /// No line makes it stumble, and what it names as a device is plain text.
        #[test]
        fn any_line_is_read(line in "(NVRM: |Xid \\(|SXid \\(|PCI:|0000:1b:00|\\): |[0-9]{1,12}|, |GPU |.){0,20}") {
            from_kernel(&line);
            if let Some(l) = read(&line) {
                proptest::prop_assert!(l.device.chars().all(|c| c.is_ascii_alphanumeric() || ":.-".contains(c)));
            }
        }
    }
}
