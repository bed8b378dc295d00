//! How an agent gets the key of its node the first time: it proves that it is root on the node, once, and is on record.
//!
//! The proof is only for the key. Orders and requests are signed by the key as ever.

use super::key::{BadOrder, NodeKey, OrderMaster};
use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The first line of what is sealed, in both directions.
const FORMAT: &str = "slurmedic key 1";
/// How old a credential may be, whatever life it was given.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);
/// Characters of the number that tells one asking agent from another, at least and at most.
const NONCE: std::ops::RangeInclusive<usize> = 32..=128;

/// A credential that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub payload: String,
    /// Who sealed it.
    pub uid: u32,
    /// How long ago.
    pub age: SignedDuration,
    /// The address of the host where it was sealed, where it says so.
    pub from: Option<IpAddr>,
}

/// Why a credential could not be sealed or opened: forged, expired, opened before, no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSeal(pub String);

/// A service that seals short texts for users of its realm, and says who sealed one. It opens each one once.
#[async_trait]
pub trait Seals: Send + Sync + Debug {
    /// Seals a text so that only this user can open it; without one, so that anybody of the realm can, once on each host.
    async fn seal(&self, payload: &str, for_uid: Option<u32>) -> Result<String, BadSeal>;
    /// Opens one.
    async fn open(&self, credential: &str) -> Result<Opened, BadSeal>;
    /// Finds the addresses of a node by its name.
    async fn addresses(&self, node: &NodeName) -> Result<BTreeSet<IpAddr>, BadSeal>;
}

/// How nodes may prove themselves.
#[derive(Debug, Clone, Default)]
pub struct EnrolRules {
    /// Whether a certificate of the node is a proof.
    pub by_certificate: bool,
    /// Users whose credentials count; none where credentials are no proof.
    pub uids: BTreeSet<u32>,
    /// Whether the address in a credential must be one of the node's name.
    pub check_address: bool,
    /// Whether a node may ask again, as one without a disk has to.
    pub again: bool,
    /// Directory of the records; one file for each node.
    pub records: PathBuf,
}

/// Why a node gets no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEnrolled {
    /// The proof does not hold.
    #[error("{0}")]
    NotProven(String),
    /// Somebody got the key of this node already.
    #[error(
        "the key of {node} was handed out at {at}: `slurmedic agent forget {node}` lets it be asked for again"
    )]
    Before {
        /// The node.
        node: NodeName,
        /// When.
        at: Timestamp,
    },
    /// The record cannot be written.
    #[error("{path} cannot be {doing}: {why}")]
    Record {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// Why.
        why: String,
    },
    /// The key cannot be made.
    #[error(transparent)]
    Key(#[from] BadOrder),
}

/// That a key was handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Enrolled {
    node: NodeName,
    at: Timestamp,
    /// `certificate` or `munge`.
    by: String,
    /// Of the number of whoever asked: it may ask again, as where the answer was lost.
    asker: Digest,
}

/// The text that an agent seals to ask for its key.
pub fn ask_for_key(node: &NodeName, nonce: &str) -> String {
    format!("{FORMAT}\n{node}\n{nonce}\n")
}

/// The text that comes back.
fn answer_with_key(node: &NodeName, nonce: &str, key: &NodeKey) -> String {
    format!("{FORMAT}\n{node}\n{nonce}\n{}\n", key.reveal())
}

/// Reads the key out of the answer to a question of ours.
pub fn read_key(text: &str, node: &NodeName, nonce: &str) -> Option<NodeKey> {
    let hidden = text.strip_prefix(&ask_for_key(node, nonce))?;
    NodeKey::parse(hidden).ok()
}

/// Hands keys to nodes that prove themselves.
#[derive(Debug)]
pub struct Enrolment {
    master: OrderMaster,
    rules: EnrolRules,
    seals: Option<std::sync::Arc<dyn Seals>>,
}

impl Enrolment {
    /// Builds it; `seals` is needed where the rules name users.
    pub fn new(master: OrderMaster, rules: EnrolRules, seals: Option<std::sync::Arc<dyn Seals>>) -> Self {
        Self { master, rules, seals }
    }

