//! Exit codes: a stable interface for scripts, listed in `slurmedic --help` and docs/guide/exit-codes.md.

use engine_core::run::End;
use std::fmt;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `run`: succeeded.
    Ok = 0,
    /// The environment or Slurmedic itself failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The command worked and found something wrong: lint errors, a broken journal, a `doctor` line that fails.
    Findings = 3,
    /// The run was rejected: preconditions, policy, lock or a person.
    Rejected = 10,
    /// The run was cancelled before it changed anything.
    Cancelled = 11,
    /// The run was rolled back.
    RolledBack = 12,
    /// The node stays drained and needs a person.
    Held = 13,
    /// Somebody else changed the node; it was left to them.
    HandedOver = 14,
    /// A person must look now.
    Stuck = 15,
    /// The run waits for another approval.
    AwaitsApproval = 16,
}

impl Exit {
    /// Returns the code for the end of a run.
    pub(crate) fn of_end(end: End) -> Self {
        match end {
            End::Succeeded | End::Shadowed => Self::Ok,
            End::Rejected => Self::Rejected,
            End::Cancelled => Self::Cancelled,
            End::RolledBack => Self::RolledBack,
            End::Held => Self::Held,
            End::HandedOver => Self::HandedOver,
            End::Stuck => Self::Stuck,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(e: Exit) -> Self {
        Self::from(e as u8)
    }
}

/// What a verb ends with when it does not work: message, cause, what to do next.
#[derive(Debug)]
pub(crate) struct CliError {
    /// Exit code.
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CliError {
    /// The person asked for something that cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None, source: None }
    }

    /// Something outside failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None, source: None }
    }

    /// Something outside failed, with its cause.
    pub(crate) fn caused(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::failed(message) }
    }

    /// Says what to do next.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Changes the exit code.
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Returns what to do next.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause: Option<&dyn std::error::Error> = self.source.as_deref().map(|s| s as _);
        while let Some(c) = cause {
            write!(f, ": {c}")?;
            cause = c.source();
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

impl From<engine_runtime::journal::JournalError> for CliError {
    fn from(e: engine_runtime::journal::JournalError) -> Self {
        Self::caused("the journal", e)
    }
}

impl From<engine_server::Problem> for CliError {
    fn from(p: engine_server::Problem) -> Self {
        use engine_server::ProblemKind;
        let error = match p.kind {
            ProblemKind::Usage
            | ProblemKind::NotPermitted
            | ProblemKind::NotFound
            | ProblemKind::Conflict
            | ProblemKind::Unauthenticated
            | ProblemKind::TooLarge => Self::usage(p.error),
            ProblemKind::NotApplicable => Self::failed(p.error).with_exit(Exit::Rejected),
            ProblemKind::TooOften | ProblemKind::Busy | ProblemKind::Failed => Self::failed(p.error),
        };
        match p.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl From<engine_runtime::engine::EngineError> for CliError {
    fn from(e: engine_runtime::engine::EngineError) -> Self {
        use engine_runtime::engine::EngineError;
        match &e {
            EngineError::WrongStatus { .. } => Self::usage(e.to_string()),
            _ => Self::caused("the engine stopped", e),
        }
    }
}
