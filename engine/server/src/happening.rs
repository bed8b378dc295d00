//! What happens in operation. Each value is one type that makes both the log line and the metric, so that neither can be
//! forgotten and both say the same.

use crate::metrics::{Family, Kind, Metrics};
use crate::problem::ProblemKind;
use std::collections::BTreeMap;
use std::sync::Arc;

const fn family(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Family {
    Family { name, kind, unit, help, labels }
}

static REQUESTS: Family = family(
    "slurmedic_http_requests",
    Kind::Counter,
    "",
    "Requests that were answered, by route, method and status.",
    &["route", "method", "status"],
);
static REQUEST_SECONDS: Family = family(
    "slurmedic_http_request_seconds",
    Kind::Histogram,
    "seconds",
    "How long requests took, by face.",
    &["face"],
);
static REFUSED: Family = family(
    "slurmedic_refused_requests",
    Kind::Counter,
    "",
    "Requests that were refused, by kind.",
    &["kind"],
);
static TURNED_AWAY: Family = family(
    "slurmedic_connections_turned_away",
    Kind::Counter,
    "",
    "Connections that found no place, by face.",
    &["face"],
);
static ALERTS: Family = family(
    "slurmedic_alerts",
    Kind::Counter,
    "",
    "Alerts that were heard, by source and what became of them.",
    &["source", "outcome"],
);
static POSTS: Family = family(
    "slurmedic_alert_posts",
    Kind::Counter,
    "",
    "Posts of alerts, by source and whether they were taken.",
    &["source", "outcome"],
);
static DECISIONS: Family = family(
    "slurmedic_decisions",
    Kind::Counter,
    "",
    "What people and programs asked of the engine and got, by deed.",
    &["deed"],
);
static PROPOSED: Family = family(
    "slurmedic_runs_proposed",
    Kind::Counter,
    "",
    "Runs that were proposed, by playbook.",
    &["playbook"],
);
static ENDED: Family = family(
    "slurmedic_runs_ended",
    Kind::Counter,
    "",
    "Runs that ended, by playbook and end.",
    &["playbook", "end"],
);
static RUN_SECONDS: Family = family(
    "slurmedic_run_seconds",
    Kind::Histogram,
    "seconds",
    "Time from the proposal of a run to its end, by playbook.",
    &["playbook"],
);
static STEP_SECONDS: Family = family(
    "slurmedic_step_seconds",
    Kind::Histogram,
    "seconds",
    "How long steps took, by action and outcome.",
    &["action", "outcome"],
);
static COST: Family = family(
    "slurmedic_run_cost_gpu_seconds",
    Kind::Counter,
    "seconds",
    "GPU time that begun runs were reckoned to take from the queue, the least and the most.",
    &["bound"],
);
static RELOADS: Family =
    family("slurmedic_reloads", Kind::Counter, "", "Reloads of the configuration, by outcome.", &["outcome"]);
static LOOKS: Family = family(
    "slurmedic_cluster_reads",
    Kind::Counter,
    "",
    "Reads of the whole cluster, by outcome.",
    &["outcome"],
);
static ORDERS: Family = family(
    "slurmedic_orders_answered",
    Kind::Counter,
    "",
    "Results that agents handed over, by whether somebody still waited for them.",
    &["heard"],
);
static BAD_ORDERS: Family = family(
    "slurmedic_orders_refused_by_agents",
    Kind::Counter,
    "",
    "Texts that came to an agent as orders and were none: forged, expired, replayed, or for another node.",
    &[],
);
static KEYS: Family = family(
    "slurmedic_node_keys",
    Kind::Counter,
    "",
    "Keys of nodes that were asked for by a proof, by proof and whether they were handed out.",
    &["by", "outcome"],
);
static EXPORTERS: Family = family(
    "slurmedic_exporters",
    Kind::Gauge,
    "",
    "Exporters of nodes in the last round over them, by state; one that is silent is a fault of the tool.",
    &["state"],
);
static EXPORTER_TURNS: Family = family(
    "slurmedic_exporter_turns",
    Kind::Counter,
    "",
    "Exporters of nodes that fell silent or came back.",
    &["to"],
);
static NODE_LOOKS: Family = family(
    "slurmedic_node_looks",
    Kind::Counter,
    "",
    "Single looks at nodes that somebody told of, by outcome.",
    &["outcome"],
);
static NODES: Family =
    family("slurmedic_nodes", Kind::Gauge, "", "Nodes that the cluster had when it was last read.", &[]);

/// Every metric that a happening can touch.
pub(crate) static FAMILIES: [&Family; 21] = [
    &REQUESTS,
    &REQUEST_SECONDS,
    &REFUSED,
    &TURNED_AWAY,
    &ALERTS,
    &POSTS,
    &DECISIONS,
    &PROPOSED,
    &ENDED,
    &RUN_SECONDS,
    &STEP_SECONDS,
    &COST,
    &RELOADS,
    &LOOKS,
    &ORDERS,
    &BAD_ORDERS,
    &KEYS,
    &EXPORTERS,
    &EXPORTER_TURNS,
    &NODE_LOOKS,
    &NODES,
];

/// Something that happened. Texts are bounded by whoever makes them; the log escapes them.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A request was answered.
    Answered {
        /// `socket` or `net`.
        face: &'static str,
        /// Its route, never the path as it came.
        route: String,
        /// Its method.
        method: String,
        /// The status of the answer.
        status: u16,
        /// How long it took.
        seconds: f64,
    },
    /// A request was refused.
    Refused {
        /// What kind of no.
        kind: ProblemKind,
        /// Who asked, as far as known.
        who: String,
        /// Why.
        why: String,
    },
    /// A connection found no place.
    TurnedAway {
        /// `socket` or `net`.
        face: &'static str,
        /// From where.
        who: String,
    },
    /// Alerts were taken in.
    Heard {
        /// Name of the source.
        source: String,
        /// How many came to what.
        by_word: BTreeMap<&'static str, u64>,
        /// The first that opened nothing.
        first_refused: Option<String>,
    },
    /// A post of alerts was not taken.
    NotHeard {
        /// Name of the source.
        source: String,
        /// Why.
        why: String,
    },
    /// Somebody asked the engine for something and got it.
    Decided {
        /// Which deed.
        deed: &'static str,
        /// Who.
        by: String,
        /// How that is known.
        known_by: String,
        /// About what.
        about: String,
    },
    /// A run was proposed.
    RunProposed {
        /// The run.
        run: String,
        /// Its playbook.
        playbook: String,
        /// Its node.
        node: String,
    },
    /// A run has begun.
    RunBegun {
        /// The run.
        run: String,
        /// Its node.
        node: String,
        /// GPU-seconds that it takes from the queue, at least and at most, as far as known.
        gpu_seconds: (Option<f64>, Option<f64>),
    },
    /// A run ended.
    RunEnded {
        /// The run.
        run: String,
        /// Its playbook.
        playbook: String,
        /// Its node.
        node: String,
        /// Its end.
        end: &'static str,
        /// Why.
        why: String,
        /// Time since it was proposed.
        seconds: f64,
    },
    /// A step was carried out.
    StepEnded {
        /// The run.
        run: String,
        /// The action.
        action: String,
        /// How it came out.
        outcome: &'static str,
        /// How long it took.
        seconds: f64,
    },
    /// The configuration was read anew.
    Reloaded {
        /// What is different, in one sentence.
        what: String,
    },
    /// The configuration was not read anew: the last good one stays.
    NotReloaded {
        /// Why.
        why: String,
    },
    /// The whole cluster was read.
    ClusterRead {
        /// How many nodes it has.
        nodes: usize,
    },
    /// The cluster could not be read.
    ClusterUnread {
        /// Why.
        why: String,
    },
    /// The exporters of the nodes were asked.
    ExportersRead {
        /// How many.
        asked: usize,
        /// How many answered.
        answered: usize,
        /// How many do not answer for some rounds.
        silent: usize,
    },
    /// An exporter does not answer any more: the tool is ill, nothing is known of the node.
    ExporterSilent {
        /// Its node.
        node: String,
        /// Why.
        why: String,
    },
    /// An exporter answers again.
    ExporterBack {
        /// Its node.
        node: String,
    },
    /// A node was looked at because somebody told that it is out, or back, and not why.
    NodeLooked {
        /// Which.
        node: String,
        /// How many alerts that made.
        alerts: usize,
    },
    /// It could not be looked at: nothing is said of the node.
    NodeNotLooked {
        /// Which.
        node: String,
        /// Why.
        why: String,
    },
    /// An agent handed a result over.
    OrderAnswered {
        /// Its node.
        node: String,
        /// The order.
        order: String,
        /// `taken` or `late`.
        heard: &'static str,
    },
    /// Something came to an agent as an order and was none.
    OrderRefused {
        /// Its node.
        node: String,
        /// What was wrong with it.
        why: String,
    },
    /// The key of a node was handed out.
    KeyHandedOut {
        /// The node.
        node: String,
        /// `munge` or `certificate`.
        by: &'static str,
    },
    /// The key of a node was asked for by somebody else than who has it.
    KeyRefused {
        /// The node.
        node: String,
        /// `munge` or `certificate`.
        by: &'static str,
    },
    /// The engine serves.
    Serving {
        /// Where.
        at: String,
    },
    /// The engine stops.
    Stopping {
        /// Why.
        why: &'static str,
    },
}

