//! `[[watch.prometheus]]`: faults that Prometheus tells by rules.

use crate::exit::CliError;
use crate::fleet::Fleet;
use crate::watching::hand_over;
use engine_adapters::prometheus::Prometheus;
use engine_core::incident::{ToolHealth, Tools};
use engine_core::value::parse_duration;
use engine_core::watch::{PromRules, PromWatch, prometheus, standing_by_prometheus};
use engine_runtime::fleet::Watch;
use engine_server::{Server, read_secret};
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The most servers that are asked.
const MAX_SERVERS: usize = 16;
/// Rounds in a row that may fail before the server counts as ill.
const FAILS: u32 = 3;

/// A Prometheus that is asked, or what speaks like one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrometheusConfig {
    /// Its name, for people and in incidents.
    #[serde(default = "main")]
    name: String,
    /// Its address, such as http://prometheus:9090.
    url: String,
    /// A file with the token that it wants; for the owner only.
    #[serde(default)]
    token: Option<PathBuf>,
    /// A file with rules, instead of those that come with the program.
    #[serde(default)]
    rules: Option<PathBuf>,
    /// Time between two rounds.
    #[serde(default = "minute")]
    interval: String,
    /// Time for one query.
    #[serde(default = "ten")]
    limit: String,
}

fn main() -> String {
    "main".to_owned()
}

fn minute() -> String {
    "60s".to_owned()
}

fn ten() -> String {
    "10s".to_owned()
}

/// One that is ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    name: String,
    server: Prometheus,
    rules: Arc<PromRules>,
    interval: Duration,
}

/// Reads the settings and the rules of all of them; the first mistake is an error.
pub(crate) fn lower(all: &[PrometheusConfig]) -> Result<Vec<Asking>, CliError> {
    if all.len() > MAX_SERVERS {
        return Err(CliError::usage(format!("watch.prometheus: at most {MAX_SERVERS} are asked")));
    }
    let names: BTreeSet<&str> = all.iter().map(|p| p.name.as_str()).collect();
    if names.len() < all.len() {
        return Err(CliError::usage("watch.prometheus: two have the same name; give each its own `name`"));
    }
    all.iter().map(PrometheusConfig::lower).collect()
}

impl PrometheusConfig {
    fn lower(&self) -> Result<Asking, CliError> {
        let wrong = |key: &str, why: String| CliError::usage(format!("watch.prometheus.{key}: {why}"));
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(word) {
            return Err(wrong("name", format!("{:?} is not a short word", self.name)));
        }
        let time = |key: &str, text: &str, least: i64, most: i64| {
            let (least, most) = (SignedDuration::from_secs(least), SignedDuration::from_secs(most));
            match parse_duration(text) {
                Ok(d) if (least..=most).contains(&d) => Ok(d.unsigned_abs()),
                Ok(_) => Err(wrong(key, format!("{text:?} is not between {least:#} and {most:#}"))),
                Err(e) => Err(wrong(key, e.to_string())),
            }
        };
        let interval = time("interval", &self.interval, 1, 3_600)?;
        let limit = time("limit", &self.limit, 1, 60)?;
        let token = match &self.token {
            None => None,
            Some(path) => {
                let bytes = read_secret(path).map_err(|e| wrong("token", e.to_string()))?;
                let text = String::from_utf8(bytes).ok().filter(|t| t.chars().all(|c| c.is_ascii_graphic()));
                Some(text.ok_or_else(|| wrong("token", format!("{} is no token", path.display())))?)
            }
        };
        let rules = match &self.rules {
            None => engine_playbook::prometheus::rules(engine_playbook::prometheus::BUILT_IN, "built-in"),
            Some(path) => {
                let file = path.display().to_string();
                let text =
                    std::fs::read_to_string(path).map_err(|e| wrong("rules", format!("{file}: {e}")))?;
                engine_playbook::prometheus::rules(&text, &file)
            }
        };
        let rules = Arc::new(rules.map_err(|why| wrong("rules", why))?);
        let server = Prometheus::new(&self.url, token, limit).map_err(|why| wrong("url", why))?;
        Ok(Asking { name: self.name.clone(), server, rules, interval })
    }
}

/// Asks one of them round by round, for as long as the process serves.
pub(crate) async fn ask(fleet: Fleet, server: Arc<Server>, watch: Arc<Watch>, asking: Asking) {
    let kind = format!("prometheus {}", asking.name);
    let exporters = format!("exporter by {}", asking.name);
    let mut memory = PromWatch::default();
    let mut failed = 0_u32;
    loop {
        let begun = tokio::time::Instant::now();
        let asked = watch.with_gpus();
        // Before the first look at the cluster nobody knows whose nodes these are.
        if !asked.is_empty() {
            let answers = asking.server.ask(&asking.rules).await;
            let standing = fleet.log.read(standing_by_prometheus).await;
            let round = memory.read(
                &asking.rules,
                &asked,
                &answers,
                &standing,
                server.parts().desk.engine().ports.clock.now(),
            );
            failed = if round.ill.is_some() { failed.saturating_add(1) } else { 0 };
            let health = match round.ill {
                None => ToolHealth::Well,
                Some(why) if failed >= FAILS => ToolHealth::Ill(why),
                Some(_) => ToolHealth::Undecided,
            };
            let mut tools = vec![(&kind, Tools::from([(String::new(), health)]))];
            // While it says nothing about them, they are as they were.
            if answers.seen.is_ok() && !round.exporters.is_empty() {
                tools.push((&exporters, round.exporters));
            }
            for (kind, tools) in tools {
                if let Err(error) = fleet.intake.tools(kind, &tools).await {
                    tracing::warn!(%error, "what is ill has no incident yet; the next round tries again");
                }
            }
            if round.strangers > 0 {
                tracing::debug!(name = asking.name, samples = round.strangers, "samples of no node of ours");
            }
            hand_over(&fleet, &server, prometheus::SOURCE, round.alerts).await;
        }
        tokio::time::sleep(asking.interval.saturating_sub(begun.elapsed()).max(asking.interval / 10)).await;
    }
}
