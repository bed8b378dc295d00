//! nvidia-smi: its queries, its XML, and what came of a reset, as typed facts.
//!
//! The texts are not guaranteed to be stable between releases: exit codes and column names decide.

pub mod clocks;
pub mod csv;
pub mod reset;
pub mod xml;

use crate::dcgm::text::{decode, one_line};
use engine_core::{Cause, Known, Unknown};

/// Exit codes of the manual page that leave every fact unknown, with their meaning.
const CODES: &[(i32, &str)] = &[
    (2, "bad argument or field"),
    (3, "operation not available"),
    (4, "no permission"),
    (6, "no such GPU"),
    (8, "external power cables are not attached"),
    (9, "the NVIDIA driver is not loaded"),
    (10, "the kernel found an interrupt problem with a GPU"),
    (12, "the NVML library was not found"),
    (13, "the NVML library lacks this function"),
    (14, "the infoROM is corrupted"),
    (15, "a GPU has fallen off the bus"),
    (255, "other error"),
];

/// Returns the meaning of a non-zero exit code.
pub fn code_meaning(code: i32) -> &'static str {
    CODES.iter().find(|(c, _)| *c == code).map_or("a code that nobody here has seen", |(_, m)| m)
}

/// Recognises an answer of nvidia-smi that says that it could not look.
pub fn failed_read(bytes: &[u8]) -> Option<Unknown> {
    let text = decode(bytes);
    const SIGNS: &[&str] = &[
        "NVIDIA-SMI has failed",
        "NVIDIA-SMI couldn't find libnvidia-ml",
        "Failed to initialize NVML",
        "Unable to determine the device handle",
        "No devices were found",
        "is not a valid field to query",
    ];
    let line = text.lines().find(|l| SIGNS.iter().any(|s| l.contains(s)))?;
    Some(Unknown::new(Cause::ReadFailed, format!("nvidia-smi: {}", one_line(line))))
}

/// Reads a cell: a value, or why there is none.
pub(crate) fn cell(text: &str) -> Known<&str> {
    let t = text.trim();
    let inner = t.strip_prefix('[').and_then(|r| r.strip_suffix(']')).unwrap_or(t);
    match inner {
        "" | "N/A" => Known::unknown(Cause::NotReported, format!("nvidia-smi says {t:?}")),
        "Not Supported" => Known::unknown(Cause::Unsupported, format!("nvidia-smi says {t:?}")),
        "ERR!" => Known::unknown(Cause::ReadFailed, "nvidia-smi says ERR!"),
        // [Unknown Error], [GPU requires reset], [GPU is lost], [Insufficient Permissions], ...
        _ if inner.len() < t.len() => {
            Known::unknown(Cause::ReadFailed, format!("nvidia-smi says {}", one_line(t)))
        }
        _ => Known::Known(t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_without_a_value_say_why() {
        for (text, wanted) in [
            ("71.00 W", None),
            ("[N/A]", Some(Cause::NotReported)),
            ("N/A", Some(Cause::NotReported)),
            ("[Not Supported]", Some(Cause::Unsupported)),
            ("[Unknown Error]", Some(Cause::ReadFailed)),
            ("[GPU requires reset]", Some(Cause::ReadFailed)),
            ("ERR!", Some(Cause::ReadFailed)),
        ] {
            let cause = match cell(text) {
                Known::Known(_) => None,
                Known::Unknown(u) => Some(u.cause),
            };
            assert_eq!(cause, wanted, "{text}");
        }
    }
}