    /// Hands the key to whoever proved by a credential that they are on the node; sealed for them alone.
    pub async fn by_credential(
        &self,
        node: &NodeName,
        credential: &str,
        now: Timestamp,
    ) -> Result<String, NotEnrolled> {
        let no = |why: String| Err(NotEnrolled::NotProven(why));
        let Some(seals) = self.seals.as_ref().filter(|_| !self.rules.uids.is_empty()) else {
            return no("credentials of munge are no proof here: agents.enrol does not name munge".to_owned());
        };
        let opened = match seals.open(credential).await {
            Ok(opened) => opened,
            Err(e) => return no(format!("the credential does not count: {e}")),
        };
        if !self.rules.uids.contains(&opened.uid) {
            return no(format!(
                "the credential is of user {}, who is none of agents.munge_users",
                opened.uid
            ));
        }
        if opened.age > MAX_AGE || -opened.age > MAX_AGE {
            return no("the credential is too old, or the clocks are apart".to_owned());
        }
        let nonce = opened.payload.strip_prefix(&ask_for_key(node, "").trim_end_matches('\n').to_owned());
        let Some(nonce) = nonce.and_then(|n| n.strip_prefix('\n')).and_then(|n| n.strip_suffix('\n')) else {
            return no(format!("the credential was not made to ask for the key of {node}"));
        };
        if self.rules.check_address {
            let known = match seals.addresses(node).await {
                Ok(known) => known,
                Err(e) => return no(format!("the address of {node} is not known: {e}")),
            };
            if !opened.from.is_some_and(|from| known.contains(&from)) {
                let from = opened.from.map_or_else(|| "no address".to_owned(), |a| a.to_string());
                return no(format!(
                    "the credential was made at {from}, which is not {node}'s: see agents.munge_hosts"
                ));
            }
        }
        let key = self.hand_out(node, "munge", nonce, now)?;
        let sealed = seals.seal(&answer_with_key(node, nonce, &key), Some(opened.uid)).await;
        sealed.or_else(|e| no(format!("the key could not be sealed: {e}")))
    }

    /// Hands the key to whoever proved by a certificate that they are the node. The caller has checked that.
    pub fn by_certificate(
        &self,
        node: &NodeName,
        nonce: &str,
        now: Timestamp,
    ) -> Result<NodeKey, NotEnrolled> {
        if !self.rules.by_certificate {
            let why = "certificates are no proof here: agents.enrol does not name certificate";
            return Err(NotEnrolled::NotProven(why.to_owned()));
        }
        self.hand_out(node, "certificate", nonce, now)
    }

