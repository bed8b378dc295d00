//! Virtual time: a clock that only moves when everybody who takes part sleeps, and the driver that moves it.
//!
//! The driver polls its participants in a fixed order, so the same seed gives the same history. A participant that
//! waits for something else than the clock (a journal's thread, say) holds time still; it must not hold a sleep at the
//! same moment.

use crate::world::{Inner, SimWorld, release};
use async_trait::async_trait;
use engine_runtime::ports::{Clock, Spawn};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The clock of a simulated world.
#[derive(Debug, Clone)]
pub struct SimClock {
    world: SimWorld,
}

impl SimClock {
    /// Builds the clock of a world.
    pub fn new(world: &SimWorld) -> Self {
        Self { world: world.clone() }
    }

    /// Waits until a time.
    pub fn sleep_until(&self, at: Timestamp) -> Sleep {
        Sleep { world: self.world.clone(), at, key: None }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        let at = crate::world::SimWorld::now(&self.world).checked_add(duration).unwrap_or(Timestamp::MAX);
        self.sleep_until(at).await;
    }
}

/// A sleep in virtual time; dropped, it is forgotten.
#[derive(Debug)]
pub struct Sleep {
    world: SimWorld,
    at: Timestamp,
    key: Option<(Timestamp, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut w = world.lock();
        match self.key {
            None => {
                let key = w.add_sleeper(self.at, cx.waker().clone());
                self.key = Some(key);
                Poll::Pending
            }
            Some(key) => match w.sleepers.get_mut(&key) {
                Some(s) => {
                    s.waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            },
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut w = self.world.lock();
            if let Some(sleeper) = w.sleepers.remove(&key) {
                release(&mut w.sleeping, sleeper.seat);
            }
        }
    }
}

impl Inner {
    fn add_sleeper(&mut self, at: Timestamp, waker: Waker) -> (Timestamp, u64) {
        let key = (at.max(self.now), self.next_serial());
        let seat = self.seat;
        if let Some(seat) = seat {
            *self.sleeping.entry(seat).or_insert(0) += 1;
        }
        self.sleepers.insert(key, crate::world::Sleeper { seat, waker });
        key
    }

    fn sleeps(&self, seat: u64) -> bool {
        self.sleeping.contains_key(&seat)
    }
}

/// How fast virtual time goes by for people who watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as it can be computed.
    Fast,
    /// This much wall time for each second of virtual time, no step longer than `longest`, and no waiting at all
    /// once `budget` is used up.
    Watched {
        /// Wall time for a virtual second.
        per_second: Duration,
        /// Longest wait for one step.
        longest: Duration,
        /// Wall time in all.
        budget: Duration,
    },
}

/// Nothing moves any more: somebody waits for what will not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulation stands still at {at}: {} neither sleep nor move", .who.join(", "))]
pub struct Stalled {
    /// Virtual time.
    pub at: Timestamp,
    /// The participants that do not sleep.
    pub who: Vec<String>,
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Participants that are ended together, such as everything one engine process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

struct Newcomer {
    name: String,
    group: Option<Group>,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

#[derive(Default)]
struct Desk {
    new: Vec<Newcomer>,
    ended: Vec<Group>,
}

/// Adds participants to a running simulation, and ends groups of them.
#[derive(Clone, Default)]
pub struct Spawner {
    desk: Arc<Mutex<Desk>>,
}

impl Spawner {
    /// Adds a participant; it takes part from the next poll on.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.desk).new.push(Newcomer { name: name.into(), group: None, task: Box::pin(task) });
    }

    /// Adds a participant to a group.
    pub fn spawn_in(
        &self,
        group: Group,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        lock(&self.desk).new.push(Newcomer { name: name.into(), group: Some(group), task: Box::pin(task) });
    }

    /// Ends a group: its participants are dropped before anybody is polled again.
    pub fn end(&self, group: Group) {
        let mut desk = lock(&self.desk);
        desk.new.retain(|n| n.group != Some(group));
        desk.ended.push(group);
    }

