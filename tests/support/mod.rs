//! What the suites share: running commands under a deadline, waiting, the lab, the fake tools.

pub(crate) mod agents;
pub(crate) mod cluster;
pub(crate) mod cmd;
pub(crate) mod exporter;
pub(crate) mod fake;
pub(crate) mod lab;
pub(crate) mod network;
pub(crate) mod product;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Makes an empty directory that every user may enter, removed when dropped.
///
/// Its path is short: UNIX sockets live below it.
pub(crate) fn scratch(name: &str) -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new().prefix(&format!("slurmedic-{name}.")).tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Reads a file, or nothing if it is not there.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Asks until there is an answer; fails with the last refusal when the time is up.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(t) => return t,
            Err(why) if Instant::now() >= end => panic!("{what}: not after {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
