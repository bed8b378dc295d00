//! Amounts a policy is written in: a share of a group of nodes, a rate, a length of time.

use crate::value::{format_duration, parse_duration};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How many nodes of a group: a count, or a percentage of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// So many nodes, whatever the size of the group.
    Count(u32),
    /// A part of the group, in hundredths of a percent: 250 is 2.5 %.
    Percent(u32),
}

/// A text that is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Neither a number nor a percentage.
    #[error("`{0}` is not a share: write a number of nodes such as 4, or a percentage such as 2% or 2.5%")]
    Form(String),
    /// More than everything.
    #[error("{0} is more than 100%")]
    TooMuch(String),
}

impl Share {
    /// Builds a share of whole percents; more than 100 counts as 100.
    pub const fn percent(percent: u32) -> Self {
        Self::Percent(if percent > 100 { 10_000 } else { percent * 100 })
    }

    /// Parses `4`, `2%`, `2 %` or `2.5%`; at most two digits behind the point.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let shown = || text.chars().take(40).collect::<String>();
        let trimmed = text.trim();
        let Some(number) = trimmed.strip_suffix('%') else {
            let digits = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit());
            return digits
                .then(|| trimmed.parse().ok())
                .flatten()
                .map(Self::Count)
                .ok_or_else(|| ShareError::Form(shown()));
        };
        let number = number.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 6) || !digits(part, 2) {
            return Err(ShareError::Form(shown()));
        }
        let hundredths = whole.parse::<u32>().ok().zip(format!("{part:0<2}").parse::<u32>().ok());
        match hundredths {
            Some((w, p)) if w * 100 + p <= 10_000 => Ok(Self::Percent(w * 100 + p)),
            Some(_) => Err(ShareError::TooMuch(shown())),
            None => Err(ShareError::Form(shown())),
        }
    }

    /// Returns how many nodes of a group of `total` that is.
    ///
    /// A percentage is rounded down, but is at least one node unless it is written as 0: a small rack with a budget of
    /// 2 % could otherwise never be repaired.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(n) => n as usize,
            Self::Percent(0) => 0,
            Self::Percent(p) => {
                // 128 bits hold any product of the two.
                let exact = (total as u128) * u128::from(p) / 10_000;
                usize::try_from(exact).unwrap_or(usize::MAX).max(1)
            }
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) if p % 100 == 0 => write!(f, "{}%", p / 100),
            Self::Percent(p) if p % 10 == 0 => write!(f, "{}.{}%", p / 100, p % 100 / 10),
            Self::Percent(p) => write!(f, "{}.{:02}%", p / 100, p % 100),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A length of time of a policy, in whole milliseconds, written `24h`, `15m`, `30d`. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(SignedDuration);

impl Period {
    /// Builds a period of hours.
    pub const fn hours(hours: u16) -> Self {
        Self(SignedDuration::from_secs(hours as i64 * 3600))
    }

    /// Builds a period of minutes.
    pub const fn minutes(minutes: u16) -> Self {
        Self(SignedDuration::from_secs(minutes as i64 * 60))
    }

    /// Takes a duration; a negative one is zero.
    pub fn new(duration: SignedDuration) -> Self {
        Self(SignedDuration::from_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(0)))
    }

    /// Returns the duration.
    pub const fn duration(self) -> SignedDuration {
        self.0
    }

    /// Says whether something that happened at `at` still counts at `now`: it is younger than this period. What lies
    /// in the future counts, since a clock that went back must not forget.
    pub fn reaches(self, at: Timestamp, now: Timestamp) -> bool {
        now.duration_since(at) < self.0
    }

    /// Returns when something that happened at `at` no longer counts.
    pub fn over(self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.0).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// At most so many in any stretch of time of that length.
///
/// It is stricter than a bucket that refills, which would let twice as many through around a full one, and it needs
/// nothing but the times in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// How many.
    pub most: u32,
    /// In which length of time.
    pub per: Period,
}

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate: write a number and a length of time, such as 20 per 1h or 2 per 24h")]
pub struct RateError(pub String);

impl Rate {
    /// Builds a rate.
    pub const fn new(most: u32, per: Period) -> Self {
        Self { most, per }
    }

