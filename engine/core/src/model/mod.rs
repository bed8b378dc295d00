//! The things the engine deals with: nodes, jobs, reservations, GPUs, as plain data.

pub mod gpu;
pub mod job;
pub mod names;
pub mod node;
pub mod node_state;
pub mod pending;
pub mod reservation;
pub mod reset;

pub use gpu::{FabricState, Gpu, GpuProcess, NodeGpus, RecoveryAction};
pub use job::{Job, JobState, JobStates};
pub use names::{InvalidName, NodeName, RunId};
pub use node::{Node, Reason};
pub use node_state::{BaseState, NodeFlag, NodeFlags, NodeState};
pub use pending::PendingJob;
pub use reservation::{Partition, Reservation};
pub use reset::ResetOutcome;
