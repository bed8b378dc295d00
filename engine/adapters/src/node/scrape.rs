//! Reads dcgm-exporter over HTTP: one GET, bounded in time and size, without redirects or proxies.

use crate::dcgm::exporter;
use crate::dcgm::text::one_line;
use async_trait::async_trait;
use engine_core::model::{NodeGpus, NodeName};
use engine_core::{Cause, Known, Unknown};
use engine_runtime::ports::{GpuTelemetry, Observed, Read};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use std::time::Duration;

/// Largest answer that is read, in bytes: 16 GPUs with every counter stay far below.
const MAX_BODY: usize = 32 << 20;

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoBody {
    /// Nobody serves there, or not metrics: the exporter is down.
    Down(String),
    /// It cannot be said.
    Unknown(Unknown),
}

/// Builds a client; an error is a message for people.
pub(crate) fn client(limit: Duration) -> Result<Client, String> {
    // An error only says that the program has chosen its provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(limit)
        .user_agent(concat!("slurmedic/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| format!("could not set up HTTP: {e}"))
}

/// Reads one body to its end.
pub(crate) async fn get(client: &Client, url: &str) -> Result<Vec<u8>, NoBody> {
    let failed = |e: reqwest::Error| {
        let words = one_line(&causes(&e));
        if e.is_timeout() {
            NoBody::Unknown(Unknown::new(Cause::TimedOut, format!("{url}: {words}")))
        } else if e.is_connect() {
            NoBody::Down(format!("{url}: {words}"))
        } else {
            NoBody::Unknown(Unknown::new(Cause::ReadFailed, format!("{url}: {words}")))
        }
    };
    let mut response = client.get(url).send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(NoBody::Down(format!("{url}: HTTP {}", response.status().as_u16())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(NoBody::Unknown(Unknown::new(
                Cause::Unparsable,
                format!("{url}: more than {MAX_BODY} bytes"),
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Says whether the exporter at this URL answers with metrics of GPUs.
pub async fn exporter_up(url: &str, limit: Duration) -> Known<bool> {
    let client = match client(limit) {
        Ok(c) => c,
        Err(e) => return Known::unknown(Cause::ReadFailed, e),
    };
    match get(&client, url).await {
        Ok(body) => exporter::parse(&body).map(|_| true),
        Err(NoBody::Down(_)) => Known::Known(false),
        Err(NoBody::Unknown(u)) => Known::Unknown(u),
    }
}

/// GPU telemetry of all nodes by a direct scrape of their exporters.
#[derive(Debug, Clone)]
pub struct ExporterTelemetry {
    template: String,
    client: Client,
}

impl ExporterTelemetry {
    /// Builds it from a URL that holds `{node}` where the node's name goes, e.g. `http://{node}:9400/metrics`.
    ///
    /// An error is a message for people: the URL is wrong.
    pub fn new(template: &str, limit: Duration) -> Result<Self, String> {
        if !(template.starts_with("http://") || template.starts_with("https://"))
            || !template.contains("{node}")
        {
            return Err(format!(
                "{template:?} is not a URL with {{node}} in it; write http://{{node}}:9400/metrics"
            ));
        }
        Ok(Self { template: template.to_owned(), client: client(limit)? })
    }
}

#[async_trait]
impl GpuTelemetry for ExporterTelemetry {
    async fn gpus(&self, node: &NodeName) -> Read<NodeGpus> {
        let at = Timestamp::now();
        // A node name has letters, digits, dots, dashes and underscores only: it cannot change the URL.
        let url = self.template.replace("{node}", node.as_str());
        let body = get(&self.client, &url).await.map_err(|e| match e {
            NoBody::Down(why) => Unknown::new(Cause::ReadFailed, why),
            NoBody::Unknown(u) => u,
        })?;
        match exporter::parse(&body) {
            Known::Known(value) => Ok(Observed { value, at }),
            Known::Unknown(u) => Err(u),
        }
    }
}
