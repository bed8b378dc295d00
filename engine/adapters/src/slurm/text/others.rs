//! `scontrol show reservation(s)`, `show partition(s)`, `ping` and `--version`.

use super::fields::{Key, Slot, scan};
use super::{NameBudget, Record, TextContext, comma_list, failure, node_list, optional, records};
use crate::slurm::answer::{MAX_INPUT, ParseError, Ping, Release, shorten};
use engine_core::known::{Cause, Known};
use engine_core::model::{Partition, Reservation};
use jiff::Timestamp;

/// Parses `scontrol show reservation(s)`; `No reservations in the system` gives an empty list, empty output an error.
///
/// # Errors
/// Empty output, a reported failure, or a record without its name, times, nodes or flags.
pub fn parse_reservations(text: &str, ctx: &TextContext) -> Result<Vec<Reservation>, ParseError> {
    const WHAT: &str = "reservations";
    let list = records(text, WHAT, "ReservationName=", "No reservations in the system")?;
    let mut budget = NameBudget::default();
    let mut reservations = Vec::new();
    for record in &list {
        let r = reservation(record, WHAT, ctx)?;
        budget.spend(&r.nodes, WHAT)?;
        reservations.push(r);
    }
    Ok(reservations)
}

fn reservation(
    record: &Record<'_>,
    what: &'static str,
    ctx: &TextContext,
) -> Result<Reservation, ParseError> {
    const KEYS: [&str; 7] =
        ["ReservationName", "StartTime", "EndTime", "Nodes", "Flags", "Users", "Accounts"];
    let slots = wanted(record, KEYS);
    let drift = |key| ParseError::Drift { what, key, line: record.line };
    for (slot, key) in slots.iter().zip(KEYS).take(5) {
        if *slot == Slot::Missing {
            return Err(drift(key));
        }
    }
    let time = |slot: Slot<'_>| -> Known<Timestamp> {
        field(slot, |v| ctx.time(v)).and_then(|t| match t {
            Some(t) => Known::Known(t),
            None => Known::unknown(Cause::NotReported, ""),
        })
    };
    Ok(Reservation {
        name: name(record, "ReservationName=".len(), what)?,
        start: time(slots[1]),
        end: time(slots[2]),
        nodes: field(slots[3], node_list),
        flags: field(slots[4], |v| {
            Known::Known(comma_list(v).iter().map(|w| w.to_ascii_uppercase()).collect())
        }),
        users: field(slots[5], |v| Known::Known(comma_list(v))),
        accounts: field(slots[6], |v| Known::Known(comma_list(v))),
    })
}

/// Parses `scontrol show partition(s)`.
///
/// # Errors
/// Empty output, a reported failure, or a record without its name, nodes or state.
pub fn parse_partitions(text: &str) -> Result<Vec<Partition>, ParseError> {
    const WHAT: &str = "partitions";
    const KEYS: [&str; 4] = ["PartitionName", "Nodes", "State", "Default"];
    let list = records(text, WHAT, "PartitionName=", "No partitions in the system")?;
    if list.is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    let mut budget = NameBudget::default();
    let mut one = |record: &Record<'_>| {
        let slots = wanted(record, KEYS);
        for (slot, key) in slots.iter().zip(KEYS).take(3) {
            if *slot == Slot::Missing {
                return Err(ParseError::Drift { what: WHAT, key, line: record.line });
            }
        }
        let nodes = field(slots[1], node_list);
        budget.spend(&nodes, WHAT)?;
        Ok(Partition {
            name: name(record, "PartitionName=".len(), WHAT)?,
            nodes,
            state: field(slots[2], |v| match optional(v) {
                Some(v) => Known::Known(v),
                None => Known::unknown(Cause::NotReported, ""),
            }),
            is_default: field(slots[3], |v| match v {
                "YES" => Known::Known(true),
                "NO" => Known::Known(false),
                other => Known::unknown(Cause::UnrecognisedWord, shorten(other, 40)),
            }),
        })
    };
    list.iter().map(&mut one).collect()
}

/// The name of a record: its first word.
fn name(record: &Record<'_>, key: usize, what: &'static str) -> Result<String, ParseError> {
    let name = record.text[key..].split([' ', '\n']).next().unwrap_or_default();
    if name.is_empty() || name.len() > 256 {
        return Err(ParseError::malformed(what, record.line, "the name is empty or too long"));
    }
    Ok(name.to_owned())
}

fn wanted<'a, const N: usize>(record: &Record<'a>, keys: [&'static str; N]) -> [Slot<'a>; N] {
    scan::<N>(record.text, |key| keys.iter().position(|k| k.as_bytes() == key).map_or(Key::Skip, Key::Slot)).0
}

fn field<T>(slot: Slot<'_>, parse: impl FnOnce(&str) -> Known<T>) -> Known<T> {
    match slot {
        Slot::Once(v) => parse(v),
        Slot::Missing => Known::unknown(Cause::Unsupported, ""),
        Slot::Unclear => Known::unknown(Cause::Conflicting, "printed more than once, or not as one word"),
    }
}

