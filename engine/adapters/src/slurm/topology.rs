//! Slurm's network topology: leaf switches as racks, blocks as fabric domains.
//!
//! Two texts have the same records: `topology.conf`, and what `scontrol show topology` prints. The second is what
//! slurmctld goes by, also where the file is a topology.yaml or lies on another host, and is preferred.

use super::answer::{ParseError, shorten};
use engine_core::hostlist::{Limits, expand_within};
use engine_core::known::{Cause, Known, Unknown};
use engine_core::policy::{Hosts, Topology};
use std::path::Path;

const WHAT: &str = "topology";

/// The largest text parsed, in bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Most names of nodes in all records together; the levels of a tree name each node once more.
const MAX_NAMES: usize = 1_000_000;

/// What slurmctld says on stderr, with exit code 0, when no topology is configured.
const NO_TOPOLOGY: &str = "No topology information available";

/// Says whether the words of `scontrol show topology` on stderr mean that the cluster has no topology.
pub(crate) fn is_none(stdout: &str, stderr: &str) -> bool {
    stdout.trim().is_empty() && stderr.contains(NO_TOPOLOGY) && stderr.trim().lines().count() == 1
}

/// Parses `topology.conf` or the output of `scontrol show topology`.
///
/// A switch without switches below it is a leaf, and a rack. Keys are read in any case; what follows a `#` is a comment; a
/// line that ends in `\` goes on.
///
/// # Errors
/// An empty or huge text, a record that this release does not know (`Include`, other plugins), a broken list of nodes.
/// A topology that is understood in part would leave nodes out of their rack's budget, so it is none.
pub fn parse_topology(text: &str) -> Result<Topology, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError::TooLarge { len: text.len() });
    }
    if text.trim().is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    let mut topology = Topology::default();
    let mut room = MAX_NAMES;
    let mut records = 0;
    for (line, record) in lines(text) {
        records += usize::from(take(line, &record, &mut topology, &mut room)?);
    }
    if records == 0 {
        return Err(ParseError::malformed(WHAT, 0, "there is no SwitchName and no BlockName in it"));
    }
    Ok(topology)
}

/// Joins continued lines and drops comments; yields each record with the number of its first line.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (i, raw) in text.lines().enumerate() {
        let line = raw.split('#').next().unwrap_or("").trim_end();
        let (body, goes_on) = match line.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (line, false),
        };
        let (start, mut record) = open.take().unwrap_or((i + 1, String::new()));
        record.push(' ');
        record.push_str(body);
        if goes_on {
            open = Some((start, record));
        } else if !record.trim().is_empty() {
            out.push((start, record));
        }
    }
    out.extend(open.filter(|(_, r)| !r.trim().is_empty()));
    out
}

/// Takes one record; says whether it named a switch or a block.
fn take(line: usize, record: &str, to: &mut Topology, room: &mut usize) -> Result<bool, ParseError> {
    let wrong = |problem: String| ParseError::malformed(WHAT, line, problem);
    let mut words = record.split_whitespace().map(|w| w.split_once('=').unwrap_or((w, "")));
    let Some((kind, name)) = words.next() else { return Ok(false) };
    let is = |key: &str| kind.eq_ignore_ascii_case(key);
    let (switch, block) = (is("SwitchName"), is("BlockName"));
    // Sizes and speeds on a line of their own say nothing about who sits where.
    if is("BlockSizes") || is("LinkSpeed") || (switch || block) && name.eq_ignore_ascii_case("DEFAULT") {
        return Ok(false);
    }
    if !(switch || block) {
        let shown = shorten(kind, 40);
        return Err(wrong(format!(
            "{shown:?} is no record known here: give the racks as a map in the policy"
        )));
    }
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err(wrong(format!("{:?} is not a name", shorten(name, 40))));
    }
    let (mut nodes, mut switches) = (None, false);
    for (key, value) in words {
        match () {
            () if key.eq_ignore_ascii_case("Nodes") && nodes.is_some() => {
                return Err(wrong(format!("{} has its nodes twice", shorten(name, 40))));
            }
            () if key.eq_ignore_ascii_case("Nodes") => nodes = Some(value),
            () if key.eq_ignore_ascii_case("Switches") => switches |= !value.is_empty(),
            () => {}
        }
    }
    let Some(list) = nodes.filter(|l| !switches && !l.is_empty() && *l != "(null)") else { return Ok(true) };
    let hosts = expand_within(list, Limits { names: *room, bytes: MAX_TEXT })
        .map_err(|e| wrong(format!("the nodes of {}: {e}", shorten(name, 40))))?;
    *room -= hosts.len().min(*room);
    let groups = if block { &mut to.fabrics } else { &mut to.racks };
    if groups.insert(name.to_owned(), Hosts::new(hosts)).is_some() {
        return Err(wrong(format!("{} is there twice", shorten(name, 40))));
    }
    Ok(true)
}

/// Reads a `topology.conf`. A file that is not there is `Known(None)`: the cluster has no topology.
///
/// Where a `topology.yaml` lies beside it, slurmctld ignores this file, and so the answer is unknown.
pub fn read_topology_conf(path: &Path) -> Known<Option<Topology>> {
    let shown = path.display();
    let yaml = path.with_file_name("topology.yaml");
    if yaml.exists() {
        return Known::unknown(
            Cause::Unsupported,
            format!("{} is in force in its place: give the racks as a map in the policy", yaml.display()),
        );
    }
    match std::fs::metadata(path) {
        Ok(m) if m.len() > MAX_TEXT as u64 => {
            return Known::unknown(Cause::Unparsable, format!("{shown} has {} bytes", m.len()));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Known::Known(None),
        Err(e) => return Known::unknown(Cause::ReadFailed, format!("{shown}: {e}")),
    }
    match std::fs::read_to_string(path) {
        Ok(text) => match parse_topology(&text) {
            Ok(t) => Known::Known(Some(t)),
            Err(e) => Known::Unknown(Unknown::new(e.cause(), format!("{shown}: {e}"))),
        },
        Err(e) => Known::unknown(Cause::ReadFailed, format!("{shown}: {e}")),
    }
}
