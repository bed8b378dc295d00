//! The node agent: fetches signed orders from the engine, checks them, carries each out at most once by the node's own
//! tools, and answers. It opens no port and takes no command line from anybody.

mod enrol;
mod kernel_log;
mod ledger;
mod link;
mod spool;
mod worker;

pub use enrol::{EnrolConfig, EnrolError, Proof, enrol, kept_key};
pub use ledger::LedgerError;
pub use link::LinkError;
pub use worker::{Agent, AgentConfig, AgentError};
