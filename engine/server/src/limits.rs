//! Bounds on how often: buckets that refill, and the memory of refused attempts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Senders that are told apart; further ones share one bucket.
const MAX_SENDERS: usize = 4_096;

/// A bucket that holds `size` and refills evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    /// At once.
    pub(crate) size: f64,
    /// Per second, on and on.
    pub(crate) per_second: f64,
}

impl Bucket {
    fn full(pace: Pace, now: Instant) -> Self {
        Self { left: pace.size, at: now }
    }

    fn refill(&mut self, pace: Pace, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * pace.per_second).min(pace.size);
        self.at = now;
    }
}

/// Counts by sender, and forgets senders whose bucket is full again.
#[derive(Debug)]
pub(crate) struct Senders {
    pace: Pace,
    known: Mutex<BTreeMap<String, Bucket>>,
}

impl Senders {
    /// Builds it.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, known: Mutex::default() }
    }

    /// Says whether a sender has something left, without taking it.
    pub(crate) fn has(&self, sender: &str) -> bool {
        self.with(sender, |left| *left >= 1.0)
    }

    /// Takes one; false where none is left.
    pub(crate) fn take(&self, sender: &str) -> bool {
        self.with(sender, |left| {
            let has = *left >= 1.0;
            if has {
                *left -= 1.0;
            }
            has
        })
    }

    fn with<T>(&self, sender: &str, work: impl FnOnce(&mut f64) -> T) -> T {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SENDERS && !known.contains_key(sender) {
            let whole = Duration::from_secs_f64((self.pace.size / self.pace.per_second).clamp(0.0, 86_400.0));
            known.retain(|_, b| now.saturating_duration_since(b.at) < whole);
        }
        let sender =
            if known.len() >= MAX_SENDERS && !known.contains_key(sender) { "others" } else { sender };
        let bucket = known.entry(sender.to_owned()).or_insert_with(|| Bucket::full(self.pace, now));
        bucket.refill(self.pace, now);
        work(&mut bucket.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_for_that_sender_only() {
        let s = Senders::new(Pace { size: 3.0, per_second: 0.001 });
        assert!((0..3).all(|_| s.take("a")));
        assert!(!s.take("a") && !s.has("a"));
        assert!(s.has("b") && s.take("b"));
    }

    #[test]
    fn a_crowd_of_senders_takes_bounded_memory_and_shares_one_bucket() {
        let s = Senders::new(Pace { size: 2.0, per_second: 0.001 });
        for i in 0..MAX_SENDERS + 100 {
            s.take(&i.to_string());
        }
        assert_eq!(s.known.lock().unwrap().len(), MAX_SENDERS + 1);
        assert!(!s.has("yet another"), "the shared bucket is empty");
    }

    #[test]
    fn it_refills() {
        let s = Senders::new(Pace { size: 1.0, per_second: 1_000.0 });
        assert!(s.take("a"));
        std::thread::sleep(Duration::from_millis(5));
        assert!(s.take("a"));
    }
}
