//! The telemetry port: the scrape of a simulated dcgm-exporter.

use crate::time::SimClock;
use crate::world::SimWorld;
use async_trait::async_trait;
use engine_core::known::{Cause, Unknown};
use engine_core::model::{NodeGpus, NodeName};
use engine_runtime::ports::{Clock, GpuTelemetry, Observed, Read};
use jiff::SignedDuration;

/// Scrapes the exporters of a simulated cluster.
#[derive(Debug, Clone)]
pub struct SimTelemetry {
    world: SimWorld,
    clock: SimClock,
}

impl SimTelemetry {
    /// Builds the way to a world's exporters.
    pub fn new(world: &SimWorld) -> Self {
        Self { world: world.clone(), clock: SimClock::new(world) }
    }
}

#[async_trait]
impl GpuTelemetry for SimTelemetry {
    async fn gpus(&self, node: &NodeName) -> Read<NodeGpus> {
        let at = self.world.now();
        self.clock.sleep(SignedDuration::from_millis(20)).await;
        let w = self.world.lock();
        let n = w.find(node).ok_or_else(|| {
            Unknown::new(Cause::ReadFailed, format!("no exporter is configured for {node}"))
        })?;
        let value = w
            .view_scrape(n)
            .ok_or_else(|| Unknown::new(Cause::ReadFailed, "connection refused: dcgm-exporter is down"))?;
        Ok(Observed { value, at })
    }
}
