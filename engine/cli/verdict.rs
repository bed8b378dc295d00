//! What the policy says about a plan, and what the plan costs the queue, in a few lines for people.

use crate::printer::{Tone, paint, tame, wrapped};
use engine_core::known::Known;
use engine_core::policy::{Cost, Felt, Moment, Outcome, Verdict};
use jiff::Timestamp;

/// Column at which the text of a line begins.
const INDENT: usize = 12;
/// Most jobs named in one line.
const NAMED: usize = 3;

/// Shows the policy's answer: what stands in the way, or that nothing does, and which policy it was.
pub(crate) fn policy_lines(verdict: &Verdict) -> Vec<String> {
    let digest = verdict.policy.as_ref().map_or("digest unknown".to_owned(), |d| d.short().to_owned());
    let (tone, word) = match verdict.outcome {
        Outcome::Permit => (Tone::Good, "permits it now".to_owned()),
        Outcome::Wait { until: Some(t) } => (Tone::Warn, format!("not before {}", show(t))),
        Outcome::Wait { until: None } => (Tone::Warn, "not now".to_owned()),
        Outcome::NeedsPerson => (Tone::Warn, "only if a person says yes".to_owned()),
        Outcome::Deny => (Tone::Bad, "no".to_owned()),
    };
    let mut lines = vec![format!("Policy      {} ({digest})", paint(tone, word))];
    let obstacles: Vec<_> = verdict.obstacles().collect();
    for f in &obstacles {
        let text = format!("{}: {}", f.rule, tame(&f.says));
        lines.push(format!("{:INDENT$}{}", "", wrapped(&text, INDENT)));
    }
    if obstacles.is_empty() {
        // The fullest numbers are of use also where they permit.
        for f in verdict.findings.iter().filter(|f| f.rule == engine_core::policy::Rule::Budget).take(2) {
            let text = wrapped(&tame(&f.says), INDENT);
            lines.push(format!("{:INDENT$}{}", "", paint(Tone::Dim, text)));
        }
    }
    lines
}

/// Shows the cost.
pub(crate) fn cost_lines(cost: &Cost) -> Vec<String> {
    let mut lines = vec![format!("Cost        {}", wrapped(&gpu_time(cost), INDENT))];
    let mut add = |text: String| lines.push(format!("{:INDENT$}{}", "", wrapped(&tame(&text), INDENT)));
    if cost.holding_total > 0 {
        let jobs: Vec<String> = cost.holding.iter().take(NAMED).map(|h| h.id.clone()).collect();
        let ends = match &cost.free_at {
            Known::Known(t) => format!("the last ends by {}", show(*t)),
            Known::Unknown(u) => {
                format!("the end of {} is not known: {}", jobs.first().map_or("one", |j| j), u.detail)
            }
        };
        add(format!("held up by {}; {ends}", listed("job", &jobs, cost.holding_total)));
    }
    match &cost.pending_total {
        Known::Known(0) => {}
        Known::Known(n) => {
            let jobs: Vec<String> =
                cost.pending.iter().take(NAMED).map(|d| format!("{} ({})", d.id, felt(&d.why))).collect();
            add(format!("felt by {}", listed("pending job", &jobs, *n)));
        }
        Known::Unknown(u) => add(format!("pending jobs: {u}")),
    }
    match &cost.next_reservation {
        Known::Known(None) => {}
        Known::Known(Some(r)) => {
            let kind = if r.maintenance { "maintenance reservation" } else { "reservation" };
            add(format!("{kind} {} begins {}", r.name, show(r.start)));
        }
        Known::Unknown(u) => add(format!("reservations: {u}")),
    }
    match &cost.moment {
        Moment::Now => {}
        Moment::At { at, saves } => {
            let saved = match saves {
                Known::Known(m) if *m > 0 => format!(", which saves {}", hours(*m)),
                _ => String::new(),
            };
            add(format!("cheaper at {}{saved}", show(*at)));
        }
        Moment::None { why } => add(format!("no cheaper moment: {why}")),
    }
    lines
}

fn gpu_time(cost: &Cost) -> String {
    let taken = |time: String| format!("{time} taken from the queue");
    let time = match (&cost.gpu_minutes_least, &cost.gpu_minutes_most) {
        (Known::Known(0), Known::Known(0)) => return "nothing to the queue".to_owned(),
        (Known::Known(a), Known::Known(b)) if a == b => taken(hours(*a)),
        (Known::Known(0), Known::Known(b)) => taken(format!("at most {}", hours(*b))),
        (Known::Known(a), Known::Known(b)) => {
            taken(format!("{} to {}", hours(*a).trim_end_matches(" GPU-hours"), hours(*b)))
        }
        (Known::Known(a), Known::Unknown(_)) if *a > 0 => {
            taken(format!("at least {}, the most is not known,", hours(*a)))
        }
        (Known::Known(_), Known::Unknown(u)) => format!("GPU-hours not known ({})", u.detail),
        (Known::Unknown(u), _) => format!("GPU-hours {u}"),
    };
    let from = match cost.work_measured_on {
        0 => format!("the work takes {} min at most", cost.work_minutes),
        1 => format!("the work took {} min in one run", cost.work_minutes),
        n => format!("the work took {} min in {n} runs", cost.work_minutes),
    };
    format!("{time}; {from}")
}

fn hours(minutes: u64) -> String {
    // Rounded up to a tenth: a cost is rather said too high.
    let tenths = minutes.saturating_mul(10).div_ceil(60);
    format!("{}.{} GPU-hours", tenths / 10, tenths % 10)
}

