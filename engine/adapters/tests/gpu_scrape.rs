//! The scrape of dcgm-exporter over HTTP: a good body, and everything else that can come instead of one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it finds by failing")]

use engine_adapters::node::ExporterTelemetry;
use engine_adapters::node::scrape::exporter_up;
use engine_core::model::NodeName;
use engine_core::{Cause, Known};
use engine_runtime::ports::GpuTelemetry;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Serves one answer to every connection; an empty one never answers. Returns `host:port`.
async fn serve(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0_u8; 4096];
                let _ = stream.read(&mut request).await;
                if answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn metrics() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dcgm-exporter/4.8.2-plus");
    std::fs::read(root.join("metrics-remediation-faults.prom")).unwrap()
}

async fn up(answer: Vec<u8>) -> Known<bool> {
    let address = serve(answer).await;
    exporter_up(&format!("http://{address}/metrics"), Duration::from_millis(500)).await
}

fn cause(k: Known<bool>) -> Cause {
    let Known::Unknown(u) = k else { panic!("{k:?}") };
    u.cause
}

#[tokio::test]
async fn a_node_is_read_by_its_name() {
    let address = serve(http("200 OK", "", &metrics())).await;
    let port = address.rsplit(':').next().unwrap();
    let telemetry =
        ExporterTelemetry::new(&format!("http://{{node}}:{port}/metrics"), Duration::from_secs(5)).unwrap();
    let node = NodeName::new("127.0.0.1").unwrap();
    let read = telemetry.gpus(&node).await.unwrap();
    assert_eq!(read.value.gpus.len(), 8);
    assert_eq!(read.value.gpus[3].last_xid, Known::Known(79));
    assert!(ExporterTelemetry::new("node:9400", Duration::from_secs(5)).is_err());
}

#[tokio::test]
async fn only_a_whole_body_of_metrics_is_an_answer() {
    assert_eq!(up(http("200 OK", "", &metrics())).await, Known::Known(true));
    assert_eq!(up(http("503 Service Unavailable", "", b"no")).await, Known::Known(false));
    assert_eq!(up(http("302 Found", "Location: http://127.0.0.1:1/\r\n", b"")).await, Known::Known(false));
    assert_eq!(cause(up(http("200 OK", "", b"<html>")).await), Cause::Unparsable);
    assert_eq!(cause(up(http("200 OK", "", b"go_goroutines 12\n")).await), Cause::EmptyAnswer);
    assert_eq!(cause(up(Vec::new()).await), Cause::TimedOut);
    // Less than the length that was announced.
    let mut cut = http("200 OK", "", &metrics());
    cut.truncate(cut.len() - 1000);
    assert_eq!(cause(up(cut).await), Cause::ReadFailed);
}

#[tokio::test]
async fn nobody_there_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(exporter_up(&url, Duration::from_secs(2)).await, Known::Known(false));
}
