//! Incidents: what alerts mean for the fleet, and when everything has to stop.
//!
//! Like a run, the fleet is a fold over events: [`FleetState`] is what the events of the journal's `fleet` stream come
//! to. [`intake`] says what an alert changes, [`storm`] when a breaker trips; both are pure and take the time as an
//! argument.

pub mod alert;
pub mod event;
pub mod fault;
pub mod fold;
pub mod intake;
mod rack;
pub mod shape;
pub mod storm;
pub mod switch;
pub mod tool;

pub use alert::{Alert, Fingerprint, InvalidAlert};
pub use event::{Closing, FleetEvent, IncidentId, QueuedWork, Trouble};
pub use fault::tells_no_cause;
pub use fold::{FleetState, IllegalFleetEvent, Incident, Phase, Series, Subject};
pub use intake::{Counters, Heard, IntakeRules, NotHeard, hear, tick};
pub use shape::{Place, Shape};
pub use storm::{StormRules, trips};
pub use switch::{Affected, Scope, Stop, Switches};
pub use tool::{ToolHealth, Tools, tool_events};
