//! The fleet: from alerts to incidents, from incidents to runs, and what keeps all of it within bounds.
//!
//! The journal's `fleet` stream is the only memory; [`FleetLog`] is its fold in this process.

mod by_fault;
mod cost;
mod dispatcher;
mod gate;
mod history;
mod intake;
mod log;
mod select;
mod view;
mod wakes;
mod watch;

pub use by_fault::ByFault;
pub use dispatcher::{Dispatcher, DispatcherConfig, Playbooks};
pub use gate::{PolicyGate, SwitchGate};
pub use history::History;
pub use intake::{Intake, IntakeCounts, IntakeError, MAX_POST, MAX_WAITING};
pub use log::{Draft, FleetError, FleetLog};
pub use select::{ByRules, Question, Selection, Selector};
pub use view::{FleetView, shape_of};
pub use wakes::{MAX_WAKES, Wake, Wakes};
pub use watch::{GpuRound, MAX_ASKED, Watch};
