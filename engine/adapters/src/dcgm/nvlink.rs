//! `dcgmi nvlink -s`: the state of every NVLink of every GPU.

use super::text::{decode, error_text, missing, one_line};
use engine_core::{Cause, Known, Unknown};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The links of one GPU, counted by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Up.
    pub up: u32,
    /// Down though they should be up.
    pub down: u32,
    /// Disabled.
    pub disabled: u32,
    /// Not supported; a lost GPU shows all of its links so.
    pub not_supported: u32,
}

/// Says whether the output is of this command.
pub fn is_nvlink(text: &str) -> bool {
    text.contains("NvLink Link Status")
}

/// Reads the links by DCGM's GPU id. A letter that the key does not explain makes that GPU unknown.
pub fn parse(bytes: &[u8]) -> Known<BTreeMap<u32, Known<Links>>> {
    match read(&decode(bytes)) {
        Ok(map) => Known::Known(map),
        Err(u) => Known::Unknown(u),
    }
}

fn read(text: &str) -> Result<BTreeMap<u32, Known<Links>>, Unknown> {
    if !is_nvlink(text) {
        return Err(missing(text, "NVLink status"));
    }
    if let Some(e) = error_text(text) {
        return Err(Unknown::new(Cause::ReadFailed, e));
    }
    let mut out: BTreeMap<u32, Known<Links>> = BTreeMap::new();
    let mut current = None;
    let mut in_gpus = false;
    let mut ended = false;
    for line in text.lines() {
        let t = line.trim();
        if t == "GPUs:" {
            in_gpus = true;
        } else if in_gpus && !line.starts_with(' ') {
            // The section of the switches, or the key.
            ended = true;
            break;
        } else if let Some(id) =
            t.strip_prefix("gpuId ").and_then(|r| r.strip_suffix(':')).filter(|_| in_gpus)
        {
            let id = id
                .parse()
                .map_err(|_| Unknown::new(Cause::Unparsable, format!("not a GPU id: {:?}", one_line(id))))?;
            let none = Known::unknown(Cause::EmptyAnswer, "no line of links");
            if out.insert(id, none).is_some() {
                return Err(Unknown::new(Cause::Conflicting, format!("GPU {id} is listed twice")));
            }
            current = Some(id);
        } else if let Some(id) = current.take().filter(|_| in_gpus) {
            out.insert(id, links(t));
        }
    }
    if !ended {
        return Err(Unknown::new(Cause::Unparsable, "the NVLink status is cut off"));
    }
    Ok(out)
}

fn links(line: &str) -> Known<Links> {
    let mut l = Links::default();
    for letter in line.split_whitespace() {
        match letter {
            "U" => l.up += 1,
            "D" => l.down += 1,
            "X" => l.disabled += 1,
            "_" => l.not_supported += 1,
            other => {
                return Known::unknown(Cause::UnrecognisedWord, format!("link state {:?}", one_line(other)));
            }
        }
    }
    Known::Known(l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted_and_new_ones_are_unknown() {
        let text = "|  NvLink Link Status  |\nGPUs:\n    gpuId 0:\n        U U D X _\n    gpuId 4:\n        U Q\nNvSwitches:\n";
        let map = parse(text.as_bytes()).into_known().unwrap();
        assert_eq!(map[&0], Known::Known(Links { up: 2, down: 1, disabled: 1, not_supported: 1 }));
        assert!(!map[&4].is_known());
        assert!(!parse(&text.as_bytes()[..60]).is_known());
    }
}
