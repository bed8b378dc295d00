//! Nodes that somebody should look at: an alert told that they are out, or back, and not why.

use engine_core::model::NodeName;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most nodes that wait for a look. Further ones are left to the polling, which sees them all.
pub const MAX_WAKES: usize = 1_024;
/// Time between two looks at one node, however often it is told of.
const REST: Duration = Duration::from_secs(10);

/// A node that should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// The node.
    pub node: NodeName,
    /// Whether it was told last that something is over, such as that the node is up again.
    pub over: bool,
}

/// Nodes that should be looked at, each once.
#[derive(Debug)]
pub struct Wakes {
    state: Mutex<State>,
    bell: Notify,
    rest: Duration,
}

impl Default for Wakes {
    fn default() -> Self {
        Self { state: Mutex::default(), bell: Notify::default(), rest: REST }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<NodeName, bool>,
    looked: BTreeMap<NodeName, Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakes {
    /// Asks for a look at a node.
    pub fn ask(&self, node: &NodeName, over: bool) {
        {
            let mut state = lock(&self.state);
            if state.waiting.len() >= MAX_WAKES && !state.waiting.contains_key(node) {
                return;
            }
            state.waiting.insert(node.clone(), over);
        }
        self.bell.notify_one();
    }

    /// Waits for the next node. One that was looked at a moment ago waits a little.
    pub async fn next(&self) -> Wake {
        loop {
            let due = {
                let mut state = lock(&self.state);
                let now = Instant::now();
                state.looked.retain(|_, at| now.duration_since(*at) < self.rest);
                let ready = state.waiting.keys().find(|n| !state.looked.contains_key(*n)).cloned();
                if let Some(node) = ready {
                    let over = state.waiting.remove(&node).unwrap_or(false);
                    state.looked.insert(node.clone(), now);
                    return Wake { node, over };
                }
                let rests = state.waiting.keys().filter_map(|n| state.looked.get(n)).min().copied();
                rests.map(|at| at + self.rest)
            };
            match due {
                None => self.bell.notified().await,
                Some(due) => tokio::select! {
                    () = self.bell.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: usize) -> NodeName {
        NodeName::new(&format!("gpu{i:04}")).unwrap()
    }

    #[tokio::test]
    async fn each_node_is_looked_at_once_and_rests() {
        let rest = Duration::from_secs(1);
        let wakes = Wakes { rest, ..Wakes::default() };
        for _ in 0..100 {
            wakes.ask(&node(1), false);
        }
        wakes.ask(&node(1), true);
        assert_eq!(wakes.next().await, Wake { node: node(1), over: true });
        let looked = Instant::now();
        wakes.ask(&node(1), false);
        wakes.ask(&node(2), false);
        // Another node does not wait for it.
        assert_eq!(wakes.next().await.node, node(2));
        assert_eq!(wakes.next().await, Wake { node: node(1), over: false });
        assert!(looked.elapsed() + Duration::from_millis(100) >= rest, "{:?}", looked.elapsed());
        assert!(tokio::time::timeout(Duration::from_millis(50), wakes.next()).await.is_err());
    }

    #[test]
    fn what_waits_is_bounded() {
        let wakes = Wakes::default();
        for i in 0..2 * MAX_WAKES {
            wakes.ask(&node(i), false);
        }
        assert_eq!(lock(&wakes.state).waiting.len(), MAX_WAKES);
    }
}
