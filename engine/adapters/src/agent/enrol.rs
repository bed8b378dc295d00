//! Gets the key of this node from the engine the first time, by a proof that this is the node: a credential of munge, or the
//! node's certificate. Afterwards the key lies in the agent's own directory.

use super::link::{LinkError, Wire};
use engine_core::model::NodeName;
use engine_runtime::orders::{BadSeal, NodeKey, Seals, ask_for_key, read_key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time for one request.
const REQUEST: Duration = Duration::from_secs(30);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The key, in the agent's directory.
const KEY: &str = "node.key";
/// The number that tells this agent from any other that asks.
const NUMBER: &str = "enrol.number";

/// What proves that this is the node.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A credential of munge, made by root here. The answer must be sealed by one of these users.
    Munge {
        /// The munge of this host.
        seals: Arc<dyn Seals>,
        /// User ids that the engine may have.
        engine: BTreeSet<u32>,
    },
    /// The certificate that this node shows.
    Certificate,
}

/// How a node without a key gets one.
#[derive(Debug, Clone)]
pub struct EnrolConfig {
    /// The engine, such as `https://engine:9345`.
    pub engine: String,
    /// Certificates that are believed, in PEM; those of the host where not given.
    pub ca: Option<Vec<u8>>,
    /// This node's own certificate with its chain and its key, in PEM.
    pub identity: Option<Vec<u8>>,
    /// This node's name in slurm.conf.
    pub node: NodeName,
    /// The agent's own directory.
    pub state: PathBuf,
    /// The proof.
    pub proof: Proof,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The engine.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// munge.
    #[error("munge: {0}")]
    Seal(#[from] BadSeal),
    /// The answer holds no key for this node, or nobody may give it.
    #[error("the engine's answer does not count: {0}")]
    Answer(String),
    /// The disk.
    #[error("{path} cannot be used")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was told to stop.
    #[error("stopped before the engine gave a key")]
    Stopped,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Asks<'a> {
    Munge { node: &'a str, credential: String },
    Certificate { node: &'a str, nonce: &'a str },
}

#[derive(Deserialize)]
struct Given {
    key: Option<String>,
    credential: Option<String>,
}

/// Reads the key that an earlier start got; none where there is none.
pub fn kept_key(state: &Path) -> Result<Option<NodeKey>, EnrolError> {
    let path = state.join(KEY);
    match std::fs::read_to_string(&path) {
        Ok(text) => NodeKey::parse(&text)
            .map(Some)
            .map_err(|e| EnrolError::Answer(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EnrolError::Disk { path, source }),
    }
}

/// Asks the engine for the key until it gives it, and keeps it. `stop` ends it.
pub async fn enrol(config: &EnrolConfig, mut stop: watch::Receiver<bool>) -> Result<NodeKey, EnrolError> {
    let wire = Wire::new(&config.engine, config.ca.as_deref(), config.identity.as_deref())?;
    let number = number(&config.state)?;
    let mut pause = Duration::from_secs(1);
    let mut said = String::new();
    loop {
        let asked = tokio::select! {
            asked = ask(config, &wire, &number) => asked,
            _ = stop.changed() => return Err(EnrolError::Stopped),
        };
        let why = match asked {
            Ok(key) => {
                let path = config.state.join(KEY);
                write(&path, &format!("{}\n", key.reveal()))
                    .map_err(|source| EnrolError::Disk { path, source })?;
                tracing::info!(
                    event = "enrolled",
                    node = config.node.as_str(),
                    "the engine gave this node its key"
                );
                return Ok(key);
            }
            Err(e) => e.to_string(),
        };
        if why != said {
            tracing::warn!(
                event = "not_enrolled",
                why,
                "the engine gives this node no key; it is asked again"
            );
            said = why;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return Err(EnrolError::Stopped),
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn ask(config: &EnrolConfig, wire: &Wire, number: &str) -> Result<NodeKey, EnrolError> {
    let node = config.node.as_str();
    let asks = match &config.proof {
        // Which user the engine runs as is not known for certain, so anybody could open it; it holds no secret.
        Proof::Munge { seals, .. } => {
            let credential = seals.seal(&ask_for_key(&config.node, number), None).await?;
            Asks::Munge { node, credential }
        }
        Proof::Certificate => Asks::Certificate { node, nonce: number },
    };
    let body = serde_json::to_vec(&asks).map_err(|e| EnrolError::Answer(e.to_string()))?;
    let reply = wire.post("/agent/v1/key", &[], body, REQUEST).await?;
    let given: Given = serde_json::from_slice(&reply).map_err(|e| EnrolError::Answer(e.to_string()))?;
    let no = |why: &str| Err(EnrolError::Answer(why.to_owned()));
    match (&config.proof, given.key, given.credential) {
        (Proof::Munge { seals, engine }, None, Some(credential)) => {
            let opened = seals.open(&credential).await?;
            if !engine.contains(&opened.uid) {
                return no("it was sealed by a user who is none of agent.engine_users");
            }
            read_key(&opened.payload, &config.node, number)
                .ok_or_else(|| EnrolError::Answer("it is no answer to this question".to_owned()))
        }
        (Proof::Certificate, Some(key), None) => {
            NodeKey::parse(&key).map_err(|e| EnrolError::Answer(e.to_string()))
        }
        _ => no("it holds something else"),
    }
}

/// The number of this agent: kept, so that an answer that was lost can be asked for again.
fn number(state: &Path) -> Result<String, EnrolError> {
    let path = state.join(NUMBER);
    let fail = |source| EnrolError::Disk { path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(fail)?;
    match std::fs::read_to_string(&path) {
        Ok(text) if text.len() >= 32 => return Ok(text),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
    }
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).map_err(fail)?;
    let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    write(&path, &text).map_err(fail)?;
    Ok(text)
}

/// Writes a file that only root reads, as a whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}