fn listed(what: &str, some: &[String], total: usize) -> String {
    let more = total.saturating_sub(some.len());
    let plural = if total == 1 { "" } else { "s" };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what}{plural} {}{more}", some.join(", "))
}

fn felt(why: &Felt) -> String {
    match why {
        Felt::Named => "asked for this node".to_owned(),
        Felt::Planned => "planned here".to_owned(),
        Felt::Short { partition, needs, left } => format!("needs {needs} nodes, {partition} keeps {left}"),
    }
}

fn show(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::known::Cause;
    use engine_core::policy::{Ahead, Delayed, Finding, Holding, Rule};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn plain(lines: Vec<String>) -> String {
        let mut out = String::new();
        let mut escaped = false;
        for c in lines.join("\n").chars() {
            match c {
                '\u{1b}' => escaped = true,
                'm' if escaped => escaped = false,
                c if !escaped => out.push(c),
                _ => {}
            }
        }
        for line in out.lines() {
            assert!(line.chars().count() <= 80, "{line:?} is wider than 80 columns");
        }
        out
    }

    fn rich() -> Cost {
        Cost {
            gpu_minutes_least: Known::Known(480),
            gpu_minutes_most: Known::Known(1201),
            work_minutes: 30,
            work_measured_on: 12,
            holding: (0..5)
                .map(|i| Holding {
                    id: format!("10{i}"),
                    user: None,
                    ends: Known::Known(at("2026-11-21T14:00:00Z")),
                })
                .collect(),
            holding_total: 5,
            free_at: Known::Known(at("2026-11-21T14:00:00Z")),
            pending: vec![
                Delayed { id: "7".to_owned(), user: None, why: Felt::Named, start: None },
                Delayed {
                    id: "9_[1-3]".to_owned(),
                    user: None,
                    why: Felt::Short { partition: "main".to_owned(), needs: 10, left: 9 },
                    start: None,
                },
            ],
            pending_total: Known::Known(2),
            next_reservation: Known::Known(Some(Ahead {
                name: "class".to_owned(),
                start: at("2026-11-21T18:00:00Z"),
                end: Known::Known(at("2026-11-21T20:00:00Z")),
                maintenance: false,
            })),
            moment: Moment::At { at: at("2026-11-21T14:00:00Z"), saves: Known::Known(240) },
        }
    }

    #[test]
    fn the_cost_is_told_in_a_few_lines_of_eighty_columns() {
        assert_eq!(
            plain(cost_lines(&rich())),
            "\
Cost        8.0 to 20.1 GPU-hours taken from the queue; the work took 30 min in
            12 runs
            held up by jobs 100, 101, 102 and 2 more; the last ends by
            2026-11-21 14:00 UTC
            felt by pending jobs 7 (asked for this node), 9_[1-3] (needs 10
            nodes, main keeps 9)
            reservation class begins 2026-11-21 18:00 UTC
            cheaper at 2026-11-21 14:00 UTC, which saves 4.0 GPU-hours"
        );
        let free = Cost {
            gpu_minutes_least: Known::Known(0),
            gpu_minutes_most: Known::Known(0),
            holding_total: 0,
            pending_total: Known::Known(0),
            next_reservation: Known::Known(None),
            moment: Moment::Now,
            ..rich()
        };
        assert_eq!(plain(cost_lines(&free)), "Cost        nothing to the queue");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let unknown = || Known::unknown(Cause::NotReported, "it has no time limit");
        let dark = Cost {
            gpu_minutes_least: Known::Known(0),
            gpu_minutes_most: Known::unknown(Cause::NotReported, "it has no time limit"),
            free_at: unknown(),
            pending_total: Known::unknown(Cause::TimedOut, "squeue\u{1b}[2J"),
            next_reservation: Known::unknown(Cause::TimedOut, "scontrol"),
            moment: Moment::None { why: "the end of job 100 is not known: it has no time limit".to_owned() },
            ..rich()
        };
        let text = plain(cost_lines(&dark)).split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "GPU-hours not known",
            "the end of 100 is not known",
            "pending jobs: unknown (timed_out",
            "reservations: unknown",
            "no cheaper moment",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("\\u{1b}"), "text from outside is shown, not obeyed");
    }

    #[test]
    fn the_policy_names_what_stands_in_the_way() {
        let finding = |rule, outcome, says: &str| Finding { rule, outcome, says: says.to_owned() };
        let budget = finding(Rule::Budget, Outcome::Permit, "fleet: 3 of 200 out of service, budget 4 (2%)");
        let verdict =
            |outcome, findings| Verdict { policy: None, at: at("2026-11-21T12:00:00Z"), outcome, findings };
        assert_eq!(
            plain(policy_lines(&verdict(Outcome::Permit, vec![budget.clone()]))),
            "\
Policy      permits it now (digest unknown)
            fleet: 3 of 200 out of service, budget 4 (2%)"
        );
        let until = Outcome::Wait { until: Some(at("2026-11-21T21:00:00Z")) };
        let window = finding(Rule::Window, until, "the next change window opens 2026-11-21 22:00 CET");
        assert_eq!(
            plain(policy_lines(&verdict(until, vec![budget, window]))),
            "\
Policy      not before 2026-11-21 21:00 UTC (digest unknown)
            window: the next change window opens 2026-11-21 22:00 CET"
        );
    }
}
