//! Reader of stages: how far the engine goes with each version of a playbook.

use super::codes;
use crate::read::Reader;
use crate::tree::{Kind, Node, short};
use engine_core::policy::{Stage, Stages};
use semver::Version;

/// Most playbooks that a policy names.
const MAX_STAGES: usize = 1_000;

impl Reader<'_> {
    pub(super) fn stages(&mut self, node: &Node) -> Stages {
        let mut out = Stages::default();
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, "`stages` is a mapping", "write { dcgm-ecc-drain-reset@1.2.0: shadow }");
            return out;
        };
        if entries.len() > MAX_STAGES {
            let says = format!("{} playbooks have a stage, more than {MAX_STAGES}", entries.len());
            self.problem(codes::BAD_NUMBER, says, node.span, "name ids in the place of versions");
            return out;
        }
        let words = Stage::ALL.map(Stage::as_str);
        for e in entries {
            if !is_playbook(&e.key) {
                let says = format!("`{}` is not a playbook", short(&e.key));
                let help = "write its id, or its id and version: dcgm-ecc-drain-reset@1.2.0";
                self.problem(codes::BAD_WORD, says, e.key_span, help);
            }
            if let Some(stage) = self.word(&e.value, "stages", &words).and_then(Stage::of_word) {
                out.0.insert(e.key.clone(), stage);
            }
        }
        out
    }
}

/// Says whether a text is an id of a playbook, alone or with a version.
fn is_playbook(text: &str) -> bool {
    let (id, version) = text.split_once('@').map_or((text, None), |(id, v)| (id, Some(v)));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let version = version.is_none_or(|v| Version::parse(v).is_ok_and(|parsed| parsed.to_string() == v));
    !id.is_empty() && text.len() <= 128 && id.chars().all(plain) && version
}
