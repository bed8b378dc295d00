//! The engine's ports onto a simulated world.

mod actuator;
mod ids;
mod in_flight;
mod scheduler;
mod telemetry;

pub use crate::time::SimClock;
pub use actuator::SimActuator;
pub use ids::SeededIds;
pub use scheduler::SimScheduler;
pub use telemetry::SimTelemetry;
