//! Reads through slurmrestd, over TCP with a JWT or over its UNIX socket.
//!
//! No proxy, no redirect, one deadline over the whole exchange, a limited body. Only a body with status 200 and an
//! empty `.errors` is ever used.

use super::answer::{MAX_INPUT, ParseError, shorten};
use super::cli::only;
use super::config::RestConfig;
use super::json;
use engine_core::known::{Cause, Unknown};
use engine_core::model::{Job, Node, NodeName, Partition, Reservation};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// The largest token file, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Versions of the API in the order in which they are tried: those seen, newest first; v0.0.39 last, since without
/// slurmdbd it answers half-filled bodies with errors. v0.0.36 and v0.0.37 are left out: v0.0.36 hides DRAIN.
pub(crate) const VERSIONS: &[&str] =
    &["v0.0.45", "v0.0.44", "v0.0.43", "v0.0.42", "v0.0.41", "v0.0.40", "v0.0.38", "v0.0.39"];

/// slurmrestd at one address.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    client: Client,
    base: String,
    shown: String,
    token_file: Option<PathBuf>,
    user: Option<String>,
    deadline: Duration,
    max_body: usize,
}

/// What became of a look for a version of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ping {
    /// It answers and the controller behind it does.
    Good,
    /// This slurmrestd does not have it.
    NoSuchVersion,
    /// It answers that something is wrong.
    Bad(Unknown),
}

