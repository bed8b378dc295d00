//! The fleet as the scheduler tells it, kept for a moment.

use super::watch::Watch;
use crate::ports::{Clock, Observed, Read, Scheduler};
use engine_core::incident::{Alert, Place, Shape};
use engine_core::known::{Known, Unknown};
use engine_core::model::{Partition, PendingJob};
use engine_core::policy::{Fleet, GroupKind, Layout, Seen, UNKNOWN_RACK};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the whole cluster.
#[derive(Debug)]
pub struct FleetView {
    scheduler: Arc<dyn Scheduler>,
    clock: Arc<dyn Clock>,
    layout: Layout,
    kept: Mutex<Option<Fleet>>,
    partitions: Mutex<Option<Observed<Vec<Partition>>>>,
}

/// How long a list of partitions serves: it changes when somebody edits slurm.conf.
const PARTITIONS: SignedDuration = SignedDuration::from_secs(60);

impl FleetView {
    /// Builds the view; `layout` says which nodes share a rack or a fabric.
    pub fn new(scheduler: Arc<dyn Scheduler>, clock: Arc<dyn Clock>, layout: Layout) -> Self {
        Self { scheduler, clock, layout, kept: Mutex::new(None), partitions: Mutex::new(None) }
    }

    /// Reads everything now.
    pub async fn fresh(&self) -> Fleet {
        self.fresh_for(None).await.0
    }

    /// Reads everything now, and lets a watch see the nodes; returns its alerts. Where the nodes could not be read, there
    /// are none.
    pub async fn fresh_watched(&self, watch: &Watch) -> (Fleet, Vec<Alert>) {
        self.fresh_for(Some(watch)).await
    }

    async fn fresh_for(&self, watch: Option<&Watch>) -> (Fleet, Vec<Alert>) {
        let at = self.clock.now();
        let (nodes, partitions, reservations) =
            tokio::join!(self.scheduler.nodes(), self.partitions(at), self.scheduler.reservations());
        let seen = Seen {
            nodes: known(nodes.as_ref().map(|o| o.value.as_slice())),
            partitions: known(partitions.as_ref().map(|o| o.value.as_slice())),
            reservations: known(reservations.as_ref().map(|o| o.value.as_slice())),
        };
        let fleet = Fleet::of(&seen, &self.layout, at);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet.clone());
        let alerts = match (watch, &nodes) {
            (Some(watch), Ok(nodes)) => watch.nodes(&nodes.value, at).await,
            _ => Vec::new(),
        };
        (fleet, alerts)
    }

    /// Reads what pending jobs asked for.
    pub async fn pending(&self) -> Read<Vec<PendingJob>> {
        self.scheduler.pending().await
    }

    async fn partitions(&self, now: Timestamp) -> Read<Vec<Partition>> {
        let kept = self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = kept.filter(|p| now.duration_since(p.at) <= PARTITIONS) {
            return Ok(known);
        }
        let read = self.scheduler.partitions().await?;
        *self.partitions.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        Ok(read)
    }

    /// Returns the last look, if it is not older than `limit`; else reads.
    pub async fn recent(&self, limit: SignedDuration) -> Fleet {
        let now = self.clock.now();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match kept {
            Some(fleet) if now.duration_since(fleet.at()) <= limit => fleet,
            _ => self.fresh().await,
        }
    }
}

fn known<T>(read: Result<T, &Unknown>) -> Known<T> {
    match read {
        Ok(value) => Known::Known(value),
        Err(u) => Known::Unknown(u.clone()),
    }
}

/// Takes out of a fleet which nodes there are and what they share; `None` where the look has gaps.
pub fn shape_of(fleet: &Fleet) -> Option<Shape> {
    if !fleet.gaps().is_empty() {
        return None;
    }
    let mut places: BTreeMap<_, Place> =
        fleet.nodes().iter().map(|m| (m.name.clone(), Place::default())).collect();
    for (name, place) in &mut places {
        for (_, group) in fleet.groups_of(name) {
            match group.kind {
                GroupKind::Partition => place.partitions.push(group.name.clone()),
                GroupKind::Rack if group.name != UNKNOWN_RACK => place.rack = Some(group.name.clone()),
                GroupKind::Fleet | GroupKind::Rack | GroupKind::Fabric => {}
            }
        }
    }
    Some(Shape::new(places))
}
