//! The whole fleet layer in simulation: alerts, incidents, the dispatcher, the policy with its budgets, approvals, breakers
//! and people's stops, on a site of a few racks.
//!
//! The gate looks at the whole cluster before each run, so that this is played on a site of [`NODES`] nodes, where faults
//! come close together, and beside the simulation of engines on as many nodes as wanted.

mod agenda;
mod model;
mod office;
mod people;
mod shrink;
mod stops;
mod terms;

use super::report::FleetReport;
use super::{DRAIN, HISTORY, Progress, Report, SimulateError, SimulateOptions, playbook};
use crate::time::{SimRuntime, Spawner};
use crate::world::{KeepLog, Script, SimConfig, SimWorld};
use agenda::Item;
use engine_playbook::Renderer;
use engine_runtime::ports::Clock as _;
use jiff::{SignedDuration, Timestamp};
use office::Office;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
pub(super) use shrink::shrink;
use std::sync::Arc;
use std::time::Instant;
use terms::Terms;

/// Nodes of the site, where not fewer are asked for.
pub const NODES: usize = 48;
/// Virtual time in which things happen to the site, in hours, where not less is asked for.
pub const HOURS: u32 = 24;
/// Nodes side by side that share a rack.
const NODES_PER_RACK: usize = 12;
/// The name under which the site's engines plan.
const AGENT: &str = "dispatcher";

/// Says how many things happen in a seed.
pub(super) fn items(options: &SimulateOptions) -> usize {
    let nodes = options.nodes.clamp(1, NODES);
    agenda::draw(options.seed, nodes, options.hours.min(HOURS), office::ENGINES, None).len()
}

/// Simulates one seed.
pub(super) async fn simulate(
    options: &SimulateOptions,
    progress: &Progress,
) -> Result<(Report, SimWorld, Arc<Office>), SimulateError> {
    let began = Instant::now();
    let nodes = options.nodes.clamp(1, NODES);
    let hours = options.hours.min(HOURS);
    let world = SimWorld::new(config(nodes, options.seed));
    world.watch_budgets(NODES_PER_RACK);
    let spawner = Spawner::default();
    let items = agenda::draw(options.seed, nodes, hours, office::ENGINES, options.items.as_deref());
    let story = tell(&world, &spawner, options, items, progress);
    let mut on_step = |_| {};
    let told = SimRuntime::new(&world)
        .run_with(&spawner, Box::pin(story), &mut on_step)
        .await
        .map_err(|source| SimulateError::Stalled { seed: options.seed, source })??;
    let mut report = sum_up(options, &world, &told);
    report.node_years = nodes as f64 * f64::from(hours) / super::report::YEAR_HOURS;
    report.thread_seconds = began.elapsed().as_secs_f64();
    Ok((report, world, told.office))
}

struct Told {
    office: Arc<Office>,
    incidents: u64,
    people: u64,
    policies: u64,
}

async fn tell(
    world: &SimWorld,
    spawner: &Spawner,
    options: &SimulateOptions,
    items: Vec<(SignedDuration, usize, Item)>,
    progress: &Progress,
) -> Result<Told, SimulateError> {
    let start = world.now();
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x7e25);
    let terms = Terms::draw(&mut rng, world);
    let render = Arc::new(Renderer::new());
    let office = Office::open(world, spawner, playbook()?, render, options, terms).await?;
    let (mut incidents, mut people, mut policies) = (0, 0, 1);
    for (after, _, item) in items {
        let at = start.saturating_add(after).unwrap_or(Timestamp::MAX);
        if at > world.now() {
            office.clock.sleep_until(at).await;
        }
        let us = Arc::clone(&office);
        match item {
            Item::Incident(incident) => {
                incidents += 1;
                people += u64::from(incident.meddler.is_some());
                progress.incident();
                office.begin_case();
                let name = format!("incident {} of node {}", incident.number, incident.node);
                spawner.spawn(name, people::live(us, *incident));
            }
            Item::Work(nodes, long) => {
                people += nodes.len() as u64;
                spawner.spawn("people take nodes", people::work(us, nodes, long));
            }
            Item::Stop(what, long, queued) => {
                people += 1;
                spawner.spawn("the lead stops something", people::stop(us, what, long, queued));
            }
            Item::Policy => {
                policies += 1;
                office.put_in_force(Terms::draw(&mut rng, world)).await?;
                spawner.spawn("a new policy", async move { us.roll().await });
            }
            Item::Outage(long, hangs) => {
                let script = if hangs { Script::ControllerHang(long) } else { Script::ControllerDown(long) };
                drop(world.run(script));
            }
            Item::Death(engine) => office.die(engine, false, office.downtime()),
        }
    }
    let mut left = DRAIN.as_hours() * 6;
    while office.open_cases() > 0 && left > 0 {
        left -= 1;
        office.clock.sleep(SignedDuration::from_mins(10)).await;
    }
    // What is still on its way, and reservations that could not be deleted, come to their end.
    office.clock.sleep(SignedDuration::from_hours(8)).await;
    office.close();
    super::close(world, &office.warden, &office.journals).await?;
    Ok(Told { office, incidents, people, policies })
}

fn sum_up(options: &SimulateOptions, world: &SimWorld, told: &Told) -> Report {
    let ends = told.office.warden.ends();
    let runs: u64 = ends.values().sum();
    let ([trips, stops, releases, dropped], waits) = told.office.counted();
    let (died_in_write, died_between) = told.office.deaths();
    let mut report = Report {
        incidents: told.incidents,
        runs,
        ends,
        events: told.office.warden.events(),
        people: told.people,
        races: world.race_count(),
        died_in_write,
        died_between,
        world: world.counts(),
        fleet: FleetReport {
            incidents: told.incidents,
            runs,
            waits,
            policies: told.policies,
            trips,
            stops,
            releases,
            dropped,
            budgets: world.budget_counts(),
        },
        ..Report::default()
    };
    report.violated(options.seed, super::Part::Fleet, world.violations());
    report
}

fn config(nodes: usize, seed: u64) -> SimConfig {
    let mut config = SimConfig::new(nodes, seed ^ 0xf1ee, super::start());
    config.hiccups = agenda::HICCUPS;
    config.keep_log = KeepLog::PerNode(HISTORY);
    config
}
