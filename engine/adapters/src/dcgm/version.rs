//! `dcgmi -v`: the versions of the client and of the host engine.
//!
//! With the engine down it may answer from an engine of its own or print nothing, with exit code 0 both
//! times: it does not prove that nv-hostengine lives.

use super::text::{decode, missing, version};
use engine_core::Known;
use serde::{Deserialize, Serialize};

/// The two versions that `dcgmi -v` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcgmVersion {
    /// Version of dcgmi.
    pub client: Known<String>,
    /// Version of nv-hostengine.
    pub engine: Known<String>,
}

/// Says whether the output is of this command.
pub fn is_version(text: &str) -> bool {
    text.contains("Hostengine build info:")
        || (text.contains("Version :") && text.contains("Build Platform :"))
}

/// Reads `dcgmi -v`.
pub fn parse(bytes: &[u8]) -> DcgmVersion {
    let text = decode(bytes);
    let (client, engine) = match text.split_once("Hostengine build info:") {
        Some((c, e)) => (c, e),
        None => (&*text, ""),
    };
    let find = |part: &str, wanted: &str| {
        let mut found = part.lines().filter_map(|l| l.split_once(':')).filter(|(k, _)| k.trim() == "Version");
        match found.next() {
            Some((_, v)) => version(v),
            None => Known::Unknown(missing(part, wanted)),
        }
    };
    DcgmVersion { client: find(client, "version of dcgmi"), engine: find(engine, "version of nv-hostengine") }
}

/// Says whether a version is at least `major.minor`; unknown where it cannot be read.
pub fn at_least(version: &str, major: u32, minor: u32) -> Option<bool> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(a)), Some(Ok(b))) = (parts.next(), parts.next()) else { return None };
    Some((a, b) >= (major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(at_least("4.6.0", 4, 5), Some(true));
        assert_eq!(at_least("4.10.0", 4, 5), Some(true));
        assert_eq!(at_least("3.3.9", 4, 5), Some(false));
        assert_eq!(at_least("new", 4, 5), None);
    }
}