impl Rest {
    /// Prepares the client; connects to nothing.
    pub(crate) fn new(config: &RestConfig, deadline: Duration) -> Result<Self, String> {
        // An error only says that the program has chosen its provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT.min(deadline))
            .timeout(deadline)
            .user_agent(concat!("slurmedic/", env!("CARGO_PKG_VERSION")));
        let (base, shown) = match (&config.url, &config.socket) {
            (Some(url), _) => {
                let base = url.trim_end_matches('/').to_owned();
                (base.clone(), base)
            }
            (None, Some(socket)) => {
                builder = builder.unix_socket(socket.as_path());
                ("http://localhost".to_owned(), format!("the socket {}", socket.display()))
            }
            (None, None) => return Err("neither url nor socket is configured".to_owned()),
        };
        if base.starts_with("http://") {
            // Plain HTTP must not depend on the certificates of this machine.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let client = builder.build().map_err(|e| chain(&e))?;
        Ok(Self {
            client,
            base,
            shown,
            token_file: config.token_file.clone(),
            user: config.user.clone(),
            deadline,
            max_body: MAX_INPUT,
        })
    }

    /// Says it as `doctor` shows it.
    pub(crate) fn describe(&self, version: &str) -> String {
        format!("slurmrestd {version} over {}", self.shown)
    }

    /// Returns the address for messages.
    pub(crate) fn address(&self) -> &str {
        &self.shown
    }

    /// Finds the newest known version of the API that answers for a controller that does.
    pub(crate) async fn find_version(&self) -> Result<(&'static str, Vec<&'static str>), Unknown> {
        let mut offered = Vec::new();
        let mut good = None;
        let mut bad = None;
        for version in VERSIONS {
            match self.ping(version).await {
                Ping::NoSuchVersion => {}
                Ping::Good => {
                    offered.push(*version);
                    good = good.or(Some(*version));
                }
                Ping::Bad(u) => {
                    // Not reachable or not let in: no other version will do better.
                    if offered.is_empty() && u.cause == Cause::TimedOut {
                        return Err(u);
                    }
                    bad = bad.or(Some(u));
                }
            }
        }
        match (good, bad) {
            (Some(version), _) => Ok((version, offered)),
            (None, Some(u)) => Err(u),
            (None, None) => Err(Unknown::new(
                Cause::Unsupported,
                format!("slurmrestd at {} has none of the API versions {}", self.shown, VERSIONS.join(", ")),
            )),
        }
    }

    async fn ping(&self, version: &str) -> Ping {
        let path = format!("/slurm/{version}/ping");
        match self.get(&path).await {
            Ok((StatusCode::NOT_FOUND, _)) => Ping::NoSuchVersion,
            Ok((status, body)) => match self.usable(&path, status, &body, json::parse_ping) {
                Ok(a) if a.value.iter().any(|p| p.up.is_known_and(|up| *up)) => Ping::Good,
                Ok(_) => Ping::Bad(self.unknown(Cause::ReadFailed, &path, "no controller answers")),
                Err(u) => Ping::Bad(u),
            },
            Err(u) => Ping::Bad(u),
        }
    }

    pub(crate) async fn node(&self, version: &str, node: &NodeName) -> Result<Node, Unknown> {
        let nodes = self.read(&format!("/slurm/{version}/node/{node}"), json::parse_nodes).await?;
        only(node, nodes)
    }

    pub(crate) async fn nodes(&self, version: &str) -> Result<Vec<Node>, Unknown> {
        self.read(&format!("/slurm/{version}/nodes"), json::parse_nodes).await
    }

    pub(crate) async fn jobs(&self, version: &str) -> Result<Vec<Job>, Unknown> {
        self.read(&format!("/slurm/{version}/jobs"), json::parse_jobs).await
    }

    pub(crate) async fn reservations(&self, version: &str) -> Result<Vec<Reservation>, Unknown> {
        self.read(&format!("/slurm/{version}/reservations"), json::parse_reservations).await
    }

    pub(crate) async fn partitions(&self, version: &str) -> Result<Vec<Partition>, Unknown> {
        self.read(&format!("/slurm/{version}/partitions"), json::parse_partitions).await
    }

    async fn read<T>(
        &self,
        path: &str,
        parse: impl FnOnce(&[u8]) -> Result<super::Answer<T>, ParseError>,
    ) -> Result<T, Unknown> {
        let (status, body) = self.get(path).await?;
        self.usable(path, status, &body, parse).map(|a| a.value)
    }

    /// Parses a body, and refuses one whose status is not 200.
    fn usable<T>(
        &self,
        path: &str,
        status: StatusCode,
        body: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<super::Answer<T>, ParseError>,
    ) -> Result<super::Answer<T>, Unknown> {
        if status == StatusCode::OK {
            return parse(body).map_err(|e| self.unknown(e.cause(), path, &e.to_string()));
        }
        let said = match json::parse_reply(body) {
            Err(ParseError::ReadFailed { message, .. }) => message,
            _ => shorten(&String::from_utf8_lossy(body), 200),
        };
        let hint = match status.as_u16() {
            401 | 511 => {
                "; the token is missing, expired or not for this user, or the socket does not let this user in"
            }
            300..=399 => "; redirects are not followed",
            _ => "",
        };
        Err(self.unknown(Cause::ReadFailed, path, &format!("HTTP {}: {said}{hint}", status.as_u16())))
    }

    fn unknown(&self, cause: Cause, path: &str, why: &str) -> Unknown {
        Unknown::new(cause, shorten(&format!("{path} at {}: {why}", self.shown), 600))
    }

    /// Gets a path: status and whole body, within the deadline and the limit.
    async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), Unknown> {
        match tokio::time::timeout(self.deadline, self.exchange(path)).await {
            Ok(result) => result,
            Err(_) => {
                let why = format!("no whole answer within {} ms", self.deadline.as_millis());
                Err(self.unknown(Cause::TimedOut, path, &why))
            }
        }
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Vec<u8>), Unknown> {
        let failed = |e: reqwest::Error| {
            let cause = if e.is_timeout() { Cause::TimedOut } else { Cause::ReadFailed };
            self.unknown(cause, path, &chain(&e))
        };
        let headers = self.headers().await.map_err(|why| self.unknown(Cause::ReadFailed, path, &why))?;
        let url = format!("{}{path}", self.base);
        let mut response = self.client.get(url).headers(headers).send().await.map_err(failed)?;
        let status = response.status();
        let too_large = || {
            self.unknown(Cause::Unparsable, path, &format!("the body has more than {} bytes", self.max_body))
        };
        if response.content_length().is_some_and(|n| n > self.max_body as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.max_body {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        if let Some(user) = &self.user {
            let value = HeaderValue::from_str(user).map_err(|_| "the user name cannot be sent".to_owned())?;
            headers.insert("X-SLURM-USER-NAME", value);
        }
        if let Some(file) = &self.token_file {
            let token = read_token(file).await.map_err(|e| format!("token file {}: {e}", file.display()))?;
            let mut value = HeaderValue::from_str(&token).map_err(|_| {
                format!("token file {}: it does not hold one line with a token", file.display())
            })?;
            value.set_sensitive(true);
            headers.insert("X-SLURM-USER-TOKEN", value);
        }
        Ok(headers)
    }
}

/// Reads a token, written bare or as `SLURM_JWT=…`, as `scontrol token` prints it.
async fn read_token(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(file).await?.take(MAX_TOKEN).read_to_string(&mut text).await?;
    let token = text.trim();
    let token = token.strip_prefix("SLURM_JWT=").unwrap_or(token);
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(std::io::Error::other("it does not hold one token"));
    }
    Ok(token.to_owned())
}

/// Joins an error with its sources: reqwest keeps the reason in them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        out.push_str(": ");
        out.push_str(&e.to_string());
        source = e.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    /// Answers each request with what `script` makes of its path: bytes sent as they are.
    async fn serve(
        script: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while stream.read_line(&mut head).await.unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(head);
                let answer = script(&path);
                if answer.is_empty() {
                    // Hangs until the client gives up.
                    let _ = stream.read_line(&mut String::new()).await;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, seen)
    }

