//! `dcgmi dmon -e FIELDS -c N`: values of fields by GPU, in fixed-width text.
//!
//! Columns stand under their short names; the order of GPUs differs between the versions, the header comes
//! again every some rows, a blank is `N/A`. Of several samples the last one counts.

use super::fields::{Reading, by_tag};
use super::text::{decode, error_text, missing, one_line};
use engine_core::model::Gpu;
use engine_core::{Cause, Known, Unknown};
use std::collections::BTreeMap;

/// The table: by GPU id, what each column says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dmon {
    /// Column names in their order; names that are not known here too.
    pub columns: Vec<String>,
    /// Last row of each GPU, in the order of the columns; unknown where the row could not be cut up.
    pub rows: BTreeMap<u32, Known<Vec<String>>>,
}

/// Says whether the output is of this command.
pub fn is_dmon(text: &str) -> bool {
    text.lines().any(|l| l.starts_with("#Entity"))
}

/// Reads the table.
pub fn parse(bytes: &[u8]) -> Known<Dmon> {
    match read(&decode(bytes)) {
        Ok(d) => Known::Known(d),
        Err(u) => Known::Unknown(u),
    }
}

fn read(text: &str) -> Result<Dmon, Unknown> {
    let mut header: Option<Vec<(usize, String)>> = None;
    let mut rows = BTreeMap::new();
    if let Some(e) = error_text(text) {
        return Err(Unknown::new(Cause::ReadFailed, e));
    }
    for line in text.split_inclusive('\n') {
        let whole = line.ends_with('\n');
        let line = line.trim_end_matches(['\n', '\r']);
        if line.starts_with("#Entity") {
            let columns = starts(line);
            if header.as_ref().is_some_and(|h| *h != columns) {
                return Err(Unknown::new(Cause::Conflicting, "two headers that differ"));
            }
            header = Some(columns);
            continue;
        }
        let Some(id) = line.strip_prefix("GPU ").and_then(|r| r.split_whitespace().next()) else { continue };
        let columns = header
            .as_ref()
            .ok_or_else(|| Unknown::new(Cause::Unparsable, "a row of values before the header"))?;
        let id = id
            .parse()
            .map_err(|_| Unknown::new(Cause::Unparsable, format!("not a GPU id: {:?}", one_line(id))))?;
        let cut = || {
            Known::unknown(
                Cause::Unparsable,
                format!("row that does not fit its header: {:?}", one_line(line)),
            )
        };
        // A last line without its end may lack digits of its last number.
        rows.insert(id, if whole { row(line, columns).map_or_else(cut, Known::Known) } else { cut() });
    }
    match header {
        None => Err(missing(text, "table of values")),
        Some(_) if rows.is_empty() => Err(Unknown::new(Cause::EmptyAnswer, "a header and no GPU below it")),
        Some(h) => Ok(Dmon { columns: h.into_iter().map(|(_, n)| n).collect(), rows }),
    }
}

/// Returns where each column starts, and its name; the first, `#Entity`, is left out.
fn starts(header: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut at = 0;
    for word in header.split(' ') {
        if !word.is_empty() && at > 0 {
            out.push((at, word.to_owned()));
        }
        at += word.len() + 1;
    }
    out
}

/// Cuts a row at the columns of the header; `None` if a value crosses a border or words are too many.
fn row(line: &str, columns: &[(usize, String)]) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for (i, (from, _)) in columns.iter().enumerate() {
        let to = columns.get(i + 1).map_or(line.len(), |(next, _)| (*next).min(line.len()));
        let from = (*from).min(to);
        if from > 0 && from < line.len() && line.as_bytes()[from - 1] != b' ' {
            return None;
        }
        let cell = line.get(from..to)?.trim();
        if cell.contains(char::is_whitespace) {
            return None;
        }
        values.push(cell.to_owned());
    }
    let first = columns.first().map_or(line.len(), |(at, _)| (*at).min(line.len()));
    // "GPU 7" stands before the first column, and nothing else does.
    (line.get(..first)?.split_whitespace().count() == 2).then_some(values)
}

impl Dmon {
    /// Returns the GPUs with the facts that the table gives, by DCGM's ids.
    ///
    /// No vital value at all, of two or more that were asked for, is a GPU that does not answer: what DCGM
    /// still prints of it then (`0` for row remaps) is its memory, not the GPU's, and is unknown.
    pub fn gpus(&self) -> Vec<Gpu> {
        self.rows.iter().map(|(id, row)| self.gpu(*id, row)).collect()
    }

