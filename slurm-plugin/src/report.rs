//! From what was found to what is told: each verdict once, again after a while, and once when it is over.

use crate::alert;
use crate::config::Config;
use crate::deliver::{self, NotTaken};
use crate::finding::{CHECK_FAILED, Finding, Lasts};
use crate::spool::{Kind, Spool, Taken};
use crate::state::{State, Verdict};
use crate::supervise::Outcome;
use std::collections::BTreeSet;
use std::time::Instant;

/// Stands for this program itself where the name of a check is asked for.
pub(crate) const SELF: &str = "hook";
/// The most alerts in one report.
const MAX_ALERTS: usize = 100;
/// The most waiting reports that one start delivers.
const MAX_FLUSH: usize = 32;

/// What has to be told.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Alerts of things that are so, or are over.
    conditions: Vec<String>,
    /// Alerts of things that happened.
    events: Vec<String>,
    /// Keys of the verdicts that the conditions tell.
    told: Vec<String>,
    /// Keys of the verdicts that are over.
    over: Vec<String>,
    /// Checks whose findings are among the events.
    with_events: BTreeSet<String>,
    /// Lines for Slurm's log.
    pub(crate) say: Vec<String>,
}

/// Brings the verdicts up to date and says what has to be told. `whole` is false where the configuration has mistakes:
/// then nothing counts as over.
pub(crate) fn judge(
    config: &Config,
    node: &str,
    state: &mut State,
    outcomes: &[Outcome],
    tools: Vec<Finding>,
    whole: bool,
    now: u64,
) -> Plan {
    let mut plan = Plan::default();
    let mut found = BTreeSet::new();
    let of_checks = outcomes
        .iter()
        .flat_map(|o| o.findings.iter().chain(&o.trouble).map(|f| (o.name.as_str(), f.clone())));
    for (check, finding) in of_checks.chain(tools.into_iter().map(|f| (SELF, f))) {
        if finding.lasts == Lasts::Happened {
            plan.events.push(alert::line(node, &finding, true, now));
            plan.say.push(finding.to_string());
            plan.with_events.insert(check.to_owned());
            continue;
        }
        let key = finding.key();
        found.insert(key.clone());
        if let Some(verdict) = state.verdicts.get_mut(&key) {
            verdict.finding = finding;
            verdict.seen_ms = now;
            verdict.looks = verdict.looks.saturating_add(1);
        } else {
            let check = check.to_owned();
            let verdict = Verdict {
                check,
                finding,
                since_ms: now,
                seen_ms: now,
                reported_ms: 0,
                looks: 1,
                drained: false,
            };
            if !state.add(verdict) {
                continue;
            }
        }
        let Some(verdict) = state.verdicts.get(&key) else { continue };
        let due = now.saturating_sub(verdict.reported_ms) >= config.repeat.as_millis() as u64;
        if holds(config, verdict, now) && due {
            plan.conditions.push(alert::line(node, &verdict.finding, true, now));
            plan.say.push(verdict.finding.to_string());
            plan.told.push(key);
        }
    }
    if whole {
        for (key, verdict) in state.verdicts.iter().filter(|(k, _)| !found.contains(*k)) {
            let outcome = outcomes.iter().find(|o| o.name == verdict.check);
            let over = match outcome {
                Some(o) => o.complete || verdict.finding.fault == CHECK_FAILED,
                None if verdict.check == SELF => true,
                // One of another mode is kept; one that is no longer configured can never be seen again.
                None => !config.checks.iter().any(|c| c.name == verdict.check),
            };
            if over {
                if verdict.reported_ms > 0 {
                    let mut finding = verdict.finding.clone();
                    finding.text = format!("over: {}", finding.text);
                    plan.conditions.push(alert::line(node, &finding, false, now));
                    plan.say.push(finding.to_string());
                }
                plan.over.push(key.clone());
            }
        }
    }
    plan
}

/// Whether a fault has lasted as long as its check asks for.
pub(crate) fn holds(config: &Config, verdict: &Verdict, now: u64) -> bool {
    let hold = config.checks.iter().find(|c| c.name == verdict.check).map(|c| c.hold).unwrap_or_default();
    now.saturating_sub(verdict.since_ms) >= hold.as_millis() as u64
}

