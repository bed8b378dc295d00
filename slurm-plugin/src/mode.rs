//! Why the program was started: told by its arguments, by the name it was called by, or by Slurm's environment.
//!
//! Slurm passes no arguments to HealthCheckProgram, Prolog and Epilog, and only a host list to a trigger's program, so a
//! link such as `slurmedic-hook-down` carries the word that an argument cannot.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where the configuration is, unless another file is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/slurmedic/hook.conf";

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every HealthCheckInterval.
    Health,
    /// Before a job.
    Prolog,
    /// After a job.
    Epilog,
}

impl Mode {
    /// All of them.
    pub(crate) const ALL: [Mode; 3] = [Mode::Health, Mode::Prolog, Mode::Epilog];

    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Prolog => "prolog",
            Self::Epilog => "epilog",
        }
    }

    /// Reads a word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == word)
    }
}

/// What the controller tells about nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// `strigger --down`.
    Down,
    /// `strigger --up`.
    Up,
    /// `strigger --drained`.
    Drained,
    /// `strigger --fail`.
    Fail,
    /// EpilogSlurmctld.
    JobEnd,
}

impl Event {
    const WORDS: [(&'static str, Event); 5] = [
        ("down", Self::Down),
        ("up", Self::Up),
        ("drained", Self::Drained),
        ("fail", Self::Fail),
        ("job-end", Self::JobEnd),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(w, _)| *w == word).map(|(_, e)| *e)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// `--example`.
    Example,
    /// `--check-config`.
    CheckConfig {
        /// Configuration file.
        config: PathBuf,
    },
    /// `--dry-run`.
    DryRun {
        /// Configuration file.
        config: PathBuf,
        /// Whose checks.
        mode: Mode,
    },
    /// A check of this node.
    Check {
        /// Configuration file.
        config: PathBuf,
        /// Whose checks.
        mode: Mode,
    },
    /// A notice of the controller.
    Notice {
        /// Configuration file.
        config: PathBuf,
        /// What happened.
        event: Event,
        /// To which nodes, as Slurm writes host lists.
        nodes: String,
    },
    /// The worker half of a check.
    Worker {
        /// Whose checks.
        mode: Mode,
        /// Lines of the configuration file.
        checks: Vec<String>,
    },
}

/// Why the call is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadCall(String);

impl fmt::Display for BadCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a variable of the environment; text that is no UTF-8 counts as absent.
pub(crate) fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Says what is asked for.
pub(crate) fn call(
    args: impl Iterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Call, BadCall> {
    let mut args = args.map(|a| a.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let mut word = name.strip_prefix("slurmedic-hook-").map(str::to_owned);
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    let (mut check, mut dry) = (false, false);
    let mut rest = Vec::new();
    while let Some(arg) = args.next() {
        let mut value =
            |option: &str| args.next().ok_or_else(|| BadCall(format!("{option} needs a value behind it")));
        match arg.as_str() {
            "--help" | "-h" => return Ok(Call::Help),
            "--version" | "-V" => return Ok(Call::Version),
            "--example" => return Ok(Call::Example),
            "--config" => config = PathBuf::from(value("--config")?),
            "--as" => word = Some(value("--as")?),
            "--check-config" => check = true,
            "--dry-run" => dry = true,
            "--worker" => {
                let mode = Mode::parse(&value("--worker")?).unwrap_or(Mode::Health);
                return Ok(Call::Worker { mode, checks: args.collect() });
            }
            other if other.starts_with('-') => return Err(BadCall(format!("unknown option {other:?}"))),
            _ => rest.push(arg),
        }
    }
    if check {
        return Ok(Call::CheckConfig { config });
    }
    let by_env = || match env("SLURM_SCRIPT_CONTEXT").as_deref() {
        Some("prolog_slurmd") => Some("prolog"),
        Some("epilog_slurmd") => Some("epilog"),
        Some("epilog_slurmctld") => Some("job-end"),
        Some("prolog_slurmctld") => Some("prolog_slurmctld"),
        _ => None,
    };
    let word = match (word, by_env()) {
        (Some(word), _) => word,
        (None, Some(word)) => word.to_owned(),
        (None, None) if !rest.is_empty() => {
            return Err(BadCall(format!(
                "a host list ({}) does not say what happened: call it by a link such as slurmedic-hook-down, or with --as down",
                crate::talk::tame(&rest[0])
            )));
        }
        (None, None) => "health".to_owned(),
    };
    if let Some(mode) = Mode::parse(&word) {
        return Ok(if dry { Call::DryRun { config, mode } } else { Call::Check { config, mode } });
    }
    match Event::parse(&word) {
        Some(event) => {
            let nodes = match event {
                Event::JobEnd => rest.pop().or_else(|| env("SLURM_JOB_NODELIST")),
                _ => rest.pop(),
            };
            Ok(Call::Notice { config, event, nodes: nodes.unwrap_or_default() })
        }
        None => Err(BadCall(format!(
            "{:?} is none of health, prolog, epilog, job-end, down, up, drained, fail",
            crate::talk::tame(&word)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(args: &[&str], context: Option<&str>) -> Result<Call, BadCall> {
        let env = |name: &str| match name {
            "SLURM_SCRIPT_CONTEXT" => context.map(str::to_owned),
            "SLURM_JOB_NODELIST" => Some("gpu[001-002]".to_owned()),
            _ => None,
        };
        call(args.iter().map(OsString::from), &env)
    }

    #[test]
    fn slurm_needs_no_arguments() {
        let config = PathBuf::from(DEFAULT_CONFIG);
        let check = |mode| Ok(Call::Check { config: config.clone(), mode });
        assert_eq!(called(&["/usr/sbin/slurmedic-hook"], None), check(Mode::Health));
        assert_eq!(called(&["slurmedic-hook"], Some("prolog_slurmd")), check(Mode::Prolog));
        assert_eq!(called(&["slurmedic-hook"], Some("epilog_slurmd")), check(Mode::Epilog));
        let notice =
            |event, nodes: &str| Ok(Call::Notice { config: config.clone(), event, nodes: nodes.to_owned() });
        assert_eq!(
            called(&["slurmedic-hook"], Some("epilog_slurmctld")),
            notice(Event::JobEnd, "gpu[001-002]")
        );
        assert_eq!(called(&["/x/slurmedic-hook-down", "gpu003"], None), notice(Event::Down, "gpu003"));
        assert_eq!(called(&["slurmedic-hook", "--as", "up", "gpu003"], None), notice(Event::Up, "gpu003"));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for args in [
            &["slurmedic-hook", "gpu003"][..],
            &["slurmedic-hook", "--nonsense"],
            &["slurmedic-hook", "--as"],
            &["slurmedic-hook", "--as", "reboot"],
            &["slurmedic-hook-reboot"],
        ] {
            assert!(called(args, None).is_err(), "{args:?}");
        }
        assert!(called(&["slurmedic-hook"], Some("prolog_slurmctld")).is_err());
    }
}
