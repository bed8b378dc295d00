//! What `/metrics` reads at the moment it is asked: the fold of the fleet's record, locks, the last look at the cluster,
//! and how long ago each source was heard.

use crate::crowd::Room;
use crate::desk::MAX_LISTED;
use crate::exposition::{Form, Values, write};
use crate::happening::FAMILIES;
use crate::metrics::{Family, Kind};
use crate::server::Server;
use engine_core::incident::fault::{Strength, strength};
use engine_core::incident::{FleetState, Phase, Subject};
use engine_core::policy::{Fleet, GroupKind, Policy};
use std::collections::BTreeMap;

/// An agent asks at least each 25 s; one that was not heard for so long is silent.
const AGENT_SILENT: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);
/// Partitions whose budget is told, at most.
const MAX_PARTITIONS: usize = 100;

macro_rules! gauges {
    ($($name:ident = $metric:literal, $unit:literal, $help:literal, [$($label:literal),*];)*) => {
        $(static $name: Family = Family {
            name: $metric, kind: Kind::Gauge, unit: $unit, help: $help, labels: &[$($label),*],
        };)*
    };
}

gauges! {
    INFO = "slurmedic_engine", "", "One, with the release as a label.", ["version"];
    STARTED = "slurmedic_start_time_seconds", "seconds", "When the engine was started, since 1970.", [];
    INCIDENTS = "slurmedic_open_incidents", "", "Open incidents, by phase and strongest fault.", ["phase", "fault"];
    QUEUED = "slurmedic_queued_incidents", "", "Incidents that wait for a plan or for room.", [];
    OLDEST = "slurmedic_oldest_queued_incident_age_seconds", "seconds", "Age of the incident that waits longest.", [];
    WAITING = "slurmedic_runs_under_way", "", "Incidents that a run has.", [];
    RUNS = "slurmedic_open_runs", "", "Runs that are not over, by where they stand.", ["status"];
    STOPS = "slurmedic_breaker_open", "", "What stands still, by kind of scope and whether a person stopped it.", ["scope", "by"];
    LOCKS = "slurmedic_locks", "", "Locks on nodes, racks and fabrics that runs hold.", [];
    OUT = "slurmedic_nodes_out_of_service", "", "Nodes out of service, whoever took them, by budget.", ["budget"];
    BUDGET = "slurmedic_budget_nodes", "", "Nodes that may be out of service, by budget.", ["budget"];
    SOURCE_AGE = "slurmedic_source_age_seconds", "seconds", "Time since a source was last heard; since the start where it never was.", ["source"];
    SOURCE_STALE = "slurmedic_source_stale", "", "One where a source is silent for longer than it should be.", ["source"];
    AGENTS = "slurmedic_agents", "", "Agents of nodes that were heard within a day, by whether they ask for orders now.", ["state"];
    CONNECTIONS = "slurmedic_connections", "", "Open connections, by face and whose they are.", ["face", "of"];
    READY = "slurmedic_ready", "", "One where a part of the engine is well.", ["part"];
}

/// Writes the whole text.
pub(crate) async fn text(server: &Server, form: Form) -> String {
    let parts = server.parts();
    let metrics = parts.telemetry.metrics();
    let mut all: Vec<(&Family, Values)> = FAMILIES
        .iter()
        .map(|f| match f.kind {
            Kind::Histogram => (*f, Values::Histograms(metrics.histograms(f))),
            _ => (*f, Values::Numbers(metrics.numbers(f))),
        })
        .collect();
    let now = parts.desk.engine().ports.clock.now();
    let one = |v: f64| vec![(Vec::new(), v)];
    let mut add = |family: &'static Family, series: Vec<(Vec<String>, f64)>| {
        all.push((family, Values::Numbers(series)));
    };
    add(&INFO, vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
    add(&STARTED, one(parts.health.started().as_second() as f64));
    if let Ok(log) = parts.desk.log().await {
        let counted = log.read(|f| Counted::of(f, now)).await;
        add(&INCIDENTS, counted.incidents);
        add(&QUEUED, one(counted.queued));
        add(&OLDEST, one(counted.oldest));
        add(&WAITING, one(counted.running));
        add(&STOPS, counted.stops);
    }
    if let Ok(runs) = parts.desk.engine().ports.journal.runs(None, true, MAX_LISTED).await {
        let mut by: BTreeMap<&str, f64> = BTreeMap::new();
        for run in &runs {
            *by.entry(run.status.as_str()).or_insert(0.0) += 1.0;
        }
        add(&RUNS, by.into_iter().map(|(status, n)| (vec![status.to_owned()], n)).collect());
    }
    if let Ok(leases) = parts.desk.engine().ports.journal.leases().await {
        add(&LOCKS, one(leases.len() as f64));
    }
    if let Some(fleet) = parts.last_look() {
        let (out, budget) = budgets(&fleet, &parts.policy.get());
        add(&OUT, out);
        add(&BUDGET, budget);
    }
    let mut ages = Vec::new();
    let mut stale = Vec::new();
    let started = parts.health.started();
    // How old something is here is told by this machine's clock, also where the cluster's is a simulated one.
    let now = jiff::Timestamp::now();
    let age = |at: Option<jiff::Timestamp>| now.duration_since(at.unwrap_or(started)).as_secs_f64().max(0.0);
    ages.push((vec!["slurm".to_owned()], age(parts.health.slurm_at())));
    if let Some(at) = parts.health.exporters_at() {
        ages.push((vec!["exporters".to_owned()], age(Some(at))));
    }
    if let Some(orders) = &parts.orders {
        let seen = orders.silence(parts.desk.engine().ports.clock.now(), AGENT_SILENT);
        let state = |word: &str, n: usize| (vec![word.to_owned()], n as f64);
        add(&AGENTS, vec![state("heard", seen.agents - seen.silent), state("silent", seen.silent)]);
        if seen.agents > 0 {
            ages.push((vec!["agents".to_owned()], seen.longest.as_secs_f64().max(0.0)));
            stale.push((vec!["agents".to_owned()], f64::from(u8::from(seen.silent > 0))));
        }
    }
    let rooms = [("socket", false), ("net", true)].into_iter().flat_map(|(face, net)| {
        Room::ALL.map(|room| {
            let of = vec![face.to_owned(), room.as_str().to_owned()];
            (of, server.crowd(net).count(room) as f64)
        })
    });
    add(&CONNECTIONS, rooms.collect());
    for (name, source) in parts.sources.get().iter() {
        ages.push((vec![name.clone()], age(source.heard_at())));
        if let Some(is) = source.is_stale(started, now) {
            stale.push((vec![name.clone()], f64::from(u8::from(is))));
        }
    }
    let report = parts.health.report().await;
    stale.push((vec!["slurm".to_owned()], f64::from(u8::from(report.slurm.is_err()))));
    add(&SOURCE_AGE, ages);
    add(&SOURCE_STALE, stale);
    let well = |part: &str, is: bool| (vec![part.to_owned()], f64::from(u8::from(is)));
    add(
        &READY,
        vec![
            well("dispatcher", report.dispatcher.is_ok()),
            well("journal", report.journal.is_ok()),
            well("slurm", report.slurm.is_ok()),
        ],
    );
    write(&all, form)
}

