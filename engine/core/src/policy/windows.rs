//! Change windows and freezes: when work may begin. Times are wall-clock times of a named zone, so a window is where
//! people expect it on the days on which the clocks are changed.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A time zone by its IANA name. The rules come with the program, so a window means the same on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// A name that is no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a time zone{}: write an IANA name such as UTC or Europe/Berlin", near.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
pub struct UnknownZone {
    /// What was written, cut to a sensible length.
    pub name: String,
    /// The nearest name there is.
    pub near: Option<String>,
}

impl Zone {
    /// Finds a zone by its name, in any case.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        let db = TimeZoneDatabase::bundled();
        let unknown = || {
            let names: Vec<String> = db.available().map(|n| n.as_str().to_owned()).collect();
            // People write the city alone.
            let city = |n: &&String| n.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(name));
            let near = names.iter().find(city).map(String::as_str);
            let near = near.or_else(|| crate::diag::did_you_mean(name, names.iter().map(String::as_str)));
            UnknownZone { name: name.chars().take(40).collect(), near: near.map(str::to_owned) }
        };
        // The database knows a zone called "Etc/Unknown" that stands for none.
        let rules = db.get(name).ok().filter(|z| !z.is_unknown()).ok_or_else(unknown)?;
        let name = rules.iana_name().unwrap_or("UTC").to_owned();
        Ok(Self { name, rules })
    }

    /// Returns UTC.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// Returns its IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the moment at which a clock in this zone shows a time: the earlier one, where it exists twice or not at
    /// all. `None` outside the range of time.
    pub fn earlier(&self, wall: DateTime) -> Option<Timestamp> {
        self.rules.to_ambiguous_zoned(wall).earlier().ok().map(|z| z.timestamp())
    }

    /// The same, the later one.
    pub fn later(&self, wall: DateTime) -> Option<Timestamp> {
        self.rules.to_ambiguous_zoned(wall).later().ok().map(|z| z.timestamp())
    }

    /// Prints a time as a clock in this zone shows it, to the minute: `2026-11-21 13:05 CET`.
    pub fn show(&self, at: Timestamp) -> String {
        at.to_zoned(self.rules.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::named(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Days of the week, as people write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// Every day, from Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    fn of(weekday: Weekday) -> Self {
        Self::ALL[weekday.to_monday_zero_offset() as usize % 7]
    }
}

/// A time of day, to the minute, printed `22:00`; `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clock {
    minutes: u16,
}

impl Clock {
    /// The end of the day.
    pub const MIDNIGHT: Self = Self { minutes: 24 * 60 };

    /// Parses `HH:MM`, from `00:00` to `24:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (h, m) = text.split_once(':')?;
        let two =
            |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u16>().ok());
        let minutes = two(h)?? * 60 + two(m)??;
        (two(m)?? < 60 && minutes <= Self::MIDNIGHT.minutes).then_some(Self { minutes })
    }

    /// Returns the day and time this stands for, seen from a day: the end of a day is the next one's beginning.
    fn on(self, day: Date) -> Option<(Date, Time)> {
        if self == Self::MIDNIGHT {
            return Some((day.tomorrow().ok()?, Time::midnight()));
        }
        Some((day, Time::new((self.minutes / 60) as i8, (self.minutes % 60) as i8, 0, 0).ok()?))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time of day: write HH:MM")))
    }
}

/// A change window: on these days, from this time to that, in this zone.
///
/// A window whose end is not after its beginning runs over midnight and belongs to the day on which it begins. A
/// beginning or an end that the change of the clocks makes exist twice, or not at all, is read so that the window is
/// the shorter one: the later beginning, the earlier end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins; empty for every day.
    pub days: Vec<Day>,
    /// When it begins.
    pub from: Clock,
    /// When it ends.
    pub to: Clock,
    /// Where the clock hangs.
    pub zone: Zone,
}

impl Window {
    /// Returns the window that begins on a day, as two moments; `None` where it does not begin on that day, or where
    /// the change of the clocks left nothing of it.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&Day::of(day.weekday())) {
            return None;
        }
        let wall = |clock: Clock, day: Date| clock.on(day).map(|(date, time)| date.to_datetime(time));
        let last = if self.to > self.from { day } else { day.tomorrow().ok()? };
        let from = self.zone.later(wall(self.from, day)?)?;
        let to = self.zone.earlier(wall(self.to, last)?)?;
        (from < to).then_some((from, to))
    }

    /// Looks at the occurrences around a moment: those that began the day before, and those of the days to come.
    fn around(&self, now: Timestamp, days: i32) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let today = now.to_zoned(self.zone.rules.clone()).date();
        (-2..=days).filter_map(move |d| self.on(today.checked_add(Span::new().days(d)).ok()?))
    }

    /// Says until when the window is open, if it is open now.
    pub fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.around(now, 1).filter(|(from, to)| *from <= now && now < *to).map(|(_, to)| to).max()
    }

    /// Says when the window opens next, after now; looks ten days ahead, which covers each day of the week.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        self.around(now, 10).map(|(from, _)| from).filter(|from| *from > now).min()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.is_empty() {
            f.write_str("every day")?;
        } else {
            let days: Vec<&str> = self.days.iter().map(|d| d.as_str()).collect();
            f.write_str(&days.join(", "))?;
        }
        write!(f, " {} to {} {}", self.from, self.to, self.zone)
    }
}

/// A freeze: nothing but reads and notes begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// First moment.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
    /// Why, for people.
    pub why: String,
}

impl Freeze {
    /// Says whether it holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.to
    }
}

/// Where the windows stand at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// No windows are given: always open.
    Always,
    /// Open until then. Windows that follow each other without a gap count as one.
    Open(Timestamp),
    /// Closed; opens then, if that is known.
    Closed(Option<Timestamp>),
}

/// Judges windows together: one open window is enough.
pub fn opening(windows: &[Window], now: Timestamp) -> Opening {
    if windows.is_empty() {
        return Opening::Always;
    }
    let end_at = |t: Timestamp| windows.iter().filter_map(|w| w.open_until(t)).max();
    let Some(mut end) = end_at(now) else {
        return Opening::Closed(windows.iter().filter_map(|w| w.next_opening(now)).min());
    };
    // Bounded: two weeks of windows that touch each other count as long enough.
    let far = now.saturating_add(SignedDuration::from_hours(14 * 24)).unwrap_or(Timestamp::MAX);
    while end < far
        && let Some(next) = end_at(end).filter(|n| *n > end)
    {
        end = next;
    }
    Opening::Open(end)
}

#[cfg(test)]
mod tests;