/// Tells what happens: to the log and to the metrics.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
}

impl Telemetry {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Tells it.
    pub fn tell(&self, happening: &Happening) {
        log(happening);
        count(happening, &self.metrics);
    }
}

fn log(happening: &Happening) {
    match happening {
        Happening::Answered { face, route, method, status, seconds } => {
            tracing::debug!(event = "answered", face, %route, %method, status, seconds);
        }
        // What a stranger can cause as often as they like is told quietly; guesses are slowed down, so they are told.
        Happening::Refused { kind, who, why } => match kind {
            ProblemKind::Unauthenticated
            | ProblemKind::NotPermitted
            | ProblemKind::Busy
            | ProblemKind::Failed => tracing::warn!(event = "refused", ?kind, who, why),
            _ => tracing::debug!(event = "refused", ?kind, who, why),
        },
        Happening::TurnedAway { face, who } => tracing::debug!(event = "turned_away", face, who),
        Happening::Heard { source, by_word, first_refused: None } => {
            tracing::info!(event = "heard", source, ?by_word);
        }
        Happening::Heard { source, by_word, first_refused: Some(first) } => {
            tracing::warn!(event = "heard", source, ?by_word, first);
        }
        Happening::NotHeard { source, why } => tracing::warn!(event = "not_heard", source, why),
        Happening::Decided { deed, by, known_by, about } => {
            tracing::info!(event = "decided", deed, by, known_by, about);
        }
        Happening::RunProposed { run, playbook, node } => {
            tracing::info!(event = "run_proposed", run, playbook, node);
        }
        Happening::RunBegun { run, node, gpu_seconds } => {
            tracing::info!(event = "run_begun", run, node, least = ?gpu_seconds.0, most = ?gpu_seconds.1);
        }
        Happening::RunEnded { run, playbook, node, end, why, seconds } => {
            tracing::info!(event = "run_ended", run, playbook, node, end, why, seconds);
        }
        Happening::StepEnded { run, action, outcome, seconds } => {
            tracing::info!(event = "step_ended", run, action, outcome, seconds);
        }
        Happening::Reloaded { what } => tracing::info!(event = "reloaded", what),
        Happening::NotReloaded { why } => {
            tracing::error!(event = "not_reloaded", why, "the last good configuration stays");
        }
        Happening::ClusterRead { nodes } => tracing::debug!(event = "cluster_read", nodes),
        Happening::ClusterUnread { why } => tracing::warn!(event = "cluster_unread", why),
        Happening::ExportersRead { asked, answered, silent } => {
            tracing::debug!(event = "exporters_read", asked, answered, silent);
        }
        Happening::ExporterSilent { node, why } => {
            tracing::warn!(event = "exporter_silent", node, why, "its GPUs are not watched until it answers");
        }
        Happening::ExporterBack { node } => tracing::info!(event = "exporter_back", node),
        Happening::NodeLooked { node, alerts } => tracing::info!(event = "node_looked", node, alerts),
        Happening::NodeNotLooked { node, why } => tracing::info!(event = "node_not_looked", node, why),
        Happening::OrderAnswered { node, order, heard } => {
            tracing::debug!(event = "order_answered", node, order, heard);
        }
        Happening::OrderRefused { node, why } => {
            tracing::error!(event = "order_refused", node, why, "who else sends orders to this node?");
        }
        Happening::KeyHandedOut { node, by } => {
            tracing::warn!(event = "key_handed_out", node, by, "this node has its key now");
        }
        Happening::KeyRefused { node, by } => {
            tracing::error!(
                event = "key_refused",
                node,
                by,
                "its key was handed out before: who asks again?"
            );
        }
        Happening::Serving { at } => tracing::info!(event = "serving", at),
        Happening::Stopping { why } => tracing::info!(event = "stopping", why),
    }
}

