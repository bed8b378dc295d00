//! The engine that serves on this machine, asked over its socket. The kernel tells it who asks, so that a person needs no
//! right to the journal. Where no engine serves, the verbs work on the journal themselves.

use crate::commands::Global;
use crate::config::{self, Cluster};
use crate::exit::CliError;
use crate::identity;
use crate::printer::tame;
use engine_server::{About, PERSON_HEADER, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the engine listens where nothing else is configured.
pub(crate) const DEFAULT_SOCKET: &str = "/run/slurmedic/engine.sock";
/// How long the engine may take to say that it is there.
const HELLO: Duration = Duration::from_secs(3);
/// How long it may take to answer: a yes is judged again on fresh facts first.
const ANSWER: Duration = Duration::from_secs(250);

/// The engine that serves.
#[derive(Debug)]
pub(crate) struct Remote {
    client: reqwest::Client,
    socket: PathBuf,
}

/// Finds the engine that serves for this configuration; `None` where there is none, or where it serves another journal
/// or another kind of cluster than the one that was named.
pub(crate) async fn engine(global: &Global) -> Result<Option<Remote>, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let cluster = global.cluster.unwrap_or(config.cluster);
    let socket = match &config.server.socket {
        Some(path) => path.clone(),
        None if cluster == Cluster::Simulated => return Ok(None),
        None => PathBuf::from(DEFAULT_SOCKET),
    };
    if !socket.exists() {
        return Ok(None);
    }
    let remote = Remote { client: client(&socket)?, socket };
    let Some(about) = remote.hello().await else { return Ok(None) };
    let named = global.journal.clone().or_else(|| config.journal.path.clone());
    let same_journal = match (&named, &about.journal) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => same_file(a, Path::new(b)),
    };
    let same_cluster = match global.cluster {
        Some(Cluster::Simulated) => about.simulated,
        Some(Cluster::Slurm) => !about.simulated,
        Some(Cluster::Auto) | None => true,
    };
    Ok((same_journal && same_cluster).then_some(remote))
}

fn same_file(a: &Path, b: &Path) -> bool {
    let real = |p: &Path| std::fs::canonicalize(p).or_else(|_| std::path::absolute(p));
    matches!((real(a), real(b)), (Ok(a), Ok(b)) if a == b)
}

fn client(socket: &Path) -> Result<reqwest::Client, CliError> {
    // The client is built with TLS even where it speaks none. A provider that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(ANSWER)
        .build()
        .map_err(|e| CliError::caused("the engine cannot be asked", e))
}

/// Accepts a piece of a path: an id or the name of a node.
pub(crate) fn segment(text: &str) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= 253 && text.chars().all(plain) && text.trim_matches('.') == text {
        Ok(text)
    } else {
        let shown: String = text.chars().take(40).collect();
        Err(CliError::usage(format!("{} is no id of a run or name of a node", tame(&shown))))
    }
}

impl Remote {
    /// Asks which engine it is; one that does not answer is none, and the journal is there.
    async fn hello(&self) -> Option<About> {
        let asked = self.request(reqwest::Method::GET, "/api/v1/about").timeout(HELLO).send().await;
        match asked {
            Ok(r) if r.status().is_success() => r.json().await.ok(),
            Ok(r) => {
                tracing::warn!(status = %r.status(), "the engine does not say who it is; the journal is used");
                None
            }
            Err(error) if error.is_timeout() => {
                let socket = self.socket.display();
                tracing::warn!(%socket, "the engine does not answer at its socket; the journal is used");
                None
            }
            Err(error) => {
                tracing::info!(%error, "no engine answers at its socket; the journal is used");
                None
            }
        }
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.request_as(&identity::person(), method, path)
    }

    fn request_as(&self, person: &str, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://engine{path}")).header(PERSON_HEADER, person)
    }

    /// Asks for a document as somebody else; the engine hears that from root only.
    pub(crate) async fn get_as<T: DeserializeOwned>(&self, person: &str, path: &str) -> Result<T, CliError> {
        self.answer(self.request_as(person, reqwest::Method::GET, path)).await
    }

    /// Asks for something to be done as somebody else; the engine hears that from root only.
    pub(crate) async fn post_as<T: DeserializeOwned>(
        &self,
        person: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CliError> {
        self.answer(self.request_as(person, reqwest::Method::POST, path).json(body)).await
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, CliError> {
        self.answer(self.request(reqwest::Method::GET, path).query(query)).await
    }

    /// Asks for something to be done.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CliError> {
        self.answer(self.request(reqwest::Method::POST, path).json(body)).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, CliError> {
        let at = self.socket.display().to_string();
        let sent = request.send().await.map_err(|e| {
            CliError::caused(format!("the engine at {at} did not answer"), e)
                .with_hint("what was asked for may be done: `slurmedic runs` tells")
        })?;
        let status = sent.status();
        let bytes = sent
            .bytes()
            .await
            .map_err(|e| CliError::caused(format!("the answer of the engine at {at}"), e))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| {
                CliError::caused(format!("the answer of the engine at {at} cannot be read"), e)
                    .with_hint("is it of the same release? restart it after an upgrade")
            });
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(mut p) => {
                p.error = tame(&p.error);
                p.hint = p.hint.map(|h| tame(&h));
                Err(p.into())
            }
            Err(_) => Err(CliError::failed(format!("the engine at {at} answered {status}"))),
        }
    }
}