/// Parses `scontrol ping`: one line per controller.
///
/// # Errors
/// Empty output, a reported failure, or a line in another form. A controller that is down is not an error here.
pub fn parse_ping(text: &str) -> Result<Vec<Ping>, ParseError> {
    const WHAT: &str = "ping";
    if text.len() > MAX_INPUT {
        return Err(ParseError::TooLarge { len: text.len() });
    }
    let mut pings = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        // `scontrol ping` adds a banner of asterisks when a controller is down.
        if line.is_empty() || line.starts_with("**") {
            continue;
        }
        if let Some(message) = failure(line) {
            return Err(ParseError::failed(WHAT, message));
        }
        let parsed =
            line.strip_prefix("Slurmctld(").and_then(|r| r.split_once(") at ")).and_then(|(role, rest)| {
                let (host, word) = rest.rsplit_once(" is ")?;
                Some(Ping {
                    host: host.to_owned(),
                    up: match word {
                        "UP" => Known::Known(true),
                        "DOWN" => Known::Known(false),
                        other => Known::unknown(Cause::UnrecognisedWord, shorten(other, 40)),
                    },
                    primary: match role {
                        "primary" => Known::Known(true),
                        r if r.starts_with("backup") => Known::Known(false),
                        other => Known::unknown(Cause::UnrecognisedWord, shorten(other, 40)),
                    },
                })
            });
        match parsed {
            Some(p) if pings.len() < 64 => pings.push(p),
            _ => {
                return Err(ParseError::malformed(
                    WHAT,
                    i + 1,
                    format!("not a line of scontrol ping: {:?}", shorten(line, 80)),
                ));
            }
        }
    }
    if pings.is_empty() { Err(ParseError::Empty { what: WHAT }) } else { Ok(pings) }
}

/// Parses `scontrol --version`: `slurm 26.05.3`, `slurm-wlm 22.05.8`.
///
/// # Errors
/// Empty output, a reported failure, or anything but one line of that form.
pub fn parse_version(text: &str) -> Result<Release, ParseError> {
    const WHAT: &str = "the version";
    let line = text.trim();
    if line.is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    if let Some(message) = failure(line) {
        return Err(ParseError::failed(WHAT, message));
    }
    let named = line.starts_with("slurm") && !line.contains('\n') && line.split_whitespace().count() == 2;
    match Release::parse(line) {
        Some(r) if named => Ok(r),
        _ => Err(ParseError::malformed(
            WHAT,
            1,
            format!("expected `slurm 24.11.0`, found {:?}", shorten(line, 80)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping() {
        let up = parse_ping("Slurmctld(primary) at head is UP\nSlurmctld(backup1) at b is DOWN\n").unwrap();
        assert_eq!(
            (up[0].up.clone(), up[1].up.clone(), up[1].primary.clone()),
            (true.into(), false.into(), false.into())
        );
        let banner =
            "Slurmctld(primary) at vm is DOWN\n*****\n** RESTORE SLURMCTLD DAEMON TO SERVICE **\n*****\n";
        assert_eq!(parse_ping(banner).unwrap()[0].up, Known::Known(false));
        for bad in ["", "hello\n", "Slurmctld(primary) at head\n"] {
            assert!(parse_ping(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn version() {
        assert_eq!(parse_version("slurm-wlm 22.05.8\n").unwrap().to_string(), "22.05.8");
        for bad in ["", "22.05.8", "slurm", "slurm 22.05.8\nslurm 22.05.8", "slurm one two 22.05.8"] {
            assert!(parse_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reservations() {
        let utc = TextContext::utc();
        assert_eq!(parse_reservations("No reservations in the system\n", &utc).unwrap(), vec![]);
        assert!(matches!(parse_reservations("", &utc), Err(ParseError::Empty { .. })));
        assert!(matches!(
            parse_reservations("Reservation nope not found\n", &utc),
            Err(ParseError::ReadFailed { .. })
        ));
        let all = "ReservationName=fw StartTime=2026-11-21T01:41:10 EndTime=2026-11-21T02:11:10 Nodes=n[2,4] Flags=MAINT,IGNORE_JOBS Users=root Accounts=(null)";
        for key in ["StartTime", "EndTime", "Nodes", "Flags"] {
            let text = all.replace(&format!("{key}="), "Other=");
            assert!(
                matches!(parse_reservations(&text, &utc), Err(ParseError::Drift { key: k, .. }) if k == key)
            );
        }
        let r = &parse_reservations(all, &utc).unwrap()[0];
        assert!(
            r.is_maintenance() && r.accounts == Known::Known(vec![]) && r.nodes.known().unwrap().len() == 2
        );
        // Free text at the end that imitates a field makes the field unknown, and unknown counts as covering.
        let r = &parse_reservations(&format!("{all} Comment=x Flags=DAILY Nodes=n9"), &utc).unwrap()[0];
        assert!(r.is_maintenance() && !r.flags.is_known() && !r.nodes.is_known());
    }
}
