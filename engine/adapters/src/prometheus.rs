//! Instant queries of Prometheus, and of what speaks like it: one GET each, bounded in time and size.

use crate::dcgm::text::one_line;
use crate::node::scrape::client;
use engine_core::watch::PromRules;
use engine_core::watch::prometheus::{Answers, Found, Sample};
use engine_core::{Cause, Unknown};
use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest answer that is read, in bytes.
pub const MAX_BODY: usize = 16 << 20;
/// The most samples of one answer.
pub const MAX_SAMPLES: usize = 50_000;
/// Longest part of an error of the server that is shown.
const MAX_SHOWN: usize = 200;

/// One Prometheus.
#[derive(Debug, Clone)]
pub struct Prometheus {
    url: Url,
    token: Option<String>,
    limit: Duration,
    client: Client,
}

#[derive(Deserialize)]
struct Body {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
    #[serde(default)]
    warnings: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    #[serde(default)]
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Prometheus {
    /// Builds it from the address of its API without `/api/v1`; `token` is sent as a bearer token, `limit` is the time for
    /// one query. An error is a message for people.
    pub fn new(url: &str, token: Option<String>, limit: Duration) -> Result<Self, String> {
        let wrong = || format!("{url:?} is not an address such as http://prometheus:9090");
        let base = Url::parse(&format!("{}/", url.trim_end_matches('/'))).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong());
        }
        let url = base.join("api/v1/query").map_err(|_| wrong())?;
        Ok(Self { url, token, limit, client: client(limit)? })
    }

    /// Asks everything that a round needs, one query after the other.
    pub async fn ask(&self, rules: &PromRules) -> Answers {
        let seen = self.query(&rules.seen).await;
        let mut answers = Vec::with_capacity(rules.rules.len());
        for rule in &rules.rules {
            // One that does not answer is not asked two hundred times.
            answers.push(match &seen {
                Ok(_) => self.query(&rule.query).await,
                Err(why) => Err(why.clone()),
            });
        }
        Answers { at: Timestamp::now(), seen, rules: answers }
    }

    /// Asks one instant query.
    pub async fn query(&self, promql: &str) -> Result<Found, Unknown> {
        let failed = |e: reqwest::Error| {
            let cause = if e.is_timeout() { Cause::TimedOut } else { Cause::ReadFailed };
            // Without the address: the query in it is long.
            let mut text = e.without_url().to_string();
            text.truncate(MAX_SHOWN);
            Unknown::new(cause, format!("{}: {}", self.host(), one_line(&text)))
        };
        let bad = |cause, why: String| Unknown::new(cause, format!("{}: {why}", self.host()));
        let timeout = format!("{}ms", self.limit.as_millis());
        let mut request =
            self.client.get(self.url.clone()).query(&[("query", promql), ("timeout", &timeout)]);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > MAX_BODY {
                return Err(bad(Cause::Unparsable, format!("more than {MAX_BODY} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(bad(Cause::ReadFailed, format!("HTTP {}: is the token right?", status.as_u16())));
        }
        let body: Body = serde_json::from_slice(&bytes).map_err(|_| {
            bad(Cause::Unparsable, format!("HTTP {}, and no answer of Prometheus", status.as_u16()))
        })?;
        if status != StatusCode::OK || body.status != "success" {
            let error: String = one_line(&body.error).chars().take(MAX_SHOWN).collect();
            return Err(bad(Cause::ReadFailed, format!("HTTP {}: {error}", status.as_u16())));
        }
        found(body).map_err(|why| bad(Cause::Unparsable, why))
    }

    fn host(&self) -> String {
        let port = self.url.port().map(|p| format!(":{p}")).unwrap_or_default();
        format!("{}{port}", self.url.host_str().unwrap_or_default())
    }
}

fn found(body: Body) -> Result<Found, String> {
    let data = body.data.ok_or("an answer without data")?;
    if data.kind != "vector" {
        return Err(format!("the query gives a {:.20}, an instant vector is needed", data.kind));
    }
    let serde_json::Value::Array(list) = data.result else {
        return Err("an answer without a list".to_owned());
    };
    if list.len() > MAX_SAMPLES {
        return Err(format!("{} samples are too many, {MAX_SAMPLES} are taken", list.len()));
    }
    let mut samples = Vec::with_capacity(list.len());
    for one in list {
        let series: Series =
            serde_json::from_value(one).map_err(|e| format!("a sample that is none: {e}"))?;
        let (at, value) = series.value;
        let value: f64 = value.parse().map_err(|_| "a value that is no number".to_owned())?;
        if value.is_nan() {
            continue;
        }
        let at =
            Timestamp::from_millisecond((at * 1e3) as i64).map_err(|_| "a time that is none".to_owned())?;
        samples.push(Sample { labels: series.metric, value, at });
    }
    Ok(Found { samples, complete: body.warnings.is_empty() })
}
