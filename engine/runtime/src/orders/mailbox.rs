//! Where orders wait for the agents of their nodes, and results for the engine. In memory: after a restart every order
//! that was under way is ambiguous, and the run that gave it looks at the node.

use super::key::{BadOrder, MAX_ORDER_LIFE, OrderMaster, RequestMark, SignedOrder};
use crate::ports::{WorkOrder, WorkResult};
use engine_core::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Orders that may wait for one node.
pub const MAX_WAITING_ORDERS: usize = 16;
/// Nodes that are remembered.
const MAX_NODES: usize = 20_000;
/// Nonces of requests that are remembered, for all nodes: more than arrive in the minutes for which one is good.
const MAX_NONCES: usize = 200_000;
/// How long a nonce is remembered: longer than a request is good.
const NONCE_LIFE: SignedDuration = SignedDuration::from_mins(3);
/// Time after which a silent agent is forgotten: its node is gone.
const FORGET: SignedDuration = SignedDuration::from_hours(24);
/// Time added to an order's own limit for the way to the node and back.
const WAY: SignedDuration = SignedDuration::from_secs(60);

/// What is known of a node's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentSeen {
    /// When it asked for orders last.
    pub at: Timestamp,
}

/// How long agents are silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// Agents that were heard within the last day.
    pub agents: usize,
    /// Those of them that are silent for longer than they should be.
    pub silent: usize,
    /// Time since the one was heard that is silent longest; zero without agents.
    pub longest: SignedDuration,
}

/// What a fetch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// An order, signed for the node. It is handed out this once.
    Order(String),
    /// Nothing to do.
    Nothing,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Somebody waited for it.
    Taken,
    /// Nobody waits for it any more: its run has gone on without it.
    Late,
}

struct Waiting {
    order: WorkOrder,
    answer: oneshot::Sender<Box<WorkResult>>,
}

#[derive(Default)]
struct Slot {
    queue: VecDeque<Waiting>,
    out: BTreeMap<String, oneshot::Sender<Box<WorkResult>>>,
    seen: Option<Timestamp>,
    bell: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeName, Slot>,
    nonces: BTreeMap<(String, String), Timestamp>,
    by_age: VecDeque<(Timestamp, (String, String))>,
}

impl Inner {
    /// Forgets nodes that are gone.
    fn forget(&mut self, now: Timestamp) {
        self.nodes.retain(|_, s| {
            !s.queue.is_empty()
                || !s.out.is_empty()
                || s.seen.is_some_and(|at| now.duration_since(at) <= FORGET)
        });
    }
}

/// The mailbox.
pub struct Mailbox {
    master: OrderMaster,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("nodes", &self.lock().nodes.len()).finish_non_exhaustive()
    }
}

/// What came of waiting for a node.
pub(super) enum Waited {
    /// The node answered.
    Result(Box<WorkResult>),
    /// No agent took the order, and none can any more.
    NotTaken,
    /// An agent took it, and did not answer.
    Unanswered,
    /// There is no room.
    Full,
}

