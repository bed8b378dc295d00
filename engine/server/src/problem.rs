//! What a caller is told when something cannot be done: message, what to do next, and a status that programs can read.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine_runtime::engine::EngineError;
use engine_runtime::fleet::{FleetError, IntakeError};
use engine_runtime::journal::JournalError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of no it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request is wrong.
    Usage,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Whoever asks may not.
    NotPermitted,
    /// There is no such thing.
    NotFound,
    /// It does not fit where things stand.
    Conflict,
    /// The playbook does not apply there.
    NotApplicable,
    /// The request is larger than is taken.
    TooLarge,
    /// Too many refused attempts.
    TooOften,
    /// Not now: overloaded, or out of time. Senders try again.
    Busy,
    /// Something behind the engine failed.
    Failed,
}

impl ProblemKind {
    /// Returns the HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Usage => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::NotPermitted => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict | Self::NotApplicable => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            // Alertmanager sends again after a 5xx, and gives up after a 429.
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `slurmedic/error/1`.
    format: String,
    /// What kind of no.
    pub kind: ProblemKind,
    /// What is wrong, in one sentence.
    pub error: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// Builds one.
    pub fn new(kind: ProblemKind, error: impl Into<String>) -> Self {
        Self { format: "slurmedic/error/1".to_owned(), kind, error: error.into(), hint: None }
    }

    /// The request is wrong.
    pub fn usage(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Usage, error)
    }

    /// Says what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something behind the engine failed; the whole chain of causes is told.
    pub fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(c) = cause {
            text.push_str(&format!(": {c}"));
            cause = c.source();
        }
        Self::new(ProblemKind::Failed, text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = self.kind;
        let mut response = (kind.status(), Json(&self)).into_response();
        match kind {
            ProblemKind::Unauthenticated => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ProblemKind::TooOften => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            ProblemKind::Busy => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<JournalError> for Problem {
    fn from(e: JournalError) -> Self {
        match e {
            JournalError::NoSuchRun(_) => Self::new(ProblemKind::NotFound, e.to_string()),
            e => Self::failed("the journal", &e),
        }
    }
}

impl From<FleetError> for Problem {
    fn from(e: FleetError) -> Self {
        match &e {
            FleetError::Busy => Self::new(ProblemKind::Busy, e.to_string()),
            FleetError::Illegal(i) => Self::new(ProblemKind::Conflict, i.why.clone()),
            _ => Self::failed("the record of the fleet", &e),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::WrongStatus { .. } | EngineError::Claimed(_) => {
                Self::new(ProblemKind::Conflict, e.to_string())
            }
            EngineError::Journal(e) => e.into(),
            e => Self::failed("the engine stopped", &e),
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(e: IntakeError) -> Self {
        match &e {
            IntakeError::TooMany(_) => Self::new(ProblemKind::TooLarge, e.to_string()),
            IntakeError::Overloaded | IntakeError::Interrupted => Self::new(ProblemKind::Busy, e.to_string()),
            IntakeError::Fleet(_) => Self::failed("the alerts", &e),
        }
    }
}
