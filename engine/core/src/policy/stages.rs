//! Stages: how far the engine goes with a version of a playbook that it chose by itself.

use crate::playbook::PlaybookRef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How far the engine goes with a version of a playbook when no person began the run. The later, the farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is not chosen.
    Off,
    /// It is planned and judged on live facts, and changes nothing (rule 2).
    Shadow,
    /// Inside the canary scope it goes by its own approval class; outside a person is asked in any case.
    Canary,
    /// It goes by its own approval class everywhere.
    Fleet,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 4] = [Self::Off, Self::Shadow, Self::Canary, Self::Fleet];

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Fleet => "fleet",
        }
    }

    /// Finds the stage of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Returns how many people have to say yes, where everything else asks for `people`. A stage only ever asks for
    /// more.
    pub fn people(self, people: u8, in_canary: bool) -> u8 {
        if self == Self::Canary && !in_canary { people.max(1) } else { people }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stages of playbooks, by `id@version`, or by `id` for every version that is not named itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stages(pub BTreeMap<String, Stage>);

impl Stages {
    /// Returns the stage of a version: what is said of it, else of its id, else `fleet`.
    pub fn of(&self, playbook: &PlaybookRef) -> Stage {
        let said = self.0.get(&playbook.to_string()).or_else(|| self.0.get(&playbook.id));
        said.copied().unwrap_or(Stage::Fleet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn version(minor: u64) -> PlaybookRef {
        let version = semver::Version::new(1, minor, 0);
        PlaybookRef { id: "reset".to_owned(), version, digest: Digest::of(b"x") }
    }

    #[test]
    fn the_version_is_asked_before_the_id_and_silence_is_fleet() {
        let of = |pairs: &[(&str, Stage)]| {
            Stages(pairs.iter().map(|(name, stage)| ((*name).to_owned(), *stage)).collect())
        };
        let both = of(&[("reset", Stage::Off), ("reset@1.2.0", Stage::Shadow)]);
        assert_eq!(both.of(&version(2)), Stage::Shadow);
        assert_eq!(both.of(&version(1)), Stage::Off);
        assert_eq!(of(&[("reset@1.2", Stage::Off), ("rese", Stage::Off)]).of(&version(2)), Stage::Fleet);
        assert_eq!(Stages::default().of(&version(2)), Stage::Fleet);
    }

    #[test]
    fn a_stage_asks_for_more_people_and_never_for_fewer() {
        for stage in Stage::ALL {
            assert_eq!(Stage::of_word(stage.as_str()), Some(stage));
            for people in 0..4 {
                for in_canary in [false, true] {
                    assert!(stage.people(people, in_canary) >= people);
                }
            }
        }
        assert_eq!(Stage::Canary.people(0, false), 1);
        assert_eq!(Stage::Canary.people(0, true), 0);
        assert_eq!(Stage::Fleet.people(0, false), 0);
        assert_eq!(Stage::of_word("Fleet"), None);
    }
}