    fn take(&self) -> Desk {
        std::mem::take(&mut *lock(&self.desk))
    }
}

impl Spawn for Spawner {
    fn spawn(&self, name: String, task: engine_runtime::ports::Task) {
        lock(&self.desk).new.push(Newcomer { name, group: None, task });
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is to be polled, and who drives.
#[derive(Default)]
struct Ready {
    list: Mutex<Vec<u64>>,
    driver: Mutex<Option<Waker>>,
}

struct Flag {
    id: u64,
    woken: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        lock(&self.ready.list).push(self.id);
        let driver = lock(&self.ready.driver).take();
        if let Some(w) = driver {
            w.wake();
        }
    }
}

struct Seat<'a> {
    name: String,
    group: Option<Group>,
    task: Task<'a>,
    flag: Arc<Flag>,
    waker: Waker,
}

/// Everybody who takes part.
#[derive(Default)]
struct Seats<'a> {
    taken: BTreeMap<u64, Seat<'a>>,
    next_id: u64,
    ready: Arc<Ready>,
    /// Those who neither sleep nor are ready: they wait for something outside.
    restless: BTreeSet<u64>,
}

impl<'a> Seats<'a> {
    fn add(&mut self, name: String, group: Option<Group>, task: Task<'a>) {
        self.next_id += 1;
        let id = self.next_id;
        let flag = Arc::new(Flag { id, woken: AtomicBool::new(true), ready: Arc::clone(&self.ready) });
        let waker = Waker::from(Arc::clone(&flag));
        lock(&self.ready.list).push(id);
        self.taken.insert(id, Seat { name, group, task, flag, waker });
    }

    /// Lets newcomers in and ends groups.
    fn attend(&mut self, spawner: &Spawner) {
        let Desk { new, ended } = spawner.take();
        if !ended.is_empty() {
            self.taken.retain(|_, s| !s.group.is_some_and(|g| ended.contains(&g)));
            self.restless.retain(|id| self.taken.contains_key(id));
        }
        for n in new {
            self.add(n.name, n.group, n.task);
        }
    }

    /// Polls who is ready, in the order of their coming; false when nobody was.
    fn poll_ready(&mut self, world: &SimWorld) -> bool {
        let mut ids = std::mem::take(&mut *lock(&self.ready.list));
        ids.sort_unstable();
        let mut moved = false;
        for id in ids {
            let Some(seat) = self.taken.get_mut(&id) else { continue };
            seat.flag.woken.store(false, Ordering::SeqCst);
            moved = true;
            world.lock().seat = Some(id);
            let done = seat.task.as_mut().poll(&mut Context::from_waker(&seat.waker)).is_ready();
            let sleeps = {
                let mut w = world.lock();
                w.seat = None;
                w.sleeps(id)
            };
            if done {
                self.taken.remove(&id);
            }
            if done || sleeps {
                self.restless.remove(&id);
            } else {
                self.restless.insert(id);
            }
        }
        moved
    }

    fn names_of_restless(&self) -> Vec<String> {
        self.restless.iter().filter_map(|id| self.taken.get(id)).map(|s| s.name.clone()).collect()
    }
}

/// Drives futures through the virtual time of one world.
#[derive(Debug)]
pub struct SimRuntime {
    world: SimWorld,
    pace: Pace,
    patience: Duration,
}

/// Rounds of polls after which the tasks of the surrounding runtime get their turn.
const ROUNDS_BEFORE_YIELD: u32 = 64;

impl SimRuntime {
    /// Builds a driver that does not wait.
    pub fn new(world: &SimWorld) -> Self {
        Self { world: world.clone(), pace: Pace::Fast, patience: Duration::from_secs(30) }
    }

    /// Sets the pace.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Sets how long, in wall time, a participant may wait for something outside before the simulation gives up.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Drives one future, and nobody else.
    pub async fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stalled> {
        self.run_with(&Spawner::default(), main, &mut |_| {}).await
    }

