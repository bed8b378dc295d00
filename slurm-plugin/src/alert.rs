//! Alerts as `slurmedic alert FILE` and the engine's address for alerts take them: one JSON object on each line.

use crate::finding::Finding;
use crate::talk::{cut, tame};
use crate::time::rfc3339;
use sha2::{Digest as _, Sha256};

/// Bounds of the engine, in bytes.
const MAX_FINGERPRINT: usize = 128;
const MAX_GPU: usize = 64;
const MAX_SUMMARY: usize = 500;

/// The time is the last field, so that a report that was late can be given a new one.
const SEEN_AT: &str = ",\"seen_at\":\"";

/// Writes one alert.
pub(crate) fn line(node: &str, finding: &Finding, firing: bool, now_ms: u64) -> String {
    let mut out = String::with_capacity(400);
    out.push_str("{\"source\":\"slurmedic-hook\"");
    let mut field = |key: &str, value: &str| {
        out.push_str(",\"");
        out.push_str(key);
        out.push_str("\":");
        quote(value, &mut out);
    };
    field("node", node);
    field("fault", &finding.fault);
    if let Some(gpu) = &finding.gpu {
        let mut gpu = tame(gpu);
        cut(&mut gpu, MAX_GPU);
        field("gpu", &gpu);
    }
    field("fingerprint", &fingerprint(node, finding));
    let mut summary = tame(&finding.text);
    cut(&mut summary, MAX_SUMMARY);
    field("summary", &summary);
    out.push_str(if firing { ",\"firing\":true" } else { ",\"firing\":false" });
    out.push_str(SEEN_AT);
    out.push_str(&rfc3339(finding.at_ms.unwrap_or(now_ms)));
    out.push_str("\"}");
    out
}

/// Gives an alert of ours another time.
pub(crate) fn at_another_time(line: &str, ms: u64) -> String {
    match line.rfind(SEEN_AT) {
        Some(at) => format!("{}{SEEN_AT}{}\"}}", &line[..at], rfc3339(ms)),
        None => line.to_owned(),
    }
}

fn fingerprint(node: &str, finding: &Finding) -> String {
    let mut text = tame(&format!("hook/{node}/{}", finding.key()));
    if text.len() > MAX_FINGERPRINT {
        let digest = hex(&Sha256::digest(text.as_bytes())[..8]);
        cut(&mut text, MAX_FINGERPRINT - digest.len() - 1);
        text.push('~');
        text.push_str(&digest);
    }
    text
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::FAULTS;
    use engine_core::incident::Alert;
    use engine_core::incident::fault::{Strength, strength};

    #[test]
    fn the_engine_reads_what_is_written() {
        let mut finding = Finding::now(
            "gpu-ecc-uncorrectable",
            "x".repeat(300),
            format!("\"quoted\" \\ \u{1b}[2J {}", "é".repeat(600)),
        );
        finding.gpu = Some("00000000:1B:00.0".to_owned());
        let text = line("gpu003", &finding, true, 1_795_012_345_678);
        let alert: Alert = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let alert = alert.checked().unwrap();
        assert_eq!(alert.node.as_str(), "gpu003");
        assert_eq!(alert.gpu.as_deref(), Some("00000000:1B:00.0"));
        assert_eq!(alert.seen_at.as_millisecond(), 1_795_012_345_678);
        assert!(alert.firing && alert.fingerprint.as_str().len() <= 128);
        let later = at_another_time(&text, 1_795_012_400_000);
        let later: Alert = serde_json::from_str(&later).unwrap();
        assert_eq!(later.seen_at.as_millisecond(), 1_795_012_400_000);
        assert_eq!(later.fingerprint, alert.fingerprint);
    }

    #[test]
    fn long_names_keep_distinct_fingerprints() {
        let of = |subject: &str| fingerprint("gpu003", &Finding::now("mount-hang", subject, ""));
        let long = "/x".repeat(200);
        assert_ne!(of(&format!("{long}a")), of(&format!("{long}b")));
    }

    /// A fault that the hook lets a site act on alone is one that the engine knows too.
    #[test]
    fn local_faults_are_known_to_the_engine() {
        for (word, _) in FAULTS.iter().filter(|(_, local)| *local) {
            assert_ne!(strength(word), Strength::Unknown, "{word}");
        }
    }
}
