//! Readers of change windows and freezes.

use super::codes;
use crate::read::Reader;
use crate::read::field::Fields;
use crate::tree::{Node, short};
use engine_core::diag::Diagnostic;
use engine_core::policy::{Clock, Day, Freeze, Window, Zone};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

/// Longest reason of a freeze, in characters.
const MAX_WHY: usize = 200;

/// Which reading of a time that exists twice or not at all.
#[derive(Clone, Copy)]
enum Side {
    Earlier,
    Later,
}

impl Reader<'_> {
    pub(super) fn windows(&mut self, node: &Node) -> Vec<Window> {
        let help = "write [{ days: [sat, sun], from: \"08:00\", to: \"18:00\", zone: UTC }]";
        let items = self.list(node, "`windows` is a list", help).unwrap_or_default();
        items.iter().filter_map(|n| self.window(n)).collect()
    }

    fn window(&mut self, node: &Node) -> Option<Window> {
        let f = Fields::of(self, node, "a window", &["days", "from", "to", "zone"], &["from", "to"]);
        let days = f.get("days").map(|n| self.days(n)).unwrap_or_default();
        let from = f.get("from").and_then(|n| self.clock(n));
        let to = f.get("to").and_then(|n| self.clock(n));
        let zone = match f.get("zone") {
            Some(n) => self.zone(n),
            None => Some(Zone::utc()),
        };
        let window = Window { days, from: from?, to: to?, zone: zone? };
        if window.from == window.to {
            self.found.push(
                Diagnostic::warning(codes::WHOLE_DAY, "the window lasts a whole day", node.span, "")
                    .with_help("if that is meant, write from: \"00:00\" and to: \"24:00\""),
            );
        }
        Some(window)
    }

    fn days(&mut self, node: &Node) -> Vec<Day> {
        let words = Day::ALL.map(Day::as_str);
        let items = self.list(node, "`days` is a list", "write [mon, tue]").unwrap_or_default();
        let mut days: Vec<Day> = items
            .iter()
            .filter_map(|n| {
                let word = self.word(n, "days", &words)?;
                Day::ALL.into_iter().find(|d| d.as_str() == word)
            })
            .collect();
        days.sort_unstable();
        days.dedup();
        days
    }

    fn clock(&mut self, node: &Node) -> Option<Clock> {
        let help = "write it with four digits and in quotes, such as \"22:00\"";
        let text = self.scalar(node, codes::BAD_CLOCK, help)?;
        let clock = Clock::parse(&text);
        if clock.is_none() {
            let says = format!("`{}` is not a time of day", short(&text));
            self.problem(codes::BAD_CLOCK, says, node.span, help);
        }
        clock
    }

    fn zone(&mut self, node: &Node) -> Option<Zone> {
        let text = self.text(node, "a time zone")?.to_owned();
        match Zone::named(&text) {
            Ok(z) => Some(z),
            Err(e) => {
                let help = e.near.map_or("write an IANA name such as UTC or Europe/Berlin".to_owned(), |n| {
                    format!("did you mean `{n}`?")
                });
                let says = format!("`{}` is not a time zone", short(&text));
                self.problem(codes::UNKNOWN_ZONE, says, node.span, &help);
                None
            }
        }
    }

    pub(super) fn freezes(&mut self, node: &Node) -> Vec<Freeze> {
        let help = "write [{ from: 2026-12-24, to: 2027-01-02, why: holidays }]";
        let items = self.list(node, "`freezes` is a list", help).unwrap_or_default();
        items.iter().filter_map(|n| self.freeze(n)).collect()
    }

    fn freeze(&mut self, node: &Node) -> Option<Freeze> {
        let f = Fields::of(self, node, "a freeze", &["from", "to", "zone", "why"], &["from", "to", "why"]);
        let zone = match f.get("zone") {
            Some(n) => self.zone(n),
            None => Some(Zone::utc()),
        };
        let why = f.get("why").and_then(|n| self.prose(n, MAX_WHY));
        let zone = zone?;
        // A time that exists twice or not at all is read so that the freeze is the longer one.
        let from = f.get("from").and_then(|n| self.moment(n, &zone, Side::Earlier));
        let to = f.get("to").and_then(|n| self.moment(n, &zone, Side::Later));
        let freeze = Freeze { from: from?, to: to?, why: why? };
        if freeze.to <= freeze.from {
            let (from, to) = (f.get("from")?.span, f.get("to")?.span);
            self.found.push(
                Diagnostic::error(codes::EMPTY_FREEZE, "the freeze ends before it begins", to, "ends here")
                    .with_label(from, "begins here")
                    .with_help("swap the two, or correct one of them"),
            );
            return None;
        }
        Some(freeze)
    }

    fn moment(&mut self, node: &Node, zone: &Zone, side: Side) -> Option<Timestamp> {
        let help = "write 2026-12-24, \"2026-12-24 18:00\" or 2026-12-24T18:00:00Z";
        let text = self.scalar(node, codes::BAD_DATE, help)?;
        let found = text.parse::<Timestamp>().ok().or_else(|| {
            let wall = text
                .parse::<Date>()
                .ok()
                .filter(|_| text.len() == 10)
                .map(|d| d.to_datetime(jiff::civil::Time::midnight()))
                .or_else(|| text.parse::<DateTime>().ok().filter(|_| text.len() >= 16))?;
            match side {
                Side::Earlier => zone.earlier(wall),
                Side::Later => zone.later(wall),
            }
        });
        if found.is_none() {
            self.problem(codes::BAD_DATE, format!("`{}` is not a date", short(&text)), node.span, help);
        }
        found
    }
}