    /// Drives a future and everybody it spawns until all are done; `on_step` is called after each move of time.
    pub async fn run_with<T>(
        &self,
        spawner: &Spawner,
        main: impl Future<Output = T>,
        on_step: &mut dyn FnMut(Timestamp),
    ) -> Result<T, Stalled> {
        let mut out = None;
        let mut spent = Duration::ZERO;
        {
            let mut seats = Seats::default();
            let slot = &mut out;
            seats.add("main".to_owned(), None, Box::pin(async move { *slot = Some(main.await) }));
            let mut rounds = 0_u32;
            loop {
                seats.attend(spawner);
                if seats.poll_ready(&self.world) {
                    rounds += 1;
                    if rounds.is_multiple_of(ROUNDS_BEFORE_YIELD) {
                        // Lets the tasks of the surrounding runtime run, and renews its budget of polls.
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                if seats.taken.is_empty() {
                    break;
                }
                if seats.restless.is_empty() {
                    self.keep_pace(&mut spent).await;
                    let wakers = self.world.lock().step();
                    wakers.into_iter().for_each(Waker::wake);
                    on_step(self.world.now());
                    continue;
                }
                let ready = Arc::clone(&seats.ready);
                let woken = poll_fn(|cx| {
                    *lock(&ready.driver) = Some(cx.waker().clone());
                    if lock(&ready.list).is_empty() { Poll::Pending } else { Poll::Ready(()) }
                });
                if tokio::time::timeout(self.patience, woken).await.is_err() {
                    return Err(Stalled { at: self.world.now(), who: seats.names_of_restless() });
                }
            }
        }
        out.ok_or_else(|| Stalled { at: self.world.now(), who: vec!["main".to_owned()] })
    }

    async fn keep_pace(&self, spent: &mut Duration) {
        let Pace::Watched { per_second, longest, budget } = self.pace else { return };
        let ahead = {
            let w = self.world.lock();
            w.next_time().map(|t| t.duration_since(w.now)).unwrap_or_default()
        };
        let left = budget.saturating_sub(*spent);
        let wait = per_second.mul_f64(ahead.as_secs_f64().clamp(0.0, 86_400.0)).min(longest).min(left);
        if wait > Duration::from_micros(500) {
            tokio::time::sleep(wait).await;
            *spent += wait;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::SimConfig;

    fn world() -> SimWorld {
        SimWorld::new(SimConfig::new(2, 1, Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn time_jumps_to_the_next_deadline_and_keeps_the_order() {
        let world = world();
        let clock = SimClock::new(&world);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let spawner = Spawner::default();
        for (name, secs) in [("c", 30), ("a", 10), ("b", 10)] {
            let (clock, seen) = (clock.clone(), Arc::clone(&seen));
            spawner.spawn(name, async move {
                clock.sleep(SignedDuration::from_secs(secs)).await;
                seen.lock().unwrap().push((name, clock.now().as_second()));
            });
        }
        let main = clock.sleep(SignedDuration::from_hours(3));
        SimRuntime::new(&world).run_with(&spawner, main, &mut |_| {}).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [("a", 10), ("b", 10), ("c", 30)]);
        assert_eq!(world.now().as_second(), 3 * 3600);
    }

    #[tokio::test]
    async fn a_wait_for_something_outside_holds_time_still() {
        let world = world();
        let clock = SimClock::new(&world);
        let at = SimRuntime::new(&world)
            .run(async {
                let outside = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(30)));
                outside.await.unwrap();
                clock.now()
            })
            .await
            .unwrap();
        assert_eq!(at, Timestamp::UNIX_EPOCH);
    }

    #[tokio::test]
    async fn who_waits_for_ever_is_named() {
        let world = world();
        let runtime = SimRuntime::new(&world).with_patience(Duration::from_millis(50));
        let stalled = runtime.run(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(stalled.who, ["main"]);
    }

    #[tokio::test]
    async fn a_sleep_that_is_dropped_is_forgotten() {
        let world = world();
        let clock = SimClock::new(&world);
        SimRuntime::new(&world)
            .run(async {
                let long = clock.sleep(SignedDuration::from_hours(1));
                tokio::select! {
                    () = long => panic!("the short one is first"),
                    () = clock.sleep(SignedDuration::from_secs(1)) => {}
                }
            })
            .await
            .unwrap();
        assert_eq!(world.now().as_second(), 1);
        assert!(world.lock().sleepers.is_empty());
    }
}
