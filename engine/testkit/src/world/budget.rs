//! The book of the budgets: what is out of service at the moment in which an engine takes a node (rule 10).
//!
//! It counts by itself: nothing of the engine's own way to see a fleet is used here, and the limits are told to it as
//! plain numbers by whoever sets the scene.

use super::rules::READ_MAX_AGE;
use super::state::{Inner, later};
use engine_core::model::NodeFlag;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Most nodes that may be out of service at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all nodes.
    pub fleet: usize,
    /// Of each rack.
    pub rack: usize,
}

/// The book.
#[derive(Debug, Clone, Default)]
pub(crate) struct BudgetBook {
    /// The limits of each engine that lives, by its number. While two differ the laxer one counts: the book does not
    /// know whose write it is.
    limits: BTreeMap<usize, Limits>,
    /// Nodes side by side share a rack of so many.
    rack_size: usize,
    pub(crate) counts: BudgetCounts,
}

/// How often the book was asked, and how full the budgets were.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct BudgetCounts {
    /// Nodes taken by engines: locks and drains.
    pub taken: u64,
    /// Those that filled a budget to its limit.
    pub to_the_limit: u64,
    /// Times a node was taken while a change less than two seconds old, which nobody could have seen, filled a budget.
    pub races: u64,
    /// Most nodes out of service at such a moment, whoever took them.
    pub most_out: u64,
}

impl BudgetCounts {
    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.taken += other.taken;
        self.to_the_limit += other.to_the_limit;
        self.races += other.races;
        self.most_out = self.most_out.max(other.most_out);
    }
}

/// Why a node is out of service, as the book sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    /// Since when, where that is known; else for long.
    Taken(Option<Timestamp>),
    /// Only the lock of an engine is on it.
    Locked(Timestamp),
}

impl super::SimWorld {
    /// Begins to watch over budgets; nodes side by side share a rack of `rack_size`.
    pub fn watch_budgets(&self, rack_size: usize) {
        self.lock().budgets = Some(BudgetBook { rack_size: rack_size.max(1), ..BudgetBook::default() });
    }

    /// Says which limits an engine is bound to from now on; `None` when it is gone.
    pub fn bind_engine(&self, engine: usize, limits: Option<Limits>) {
        let mut w = self.lock();
        let Some(book) = &mut w.budgets else { return };
        match limits {
            Some(limits) => book.limits.insert(engine, limits),
            None => book.limits.remove(&engine),
        };
    }

    /// Returns what the book of the budgets counted.
    pub fn budget_counts(&self) -> BudgetCounts {
        self.lock().budgets.as_ref().map(|b| b.counts.clone()).unwrap_or_default()
    }
}

impl Inner {
    fn out_of_service(&self, n: usize) -> Option<Out> {
        let node = &self.nodes[n];
        let flags = [
            NodeFlag::Drain,
            NodeFlag::Fail,
            NodeFlag::NotResponding,
            NodeFlag::RebootRequested,
            NodeFlag::RebootIssued,
            NodeFlag::InvalidReg,
        ];
        if node.down || flags.iter().any(|f| node.has(*f)) {
            let marked = node.drained_by.as_ref().map(|(_, at)| *at);
            return Some(Out::Taken(marked.or(node.page.silent_at)));
        }
        let over = |name: &str, r: &super::state::SimReservation| {
            let lock = name.starts_with("slurmedic-");
            (r.node == n && r.end > self.now).then_some((lock, r.made))
        };
        let all = self.reservations.iter().filter_map(|(name, r)| over(name, r));
        let (mut lock, mut theirs) = (None, None);
        for (is_lock, made) in all {
            if is_lock { lock = Some(made) } else { theirs = Some(made) }
        }
        theirs.map(|at| Out::Taken(Some(at))).or(lock.map(Out::Locked))
    }

    /// Judges a lock or a drain that takes a node out of service.
    ///
    /// A lock counts everything that is out, other locks included. A drain counts what is drained or down, whoever did
    /// it: two engines with two journals may have locked a node each in the same moment, and the drain decides.
    pub(crate) fn judge_budget(&mut self, n: usize, deed: &str) {
        let (takes_by_lock, takes_by_drain) = (deed == "lock", deed == "drain");
        if self.budgets.is_none() || !(takes_by_lock || takes_by_drain) {
            return;
        }
        // What is out already is not taken out a second time.
        if matches!(self.out_of_service(n), Some(Out::Taken(_))) {
            return;
        }
        let seen_by = later(self.now, -READ_MAX_AGE);
        let Some(book) = &self.budgets else { return };
        let (rack_size, limits) = (book.rack_size, book.limits.clone());
        let Some(fleet_limit) = limits.values().map(|l| l.fleet).max() else { return };
        let rack_limit = limits.values().map(|l| l.rack).max().unwrap_or(fleet_limit);
        // Out of service for as long as anybody needs to see it, and out of service at all; in the fleet, in the rack.
        let (mut seen, mut all) = ([0_usize; 2], [0_usize; 2]);
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            let since = match self.out_of_service(other) {
                None => continue,
                Some(Out::Locked(_)) if takes_by_drain => continue,
                Some(Out::Locked(at)) => Some(at),
                Some(Out::Taken(at)) => at,
            };
            let in_rack = other / rack_size == n / rack_size;
            for (i, counts) in [true, in_rack].into_iter().enumerate() {
                all[i] += usize::from(counts);
                seen[i] += usize::from(counts && since.is_none_or(|at| at <= seen_by));
            }
        }
        let most = [fleet_limit, rack_limit];
        let over = |out: [usize; 2]| (0..2).find(|i| out[*i] + 1 > most[*i]);
        let names = ["fleet", "rack"];
        if let Some(book) = &mut self.budgets {
            book.counts.taken += 1;
            book.counts.most_out = book.counts.most_out.max(all[0] as u64 + 1);
            book.counts.to_the_limit += u64::from((0..2).any(|i| all[i] + 1 == most[i]));
        }
        if let Some(i) = over(seen) {
            let what = format!(
                "the engine took a node by a {deed} with {} of its {} out of service; at most {} may be",
                seen[i], names[i], most[i]
            );
            self.violation(10, Some(n), what);
        } else if let Some(i) = over(all) {
            if let Some(book) = &mut self.budgets {
                book.counts.races += 1;
            }
            self.race(n, format!("a {deed} met others that had just taken nodes of the {}", names[i]));
        }
    }
}