impl Mailbox {
    /// Begins empty.
    pub fn new(master: OrderMaster) -> Self {
        Self { master, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a request of a node's agent: its signature, its time, and that it was not made before.
    pub fn admit(
        &self,
        node: &NodeName,
        mark: RequestMark<'_>,
        tag: &str,
        now: Timestamp,
    ) -> Result<(), BadOrder> {
        self.master.key_of(node)?.check(mark, tag, now)?;
        let mut inner = self.lock();
        while let Some((at, _)) = inner.by_age.front()
            && (now.duration_since(*at) > NONCE_LIFE || inner.by_age.len() >= MAX_NONCES)
            && let Some((_, old)) = inner.by_age.pop_front()
        {
            inner.nonces.remove(&old);
        }
        let nonce = (node.to_string(), mark.nonce.to_owned());
        if inner.nonces.insert(nonce.clone(), now).is_some() {
            return Err(BadOrder::Forged);
        }
        inner.by_age.push_back((now, nonce));
        if let Some(slot) = inner.nodes.get_mut(node) {
            slot.seen = Some(now);
        }
        Ok(())
    }

    /// Says when a node's agent was heard last.
    pub fn seen(&self, node: &NodeName) -> Option<AgentSeen> {
        self.lock().nodes.get(node).and_then(|s| s.seen).map(|at| AgentSeen { at })
    }

    /// Says how long agents are silent; one that is for longer than `limit` should have asked again. Those of nodes that
    /// are gone for a day are forgotten.
    pub fn silence(&self, now: Timestamp, limit: SignedDuration) -> Silence {
        let mut inner = self.lock();
        inner.forget(now);
        let mut out = Silence::default();
        for at in inner.nodes.values().filter_map(|s| s.seen) {
            let age = now.duration_since(at);
            out.agents += 1;
            out.silent += usize::from(age > limit);
            out.longest = out.longest.max(age);
        }
        out
    }

    /// Counts the nodes whose agents were heard since `since`, and the orders that wait or are under way.
    pub fn census(&self, since: Timestamp) -> (usize, usize) {
        let inner = self.lock();
        let heard = inner.nodes.values().filter(|s| s.seen.is_some_and(|at| at >= since)).count();
        let open = inner.nodes.values().map(|s| s.queue.len() + s.out.len()).sum();
        (heard, open)
    }

    /// Hands the next order for a node out, waiting up to `wait` for one. An order leaves the mailbox once.
    pub async fn fetch(
        &self,
        node: &NodeName,
        wait: std::time::Duration,
        now: impl Fn() -> Timestamp,
    ) -> Result<Fetched, BadOrder> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let bell = {
                let mut inner = self.lock();
                if !inner.nodes.contains_key(node) && inner.nodes.len() >= MAX_NODES {
                    inner.forget(now());
                    if inner.nodes.len() >= MAX_NODES {
                        return Ok(Fetched::Nothing);
                    }
                }
                let slot = inner.nodes.entry(node.clone()).or_default();
                slot.seen = Some(now());
                while let Some(waiting) = slot.queue.pop_front() {
                    // Whoever gave it has gone.
                    if waiting.answer.is_closed() {
                        continue;
                    }
                    let issued_at = now();
                    let life = waiting.order.limit.saturating_add(WAY).min(MAX_ORDER_LIFE);
                    let id = waiting.order.id.clone();
                    let order = SignedOrder {
                        order: waiting.order,
                        issued_at,
                        expires_at: issued_at.saturating_add(life).unwrap_or(Timestamp::MAX),
                    };
                    let text = self.master.key_of(node)?.sign(&order)?;
                    slot.out.insert(id, waiting.answer);
                    return Ok(Fetched::Order(text));
                }
                Arc::clone(&slot.bell)
            };
            if tokio::time::timeout_at(until, bell.notified()).await.is_err() {
                return Ok(Fetched::Nothing);
            }
        }
    }

    /// Takes a node's answer to an order.
    pub fn answer(&self, node: &NodeName, order: &str, result: WorkResult) -> Answered {
        let waits = self.lock().nodes.get_mut(node).and_then(|s| s.out.remove(order));
        match waits.map(|w| w.send(Box::new(result))) {
            Some(Ok(())) => Answered::Taken,
            Some(Err(_)) | None => Answered::Late,
        }
    }

