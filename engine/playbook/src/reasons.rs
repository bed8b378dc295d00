//! The table of Slurm's reasons: from YAML to the checked patterns of the core.

use engine_core::watch::{BadReasons, Pattern, Reasons};

/// The table that comes with the program.
pub const EMBEDDED: &str = include_str!("../../../knowledge/slurm-reasons.yaml");

/// The largest table that is read, in bytes.
pub const MAX_TABLE: usize = 256 << 10;

/// Why a table was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReasonsError {
    /// It is too large.
    #[error("the table of reasons has {0} bytes; at most {MAX_TABLE} are read")]
    TooLarge(usize),
    /// It is no YAML of this form.
    #[error("the table of reasons could not be read: {0}")]
    Unreadable(#[from] serde_yaml::Error),
    /// What it says is not valid.
    #[error(transparent)]
    Bad(#[from] BadReasons),
}

#[derive(serde::Deserialize)]
struct Written {
    #[serde(rename = "format")]
    _format: String,
    reasons: Vec<Pattern>,
}

/// Reads and checks a table.
pub fn read(text: &str) -> Result<Reasons, ReasonsError> {
    if text.len() > MAX_TABLE {
        return Err(ReasonsError::TooLarge(text.len()));
    }
    let written: Written = serde_yaml::from_str(text)?;
    Ok(Reasons::new(written.reasons)?)
}

/// Reads the table that comes with the program.
pub fn embedded() -> Result<Reasons, ReasonsError> {
    read(EMBEDDED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::watch::Told;

    fn faults(reason: &str) -> Vec<String> {
        match embedded().unwrap().told(reason) {
            Told::Faults(f) => f.into_iter().map(|(word, _)| word.to_owned()).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn reasons_as_slurm_writes_them_tell_their_faults() {
        for (reason, expected) in [
            ("Not responding", "node-not-responding"),
            ("Node unexpectedly rebooted", "kernel-panic-or-unexpected-boot"),
            ("Kill task failed", "slurm-kill-task-failed"),
            ("Kill task failed (JobId=17 StepId=17.batch)", "slurm-kill-task-failed"),
            ("Prolog error", "slurm-prolog-epilog-failure"),
            ("Epilog error", "slurm-prolog-epilog-failure"),
            ("gres/gpu count reported lower than configured (6 < 8)", "gpu-count-mismatch"),
            ("gres/nic count reported lower than configured (1 < 2)", "slurm-invalid-registration"),
            ("Low RealMemory (reported:1024 < 100.00% of configured:2048)", "slurm-invalid-registration"),
            ("Low socket*core*thread count, Low CPUs", "slurm-invalid-registration"),
            ("SlurmdSpoolDir is full", "disk-full"),
            ("NHC: check_gpu_ecc: Row remap pending", "gpu-row-remap-pending"),
            ("NHC: check_ps_service: sshd not running", "nhc-check-failed"),
        ] {
            assert_eq!(faults(reason), [expected], "{reason}");
        }
        assert_eq!(
            faults("Epilog error : Not responding"),
            ["slurm-prolog-epilog-failure", "node-not-responding"]
        );
    }

    #[test]
    fn words_of_people_and_marks_of_ours_tell_none() {
        for reason in [
            "bad dimm",
            "bad dimm : Not responding",
            "not responding",
            "firmware, see Prolog error of yesterday",
            "Reboot ASAP : reboot issued",
            "fw update : reboot issued",
            "POWER_DOWN_ASAP",
            "",
            " : ",
        ] {
            assert_eq!(faults(reason), ["Somebody"], "{reason}");
        }
        for reason in
            ["[slurmedic:a@1.0.0#r1] ecc", "[slurmedic:a@1.0.0#r1] ecc : Not responding", "[slurmedic] x"]
        {
            assert_eq!(faults(reason), ["Ours"], "{reason}");
        }
    }

    #[test]
    fn a_table_that_is_not_valid_is_refused() {
        assert!(read("format: x").is_err());
        assert!(read(&EMBEDDED.replace("fault: disk-full", "fault: disk_full")).is_err());
        assert!(read(&EMBEDDED.replace("  planned: true", "  planed: true")).is_err());
        assert!(read(&" ".repeat(MAX_TABLE + 1)).is_err());
    }
}