    fn http(status: u16, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn rest(url: &str, token: &tempfile::NamedTempFile) -> Rest {
        let config = RestConfig {
            url: Some(url.to_owned()),
            socket: None,
            token_file: Some(token.path().to_owned()),
            user: Some("root".to_owned()),
        };
        Rest::new(&config, Duration::from_secs(20)).unwrap()
    }

    fn token(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    const NODES: &str = r#"{"meta":{},"errors":[],"nodes":[{"name":"n1","state":["IDLE"],"reason":""}]}"#;
    const UP: &str = r#"{"meta":{},"errors":[],"pings":[{"hostname":"h","responding":true,"primary":true}]}"#;

    fn n1() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    #[tokio::test]
    async fn a_node_is_read_with_user_and_token() {
        let (url, seen) = serve(|_| http(200, NODES)).await;
        let node = rest(&url, &token("SLURM_JWT=abc.def\n")).node("v0.0.42", &n1()).await.unwrap();
        assert_eq!(node.name, n1());
        let head = seen.lock().unwrap().concat().to_ascii_lowercase();
        assert!(head.starts_with("get /slurm/v0.0.42/node/n1 http/1.1"), "{head}");
        assert!(
            head.contains("x-slurm-user-name: root\r\n") && head.contains("x-slurm-user-token: abc.def\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn no_bad_answer_is_ever_a_value() {
        let part = &NODES[..NODES.len() - 5];
        for (answer, cause, word) in [
            (http(500, NODES), Cause::ReadFailed, "HTTP 500"),
            (http(401, "Authentication failure"), Cause::ReadFailed, "token"),
            (http(302, ""), Cause::ReadFailed, "redirects"),
            (http(304, ""), Cause::ReadFailed, "HTTP 304"),
            (http(200, ""), Cause::EmptyAnswer, "empty"),
            (http(200, r#"{"meta":{},"errors":[],"nodes":[]}"#), Cause::EmptyAnswer, "node"),
            (
                http(200, r#"{"meta":{},"nodes":[{"name":"n1","state":["IDLE"],"reason":""}]}"#),
                Cause::Unparsable,
                "errors",
            ),
            (
                http(
                    200,
                    &NODES.replace(r#""errors":[]"#, r#""errors":[{"error_number":0,"error":"No error"}]"#),
                ),
                Cause::ReadFailed,
                "No error",
            ),
            (http(200, &NODES.replace("n1", "n2")), Cause::Conflicting, "n2"),
            (http(200, part), Cause::Unparsable, "JSON"),
            // Cut short in transfer.
            (
                http(200, NODES).replace("Content-Length: ", "Content-Length: 9"),
                Cause::ReadFailed,
                "/node/n1",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
                Cause::Unparsable,
                "more than",
            ),
            ("garbage\r\n\r\n".to_owned(), Cause::ReadFailed, "/node/n1"),
        ] {
            let sent = answer.clone();
            let (url, _) = serve(move |_| sent.clone()).await;
            let u = rest(&url, &token("t")).node("v0.0.42", &n1()).await.unwrap_err();
            assert!(u.cause == cause && u.detail.contains(word), "{answer:?}: {u}");
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_meets_the_deadline() {
        let (url, _) = serve(|_| String::new()).await;
        let token = token("t");
        let short = Rest { deadline: Duration::from_millis(300), ..rest(&url, &token) };
        let u = short.node("v0.0.42", &n1()).await.unwrap_err();
        assert!(u.cause == Cause::TimedOut && u.detail.contains("300 ms"), "{u}");
    }

    #[tokio::test]
    async fn a_body_without_length_is_limited_too() {
        let (url, _) =
            serve(|_| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", " ".repeat(10_000))).await;
        let token = token("t");
        let small = Rest { max_body: 5000, ..rest(&url, &token) };
        let u = small.nodes("v0.0.42").await.unwrap_err();
        assert!(u.cause == Cause::Unparsable && u.detail.contains("more than 5000"), "{u}");
    }

    #[tokio::test]
    async fn the_newest_version_that_answers_is_chosen() {
        let (url, _) = serve(|path| match path {
            "/slurm/v0.0.43/ping" => http(500, r#"{"errors":[{"error":"x"}],"pings":[]}"#),
            "/slurm/v0.0.42/ping" | "/slurm/v0.0.41/ping" => http(200, UP),
            _ => http(404, "Unable find requested URL"),
        })
        .await;
        let found = rest(&url, &token("t")).find_version().await.unwrap();
        assert_eq!(found, ("v0.0.42", vec!["v0.0.42", "v0.0.41"]));
    }

    #[tokio::test]
    async fn a_controller_that_is_down_gives_no_version() {
        let (url, _) = serve(|_| http(200, &UP.replace("true,\"primary", "false,\"primary"))).await;
        let u = rest(&url, &token("t")).find_version().await.unwrap_err();
        assert!(u.detail.contains("no controller answers"), "{u}");
        let (url, _) = serve(|_| http(404, "no")).await;
        assert_eq!(rest(&url, &token("t")).find_version().await.unwrap_err().cause, Cause::Unsupported);
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_read_is_named_and_never_shown() {
        let (url, seen) = serve(|_| http(200, NODES)).await;
        for text in ["", "two words", "a\nb"] {
            let u = rest(&url, &token(text)).node("v0.0.42", &n1()).await.unwrap_err();
            assert!(u.detail.contains("token file") && !u.detail.contains("two"), "{u}");
        }
        assert!(seen.lock().unwrap().is_empty(), "nothing may be sent without the token");
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failed_read() {
        let url = {
            let l = TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("http://{}", l.local_addr().unwrap())
        };
        let u = rest(&url, &token("t")).nodes("v0.0.42").await.unwrap_err();
        assert_eq!(u.cause, Cause::ReadFailed, "{u}");
    }
}