/// Tells what has to be told, and keeps in the state what was. Returns what went wrong with that.
pub(crate) fn tell(
    config: &Config,
    spool: &Spool,
    state: &mut State,
    outcomes: &[Outcome],
    plan: &Plan,
    away: Option<&str>,
    now: u64,
) -> Vec<String> {
    let mut troubles = Vec::new();
    let conditions = send(config, spool, Kind::Condition, &plan.conditions, away, now, &mut troubles);
    let events = send(config, spool, Kind::Event, &plan.events, away, now, &mut troubles);
    if conditions {
        for key in &plan.told {
            if let Some(verdict) = state.verdicts.get_mut(key) {
                verdict.reported_ms = now;
            }
        }
    }
    for key in &plan.over {
        if conditions || state.verdicts.get(key).is_some_and(|v| v.reported_ms == 0) {
            state.verdicts.remove(key);
        }
    }
    for outcome in outcomes {
        // A log whose lines were not told is read again next time.
        if let Some(cursor) = &outcome.cursor
            && (events || !plan.with_events.contains(&outcome.name))
        {
            state.cursors.insert(outcome.name.clone(), cursor.clone());
        }
    }
    troubles.dedup();
    troubles
}

/// Brings alerts to the engine or into the spool. False if neither took them.
pub(crate) fn send(
    config: &Config,
    spool: &Spool,
    kind: Kind,
    alerts: &[String],
    away: Option<&str>,
    now: u64,
    troubles: &mut Vec<String>,
) -> bool {
    let mut away = away.map(str::to_owned);
    let mut all = true;
    for (number, part) in alerts.chunks(MAX_ALERTS).enumerate() {
        let lines = part.join("\n");
        if away.is_none() {
            match deliver::post(config, &lines, Instant::now() + config.engine_deadline) {
                Ok(()) => continue,
                Err(NotTaken::Refused(why)) => {
                    troubles.push(why);
                    continue;
                }
                Err(NotTaken::Denied(why)) => {
                    troubles.push(why.clone());
                    away = Some(why);
                }
                Err(NotTaken::Away(why)) => away = Some(why),
            }
        }
        let number = number as u32 + if kind == Kind::Event { 1_000 } else { 0 };
        match spool.put(kind, &lines, now, number) {
            Ok(0) if config.engine.is_none() => {}
            Ok(0) => {
                troubles.push(format!("{}; reports wait in the spool", away.clone().unwrap_or_default()));
            }
            Ok(dropped) => troubles.push(format!("the spool is full: {dropped} older reports were dropped")),
            Err(why) => {
                let away = away.clone().unwrap_or_default();
                troubles.push(format!("a report is lost for now: {away}, and the spool {why}"));
                all = false;
            }
        }
    }
    all
}

/// What came of the reports that waited.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Why some still wait.
    pub(crate) away: Option<String>,
    /// What went wrong with single ones, once each.
    pub(crate) odd: Vec<Finding>,
}

