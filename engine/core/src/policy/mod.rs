//! Policy as data: what the site allows, judged on what is known of the cluster and of the journal.
//!
//! Pure: the file is read by the playbook crate, the cluster and the journal by the runtime; here is only the judgement.
//!
//! ```text
//! Policy ─────────────┐
//! nodes, partitions,  │
//! reservations ─▶ Fleet ─▶ judge(request) ─▶ Verdict: permit | wait | needs person | deny, with every finding
//! journal ──▶ Ledger ─┘
//!                Quota ─▶ admit(locks held now): the same budgets, counted inside the journal's transaction
//! ```

mod cost;
mod diff;
mod document;
mod fleet;
mod hosts;
mod judge;
mod layout;
mod ledger;
mod quota;
mod roles;
mod service;
mod share;
mod stages;
mod windows;

pub use cost::{Ahead, Cost, CostInput, Delayed, Felt, Holding, MAX_LISTED, Moment, WorkTime, cost};
pub use diff::{Difference, diff};
pub use document::{
    Approvals, Breaker, Budgets, Canary, MAX_NUMBER, MAX_QUORUM, OptOut, Policy, Quorum, Rates,
    RepeatOffenders,
};
pub use fleet::{Fleet, Group, GroupKind, Member, Seen};
pub use hosts::Hosts;
pub use judge::{Finding, Outcome, Request, Rule, Verdict, in_canary, judge};
pub use layout::{Groups, Layout, RackSource, Racks, Topology, UNKNOWN_RACK};
pub use ledger::{GpuIdentity, Held, Ledger, PastRun};
pub use quota::{Level, NotAdmitted, Quota, Scope};
pub use roles::{Deed, Members, Role, Roles, TABLE, may};
pub use service::{Out, Service, service};
pub use share::{Period, Rate, RateError, Share, ShareError, Storm, StormError};
pub use stages::{Stage, Stages};
pub use windows::{Clock, Day, Freeze, Opening, UnknownZone, Window, Zone, opening};
