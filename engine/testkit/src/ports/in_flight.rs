//! Work that is under way: whoever waits for it may die, and the work goes on or is lost.

use crate::world::{Flight, SimWorld};

/// Stands for work that was sent and has not come back. Dropped before it landed, its engine has died, and the world
/// decides what becomes of the work.
#[derive(Debug)]
pub(super) struct InFlight {
    world: SimWorld,
    flight: Option<Flight>,
}

impl InFlight {
    /// Sends work off.
    pub(super) fn new(world: &SimWorld, flight: Flight) -> Self {
        Self { world: world.clone(), flight: Some(flight) }
    }

    /// Takes note that the work came back to who waits for it.
    pub(super) fn landed(mut self) {
        self.flight = None;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.world.lock().outlives(flight);
        }
    }
}