/// Delivers what waits, oldest first.
pub(crate) fn flush(config: &Config, spool: &Spool, now: u64) -> Flushed {
    let mut out = Flushed::default();
    let mut odd = |text: String| {
        let mut finding = Finding::now(CHECK_FAILED, "spool", text);
        finding.lasts = Lasts::Happened;
        out.odd.push(finding);
    };
    let (entries, strange) = match spool.list() {
        Ok(listed) => listed,
        Err(why) => {
            odd(format!("the spool cannot be read: {why}"));
            return out;
        }
    };
    if strange > 0 {
        odd(format!("{strange} files in the spool are no reports and were set aside"));
    }
    if config.engine.is_none() {
        return out;
    }
    let (mut damaged, mut old) = (0, 0);
    let end = Instant::now() + config.engine_deadline;
    for entry in entries.iter().take(MAX_FLUSH) {
        match spool.take(entry, now) {
            Taken::Report(lines) => match deliver::post(config, &lines, end) {
                Ok(()) => Spool::remove(entry),
                Err(NotTaken::Refused(why)) => {
                    spool.refused(entry);
                    odd(format!("a waiting report was set aside: {why}"));
                }
                Err(not) => {
                    out.away = Some(not.why().to_owned());
                    break;
                }
            },
            Taken::Damaged => damaged += 1,
            Taken::TooOld => old += 1,
            Taken::Gone => {}
        }
    }
    let mut odd = |text: String| {
        let mut finding = Finding::now(CHECK_FAILED, "spool", text);
        finding.lasts = Lasts::Happened;
        out.odd.push(finding);
    };
    if damaged > 0 {
        odd(format!("{damaged} reports in the spool were damaged and set aside"));
    }
    if old > 0 {
        odd(format!("{old} reports waited too long for the engine and were given up"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(dir: &std::path::Path, line: &str) -> Config {
        let (mut config, wrong) = crate::config::parse(line);
        assert_eq!(wrong, []);
        config.state_dir = dir.to_path_buf();
        config
    }

    fn outcome(name: &str, findings: Vec<Finding>, complete: bool) -> Outcome {
        Outcome {
            name: name.to_owned(),
            findings,
            trouble: None,
            note: String::new(),
            cursor: Some("7 7".to_owned()),
            complete,
            took: Duration::ZERO,
            stuck: None,
        }
    }

    fn waiting(spool: &Spool) -> usize {
        spool.list().unwrap().0.len()
    }

    #[test]
    fn a_verdict_is_told_once_then_after_a_while_then_when_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "repeat = 5m\ncheck mount path=/scratch\n");
        let spool = Spool::new(&config);
        let mut state = State::default();
        let mut look = |found: bool, complete: bool, minutes: u64| {
            let now = 1_000_000_000 + minutes * 60_000;
            let findings = if found { vec![Finding::now("mount-hang", "/scratch", "x")] } else { vec![] };
            let outcomes = [outcome("mount:/scratch", findings, complete)];
            let plan = judge(&config, "gpu003", &mut state, &outcomes, vec![], true, now);
            assert_eq!(tell(&config, &spool, &mut state, &outcomes, &plan, None, now), Vec::<String>::new());
            waiting(&spool)
        };
        assert_eq!(look(true, true, 0), 1);
        assert_eq!(look(true, true, 1), 1);
        assert_eq!(look(true, true, 4), 1);
        assert_eq!(look(true, true, 5), 2);
        // a look that did not come to its end says nothing about what it did not find
        assert_eq!(look(false, false, 6), 2);
        assert_eq!(look(false, true, 7), 3);
        assert_eq!(look(false, true, 8), 3);
    }

    #[test]
    fn a_fault_that_does_not_last_is_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "check ib ports=mlx5_0/1 for=5m\n");
        let spool = Spool::new(&config);
        let mut state = State::default();
        for (found, minutes) in [(true, 0), (true, 4), (false, 5), (true, 6), (true, 10)] {
            let now = 1_000_000_000 + minutes * 60_000;
            let findings = if found { vec![Finding::now("ib-port-down", "mlx5_0/1", "x")] } else { vec![] };
            let outcomes = [outcome("ib", findings, true)];
            let plan = judge(&config, "gpu003", &mut state, &outcomes, vec![], true, now);
            tell(&config, &spool, &mut state, &outcomes, &plan, None, now);
        }
        assert_eq!(waiting(&spool), 0);
    }

    #[test]
    fn what_nobody_took_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "check xid\n");
        // a file in the place of the spool's directory
        std::fs::write(dir.path().join("spool"), "").unwrap();
        let spool = Spool::new(&config);
        let mut state = State::default();
        let mut happened = Finding::now("gpu-off-bus", "xid-79", "x");
        happened.lasts = Lasts::Happened;
        let outcomes = [outcome("xid:/dev/kmsg", vec![happened], true)];
        let plan = judge(&config, "gpu003", &mut state, &outcomes, vec![], true, 1_000);
        let troubles = tell(&config, &spool, &mut state, &outcomes, &plan, None, 1_000);
        assert!(troubles[0].contains("a report is lost for now: no engine is configured"), "{troubles:?}");
        assert_eq!(state.cursors.len(), 0, "the log is read again");
        std::fs::remove_file(dir.path().join("spool")).unwrap();
        assert_eq!(tell(&config, &spool, &mut state, &outcomes, &plan, None, 1_000), Vec::<String>::new());
        assert_eq!(state.cursors["xid:/dev/kmsg"], "7 7");
    }

    #[test]
    fn mistakes_in_the_configuration_end_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "check mount path=/scratch\n");
        let mut state = State::default();
        let outcomes = [outcome("mount:/scratch", vec![Finding::now("mount-hang", "/scratch", "x")], true)];
        judge(&config, "gpu003", &mut state, &outcomes, vec![], true, 1_000);
        let broken = Config { checks: Vec::new(), ..config };
        let tool = Finding::now(CHECK_FAILED, "configuration", "line 3");
        let plan = judge(&broken, "gpu003", &mut state, &[], vec![tool], false, 2_000);
        assert_eq!((plan.over.len(), state.verdicts.len()), (0, 2));
    }
}