#[derive(Debug, Default)]
struct Counted {
    incidents: Vec<(Vec<String>, f64)>,
    queued: f64,
    oldest: f64,
    running: f64,
    stops: Vec<(Vec<String>, f64)>,
}

impl Counted {
    fn of(f: &FleetState, now: jiff::Timestamp) -> Self {
        let mut out = Self::default();
        let mut by: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for i in f.incidents() {
            let phase = match &i.phase {
                Phase::New => "new",
                Phase::Waiting { .. } => "waiting",
                Phase::Running { .. } => "running",
                Phase::WithPerson { .. } => "with_person",
            };
            let fault = match (&i.subject, i.strongest()) {
                (Subject::Breaker { .. }, _) => "breaker",
                (Subject::Tool { .. }, _) => "tool",
                (Subject::Rack { .. }, _) => "rack",
                // A word that nobody knows comes from outside: it is no label.
                (_, Some((_, s))) if strength(&s.fault) == Strength::Unknown => "other",
                (_, Some((_, s))) => &s.fault,
                (_, None) => "none",
            };
            *by.entry((phase, fault)).or_insert(0.0) += 1.0;
            if i.is_queued() {
                out.queued += 1.0;
                out.oldest = out.oldest.max(now.duration_since(i.opened_at).as_secs_f64());
            }
            if matches!(i.phase, Phase::Running { .. }) {
                out.running += 1.0;
            }
        }
        out.incidents = by.into_iter().map(|((p, f), n)| (vec![p.to_owned(), f.to_owned()], n)).collect();
        let mut stops: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for (scope, stop) in f.switches().iter() {
            use engine_core::incident::Scope;
            let kind = match scope {
                Scope::Fleet => "fleet",
                Scope::Partition(_) => "partition",
                Scope::Playbook(_) => "playbook",
                Scope::Node(_) => "node",
            };
            let by = if stop.by.is_some() { "person" } else { "breaker" };
            *stops.entry((kind, by)).or_insert(0.0) += 1.0;
        }
        out.stops = stops.into_iter().map(|((s, b), n)| (vec![s.to_owned(), b.to_owned()], n)).collect();
        out
    }
}

type Series = Vec<(Vec<String>, f64)>;

/// Counts the nodes out of service, and those that may be, for the fleet and each partition.
fn budgets(fleet: &Fleet, policy: &Policy) -> (Series, Series) {
    let (mut out, mut budget) = (Vec::new(), Vec::new());
    for group in fleet.groups() {
        let (name, share) = match group.kind {
            GroupKind::Fleet => ("fleet".to_owned(), policy.budgets.fleet),
            GroupKind::Partition if out.len() <= MAX_PARTITIONS => {
                let own = policy.budgets.partitions.get(&group.name).copied();
                (format!("partition {}", group.name), own.unwrap_or(policy.budgets.partition))
            }
            _ => continue,
        };
        out.push((vec![name.clone()], group.out as f64));
        budget.push((vec![name], share.of(group.counted) as f64));
    }
    (out, budget)
}
