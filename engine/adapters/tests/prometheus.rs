//! Instant queries against a server that answers what a script says.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_adapters::prometheus::{MAX_BODY, Prometheus};
use engine_core::Cause;
use engine_core::watch::prometheus::Found;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Answers one request with these bytes, after a while; gives back what was asked.
fn server(answer: Vec<u8>, after: Duration) -> (String, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        drop(tell.send(lines.take_while(|l| !l.is_empty()).collect()));
        std::thread::sleep(after);
        // Who asked may have gone away.
        let _ = stream.write_all(&answer);
    });
    (url, asked)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

async fn ask(answer: Vec<u8>, token: Option<&str>) -> (Result<Found, engine_core::Unknown>, Vec<String>) {
    let (url, asked) = server(answer, Duration::ZERO);
    let prometheus = Prometheus::new(&url, token.map(str::to_owned), Duration::from_secs(5)).unwrap();
    let found = prometheus.query("up{job=\"a b\"} > 0").await;
    (found, asked.recv().unwrap())
}

const GOOD: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
 {"metric":{"__name__":"up","Hostname":"gpu001","UUID":"U1"},"value":[1763750000.25,"1"]},
 {"metric":{"Hostname":"gpu002"},"value":[1763750000,"NaN"]},
 {"metric":{"Hostname":"gpu003"},"value":[1763750000,"+Inf"]}]}}"#;

#[tokio::test]
async fn an_answer_is_read_and_the_question_arrives_whole() {
    let (found, asked) = ask(http("200 OK", GOOD), Some("0123456789abcdef")).await;
    let found = found.unwrap();
    assert!(found.complete);
    assert_eq!(found.samples.len(), 2, "NaN is no value: {found:?}");
    assert_eq!(found.samples[0].labels["UUID"], "U1");
    assert_eq!(found.samples[0].at.as_millisecond(), 1_763_750_000_250);
    assert!(
        asked[0].starts_with("GET /api/v1/query?query=up%7Bjob%3D%22a+b%22%7D+%3E+0&timeout="),
        "{asked:?}"
    );
    assert!(
        asked.iter().any(|l| l.eq_ignore_ascii_case("authorization: Bearer 0123456789abcdef")),
        "{asked:?}"
    );
    let (found, asked) =
        ask(http("200 OK", &GOOD.replace("\"data\"", "\"warnings\":[\"x\"],\"data\"")), None).await;
    assert!(!found.unwrap().complete, "its own warnings are gaps");
    assert!(!asked.iter().any(|l| l.to_lowercase().starts_with("authorization")));
}

#[tokio::test]
async fn what_is_no_answer_is_unknown_with_its_cause() {
    let error = r#"{"status":"error","errorType":"bad_data","error":"1:3: parse error\nunexpected"}"#;
    for (status, body, cause, words) in [
        ("400 Bad Request", error, Cause::ReadFailed, "parse error"),
        ("200 OK", error, Cause::ReadFailed, "parse error"),
        ("401 Unauthorized", "no", Cause::ReadFailed, "token"),
        ("302 Found", "", Cause::Unparsable, "HTTP 302"),
        ("502 Bad Gateway", "<html>", Cause::Unparsable, "HTTP 502"),
        ("200 OK", "", Cause::Unparsable, "no answer of Prometheus"),
        ("200 OK", r#"{"status":"success"}"#, Cause::Unparsable, "without data"),
        (
            "200 OK",
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            Cause::Unparsable,
            "matrix",
        ),
        ("200 OK", r#"{"status":"success","data":{"resultType":"vector"}}"#, Cause::Unparsable, "list"),
        (
            "200 OK",
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":1},"value":[1,"1"]}]}}"#,
            Cause::Unparsable,
            "sample",
        ),
        (
            "200 OK",
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1e300,"1"]}]}}"#,
            Cause::Unparsable,
            "time",
        ),
    ] {
        let why = ask(http(status, body), None).await.0.unwrap_err();
        assert!(why.cause == cause && why.detail.contains(words), "{status} {body}: {why}");
        assert!(!why.detail.contains('\n'), "{why}");
    }
}

#[tokio::test]
async fn size_and_time_are_bounded() {
    let huge = format!("{{\"status\":\"success\",\"x\":\"{}\"}}", "a".repeat(MAX_BODY));
    let why = ask(http("200 OK", &huge), None).await.0.unwrap_err();
    assert!(why.detail.contains("bytes"), "{why}");
    let (url, _asked) = server(http("200 OK", GOOD), Duration::from_secs(5));
    let prometheus = Prometheus::new(&url, None, Duration::from_millis(200)).unwrap();
    assert_eq!(prometheus.query("up").await.unwrap_err().cause, Cause::TimedOut);
    let nobody = Prometheus::new("http://127.0.0.1:1", None, Duration::from_secs(5)).unwrap();
    assert_eq!(nobody.query("up").await.unwrap_err().cause, Cause::ReadFailed);
    for url in ["", "prometheus:9090", "ftp://x", "http://"] {
        assert!(Prometheus::new(url, None, Duration::from_secs(1)).is_err(), "{url}");
    }
}