    /// Parses `20 per 1h`.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let err = || RateError(text.chars().take(40).collect());
        let (most, per) = text.split_once(" per ").ok_or_else(err)?;
        let most = most.trim();
        if most.is_empty() || !most.bytes().all(|b| b.is_ascii_digit()) {
            return Err(err());
        }
        let most = most.parse().map_err(|_| err())?;
        let per = parse_duration(per).map_err(|_| err())?;
        if per.is_zero() {
            return Err(err());
        }
        Ok(Self { most, per: Period::new(per) })
    }

    /// Says how many of these times count at `now`, and when there is room for one more: `None` for at once.
    ///
    /// Times need no order. With a rate of 0 there is never room, and the second value is the end of time.
    pub fn judge(
        self,
        times: impl IntoIterator<Item = Timestamp>,
        now: Timestamp,
    ) -> (usize, Option<Timestamp>) {
        let mut counted: Vec<Timestamp> = times.into_iter().filter(|t| self.per.reaches(*t, now)).collect();
        let most = self.most as usize;
        if counted.len() < most {
            return (counted.len(), None);
        }
        if most == 0 {
            return (counted.len(), Some(Timestamp::MAX));
        }
        // There is room when only most - 1 of them still count: when the one at that place from the end is over.
        counted.sort_unstable();
        let free = counted.get(counted.len() - most).map(|t| self.per.over(*t));
        (counted.len(), free)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.most, self.per)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A share of a group of nodes within a length of time, written `10% per 15m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Storm {
    /// The share.
    pub share: Share,
    /// In which length of time.
    pub per: Period,
}

impl Storm {
    /// Parses `10% per 15m`.
    pub fn parse(text: &str) -> Result<Self, StormError> {
        let err = || StormError(text.chars().take(40).collect());
        let (share, per) = text.split_once(" per ").ok_or_else(err)?;
        let share = Share::parse(share).map_err(|_| err())?;
        let per = parse_duration(per).ok().filter(|p| !p.is_zero()).ok_or_else(err)?;
        Ok(Self { share, per: Period::new(per) })
    }
}

/// A text that is not a share within a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a share in a length of time: write 10% per 15m, or 20 per 15m for a number of nodes")]
pub struct StormError(pub String);

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.share, self.per)
    }
}

impl Serialize for Storm {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Storm {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_parse_print_and_count() {
        for (text, total, nodes) in [
            ("4", 200, 4),
            ("4", 1, 4),
            ("0", 200, 0),
            ("2%", 200, 4),
            ("2 %", 249, 4),
            ("2%", 250, 5),
            ("2%", 10, 1),
            ("2%", 0, 1),
            ("0%", 10_000, 0),
            ("0.00%", 10_000, 0),
            ("0.01%", 10_000, 1),
            ("2.5%", 200, 5),
            ("2.5%", 199, 4),
            ("12.25%", 400, 49),
            ("100%", 7, 7),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!(share.of(total), nodes, "{text} of {total}");
            assert_eq!(Share::parse(&share.to_string()).unwrap(), share, "{text}");
        }
        for bad in [
            "",
            "%",
            "-1",
            "-1%",
            "2,5%",
            "2.555%",
            "two",
            "1e3",
            "5 nodes",
            "%5",
            "99999999999",
            "2..5%",
            "+2%",
            "0x10",
        ] {
            assert!(matches!(Share::parse(bad), Err(ShareError::Form(_))), "{bad:?}");
        }
        for much in ["101%", "100.01%", "999999%"] {
            assert!(matches!(Share::parse(much), Err(ShareError::TooMuch(_))), "{much:?}");
        }
    }

    #[test]
    fn rates_parse_and_print() {
        assert_eq!(Rate::parse("20 per 1h").unwrap(), Rate::new(20, Period::hours(1)));
        assert_eq!(Rate::parse("2 per 24h").unwrap().to_string(), "2 per 1d");
        for bad in
            ["", "20", "20/h", "20 per", "20 per 0s", "-1 per 1h", "20 per hour", "x per 1h", "1.5 per 1h"]
        {
            assert!(Rate::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rate_says_when_there_is_room() {
        let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap();
        let rate = Rate::new(2, Period::minutes(1));
        assert_eq!(rate.judge([], at(0)), (0, None));
        assert_eq!(rate.judge([at(0)], at(10)), (1, None));
        assert_eq!(rate.judge([at(20), at(0)], at(30)), (2, Some(at(60))));
        assert_eq!(rate.judge([at(20), at(0)], at(60)), (1, None));
        assert_eq!(rate.judge([at(0), at(10), at(20)], at(30)), (3, Some(at(70))));
        assert_eq!(rate.judge([at(500)], at(30)), (1, None), "a clock that went back does not forget");
        assert_eq!(rate.judge([at(500), at(501)], at(30)), (2, Some(at(560))));
        assert_eq!(Rate::new(0, Period::minutes(1)).judge([], at(0)), (0, Some(Timestamp::MAX)));
    }

    proptest! {
        #[test]
        fn a_percentage_is_never_more_than_it_says(hundredths in 0u32..=10_000, total in 0usize..2_000_000) {
            let n = Share::Percent(hundredths).of(total);
            let exact = total as u128 * u128::from(hundredths);
            if hundredths == 0 {
                prop_assert_eq!(n, 0);
            } else if exact >= 10_000 {
                prop_assert!(n as u128 * 10_000 <= exact && (n as u128 + 1) * 10_000 > exact);
            } else {
                prop_assert_eq!(n, 1);
            }
        }

        #[test]
        fn a_rate_is_never_exceeded_when_it_is_obeyed(
            most in 1u32..6, per in 1u16..90, wishes in proptest::collection::vec(0i64..20_000, 1..80)
        ) {
            let rate = Rate::new(most, Period::minutes(per));
            let start = Timestamp::from_second(1_700_000_000).unwrap();
            let mut wishes = wishes;
            wishes.sort_unstable();
            let mut done: Vec<Timestamp> = Vec::new();
            for w in wishes {
                let now = start + SignedDuration::from_secs(w);
                match rate.judge(done.iter().copied(), now) {
                    (_, None) => done.push(now),
                    (_, Some(until)) => {
                        prop_assert!(until > now);
                        prop_assert!(rate.judge(done.iter().copied(), until).1.is_none(), "there is room at {}", until);
                        let just_before = until - SignedDuration::from_millis(1);
                        prop_assert!(rate.judge(done.iter().copied(), just_before).1.is_some());
                    }
                }
            }
            for (i, t) in done.iter().enumerate() {
                let within = done[i..].iter().filter(|u| u.duration_since(*t) < rate.per.duration()).count();
                prop_assert!(within <= most as usize);
            }
        }

        #[test]
        fn any_text_is_a_share_or_an_error(text in ".{0,40}") {
            if let Ok(s) = Share::parse(&text) {
                prop_assert_eq!(Share::parse(&s.to_string()), Ok(s));
            }
            if let Ok(r) = Rate::parse(&text) {
                prop_assert_eq!(Rate::parse(&r.to_string()), Ok(r));
            }
            if let Ok(r) = Storm::parse(&text) {
                prop_assert_eq!(Storm::parse(&r.to_string()), Ok(r));
            }
        }
    }
}
