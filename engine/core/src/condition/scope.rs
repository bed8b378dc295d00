//! The names a condition may use, with their types.

use crate::value::{EnumType, Type};
use crate::vocabulary::FactDecl;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A type as a condition keeps it: complete in itself, so that a stored condition needs no vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ty {
    Bool,
    Int,
    Float,
    Text,
    Duration,
    Version,
    TextList,
    Word(Words),
    WordList(Words),
}

/// A closed set of words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Words {
    /// Name of the set.
    pub(super) set: Cow<'static, str>,
    /// Its words.
    pub(super) words: Vec<Cow<'static, str>>,
}

impl Words {
    pub(super) fn contains(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }
}

impl From<&'static EnumType> for Words {
    fn from(set: &'static EnumType) -> Self {
        Self {
            set: Cow::Borrowed(set.name),
            words: set.words.iter().map(|(w, _)| Cow::Borrowed(*w)).collect(),
        }
    }
}

impl From<Type> for Ty {
    fn from(ty: Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int => Self::Int,
            Type::Float => Self::Float,
            Type::Text => Self::Text,
            Type::Duration => Self::Duration,
            Type::Version => Self::Version,
            Type::Enum(set) => Self::Word(set.into()),
            Type::TextList => Self::TextList,
            Type::EnumList(set) => Self::WordList(set.into()),
        }
    }
}

impl Ty {
    /// Describes the type for messages: "an int", "a word of node.state".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Bool => "a bool".to_owned(),
            Self::Int => "an int".to_owned(),
            Self::Float => "a float".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Duration => "a duration".to_owned(),
            Self::Version => "a version".to_owned(),
            Self::TextList => "a list of texts".to_owned(),
            Self::Word(w) => format!("a word of {}", w.set),
            Self::WordList(w) => format!("a list of words of {}", w.set),
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }

    /// Says whether `<` means something.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration | Self::Version)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::TextList | Self::WordList(_))
    }

    /// Says whether two facts of these types may be compared.
    pub(super) fn compares_with(&self, other: &Self) -> bool {
        !self.is_list() && (self == other || self.is_number() && other.is_number())
    }
}

/// The names a condition may use: declared facts and the parameters of the playbook.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    facts: &'a [FactDecl],
    /// Further names in full, `params.idle_wait` among them.
    named: BTreeMap<String, Ty>,
    gpu: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lookup {
    Found(Ty),
    /// A fact of a GPU, where the target is a node.
    NeedsGpu,
    Missing,
}

impl<'a> Scope<'a> {
    /// Builds a scope of these facts, for a target that is a GPU.
    pub fn new(facts: &'a [FactDecl]) -> Self {
        Self { facts, named: BTreeMap::new(), gpu: true }
    }

    /// Adds a parameter; conditions read it as `params.NAME`.
    #[must_use]
    pub fn with_param(mut self, name: &str, ty: Type) -> Self {
        self.named.insert(format!("params.{name}"), ty.into());
        self
    }

    /// Hides the facts that only GPUs have: the target is a whole node.
    #[must_use]
    pub fn without_gpu(mut self) -> Self {
        self.gpu = false;
        self
    }

    /// Builds a scope of exactly these names, from a stored condition.
    pub(super) fn of_stored(named: BTreeMap<String, Ty>) -> Scope<'static> {
        Scope { facts: &[], named, gpu: true }
    }

    pub(super) fn lookup(&self, name: &str) -> Lookup {
        if let Some(ty) = self.named.get(name) {
            return Lookup::Found(ty.clone());
        }
        match self.facts.iter().find(|f| f.name == name) {
            Some(f) if f.per_gpu && !self.gpu => Lookup::NeedsGpu,
            Some(f) => Lookup::Found(f.ty.into()),
            None => Lookup::Missing,
        }
    }

    /// Iterates over every name that can be used.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let facts = self.facts.iter().filter(|f| self.gpu || !f.per_gpu).map(|f| f.name);
        facts.chain(self.named.keys().map(String::as_str))
    }

    /// Iterates over the parameters, in full.
    pub(super) fn params(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str).filter(|n| n.starts_with("params."))
    }

    /// Finds a fact whose closed set has this word, and the word as the set spells it.
    pub(super) fn owner_of(&self, word: &str) -> Option<(&str, &'static str)> {
        self.facts.iter().filter(|f| self.gpu || !f.per_gpu).find_map(|f| match f.ty {
            Type::Enum(set) | Type::EnumList(set) => {
                set.words.iter().find(|(w, _)| w.eq_ignore_ascii_case(word)).map(|(w, _)| (f.name, *w))
            }
            _ => None,
        })
    }
}
