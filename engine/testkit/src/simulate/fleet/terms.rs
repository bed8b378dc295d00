//! The policies of a simulated site, drawn from its seed: tight enough that budgets, rates and attempts are met.

use super::NODES_PER_RACK;
use crate::world::{Limits, SimWorld};
use engine_core::digest::Digest;
use engine_core::known::Known;
use engine_core::policy::{
    Groups, Hosts, Layout, Period, Policy, RackSource, Racks, Rate, Share, Stage, Stages,
};
use jiff::SignedDuration;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A policy with what the books hold the engines to.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) policy: Policy,
    pub(super) digest: Option<Digest>,
    pub(super) limits: Limits,
    /// People who have to say yes to a reset.
    pub(super) people: u8,
}

impl Terms {
    /// Draws a policy for a world.
    pub(super) fn draw(rng: &mut ChaCha8Rng, world: &SimWorld) -> Self {
        let limits = Limits { fleet: rng.random_range(2..=6), rack: rng.random_range(1..=3) };
        let people = rng.random_range(1..=2);
        let mut policy = Policy::default();
        policy.budgets.fleet = Share::Count(limits.fleet as u32);
        policy.budgets.partition = Share::percent(100);
        policy.budgets.rack = Share::Count(limits.rack as u32);
        policy.racks = racks(world);
        policy.concurrent_runs = rng.random_range(2..=8);
        policy.approvals.quorum.disruptive = people;
        if rng.random_bool(0.7) {
            policy.rates.reversible = Rate::new(200, Period::hours(1));
            policy.rates.disruptive = Rate::new(100, Period::hours(1));
        }
        policy.attempts = Rate::new(rng.random_range(1..=4), Period::hours(24));
        policy.idle_gap = Period::new(SignedDuration::from_mins(rng.random_range(0..=60)));
        if rng.random_bool(0.2) {
            policy.stages = Stages([(super::super::PLAYBOOK.to_owned(), Stage::Shadow)].into());
        }
        Self { digest: policy.digest().ok(), policy, limits, people }
    }

    /// Returns the racks and domains of this policy.
    pub(super) fn layout(&self) -> Layout {
        Layout::of(&self.policy.racks, &Known::Known(None))
    }
}

fn racks(world: &SimWorld) -> Racks {
    let names = world.node_names();
    let map: Groups = names
        .chunks(NODES_PER_RACK)
        .enumerate()
        .map(|(i, rack)| {
            let hosts = rack.iter().map(|n| n.as_str().to_owned()).collect();
            (format!("rack{}", i + 1), Hosts::new(hosts))
        })
        .collect();
    Racks { from: RackSource::Map, map, fabrics: Groups::new() }
}
