//! What a failed `dcgmi` call means: its exit code first, its text where the code says little.
//!
//! `dcgmi` exits with DCGM's return code & 0xFF; both majors use the same table except where said.

use super::text::{decode, error_text};
use crate::process::Exit;
use engine_core::{Cause, Unknown};
use serde::{Deserialize, Serialize};

/// Why a `dcgmi` call gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// 1: the command line was not understood; this release lacks the flag.
    CommandLine,
    /// 255 (-1): unknown GPU, field or subsystem.
    BadParameter,
    /// 253 (-3), or a text nobody here has seen.
    Generic,
    /// 251 (-5): unknown group.
    UnknownGroup,
    /// 244 (-12): client and host engine are of different majors.
    VersionMismatch,
    /// 242 (-14): no data.
    NoData,
    /// 235 (-21): nv-hostengine does not answer.
    NoConnection,
    /// 226 (-30): a test of the diagnostic failed.
    DiagFailed,
    /// 223 (-33): a module of the host engine is not loaded.
    ModuleNotLoaded,
    /// 222 (-34): another diagnostic runs.
    InUse,
    /// 221 (-35): the group holds no GPU.
    EmptyGroup,
    /// 205 (-51): the diagnostic says isolate the GPU (3.x; 4.x says 226).
    Isolate,
    /// 204 (-52): the diagnostic programs are not installed.
    DiagNotInstalled,
    /// 198 (-58): unknown test (3.x says 226).
    UnknownTest,
    /// 189 (-67): DCGM has let go of the driver.
    Detached,
    /// 253 with the text of it: health watches are not set, as after a restart of the host engine.
    WatchesNotSet,
    /// The program died of a signal.
    Signal,
}

impl Fault {
    /// Returns the cause class for facts that this fault leaves unknown.
    pub fn cause(self) -> Cause {
        match self {
            Self::CommandLine | Self::ModuleNotLoaded => Cause::Unsupported,
            Self::NoData => Cause::NotReported,
            Self::VersionMismatch => Cause::UnrecognisedWord,
            _ => Cause::ReadFailed,
        }
    }

    /// Says whether the host engine answered: the fault is its own.
    pub fn engine_answered(self) -> bool {
        !matches!(self, Self::NoConnection | Self::Signal | Self::CommandLine | Self::Generic)
    }

    /// Reads an exit code; 0 is no fault.
    pub fn of_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::CommandLine,
            255 => Self::BadParameter,
            251 => Self::UnknownGroup,
            244 => Self::VersionMismatch,
            242 => Self::NoData,
            235 => Self::NoConnection,
            226 => Self::DiagFailed,
            223 => Self::ModuleNotLoaded,
            222 => Self::InUse,
            221 => Self::EmptyGroup,
            205 => Self::Isolate,
            204 => Self::DiagNotInstalled,
            198 => Self::UnknownTest,
            189 => Self::Detached,
            _ => Self::Generic,
        })
    }

    /// Reads the meaning of an error text, for outputs whose exit code is lost or says only "generic".
    pub fn of_text(text: &str) -> Option<Self> {
        let has = |needle: &str| text.contains(needle);
        Some(if has("Health watches not enabled") {
            Self::WatchesNotSet
        } else if has("GPUs are detached") || has("(-67)") {
            Self::Detached
        } else if has("Unable to connect to host engine")
            || has("unable to establish a connection")
            || has("Host engine connection invalid")
        {
            Self::NoConnection
        } else if has("API version mismatch") || has("requested function was not found") {
            Self::VersionMismatch
        } else if has("Group is not found") || has("(-5)") {
            Self::UnknownGroup
        } else if has("affected resource is in use") || has("(-34)") {
            Self::InUse
        } else if has("specified group is empty") {
            Self::EmptyGroup
        } else if has("NVVS binary was not found") || has("(-52)") {
            Self::DiagNotInstalled
        } else if has("not found among possible test choices") {
            Self::UnknownTest
        } else if has("Bad parameter") || has("invalid field ID") || has("Unable to match GPU set") {
            Self::BadParameter
        } else if has("No data is available") {
            Self::NoData
        } else if has("serviced by a module of DCGM") {
            Self::ModuleNotLoaded
        } else if has("PARSE ERROR") || has("Invalid subsystem") {
            Self::CommandLine
        } else {
            return None;
        })
    }

    /// Decides why a call failed; `None` for exit code 0.
    ///
    /// The code decides; a text refines 253 and the codes that the table does not know.
    pub fn of(exit: Exit, stdout: &[u8], stderr: &[u8]) -> Option<Self> {
        let code = match exit {
            // 128+n is how a shell wrapper reports a signal; every code of DCGM's own is 189 or above.
            Exit::Code(c) if !(129..=160).contains(&c) => c,
            Exit::Code(_) | Exit::Signal(_) => return Some(Self::Signal),
        };
        let by_code = Self::of_code(code)?;
        if by_code != Self::Generic {
            return Some(by_code);
        }
        let text = [decode(stdout), decode(stderr)].join("\n");
        Some(Self::of_text(&text).unwrap_or(Self::Generic))
    }

    /// Builds the unknown that a failed call leaves, with the tool's own words.
    pub fn unknown(self, exit: Exit, stdout: &[u8], stderr: &[u8]) -> Unknown {
        let words = [stdout, stderr].iter().find_map(|b| error_text(&decode(b)));
        let detail = match words {
            Some(w) => format!("dcgmi: {exit}: {w}"),
            None => format!("dcgmi: {exit}"),
        };
        Unknown::new(self.cause(), detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_meaning() {
        for (code, wanted) in [
            (0, None),
            (1, Some(Fault::CommandLine)),
            (255, Some(Fault::BadParameter)),
            (253, Some(Fault::Generic)),
            (251, Some(Fault::UnknownGroup)),
            (244, Some(Fault::VersionMismatch)),
            (242, Some(Fault::NoData)),
            (235, Some(Fault::NoConnection)),
            (226, Some(Fault::DiagFailed)),
            (223, Some(Fault::ModuleNotLoaded)),
            (222, Some(Fault::InUse)),
            (221, Some(Fault::EmptyGroup)),
            (205, Some(Fault::Isolate)),
            (204, Some(Fault::DiagNotInstalled)),
            (198, Some(Fault::UnknownTest)),
            (189, Some(Fault::Detached)),
            (137, Some(Fault::Signal)),
            (77, Some(Fault::Generic)),
        ] {
            assert_eq!(Fault::of(Exit::Code(code), b"", b""), wanted, "{code}");
        }
        assert_eq!(Fault::of(Exit::Signal(9), b"", b""), Some(Fault::Signal));
    }

    #[test]
    fn text_refines_the_generic_code_only() {
        let watches = b"Error: Health watches not enabled. Please enable watches. \n";
        assert_eq!(Fault::of(Exit::Code(253), watches, b""), Some(Fault::WatchesNotSet));
        assert_eq!(Fault::of(Exit::Code(235), watches, b""), Some(Fault::NoConnection));
        let u = Fault::WatchesNotSet.unknown(Exit::Code(253), watches, b"");
        assert_eq!(
            u.to_string(),
            "unknown (read_failed: dcgmi: exit code 253: Error: Health watches not enabled. Please enable watches.)"
        );
    }
}