    /// Writes down who got the key, and makes it.
    fn hand_out(
        &self,
        node: &NodeName,
        by: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<NodeKey, NotEnrolled> {
        if !NONCE.contains(&nonce.len()) || !nonce.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(NotEnrolled::NotProven(
                "the number of the asking agent has 32 letters or more".to_owned(),
            ));
        }
        let key = self.master.key_of(node)?;
        let asker = Digest::of(nonce.as_bytes());
        let new = Enrolled { node: node.clone(), at: now, by: by.to_owned(), asker };
        let path = record_of(&self.rules.records, node);
        let fail = |doing| {
            let path = path.clone();
            move |e: std::io::Error| NotEnrolled::Record { path, doing, why: e.to_string() }
        };
        match std::fs::read(&path) {
            Ok(text) => {
                let old: Enrolled = serde_json::from_slice(&text).map_err(|e| fail("read")(e.into()))?;
                if old.asker != new.asker && !self.rules.again {
                    return Err(NotEnrolled::Before { node: node.clone(), at: old.at });
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(fail("read")(e)),
        }
        put(&self.rules.records, &path, &new).map_err(fail("written"))?;
        Ok(key)
    }
}

/// Lets a node ask for its key again. Says whether it had been handed out.
pub fn forget(records: &Path, node: &NodeName) -> std::io::Result<bool> {
    match std::fs::remove_file(record_of(records, node)) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The name of the file says nothing that came from outside.
fn record_of(records: &Path, node: &NodeName) -> PathBuf {
    records.join(format!("{}.json", Digest::of(node.as_str().as_bytes()).as_str()))
}

fn put(dir: &Path, path: &Path, record: &Enrolled) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const NUMBER: &str = "0123456789abcdef0123456789abcdef";

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-04T05:06:07Z".parse().unwrap()
    }

    /// Credentials are what they say: `uid age address payload`.
    #[derive(Debug)]
    struct Open;

    #[async_trait]
    impl Seals for Open {
        async fn seal(&self, payload: &str, for_uid: Option<u32>) -> Result<String, BadSeal> {
            Ok(format!("{} 0 127.0.0.1 {payload}", for_uid.unwrap()))
        }

        async fn open(&self, credential: &str) -> Result<Opened, BadSeal> {
            let parts: Vec<&str> = credential.splitn(4, ' ').collect();
            let [uid, age, from, payload] = parts[..] else { return Err(BadSeal("forged".into())) };
            Ok(Opened {
                payload: payload.to_owned(),
                uid: uid.parse().unwrap(),
                age: SignedDuration::from_secs(age.parse().unwrap()),
                from: from.parse().ok(),
            })
        }

        async fn addresses(&self, node: &NodeName) -> Result<BTreeSet<IpAddr>, BadSeal> {
            match node.as_str() {
                "gpu001" => Ok(["10.0.0.1".parse().unwrap()].into()),
                "gpu002" => Ok(["10.0.0.2".parse().unwrap()].into()),
                _ => Err(BadSeal("no such host".into())),
            }
        }
    }

    fn site(dir: &Path, again: bool) -> Enrolment {
        let rules = EnrolRules {
            by_certificate: true,
            uids: [0].into(),
            check_address: true,
            again,
            records: dir.join("enrolled"),
        };
        Enrolment::new(OrderMaster::new(vec![7; 32]).unwrap(), rules, Some(Arc::new(Open)))
    }

    fn credential(name: &str) -> String {
        format!("0 1 10.0.0.1 {}", ask_for_key(&node(name), NUMBER))
    }

    #[tokio::test]
    async fn a_key_is_for_the_node_of_the_credential_and_for_who_sealed_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), false);
        let sealed = site.by_credential(&node("gpu001"), &credential("gpu001"), now()).await.unwrap();
        let opened = Open.open(&sealed).await.unwrap();
        let key = read_key(&opened.payload, &node("gpu001"), NUMBER).unwrap();
        assert_eq!(key, OrderMaster::new(vec![7; 32]).unwrap().key_of(&node("gpu001")).unwrap());
        assert_eq!(read_key(&opened.payload, &node("gpu002"), NUMBER), None);
        assert_eq!(read_key(&opened.payload, &node("gpu001"), "another"), None);
    }

    #[tokio::test]
    async fn what_does_not_prove_the_node_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), false);
        for (name, credential, why) in [
            ("gpu002", credential("gpu001"), "not made to ask"),
            ("gpu002", credential("gpu002"), "made at 10.0.0.1"),
            ("gpu009", credential("gpu009"), "not known"),
            ("gpu001", credential("gpu001").replacen('0', "1000", 1), "user 1000"),
            ("gpu001", credential("gpu001").replacen('1', "301", 1), "too old"),
            ("gpu001", credential("gpu001").replacen('1', "-301", 1), "too old"),
            ("gpu001", credential("gpu001").replace("10.0.0.1", "none"), "no address"),
            ("gpu001", credential("gpu001").replace(NUMBER, "short"), "32 letters"),
            ("gpu001", credential("gpu001").replace(NUMBER, &format!("{NUMBER}\nx")), "32 letters"),
            ("gpu001", "rubbish".to_owned(), "forged"),
        ] {
            let no = site.by_credential(&node(name), &credential, now()).await.unwrap_err();
            assert!(matches!(no, NotEnrolled::NotProven(_)), "{no:?}");
            assert!(no.to_string().contains(why), "{no} is not {why:?}");
        }
        assert!(!dir.path().join("enrolled").exists(), "and nothing is on record");
    }

    #[tokio::test]
    async fn a_key_is_handed_out_once_until_a_person_forgets_it() {
        let dir = tempfile::tempdir().unwrap();
        let (once, always) = (site(dir.path(), false), site(dir.path(), true));
        let gpu = node("gpu001");
        let other = NUMBER.replace('0', "f");
        let key = once.by_certificate(&gpu, NUMBER, now()).unwrap();
        // Whoever asked may ask again: the answer may have been lost.
        assert_eq!(once.by_certificate(&gpu, NUMBER, now()).unwrap(), key);
        let no = once.by_certificate(&gpu, &other, now()).unwrap_err();
        assert!(matches!(no, NotEnrolled::Before { .. }), "{no}");
        assert!(
            once.by_credential(&gpu, &credential("gpu001").replace(NUMBER, &other), now()).await.is_err()
        );
        assert!(once.by_certificate(&node("gpu002"), &other, now()).is_ok(), "others are not touched");
        assert_eq!(always.by_certificate(&gpu, &other, now()).unwrap(), key);
        assert!(forget(&dir.path().join("enrolled"), &gpu).unwrap());
        assert!(!forget(&dir.path().join("enrolled"), &gpu).unwrap());
        assert!(once.by_certificate(&gpu, NUMBER, now()).is_ok());
    }

    #[tokio::test]
    async fn without_a_rule_nothing_is_a_proof() {
        let dir = tempfile::tempdir().unwrap();
        let master = OrderMaster::new(vec![7; 32]).unwrap();
        let rules = EnrolRules { records: dir.path().to_owned(), ..EnrolRules::default() };
        let site = Enrolment::new(master, rules, Some(Arc::new(Open)));
        assert!(site.by_credential(&node("gpu001"), &credential("gpu001"), now()).await.is_err());
        assert!(site.by_certificate(&node("gpu001"), NUMBER, now()).is_err());
    }
}
