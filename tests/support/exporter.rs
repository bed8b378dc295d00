//! dcgm-exporter of several nodes as one loopback server: the text of the real program, with the values of fake GPU nodes.

use super::{read, root};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A scrape of the real program; what tells faults is replaced by the state of the fakes.
const CAPTURE: &str = "fixtures/dcgm-exporter/3.6.1/metrics-remediation-faults.prom";
/// Series that tell faults, and the value of the fake that stands for each.
const FROM_STATE: [(&str, &str); 6] = [
    ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "dbe"),
    ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "dbe_aggregate"),
    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "remap_unc"),
    ("DCGM_FI_DEV_ROW_REMAP_PENDING", "remap_pending"),
    ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "remap_failure"),
    // The gauge of XIDs is sticky; here there was none.
    ("DCGM_FI_DEV_XID_ERRORS", "none"),
];

/// Serves until the test program ends.
pub(crate) struct Exporter {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Exporter {
    /// Serves the exporters of these nodes: name, and state directory of the fake tools.
    pub(crate) fn of(nodes: &[(&str, &Path)]) -> Self {
        let nodes: Vec<(String, PathBuf)> =
            nodes.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let capture = read(root().join(CAPTURE));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                lines.take_while(|l| !l.is_empty()).for_each(drop);
                let found = nodes.iter().find(|(n, _)| request.starts_with(&format!("GET /{n}/metrics ")));
                let up = found.filter(|(_, p)| read(p.join("exporter/up")).trim() == "1");
                let (status, body) = match up {
                    Some((_, state)) => ("200 OK", scrape(&capture, state)),
                    None => ("503 Service Unavailable", String::new()),
                };
                count.fetch_add(1, Ordering::SeqCst);
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // Whoever asked may have gone away.
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { port, asked }
    }

    /// The address, as `exporter.url` takes it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/{{node}}/metrics", self.port)
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The capture with the values of a fake GPU node.
fn scrape(capture: &str, state: &Path) -> String {
    let mut out = String::with_capacity(capture.len());
    // Index, UUID, bus id, ... of each GPU.
    let gpus = read(state.join("gpus"));
    let known: Vec<Vec<&str>> = gpus.lines().map(|l| l.split('\t').collect()).collect();
    for line in capture.lines().filter(|l| !l.starts_with("DCGM_EXP_XID_ERRORS_COUNT{")) {
        let gpu = line.split("gpu=\"").nth(1).and_then(|l| l.split('"').next()).unwrap_or_default();
        let key = FROM_STATE.iter().find(|(metric, _)| line.starts_with(&format!("{metric}{{")));
        let uuid = known.iter().find(|g| g[0] == gpu).map(|g| g[1]);
        let line = match (uuid, line.split("UUID=\"").nth(1).and_then(|l| l.split('"').next())) {
            (Some(own), Some(captured)) => line.replace(captured, own),
            _ => line.to_owned(),
        };
        match (key, line.rsplit_once(' ')) {
            (Some((_, key)), Some((front, _))) => {
                let value = read(state.join("gpu").join(gpu).join(key));
                let value = if value.trim().is_empty() { "0" } else { value.trim() };
                out.push_str(&format!("{front} {value}"));
            }
            _ => out.push_str(&line),
        }
        out.push('\n');
    }
    out
}
