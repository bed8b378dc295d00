//! The rules that Prometheus is asked: from YAML to the typed set of the core.

use engine_core::watch::PromRules;

/// The rules that come with the program.
pub const BUILT_IN: &str = include_str!("../../../knowledge/prometheus.yaml");
/// The largest file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Reads a set of rules. `file` is only the name used in messages; an error is a message for people.
pub fn rules(text: &str, file: &str) -> Result<PromRules, String> {
    if text.len() > MAX_FILE {
        return Err(format!("{file}: {} bytes are too many, {MAX_FILE} are allowed", text.len()));
    }
    let rules: PromRules = serde_yaml::from_str(text).map_err(|e| format!("{file}: {e}"))?;
    rules.checked().map_err(|e| format!("{file}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::incident::fault::{Strength, strength};

    #[test]
    fn the_built_in_rules_are_good_and_their_faults_known() {
        let rules = rules(BUILT_IN, "built-in").unwrap();
        assert!(rules.rules.len() >= 8);
        for rule in &rules.rules {
            let known = rule.fault.as_ref().is_none_or(|f| strength(f) != Strength::Unknown);
            assert!(known, "{}: {:?}", rule.name, rule.fault);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, words) in [
            ("xid: value", "xid: value\n  fault: gpu-off-bus", "either `fault` or `xid`"),
            ("name: xid-gauge", "name: xid-window", "given twice"),
            ("  lasts: true", "  last: true", "last"),
            ("prometheus/1", "prometheus/9", "this release reads"),
        ] {
            let text = BUILT_IN.replacen(from, to, 1);
            let why = rules(&text, "mine.yaml").unwrap_err();
            assert!(why.contains("mine.yaml") && why.contains(words), "{why}");
        }
    }
}
