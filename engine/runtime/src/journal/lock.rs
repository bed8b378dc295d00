//! Locks on what a run takes out of service: nodes, racks, fabric domains.
//!
//! A run takes all the locks it needs at once, or none, so two runs never wait for each other in a circle. Where code
//! has to name an order all the same, it is that of [`LockKey`]: nodes, then racks, then fabric domains, each by name.

use super::JournalError;
use engine_core::model::{NodeName, RunId};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;

/// The longest name of a rack or a fabric domain, in bytes.
pub const MAX_DOMAIN_NAME: usize = 64;
/// The most locks that are taken at once.
pub const MAX_KEYS: usize = 256;

/// A text that names no lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} names no lock: {why}; write node:NAME, rack:NAME or fabric:NAME")]
pub struct InvalidKey {
    shown: String,
    why: String,
}

impl InvalidKey {
    fn new(text: &str, why: impl Into<String>) -> Self {
        Self { shown: text.chars().take(48).collect(), why: why.into() }
    }
}

/// The name of a rack or of a fabric domain: letters, digits, `-`, `_` and `.`, as in topology.conf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DomainName(String);

impl DomainName {
    /// Accepts a name.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(InvalidKey::new(text, "a name begins with a letter or a digit"));
        }
        if text.len() > MAX_DOMAIN_NAME {
            return Err(InvalidKey::new(text, format!("a name has at most {MAX_DOMAIN_NAME} bytes")));
        }
        match text.chars().find(|c| !plain(*c)) {
            Some(c) => Err(InvalidKey::new(text, format!("{c:?} may not be in a name"))),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a lock is on. Its text is `node:gpu001`, `rack:r12` or `fabric:nvl-3`.
///
/// The journal does not know which node stands in which rack: a lock on a rack and one on a node in it do not meet.
/// Who needs both takes both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKey {
    /// One node.
    Node(NodeName),
    /// One rack.
    Rack(DomainName),
    /// One fabric domain, such as an NVLink domain.
    Fabric(DomainName),
}

impl LockKey {
    /// Returns the node, if the lock is on one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(n) => Some(n),
            Self::Rack(_) | Self::Fabric(_) => None,
        }
    }
}

impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(n) => write!(f, "node:{n}"),
            Self::Rack(r) => write!(f, "rack:{}", r.as_str()),
            Self::Fabric(d) => write!(f, "fabric:{}", d.as_str()),
        }
    }
}

impl FromStr for LockKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (kind, name) =
            text.split_once(':').ok_or_else(|| InvalidKey::new(text, "it has no kind before a colon"))?;
        match kind {
            "node" => NodeName::new(name).map(Self::Node).map_err(|e| InvalidKey::new(text, e.to_string())),
            "rack" => DomainName::new(name).map(Self::Rack),
            "fabric" => DomainName::new(name).map(Self::Fabric),
            _ => Err(InvalidKey::new(text, "its kind is unknown")),
        }
    }
}

impl Serialize for LockKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A lock that is held by a run that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldLease {
    /// What it is on.
    pub key: LockKey,
    /// Whose it is.
    pub run: RunId,
    /// Its fencing token.
    pub token: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
}

/// Judges, with every held lock in view, whether a run may take more; an `Err` says why not.
///
/// It is asked inside the transaction that takes the locks: no other engine on the same journal can take one between
/// the judgement and the taking, so that what counts the locks cannot be overrun. It must be quick, since every writer
/// waits for it, and must not call the journal.
pub type Admit = Arc<dyn Fn(&[HeldLease]) -> Result<(), String> + Send + Sync>;

/// Answer to taking locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// All of them are the run's.
    Taken {
        /// Fencing token, common to all of them; it grows with every taking, whatever is taken.
        token: u64,
    },
    /// Another run has one of them; none was taken.
    HeldBy {
        /// The first one in the order of keys.
        key: LockKey,
        /// Its run.
        run: RunId,
    },
    /// They are free, and the judge said no; none was taken.
    NotAdmitted(String),
}

/// Brings keys into the fixed order, each once.
pub(super) fn in_order(keys: &[LockKey]) -> Result<Vec<LockKey>, JournalError> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys.dedup();
    if keys.len() > MAX_KEYS {
        return Err(JournalError::TooMany { what: "locks at once", count: keys.len(), limit: MAX_KEYS });
    }
    Ok(keys)
}

/// Judges the taking of keys by a run. `held` are the locks of all runs that are not over. `None`: they may be taken.
///
/// A run that has all of them already is not judged again: nothing more goes out of service.
pub(super) fn judge(
    keys: &[LockKey],
    run: &RunId,
    held: &[HeldLease],
    admit: Option<&Admit>,
) -> Option<Lease> {
    let mut more = false;
    for key in keys {
        match held.iter().find(|h| h.key == *key) {
            Some(h) if h.run != *run => {
                return Some(Lease::HeldBy { key: key.clone(), run: h.run.clone() });
            }
            Some(_) => {}
            None => more = true,
        }
    }
    let admit = admit.filter(|_| more)?;
    // A judge that fails has not permitted anything, and must not take the journal's thread with it.
    match catch_unwind(AssertUnwindSafe(|| admit(held))) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(Lease::NotAdmitted(why)),
        Err(_) => Some(Lease::NotAdmitted("the check of the budget failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text() {
        let keys = ["node:gpu001", "node:gpu002", "rack:r12", "rack:r2", "fabric:nvl-3"];
        let parsed: Vec<LockKey> = keys.iter().map(|k| k.parse().unwrap()).collect();
        assert_eq!(parsed.iter().map(ToString::to_string).collect::<Vec<_>>(), keys);
        let mut shuffled: Vec<LockKey> = parsed.iter().rev().cloned().collect();
        shuffled.push(parsed[0].clone());
        assert_eq!(in_order(&shuffled).unwrap(), parsed, "nodes, racks, fabric domains; each once");
    }

    #[test]
    fn what_is_not_one_thing_is_no_key() {
        for bad in
            ["gpu001", "node:", "node:ALL", "node:gpu[1-9]", "rack:a b", "rack:", "fabric:-x", "row:1", ""]
        {
            let e = bad.parse::<LockKey>().unwrap_err().to_string();
            assert!(e.contains("names no lock") && e.contains("rack:NAME"), "{e}");
        }
        assert!(DomainName::new(&"x".repeat(65)).is_err());
    }

    #[test]
    fn a_judge_that_panics_permits_nothing() {
        let key: LockKey = "node:gpu001".parse().unwrap();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let admit: Admit = Arc::new(|_| panic!("no such rack"));
        let answer = judge(&[key], &RunId::new("r1").unwrap(), &[], Some(&admit));
        std::panic::set_hook(hook);
        assert!(matches!(answer, Some(Lease::NotAdmitted(_))), "{answer:?}");
    }
}
