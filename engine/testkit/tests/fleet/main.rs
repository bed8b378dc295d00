//! From alerts to repaired nodes: intake, incidents, breaker and dispatcher with the real engine on a simulated cluster.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may stop at once, as tests do")]
#![expect(clippy::large_futures, reason = "each test plays its whole story in one future")]

mod approvals;
mod budgets;
mod counted;
mod crashes;
mod duties;
mod flood;
mod intake;
mod scene;
mod select;
mod shadow;
mod storms;
mod tools;
