//! From alerts to repaired nodes: intake, incidents, breaker and dispatcher with the real engine on a simulated cluster.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

mod approvals;
mod budgets;
mod crashes;
mod intake;
mod scene;
mod storms;
