//! What came of `nvidia-smi --gpu-reset -i BUSID`: the exit code decides, the text gives the detail.

use crate::dcgm::text::{decode, one_line};
use crate::process::Exit;
use engine_core::model::ResetOutcome;

/// Says whether the text is of a reset.
pub fn is_reset(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "was successfully reset",
        "could not be reset",
        "is currently in use by another process",
        "GPU Reset couldn't progress",
        "did not complete reset successfully",
    ];
    SIGNS.iter().any(|s| text.contains(s))
        || (text.contains("Resetting GPU") && text.contains("is not supported"))
}

/// Decides the outcome. `exit` is `None` for a text whose exit code is lost: then nothing is certain, unless
/// the text says that nothing was reset.
pub fn outcome(exit: Option<Exit>, stdout: &[u8], stderr: &[u8]) -> ResetOutcome {
    let text = format!("{}\n{}", decode(stdout), decode(stderr));
    let line = one_line(&text);
    let unknown = |code| ResetOutcome::Unknown { code, text: line.clone() };
    match exit {
        Some(Exit::Code(0)) if failed(&text) => unknown(Some(0)),
        Some(Exit::Code(0)) => ResetOutcome::Done,
        Some(Exit::Code(2)) => ResetOutcome::Refused {
            why: format!("nvidia-smi did not accept the arguments: {line}"),
            holders: Vec::new(),
        },
        Some(Exit::Code(3 | 13)) => ResetOutcome::NotSupported { text: line },
        Some(Exit::Code(4)) => ResetOutcome::NoPermission,
        Some(Exit::Code(6)) => ResetOutcome::NotFound,
        Some(Exit::Code(9)) => ResetOutcome::DriverNotLoaded,
        Some(Exit::Code(12)) => ResetOutcome::NoNvml,
        Some(Exit::Code(15)) => ResetOutcome::GpuLost,
        // 255 is "other": what it was is in the text only.
        Some(Exit::Code(255)) | None => by_text(&text).unwrap_or_else(|| unknown(exit.map(|_| 255))),
        Some(Exit::Code(c)) => unknown(Some(c)),
        Some(Exit::Signal(_)) => unknown(None),
    }
}

/// Says whether a text contradicts success.
fn failed(text: &str) -> bool {
    [
        "could not be reset",
        "did not complete",
        "couldn't progress",
        "is not supported",
        "in use by another",
        "unstable",
    ]
    .iter()
    .any(|s| text.contains(s))
}

fn by_text(text: &str) -> Option<ResetOutcome> {
    let has = |s: &str| text.contains(s);
    if has("did not complete") || has("unstable") || has("was successfully reset") {
        // Something was done, or part of it.
        return None;
    }
    if has("couldn't progress") && has("append the following device indexes") {
        let after = text.split("and retry.").nth(1).unwrap_or_default();
        let mut peers: Vec<u32> = after
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter_map(|w| w.trim_end_matches('.').parse().ok())
            .collect();
        peers.sort_unstable();
        peers.dedup();
        return Some(ResetOutcome::NeedsPeers { peers });
    }
    if has("In use by another client")
        || has("in use by another process")
        || has("being used by one or more other")
    {
        return Some(ResetOutcome::Refused {
            why: "something holds the GPU".to_owned(),
            holders: Vec::new(),
        });
    }
    if has("GPU is lost") {
        return Some(ResetOutcome::GpuLost);
    }
    if has("Insufficient Permissions") {
        return Some(ResetOutcome::NoPermission);
    }
    if has("Resetting GPU") && has("is not supported") {
        return Some(ResetOutcome::NotSupported { text: one_line(text) });
    }
    if has("couldn't communicate with the NVIDIA driver") {
        return Some(ResetOutcome::DriverNotLoaded);
    }
    if has("couldn't find libnvidia-ml") {
        return Some(ResetOutcome::NoNvml);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_has_its_outcome() {
        let by = |c: i32| outcome(Some(Exit::Code(c)), b"", b"");
        assert_eq!(by(0), ResetOutcome::Done);
        assert!(matches!(by(2), ResetOutcome::Refused { .. }));
        assert!(matches!(by(3), ResetOutcome::NotSupported { .. }));
        assert_eq!(by(4), ResetOutcome::NoPermission);
        assert_eq!(by(6), ResetOutcome::NotFound);
        assert_eq!(by(9), ResetOutcome::DriverNotLoaded);
        assert_eq!(by(12), ResetOutcome::NoNvml);
        assert!(matches!(by(13), ResetOutcome::NotSupported { .. }));
        assert_eq!(by(15), ResetOutcome::GpuLost);
        for code in [1, 8, 10, 14, 77, 255] {
            let r = by(code);
            assert!(matches!(r, ResetOutcome::Unknown { code: Some(c), .. } if c == code), "{code}: {r:?}");
            assert!(!r.changed_nothing());
        }
        assert!(matches!(outcome(Some(Exit::Signal(9)), b"", b""), ResetOutcome::Unknown { code: None, .. }));
    }

    #[test]
    fn the_code_wins_over_the_text() {
        let ok = b"GPU 00000000:1B:00.0 was successfully reset.\n";
        assert_eq!(outcome(Some(Exit::Code(15)), ok, b""), ResetOutcome::GpuLost);
        assert!(matches!(outcome(Some(Exit::Code(255)), ok, b""), ResetOutcome::Unknown { .. }));
        let refused =
            b"The following GPUs could not be reset:\n  GPU 00000000:1B:00.0: In use by another client\n";
        assert!(matches!(
            outcome(Some(Exit::Code(0)), refused, b""),
            ResetOutcome::Unknown { code: Some(0), .. }
        ));
        assert!(matches!(outcome(Some(Exit::Code(255)), refused, b""), ResetOutcome::Refused { .. }));
        assert!(matches!(outcome(None, ok, b""), ResetOutcome::Unknown { code: None, .. }));
    }
}
