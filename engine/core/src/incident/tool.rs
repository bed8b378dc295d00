//! Tools that do not answer: an incident about the tool, never about a node (rule 14).
//!
//! Such an incident has no node, so no rule plans anything for it; a person has it from its first moment. It ends by itself
//! when the tool answers.

use super::event::{Closing, FleetEvent};
use super::fold::{FleetState, Subject};
use std::collections::BTreeMap;

/// The longest name of a tool, in bytes.
pub const MAX_TOOL: usize = 160;
/// The longest sentence about a tool, in bytes; longer ones are cut.
pub const MAX_WHY: usize = 400;
/// Tools of one kind that are ill at the same time and have an incident each; more are one incident of their kind.
pub const MAX_EACH: usize = 16;
/// The most open incidents about tools. Further ones wait until some are over.
pub const MAX_OPEN: usize = 256;

/// How a tool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolHealth {
    /// It answers.
    Well,
    /// It does not answer, or not well; one sentence for people.
    Ill(String),
    /// It cannot be told yet: nothing opens, nothing ends.
    Undecided,
}

/// How all tools of one kind are, by what they belong to; `""` for the only one of its kind.
pub type Tools = BTreeMap<String, ToolHealth>;

/// Says what is to be written about the tools of a kind, such as `exporter`: what became ill, what is well again. A tool
/// that is not in the list is not used any more, and its incident ends.
pub fn tool_events(state: &FleetState, kind: &str, tools: &Tools) -> Vec<FleetEvent> {
    let ill: BTreeMap<String, &str> = tools
        .iter()
        .filter_map(|(of, health)| match health {
            ToolHealth::Ill(why) => Some((name(kind, of), why.as_str())),
            ToolHealth::Well | ToolHealth::Undecided => None,
        })
        .collect();
    let undecided = tools.iter().filter(|(_, h)| matches!(h, ToolHealth::Undecided)).count();
    let many = name(kind, "all");
    let is_many = ill.len() > MAX_EACH;
    let open: BTreeMap<&str, _> = state
        .incidents()
        .filter_map(|i| match &i.subject {
            Subject::Tool { tool } if is_of(tool, kind) => Some((tool.as_str(), i.id)),
            _ => None,
        })
        .collect();
    let mut out = Vec::new();
    for (tool, id) in &open {
        let why = if *tool == many {
            // As long as some cannot be told, many may still be ill.
            if is_many || ill.len() + undecided > MAX_EACH {
                continue;
            }
            "most of them answer again"
        } else if ill.contains_key(*tool) {
            if !is_many {
                continue;
            }
            "it is one of many now"
        } else if tools.iter().any(|(of, h)| *h == ToolHealth::Undecided && name(kind, of) == **tool) {
            continue;
        } else {
            "it answers again, or is not asked any more"
        };
        out.push(FleetEvent::Closed { incident: *id, closing: Closing::Over, why: why.to_owned() });
    }
    let others = state.incidents().filter(|i| matches!(i.subject, Subject::Tool { .. })).count();
    let mut room = MAX_OPEN.saturating_sub(others);
    let mut fail = |tool: &str, why: String| {
        if !open.contains_key(tool) && room > 0 {
            room -= 1;
            out.push(FleetEvent::ToolFailed { tool: tool.to_owned(), why: cut(&why) });
        }
    };
    if is_many {
        let first = ill.iter().next().map(|(tool, why)| format!("{tool}: {why}")).unwrap_or_default();
        fail(&many, format!("{} of {} do not answer; {first}", ill.len(), tools.len()));
    } else {
        for (tool, why) in &ill {
            fail(tool, (*why).to_owned());
        }
    }
    out
}

fn name(kind: &str, of: &str) -> String {
    let text = if of.is_empty() { kind.to_owned() } else { format!("{kind}: {of}") };
    text.chars()
        .filter(|c| !c.is_control())
        .scan(0, |len, c| {
            *len += c.len_utf8();
            (*len <= MAX_TOOL).then_some(c)
        })
        .collect()
}

fn is_of(tool: &str, kind: &str) -> bool {
    tool.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

fn cut(why: &str) -> String {
    let mut out = String::new();
    for c in why.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > MAX_WHY {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn ill(n: usize) -> Tools {
        (0..n).map(|i| (format!("gpu{i:03}"), ToolHealth::Ill("connection refused".to_owned()))).collect()
    }

    fn write(state: &mut FleetState, tools: &Tools) -> Vec<String> {
        let events = tool_events(state, "exporter", tools);
        for e in &events {
            state.apply(state.seq() + 1, Timestamp::UNIX_EPOCH, e).unwrap();
        }
        let open = state.incidents().map(|i| match &i.subject {
            Subject::Tool { tool } => tool.clone(),
            other => panic!("{other:?}"),
        });
        open.collect()
    }

    #[test]
    fn a_tool_has_an_incident_as_long_as_it_is_ill_and_no_node_has_one() {
        let mut state = FleetState::default();
        assert_eq!(write(&mut state, &ill(2)), ["exporter: gpu000", "exporter: gpu001"]);
        assert_eq!(write(&mut state, &ill(2)).len(), 2, "once");
        assert!(state.incidents().all(|i| i.node().is_none() && !i.is_queued() && !i.firing()));
        let mut some = ill(2);
        some.insert("gpu000".to_owned(), ToolHealth::Well);
        some.insert("gpu001".to_owned(), ToolHealth::Undecided);
        assert_eq!(write(&mut state, &some), ["exporter: gpu001"], "what cannot be told ends nothing");
        assert_eq!(write(&mut state, &Tools::new()), Vec::<String>::new(), "it is not asked any more");
        assert!(write(&mut state, &Tools::from([(String::new(), ToolHealth::Undecided)])).is_empty());
    }

    #[test]
    fn many_are_one_incident() {
        let mut state = FleetState::default();
        write(&mut state, &ill(3));
        assert_eq!(write(&mut state, &ill(5_000)), ["exporter: all"]);
        let mut unsure = ill(5_000);
        for health in unsure.values_mut() {
            *health = ToolHealth::Undecided;
        }
        assert_eq!(write(&mut state, &unsure), ["exporter: all"]);
        assert_eq!(write(&mut state, &ill(1)), ["exporter: gpu000"]);
    }

    #[test]
    fn kinds_do_not_touch_each_other_and_texts_are_bounded() {
        let mut state = FleetState::default();
        write(&mut state, &ill(1));
        for other in ["exporter by main", "export", "prometheus"] {
            assert_eq!(tool_events(&state, other, &Tools::new()), [], "{other}");
        }
        let long = Tools::from([("x\n".repeat(500), ToolHealth::Ill("\u{1b}[31m".repeat(500)))]);
        let events = tool_events(&state, "prometheus", &long);
        let [FleetEvent::ToolFailed { tool, why }] = events.as_slice() else { panic!("{events:?}") };
        assert!(tool.len() <= MAX_TOOL && why.len() <= MAX_WHY);
        assert!(!tool.contains('\n') && !why.contains('\u{1b}'));
    }
}
