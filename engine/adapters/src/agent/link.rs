//! The way to the engine: requests that only this node can make, with a deadline and a bounded answer.

use engine_core::model::NodeName;
use engine_runtime::orders::{NodeKey, RequestMark};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use std::time::Duration;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer, in bytes.
const MAX_REPLY: usize = 64 << 10;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address or the certificates are unusable.
    #[error("the engine's address cannot be used: {0}")]
    Address(String),
    /// Nobody answered.
    #[error("the engine does not answer: {0}")]
    Unreachable(String),
    /// The engine said no.
    #[error("the engine refused: {status}: {text}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its words, bounded.
        text: String,
    },
}

/// The wire to the engine: a client with its certificates. Proves nothing about the node's key.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    client: Client,
    base: String,
}

impl Wire {
    /// Prepares it; connects to nothing. `ca` is a file of certificates, the only ones that are believed; `identity` the
    /// node's own certificate with its key.
    pub(super) fn new(base: &str, ca: Option<&[u8]>, identity: Option<&[u8]>) -> Result<Self, LinkError> {
        // An error only says that the program has chosen its provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = |e: String| LinkError::Address(e);
        let base = base.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|e| address(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(address("it begins with http:// or https://".to_owned()));
        }
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("slurmedic-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = ca {
            let certs = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| address(e.to_string()))?;
            builder = builder.tls_certs_only(certs);
        } else if url.scheme() == "http" {
            // Plain HTTP must not depend on the certificates of this machine.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if let Some(pem) = identity {
            if url.scheme() != "https" {
                return Err(address("a certificate is shown over https:// only".to_owned()));
            }
            let own = reqwest::Identity::from_pem(pem)
                .map_err(|e| address(format!("the certificate of this node and its key: {}", chain(&e))))?;
            builder = builder.identity(own);
        }
        let client = builder.build().map_err(|e| address(chain(&e)))?;
        Ok(Self { client, base })
    }

    /// Posts a body and returns the engine's answer.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, LinkError> {
        let mut request = self
            .client
            .post(format!("{}{path}", self.base))
            .timeout(limit)
            .header("content-type", "application/json")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut reply = request.send().await.map_err(|e| LinkError::Unreachable(chain(&e)))?;
        let status = reply.status();
        let mut read = Vec::new();
        while let Some(part) = reply.chunk().await.map_err(|e| LinkError::Unreachable(chain(&e)))? {
            if read.len() + part.len() > MAX_REPLY {
                return Err(LinkError::Unreachable(format!("it answers with more than {MAX_REPLY} bytes")));
            }
            read.extend_from_slice(&part);
        }
        if status == StatusCode::OK {
            return Ok(read);
        }
        let text: String =
            String::from_utf8_lossy(&read).chars().filter(|c| !c.is_control()).take(300).collect();
        Err(LinkError::Refused { status: status.as_u16(), text })
    }
}

/// The way to the engine: each request is signed with the node's key.
#[derive(Debug, Clone)]
pub(super) struct Link {
    wire: Wire,
    node: NodeName,
    key: NodeKey,
}

impl Link {
    /// Builds it over a wire.
    pub(super) fn new(wire: Wire, node: NodeName, key: NodeKey) -> Self {
        Self { wire, node, key }
    }

    /// Posts a body and returns the engine's answer.
    pub(super) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        now: Timestamp,
        limit: Duration,
    ) -> Result<Vec<u8>, LinkError> {
        let (at, nonce) = (now.to_string(), uuid::Uuid::now_v7().simple().to_string());
        let mark = RequestMark { node: self.node.as_str(), path, at: &at, nonce: &nonce, body: &body };
        let tag = self.key.mark(mark).map_err(|e| LinkError::Address(e.to_string()))?;
        let headers = [
            ("x-slurmedic-node", self.node.as_str()),
            ("x-slurmedic-at", &at),
            ("x-slurmedic-nonce", &nonce),
            ("x-slurmedic-signature", &tag),
        ];
        self.wire.post(path, &headers, body, limit).await
    }
}

/// Names an error with its causes.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        text.push_str(": ");
        text.push_str(&c.to_string());
        cause = c.source();
    }
    text
}
