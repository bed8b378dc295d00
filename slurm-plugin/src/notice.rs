//! Notices of the controller: triggers and EpilogSlurmctld. A wake-up for the engine, late and lossy by nature; the engine
//! polls as well.

use crate::alert;
use crate::config::{self, Config};
use crate::finding::Finding;
use crate::hostlist;
use crate::mode::Event;
use crate::report;
use crate::run::make_state_dir;
use crate::spool::{Kind, Spool};
use crate::talk;
use std::path::Path;

/// The most nodes that one notice names; a larger one is what the engine's own polling is for.
const MAX_NODES: usize = 256;

/// Sends one notice.
pub(crate) fn run(path: &Path, event: Event, nodes: &str) {
    let (config, mistakes) = config::load(path);
    let mut lines: Vec<String> = crate::run::mistakes_in_short(&mistakes).into_iter().collect();
    match names(nodes) {
        Ok(names) => lines.extend(send(&config, event, &names)),
        Err(why) => lines.push(why),
    }
    for line in lines {
        talk::err(&line);
        if config.syslog {
            talk::syslog(&line);
        }
    }
}

/// Host names as Slurm hands them over, and nothing else.
fn names(list: &str) -> Result<Vec<String>, String> {
    let shown = {
        let mut text = talk::tame(list);
        talk::cut(&mut text, 80);
        text
    };
    let names = hostlist::expand(list.trim(), MAX_NODES)
        .ok_or_else(|| format!("{shown:?} is no list of at most {MAX_NODES} nodes: nothing is told"))?;
    names
        .iter()
        .map(|n| config::node_name(n).ok_or_else(|| format!("{shown:?} holds no node name: nothing is told")))
        .collect()
}

fn send(config: &Config, event: Event, nodes: &[String]) -> Vec<String> {
    let now = crate::time::now_ms();
    // What opens nothing ("over" for something never known) still makes the engine look.
    let (fault, firing, text) = match event {
        Event::Down => ("node-not-responding", true, "slurmctld calls it DOWN"),
        Event::Up => ("node-not-responding", false, "slurmctld sees it up again"),
        Event::Drained => ("slurm-node-drained", false, "slurmctld says that it is drained and empty"),
        Event::Fail => ("slurm-node-failing", false, "slurmctld says that it is failing"),
        Event::JobEnd => ("slurm-job-end", false, "a job ended on it"),
    };
    let alerts: Vec<String> =
        nodes.iter().map(|n| alert::line(n, &Finding::now(fault, "slurmctld", text), firing, now)).collect();
    let spool = Spool::new(config);
    let mut troubles = Vec::new();
    match event {
        Event::Down | Event::Up => {
            if let Err(why) = make_state_dir(&config.state_dir) {
                troubles.push(why);
            }
            let flushed = report::flush(config, &spool, now);
            troubles.extend(flushed.odd.into_iter().map(|f| f.text));
            let away = flushed.away.as_deref();
            report::send(config, &spool, Kind::Condition, &alerts, away, now, &mut troubles);
        }
        // A wake-up that comes late is none: it never waits.
        Event::Drained | Event::Fail | Event::JobEnd => {
            for part in alerts.chunks(100) {
                let end = std::time::Instant::now() + config.engine_deadline;
                if let Err(not) = crate::deliver::post(config, &part.join("\n"), end) {
                    troubles.push(format!("not told: {}", not.why()));
                    break;
                }
            }
        }
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_nodes_are_told() {
        assert_eq!(names("gpu[001-002]\n").unwrap(), ["gpu001", "gpu002"]);
        for bad in ["", "ALL", "gpu001 gpu002", "$(reboot)", "gpu[1-100000]", "../x", "a;b", "-x"] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
    }
}
