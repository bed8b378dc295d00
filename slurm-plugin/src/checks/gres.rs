//! How many GPUs gres.conf gives this node, and which device files.

use crate::hostlist;
use std::path::{Path, PathBuf};

/// The largest gres.conf, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The most GPUs of one node, and the most nodes of one line.
const MAX_NAMES: usize = 100_000;

/// What a node should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// How many.
    pub(super) count: usize,
    /// Their device files, where gres.conf names them.
    pub(super) files: Vec<PathBuf>,
}

/// Reads the file for a node.
pub(super) fn read(path: &Path, node: &str) -> Result<Expected, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
    if meta.len() > MAX_BYTES {
        return Err(format!("{shown} has more than {} KiB", MAX_BYTES >> 10));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    parse(&text, node).map_err(|why| format!("{shown}: {why}"))
}

fn parse(text: &str, node: &str) -> Result<Expected, String> {
    let mut out = Expected::default();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(|l| l.split('#').next().unwrap_or_default()) {
        let key = |wanted: &str| {
            line.split_whitespace()
                .filter_map(|w| w.split_once('='))
                .find(|(k, _)| k.eq_ignore_ascii_case(wanted))
                .map(|(_, v)| v)
        };
        if line.trim_start().to_ascii_lowercase().starts_with("include") {
            return Err("it includes other files; write expect=N instead".to_owned());
        }
        if !key("Name").is_some_and(|n| n.eq_ignore_ascii_case("gpu")) {
            continue;
        }
        if let Some(list) = key("NodeName") {
            let names =
                hostlist::expand(list, MAX_NAMES).ok_or_else(|| format!("NodeName={list} is no list"))?;
            if !names.iter().any(|n| n == node) {
                continue;
            }
        }
        match (key("File"), key("Count")) {
            (Some(list), _) => {
                let files = hostlist::expand(list, 1024).ok_or_else(|| format!("File={list} is no list"))?;
                out.count += files.len();
                out.files.extend(files.into_iter().map(PathBuf::from));
            }
            (None, Some(count)) => {
                out.count += count.parse::<usize>().map_err(|_| format!("Count={count} is no number"))?;
            }
            (None, None) => return Err("a gpu line has neither File= nor Count=; write expect=N".to_owned()),
        }
    }
    if out.count == 0 {
        return Err(format!("no GPUs are configured for {node} (AutoDetect?); write expect=N instead"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_this_node_count() {
        let text = "AutoDetect=off\nNodeName=gpu[001-004] Name=gpu Type=h100 File=/dev/nvidia[0-7]\n\
                    nodename=gpu005 name=gpu \\\n  count=4 # fewer\nName=mps Count=100\n";
        assert_eq!(parse(text, "gpu002").unwrap().files.len(), 8);
        assert_eq!(parse(text, "gpu005"), Ok(Expected { count: 4, files: vec![] }));
        assert!(parse(text, "gpu006").is_err());
        assert_eq!(parse("Name=gpu File=/dev/nvidia0,/dev/nvidia1", "x").unwrap().count, 2);
    }

    #[test]
    fn what_cannot_be_counted_is_said() {
        for bad in [
            "AutoDetect=nvml",
            "Name=gpu",
            "Include other.conf",
            "Name=gpu Count=many",
            "Name=gpu File=/dev/nvidia[0-",
        ] {
            assert!(parse(bad, "gpu001").is_err(), "{bad}");
        }
    }
}