fn count(happening: &Happening, m: &Metrics) {
    match happening {
        Happening::Answered { face, route, method, status, seconds } => {
            m.add(&REQUESTS, &[route, method, &status.to_string()], 1.0);
            m.observe(&REQUEST_SECONDS, &[face], *seconds);
        }
        Happening::Refused { kind, .. } => m.add(&REFUSED, &[word(*kind)], 1.0),
        Happening::TurnedAway { face, .. } => m.add(&TURNED_AWAY, &[face], 1.0),
        Happening::Heard { source, by_word, .. } => {
            m.add(&POSTS, &[source, "taken"], 1.0);
            for (outcome, n) in by_word {
                m.add(&ALERTS, &[source, outcome], *n as f64);
            }
        }
        Happening::NotHeard { source, .. } => m.add(&POSTS, &[source, "refused"], 1.0),
        Happening::Decided { deed, .. } => m.add(&DECISIONS, &[deed], 1.0),
        Happening::RunProposed { playbook, .. } => m.add(&PROPOSED, &[playbook], 1.0),
        Happening::RunBegun { gpu_seconds, .. } => {
            for (bound, seconds) in [("least", gpu_seconds.0), ("most", gpu_seconds.1)] {
                if let Some(seconds) = seconds {
                    m.add(&COST, &[bound], seconds);
                }
            }
        }
        Happening::RunEnded { playbook, end, seconds, .. } => {
            m.add(&ENDED, &[playbook, end], 1.0);
            m.observe(&RUN_SECONDS, &[playbook], *seconds);
        }
        Happening::StepEnded { action, outcome, seconds, .. } => {
            m.observe(&STEP_SECONDS, &[action, outcome], *seconds);
        }
        Happening::Reloaded { .. } => m.add(&RELOADS, &["done"], 1.0),
        Happening::NotReloaded { .. } => m.add(&RELOADS, &["failed"], 1.0),
        Happening::ClusterRead { nodes } => {
            m.add(&LOOKS, &["read"], 1.0);
            m.set(&NODES, &[], *nodes as f64);
        }
        Happening::ClusterUnread { .. } => m.add(&LOOKS, &["failed"], 1.0),
        Happening::ExportersRead { asked, answered, silent } => {
            m.set(&EXPORTERS, &["asked"], *asked as f64);
            m.set(&EXPORTERS, &["answered"], *answered as f64);
            m.set(&EXPORTERS, &["silent"], *silent as f64);
        }
        Happening::ExporterSilent { .. } => m.add(&EXPORTER_TURNS, &["silent"], 1.0),
        Happening::ExporterBack { .. } => m.add(&EXPORTER_TURNS, &["back"], 1.0),
        Happening::NodeLooked { .. } => m.add(&NODE_LOOKS, &["read"], 1.0),
        Happening::NodeNotLooked { .. } => m.add(&NODE_LOOKS, &["failed"], 1.0),
        Happening::OrderAnswered { heard, .. } => m.add(&ORDERS, &[heard], 1.0),
        Happening::OrderRefused { .. } => m.add(&BAD_ORDERS, &[], 1.0),
        Happening::KeyHandedOut { by, .. } => m.add(&KEYS, &[by, "handed_out"], 1.0),
        Happening::KeyRefused { by, .. } => m.add(&KEYS, &[by, "refused"], 1.0),
        Happening::Serving { .. } | Happening::Stopping { .. } => {}
    }
}

fn word(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Usage => "usage",
        ProblemKind::Unauthenticated => "unauthenticated",
        ProblemKind::NotPermitted => "not_permitted",
        ProblemKind::NotFound => "not_found",
        ProblemKind::Conflict => "conflict",
        ProblemKind::NotApplicable => "not_applicable",
        ProblemKind::TooLarge => "too_large",
        ProblemKind::TooOften => "too_often",
        ProblemKind::Busy => "busy",
        ProblemKind::Failed => "failed",
    }
}
