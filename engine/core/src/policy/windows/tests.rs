//! Windows over midnight, over the change of the clocks, and side by side.

use super::*;
use proptest::prelude::*;

fn window(days: &[Day], from: &str, to: &str, zone: &str) -> Window {
    let clock = |t| Clock::parse(t).unwrap();
    Window { days: days.to_vec(), from: clock(from), to: clock(to), zone: Zone::named(zone).unwrap() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn zones_are_found_by_their_iana_names_only() {
    assert_eq!(Zone::named("europe/berlin").unwrap().name(), "Europe/Berlin");
    assert_eq!(Zone::named("UTC").unwrap(), Zone::utc());
    let e = Zone::named("Europe/Berln").unwrap_err();
    assert_eq!(e.near.as_deref(), Some("Europe/Berlin"));
    assert_eq!(Zone::named("berlin").unwrap_err().near.as_deref(), Some("Europe/Berlin"));
    for bad in ["", "Etc/Unknown", "CEST", "Berlin", "+02:00", "../../etc/passwd", "UTC\0"] {
        assert!(Zone::named(bad).is_err(), "{bad:?}");
    }
    let json = serde_json::to_string(&Zone::named("Asia/Tokyo").unwrap()).unwrap();
    assert_eq!(json, "\"Asia/Tokyo\"");
    assert_eq!(serde_json::from_str::<Zone>(&json).unwrap().name(), "Asia/Tokyo");
    assert!(serde_json::from_str::<Zone>("\"Mars\"").is_err());
}

#[test]
fn clocks_are_written_with_four_digits() {
    for good in ["00:00", "09:30", "23:59", "24:00"] {
        assert_eq!(Clock::parse(good).unwrap().to_string(), good);
    }
    for bad in ["", "9:30", "24:01", "25:00", "12:60", "12", "12:3", "-1:00", "12:30:00", "٠٩:٣٠"] {
        assert_eq!(Clock::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn a_window_is_open_from_its_first_minute_to_its_last() {
    // 2026-11-21 is a Saturday.
    let w = window(&[Day::Sat], "10:00", "12:00", "UTC");
    for (now, open) in [
        ("2026-11-21T09:59:59Z", None),
        ("2026-11-21T10:00:00Z", Some("2026-11-21T12:00:00Z")),
        ("2026-11-21T11:59:59Z", Some("2026-11-21T12:00:00Z")),
        ("2026-11-21T12:00:00Z", None),
        ("2026-11-22T11:00:00Z", None),
    ] {
        assert_eq!(w.open_until(at(now)), open.map(at), "{now}");
    }
    assert_eq!(w.next_opening(at("2026-11-21T10:00:00Z")), Some(at("2026-11-28T10:00:00Z")));
    assert_eq!(w.next_opening(at("2026-11-20T10:00:00Z")), Some(at("2026-11-21T10:00:00Z")));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
    let w = window(&[Day::Fri], "22:00", "06:00", "UTC");
    assert_eq!(w.open_until(at("2026-11-21T05:59:00Z")), Some(at("2026-11-21T06:00:00Z")));
    assert_eq!(w.open_until(at("2026-11-20T05:59:00Z")), None);
    assert_eq!(w.open_until(at("2026-11-21T23:00:00Z")), None);
    let all_day = window(&[Day::Sun], "00:00", "24:00", "UTC");
    assert_eq!(all_day.open_until(at("2026-11-22T23:59:59Z")), Some(at("2026-11-23T00:00:00Z")));
    assert_eq!(all_day.open_until(at("2026-11-23T00:00:00Z")), None);
    let round = window(&[], "08:00", "08:00", "UTC");
    assert_eq!(round.open_until(at("2026-11-22T03:00:00Z")), Some(at("2026-11-22T08:00:00Z")));
}

#[test]
fn the_clock_on_the_wall_counts_when_the_clocks_are_changed() {
    // Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00.
    let night = window(&[], "22:00", "06:00", "Europe/Berlin");
    let end = night.open_until(at("2026-03-28T22:00:00Z")).unwrap();
    assert_eq!(end, at("2026-03-29T04:00:00Z"), "seven hours in spring");
    let end = night.open_until(at("2026-10-24T21:00:00Z")).unwrap();
    assert_eq!(end, at("2026-10-25T05:00:00Z"), "nine hours in autumn");
    // A beginning in the gap is the later reading, an end in it the earlier one.
    let in_gap = window(&[], "02:30", "05:00", "Europe/Berlin");
    assert_eq!(in_gap.open_until(at("2026-03-29T01:15:00Z")), None);
    assert!(in_gap.open_until(at("2026-03-29T01:30:00Z")).is_some());
    let ends_in_gap = window(&[], "00:00", "02:30", "Europe/Berlin");
    assert_eq!(ends_in_gap.open_until(at("2026-03-29T00:00:00Z")), Some(at("2026-03-29T00:30:00Z")));
    // 02:30 exists twice in autumn: the window from 02:30 begins at the second, the one to 02:30 ends at the first.
    let twice = window(&[], "02:30", "05:00", "Europe/Berlin");
    assert_eq!(twice.open_until(at("2026-10-25T00:45:00Z")), None);
    assert!(twice.open_until(at("2026-10-25T01:30:00Z")).is_some());
    let ends_twice = window(&[], "00:00", "02:30", "Europe/Berlin");
    assert_eq!(ends_twice.open_until(at("2026-10-24T23:00:00Z")), Some(at("2026-10-25T00:30:00Z")));
    // Nothing is left of a window that lies in the gap.
    let swallowed = window(&[], "02:00", "03:00", "Europe/Berlin");
    for minute in 0..180 {
        let t = at("2026-03-29T00:00:00Z") + SignedDuration::from_mins(minute);
        assert_eq!(swallowed.open_until(t), None, "{t}");
    }
    assert_eq!(swallowed.next_opening(at("2026-03-28T02:00:00Z")), Some(at("2026-03-30T00:00:00Z")));
}

#[test]
fn windows_that_touch_are_one_and_none_means_always() {
    assert_eq!(opening(&[], at("2026-11-21T00:00:00Z")), Opening::Always);
    let two = [window(&[], "20:00", "24:00", "UTC"), window(&[], "00:00", "04:00", "UTC")];
    assert_eq!(opening(&two, at("2026-11-21T21:00:00Z")), Opening::Open(at("2026-11-22T04:00:00Z")));
    assert_eq!(opening(&two, at("2026-11-21T12:00:00Z")), Opening::Closed(Some(at("2026-11-21T20:00:00Z"))));
    let for_ever = [window(&[], "00:00", "24:00", "UTC")];
    let Opening::Open(end) = opening(&for_ever, at("2026-11-21T12:00:00Z")) else { panic!() };
    assert!(end >= at("2026-12-05T12:00:00Z"));
}

#[test]
fn a_freeze_holds_from_its_first_moment_to_the_one_before_its_end() {
    let f = Freeze { from: at("2026-12-24T00:00:00Z"), to: at("2027-01-02T00:00:00Z"), why: "x".to_owned() };
    assert!(!f.holds(at("2026-12-23T23:59:59Z")) && f.holds(f.from) && !f.holds(f.to));
}

proptest! {
    /// Against the plain definition: at each minute, does some day's window hold the wall clock?
    #[test]
    fn a_window_agrees_with_the_clock_on_the_wall(
        minute in 0i64..(400 * 24 * 60), days in 0u8..128, from in 0u16..1440, to in 0u16..=1440,
        zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    ) {
        let picked: Vec<Day> = Day::ALL.into_iter().enumerate().filter(|(i, _)| days & (1 << i) != 0).map(|(_, d)| d).collect();
        let w = Window {
            days: picked.clone(), from: Clock { minutes: from }, to: Clock { minutes: to }, zone: Zone::named(zone).unwrap(),
        };
        let now = at("2026-01-01T00:00:00Z") + SignedDuration::from_mins(minute);
        let wall = now.to_zoned(w.zone.rules.clone());
        // Days on which the clocks are changed have their own test.
        let steady = [-2i32, -1, 0, 1, 2].iter().all(|d| {
            let day = wall.date().checked_add(Span::new().days(*d)).unwrap();
            w.zone.rules.to_timestamp(day.at(12, 0, 0, 0)).is_ok_and(|t| w.zone.rules.to_offset(t) == wall.offset())
        });
        let of_day = wall.hour() as u16 * 60 + wall.minute() as u16;
        let begins = |d: Day| picked.is_empty() || picked.contains(&d);
        let today = Day::of(wall.weekday());
        let yesterday = Day::of(wall.date().yesterday().unwrap().weekday());
        let expected = if to > from {
            begins(today) && from <= of_day && of_day < to
        } else {
            (begins(today) && from <= of_day) || (begins(yesterday) && of_day < to)
        };
        if steady {
            prop_assert_eq!(w.open_until(now).is_some(), expected, "{} at {}", w, wall);
        }
        // What it says about the future holds, also where the clocks are changed.
        match opening(std::slice::from_ref(&w), now) {
            Opening::Open(end) => prop_assert!(end > now && (end >= now + SignedDuration::from_hours(14 * 24) || w.open_until(end).is_none())),
            Opening::Closed(next) => {
                let next = next.unwrap();
                prop_assert!(next > now && w.open_until(next).is_some());
                prop_assert!(w.open_until(next - SignedDuration::from_secs(1)).is_none());
            }
            Opening::Always => prop_assert!(false),
        }
    }
}