    /// Gives an order to a node and waits: up to `take` for its agent to fetch it, then up to `done` for the result.
    pub(super) async fn send(
        &self,
        mut order: WorkOrder,
        take: std::time::Duration,
        done: std::time::Duration,
    ) -> Waited {
        let (answer, mut hears) = oneshot::channel();
        // A look that a new engine makes once more is another order: an agent refuses what it has seen before.
        if order.verb.is_repeatable() {
            order.id = format!("{}~{}", order.id, uuid::Uuid::now_v7().simple());
        }
        let (node, id) = (order.node.clone(), order.id.clone());
        {
            let mut inner = self.lock();
            if !inner.nodes.contains_key(&node) && inner.nodes.len() >= MAX_NODES {
                return Waited::Full;
            }
            let slot = inner.nodes.entry(node.clone()).or_default();
            slot.out.retain(|_, waits| !waits.is_closed());
            if slot.queue.len() + slot.out.len() >= MAX_WAITING_ORDERS {
                return Waited::Full;
            }
            slot.queue.push_back(Waiting { order, answer });
            slot.bell.notify_one();
        }
        if let Ok(result) = tokio::time::timeout(take, &mut hears).await {
            return result.map_or(Waited::Unanswered, Waited::Result);
        }
        {
            // Taken back under the same lock under which it would be handed out: it is one or the other.
            let mut inner = self.lock();
            if let Some(slot) = inner.nodes.get_mut(&node)
                && let Some(i) = slot.queue.iter().position(|w| w.order.id == id)
            {
                slot.queue.remove(i);
                return Waited::NotTaken;
            }
        }
        match tokio::time::timeout(done, hears).await {
            Ok(Ok(result)) => Waited::Result(result),
            Ok(Err(_)) | Err(_) => Waited::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::actuator::AgentNodes;
    use super::*;
    use crate::ports::{ActuatorStatus, NodeActuator, Verb};
    use crate::system::SystemClock;
    use async_trait::async_trait;
    use std::time::Duration;

    #[derive(Debug)]
    struct NoTools;

    #[async_trait]
    impl NodeActuator for NoTools {
        async fn status(&self, _: &NodeName) -> ActuatorStatus {
            ActuatorStatus { by: "this host".into(), ready: Ok(()) }
        }

        async fn perform(&self, order: &WorkOrder) -> WorkResult {
            WorkResult::Restored(vec![order.id.clone()])
        }
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn order(id: &str, name: &str) -> WorkOrder {
        WorkOrder {
            id: id.into(),
            node: node(name),
            run: None,
            verb: Verb::ResetGpu { uuid: "GPU-1".into(), bus_id: "00000000:1B:00.0".into() },
            limit: SignedDuration::from_secs(10),
        }
    }

    fn site() -> (Arc<Mailbox>, Arc<AgentNodes>) {
        let mailbox = Arc::new(Mailbox::new(OrderMaster::new(vec![1; 32]).unwrap()));
        let own: (NodeName, Arc<dyn NodeActuator>) = (node("head"), Arc::new(NoTools));
        let nodes = AgentNodes::new(Arc::clone(&mailbox), Arc::new(SystemClock), own);
        (mailbox, Arc::new(nodes.waiting(Duration::from_secs(5), Duration::from_secs(5))))
    }

    /// With little patience, and orders that leave a tenth of a second.
    fn hasty() -> (Arc<Mailbox>, Arc<AgentNodes>, WorkOrder) {
        let (mailbox, nodes) = site();
        let nodes = Arc::into_inner(nodes).unwrap().waiting(Duration::from_millis(50), Duration::ZERO);
        let order = WorkOrder { limit: SignedDuration::from_millis(100), ..order("a", "gpu001") };
        (mailbox, Arc::new(nodes), order)
    }

    async fn fetched(mailbox: &Mailbox, name: &str) -> String {
        match mailbox.fetch(&node(name), Duration::from_secs(5), Timestamp::now).await.unwrap() {
            Fetched::Order(text) => text,
            Fetched::Nothing => panic!("an order was due"),
        }
    }

    #[tokio::test]
    async fn an_order_goes_to_its_node_once_and_its_answer_comes_back() {
        let (mailbox, nodes) = site();
        assert!(nodes.status(&node("gpu001")).await.ready.is_err(), "nobody was heard");
        let giving = tokio::spawn({
            let nodes = Arc::clone(&nodes);
            async move { nodes.perform(&order("a", "gpu001")).await }
        });
        let wait = Duration::from_millis(50);
        let other = mailbox.fetch(&node("gpu002"), wait, Timestamp::now).await.unwrap();
        assert_eq!(other, Fetched::Nothing, "not to another node");
        let text = fetched(&mailbox, "gpu001").await;
        let key = OrderMaster::new(vec![1; 32]).unwrap().key_of(&node("gpu001")).unwrap();
        assert_eq!(key.open(&text, &node("gpu001"), Timestamp::now()).unwrap().order, order("a", "gpu001"));
        assert_eq!(mailbox.fetch(&node("gpu001"), wait, Timestamp::now).await.unwrap(), Fetched::Nothing);
        let result = WorkResult::Restored(Vec::new());
        assert_eq!(mailbox.answer(&node("gpu002"), "a", result.clone()), Answered::Late, "not from another");
        assert_eq!(mailbox.answer(&node("gpu001"), "a", result.clone()), Answered::Taken);
        assert_eq!(giving.await.unwrap(), result);
        assert_eq!(mailbox.answer(&node("gpu001"), "a", result), Answered::Late);
        assert!(nodes.status(&node("gpu001")).await.ready.is_ok());
    }

    #[tokio::test]
    async fn a_look_made_again_is_another_order_and_a_reset_is_not() {
        let (mailbox, nodes) = site();
        let key = OrderMaster::new(vec![1; 32]).unwrap().key_of(&node("gpu001")).unwrap();
        for (verb, same) in [(Verb::Inspect, false), (order("a", "gpu001").verb, true)] {
            let mut ids = Vec::new();
            for _ in 0..2 {
                let (nodes, order) =
                    (Arc::clone(&nodes), WorkOrder { verb: verb.clone(), ..order("a", "gpu001") });
                let giving = tokio::spawn(async move { nodes.perform(&order).await });
                let text = fetched(&mailbox, "gpu001").await;
                let id = key.open(&text, &node("gpu001"), Timestamp::now()).unwrap().order.id;
                assert_eq!(
                    mailbox.answer(&node("gpu001"), &id, WorkResult::Refused("no".into())),
                    Answered::Taken
                );
                giving.await.unwrap();
                ids.push(id);
            }
            assert_eq!(ids[0] == ids[1], same, "{verb:?}: {ids:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_fetched_is_certain_not_to_be_done() {
        let (mailbox, nodes, order) = hasty();
        let result = nodes.perform(&order).await;
        assert!(matches!(result, WorkResult::Refused(_)), "{result:?}");
        let wait = Duration::from_millis(50);
        assert_eq!(mailbox.fetch(&node("gpu001"), wait, Timestamp::now).await.unwrap(), Fetched::Nothing);
    }

    #[tokio::test]
    async fn what_was_fetched_and_not_answered_is_ambiguous() {
        let (mailbox, nodes, order) = hasty();
        let giving = tokio::spawn(async move { nodes.perform(&order).await });
        fetched(&mailbox, "gpu001").await;
        assert!(matches!(giving.await.unwrap(), WorkResult::Ambiguous(_)));
        assert_eq!(mailbox.answer(&node("gpu001"), "a", WorkResult::Restored(Vec::new())), Answered::Late);
    }

    #[tokio::test]
    async fn a_node_gets_so_many_orders_and_this_host_needs_no_agent() {
        let (mailbox, nodes) = site();
        let mut all = tokio::task::JoinSet::new();
        for i in 0..MAX_WAITING_ORDERS {
            let nodes = Arc::clone(&nodes);
            all.spawn(async move { nodes.perform(&order(&format!("o{i}"), "gpu001")).await });
        }
        tokio::task::yield_now().await;
        while mailbox.census(Timestamp::now()).1 < MAX_WAITING_ORDERS {
            tokio::task::yield_now().await;
        }
        let one_more = nodes.perform(&order("more", "gpu001")).await;
        assert!(matches!(&one_more, WorkResult::Refused(w) if w.contains("too many")), "{one_more:?}");
        assert_eq!(nodes.perform(&order("own", "head")).await, WorkResult::Restored(vec!["own".into()]));
    }

    #[tokio::test]
    async fn silence_is_told_and_what_is_gone_for_a_day_is_forgotten() {
        let (mailbox, _) = site();
        let (start, limit) = (Timestamp::now(), SignedDuration::from_secs(30));
        assert_eq!(mailbox.silence(start, limit), Silence::default());
        for (name, at) in [("gpu001", start), ("gpu002", start + SignedDuration::from_secs(60))] {
            mailbox.fetch(&node(name), Duration::ZERO, || at).await.unwrap();
        }
        let at = start + SignedDuration::from_secs(70);
        let longest = SignedDuration::from_secs(70);
        assert_eq!(mailbox.silence(at, limit), Silence { agents: 2, silent: 1, longest });
        let later = start + FORGET + SignedDuration::from_secs(1);
        assert_eq!(mailbox.silence(later, limit).agents, 1, "the other was heard a minute later");
    }

    #[test]
    fn a_request_counts_once() {
        let (mailbox, _) = site();
        let key = OrderMaster::new(vec![1; 32]).unwrap().key_of(&node("gpu001")).unwrap();
        let now = Timestamp::now();
        let at = now.to_string();
        let mark = RequestMark { node: "gpu001", path: "/p", at: &at, nonce: "n", body: b"" };
        let tag = key.mark(mark).unwrap();
        assert_eq!(mailbox.admit(&node("gpu001"), mark, &tag, now), Ok(()));
        assert_eq!(mailbox.admit(&node("gpu001"), mark, &tag, now), Err(BadOrder::Forged), "replayed");
        let mark = RequestMark { nonce: "m", ..mark };
        assert_eq!(
            mailbox.admit(&node("gpu002"), mark, &key.mark(mark).unwrap(), now),
            Err(BadOrder::Forged)
        );
    }
}
