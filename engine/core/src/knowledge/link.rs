//! NVLink 5: what the lines of XIDs 144 to 150 mean. Unit and status decide, for link events the reason does.

use serde::{Deserialize, Serialize};

/// Longest line that is decoded, in bytes.
const MAX_LINE: usize = 1_024;

/// How far an event reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkSeverity {
    /// Nothing stops.
    Nonfatal,
    /// One link is down; the GPU wants a reset soon.
    LinkFatal,
    /// All links and all work of the GPU are down.
    Fatal,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRule {
    /// Its name.
    pub id: String,
    /// The code.
    pub xid: u32,
    /// The names of the unit, any of them.
    pub units: Vec<String>,
    /// The status words, any of them; empty where the reason decides.
    #[serde(default)]
    pub status: Vec<u32>,
    /// The reason of a link event.
    #[serde(default)]
    pub reason: Option<u32>,
    /// NVIDIA's word for what is to be done at once.
    pub vendor: String,
    /// NVIDIA's word for what is to be looked into.
    pub vendor_then: String,
    /// How far it reaches.
    pub severity: LinkSeverity,
    /// Where it comes from: hw, sw, fw, hw_sw or none.
    pub origin: String,
    /// What it becomes where the top bit of the unit's number is set.
    #[serde(default)]
    pub promoted: Option<String>,
    /// Where the rule comes from.
    pub sources: Vec<String>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkEvent {
    /// The code.
    pub xid: u32,
    /// The unit, as it is written.
    pub unit: String,
    /// Whether the line itself says that it is fatal.
    pub fatal: bool,
    /// Whether it was handed on to peers (XC1).
    pub crossed: bool,
    /// The first word.
    pub intrinfo: u32,
    /// The second word.
    pub status: u32,
}

impl LinkEvent {
    /// Reads the part of a line from its code on; `None` where it has not this form.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_LINE {
            return None;
        }
        let mut at = None;
        for xid in 144..=150_u32 {
            let code = xid.to_string();
            for (i, _) in text.match_indices(&code) {
                let before = text[..i].bytes().next_back();
                let after = text.as_bytes().get(i + code.len());
                let starts = before.is_none_or(|b| b == b' ');
                if starts && after == Some(&b',') && at.is_none_or(|(j, _)| i < j) {
                    at = Some((i, xid));
                }
            }
        }
        let (at, xid) = at?;
        let words: Vec<&str> = text[at..].split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let word = |w: &str| words.iter().position(|x| x.eq_ignore_ascii_case(w));
        let (level, fatal) = match (word("Nonfatal").or(word("Non-fatal")), word("Fatal")) {
            (Some(i), _) => (i, false),
            (None, Some(i)) => (i, true),
            (None, None) => return None,
        };
        // Process and name may stand in between; the unit is the one word before the level, or the two of `MSE Degraded`.
        let last = *words.get(level.checked_sub(1)?)?;
        let two = level >= 2 && last.eq_ignore_ascii_case("degraded");
        let unit = if two { format!("{} {last}", words[level - 2]) } else { last.to_owned() };
        let inside = text[at..].split_once('(')?.1;
        let mut numbers = inside.split([' ', ')']).filter_map(hex);
        Some(Self {
            xid,
            unit,
            fatal,
            crossed: word("XC1").is_some(),
            intrinfo: numbers.next()?,
            status: numbers.next()?,
        })
    }

    /// Returns the reason of a link event: bits 25 to 20 of the first word.
    pub fn reason(&self) -> u32 {
        (self.intrinfo >> 20) & 0x3f
    }
}

fn hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

impl LinkRule {
    /// Says whether it is for this event.
    pub fn fits(&self, event: &LinkEvent) -> bool {
        self.xid == event.xid
            && self.units.iter().any(|u| u.eq_ignore_ascii_case(&event.unit))
            && match self.reason {
                Some(r) => r == event.reason(),
                None => self.status.contains(&event.status),
            }
    }

    /// Returns NVIDIA's word for what is to be done at once about this event. The top bit of the unit's number stands at 7
    /// from driver branch 575 on, and at 9 before; what is not known of the driver counts for the worse.
    pub fn vendor_for(&self, event: &LinkEvent, driver: Option<u32>) -> &str {
        let bits = match driver {
            Some(d) if d < 575 => 1 << 9,
            Some(_) => 1 << 7,
            None => (1 << 7) | (1 << 9),
        };
        match &self.promoted {
            Some(p) if event.intrinfo & bits != 0 => p,
            _ => &self.vendor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_what_stands_before_the_code() {
        let short = "149, NETIR_BER_EVENT Nonfatal XC0 i0 Link 04 (0x00000013 0x00000001 0x0 0x0 0x0 0x0)";
        let e = LinkEvent::read(short).unwrap();
        assert_eq!((e.xid, e.unit.as_str(), e.fatal, e.status), (149, "NETIR_BER_EVENT", false, 1));
        let long = "NVRM: Xid (PCI:0018:01:00): 149, pid=12, name=python, NETIR_LINK_EVT Fatal XC1 i0 Link 08 (0x004505c6 0x00000000 0x0)";
        let e = LinkEvent::read(long).unwrap();
        assert_eq!((e.unit.as_str(), e.fatal, e.crossed, e.reason()), ("NETIR_LINK_EVT", true, true, 4));
        for bad in [
            "",
            "149",
            "149, X Fatal",
            "148 Fatal (0x0 0x0)",
            "150, Fatal (0xzz 0x0)",
            "13, x Fatal (0x1 0x2)",
        ] {
            assert_eq!(LinkEvent::read(bad), None, "{bad}");
        }
    }
}