    fn gpu(&self, id: u32, row: &Known<Vec<String>>) -> Gpu {
        let mut gpu = Gpu::unseen(id, Cause::NotObserved, "not asked for");
        let mut vital = Vec::new();
        let mut xid_asked = false;
        for (i, column) in self.columns.iter().enumerate() {
            let Some(field) = by_tag(column) else { continue };
            let value = match row {
                Known::Known(values) => Reading::of(values.get(i).map_or("", String::as_str)),
                Known::Unknown(u) => Known::Unknown(u.clone()),
            };
            if field.vital {
                vital.push(match &value {
                    Known::Known(_) => Some(true),
                    Known::Unknown(u) if u.cause == Cause::NotReported => Some(false),
                    Known::Unknown(_) => None,
                });
            }
            xid_asked |= field.id == 230;
            (field.set)(&mut gpu, value);
        }
        gpu.answers = if vital.contains(&Some(true)) {
            Known::Known(true)
        } else if vital.len() >= 2 && vital.iter().all(|v| *v == Some(false)) {
            Known::Known(false)
        } else if vital.is_empty() {
            Known::unknown(Cause::NotObserved, "no vital value was asked for")
        } else {
            Known::unknown(Cause::NotReported, "no vital value could be read")
        };
        if gpu.answers.is_known_and(|a| !a) {
            forget(&mut gpu);
        } else if xid_asked && gpu.answers.is_known_and(|a| *a) {
            // N/A before the first XID (4.x); 3.x prints 0.
            let none = matches!(&gpu.last_xid, Known::Unknown(u) if u.cause == Cause::NotReported);
            if none {
                gpu.last_xid = Known::Known(0);
            }
        }
        gpu
    }
}

/// Turns everything but the identity and the last XID of a lost GPU into unknown.
pub(crate) fn forget(gpu: &mut Gpu) {
    let mut blank = Gpu::unseen(gpu.index, Cause::NotReported, "the GPU does not answer");
    blank.uuid = gpu.uuid.clone();
    blank.bus_id = gpu.bus_id.clone();
    blank.serial = gpu.serial.clone();
    blank.model = gpu.model.clone();
    blank.answers = gpu.answers.clone();
    // The XID is what DCGM heard from the driver, not what the GPU says: it stays true.
    if gpu.last_xid.is_known() {
        blank.last_xid = gpu.last_xid.clone();
    }
    blank.recent_xids = gpu.recent_xids.clone();
    *gpu = blank;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "#Entity   TMPTR   POWER     XIDER  NEWTAG  \nID        C       W                      \n";

    fn gpus(rows: &str) -> Vec<Gpu> {
        parse(format!("{HEAD}{rows}").as_bytes()).into_known().unwrap().gpus()
    }

    #[test]
    fn values_stand_under_their_names() {
        let g = gpus(
            "GPU 3     36      72.050    N/A    7       \nGPU 1     40      80        79             \n",
        );
        assert_eq!((g[0].index, &g[0].last_xid), (1, &Known::Known(79)));
        assert_eq!((&g[1].temperature_c, &g[1].last_xid), (&Known::Known(36.0), &Known::Known(0)));
        assert!(!g[1].ecc_dbe_volatile.is_known());
    }

    #[test]
    fn the_last_sample_counts_and_headers_repeat() {
        let rows = format!(
            "GPU 0     36      72        N/A    7       \n{HEAD}GPU 0     50      72        48     7       \n"
        );
        let g = gpus(&rows);
        assert_eq!((g.len(), &g[0].temperature_c), (1, &Known::Known(50.0)));
    }

    #[test]
    fn a_gpu_without_any_vital_value_is_lost() {
        let g = gpus("GPU 0     N/A     N/A       79     7       \n");
        assert_eq!((&g[0].answers, &g[0].last_xid), (&Known::Known(false), &Known::Known(79)));
    }

    #[test]
    fn broken_rows_are_unknown_not_shifted() {
        for row in [
            "GPU 0     36 1    72.050    N/A    7       \n",
            "GPU 0     361234567890123   N/A    7       \n",
            "GPU 0     36      72.050    N/A    7",
        ] {
            let g = gpus(row);
            assert!(!g[0].answers.is_known() && !g[0].last_xid.is_known(), "{row}");
        }
        assert!(!parse(b"GPU 0 1 2\n").is_known());
        assert!(!parse(b"").is_known());
    }
}
