//! Virtual time: a clock that only moves when everybody who takes part sleeps, and the driver that moves it.
//!
//! The driver polls its participants in a fixed order, so the same seed gives the same history. A participant that
//! waits for something else than the clock (a journal's thread, say) holds time still; it must not hold a sleep at the
//! same moment.

use crate::world::{Inner, SimWorld};
use async_trait::async_trait;
use engine_runtime::ports::Clock;
use jiff::{SignedDuration, Timestamp};
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
            self.world.lock().sleepers.remove(&key);
        }
    }
}

impl Inner {
    fn add_sleeper(&mut self, at: Timestamp, waker: Waker) -> (Timestamp, u64) {
        let key = (at.max(self.now), self.next_serial());
        let seat = self.seat;
        self.sleepers.insert(key, crate::world::Sleeper { seat, waker });
        key
    }

    fn sleeps(&self, seat: u64) -> bool {
        self.sleepers.values().any(|s| s.seat == Some(seat))
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

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Adds participants to a running simulation.
#[derive(Clone, Default)]
pub struct Spawner {
    new: Arc<Mutex<Vec<(String, Task)>>>,
}

impl Spawner {
    /// Adds a participant; it takes part from the next poll on.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), Box::pin(task)));
    }

    fn take(&self) -> Vec<(String, Task)> {
        std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Flag {
    woken: AtomicBool,
    driver: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(w) = driver {
            w.wake();
        }
    }
}

struct Seat<'a> {
    id: u64,
    name: String,
    task: Pin<Box<dyn Future<Output = ()> + 'a>>,
    flag: Arc<Flag>,
}

/// Drives futures through the virtual time of one world.
#[derive(Debug)]
pub struct SimRuntime {
    world: SimWorld,
    pace: Pace,
    patience: Duration,
}

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
            let driver = Arc::new(Mutex::new(None));
            let mut next_id = 0_u64;
            let mut seat = |name: String, task| {
                next_id += 1;
                let flag = Arc::new(Flag { woken: AtomicBool::new(true), driver: Arc::clone(&driver) });
                Seat { id: next_id, name, task, flag }
            };
            let slot = &mut out;
            let first = Box::pin(async move { *slot = Some(main.await) });
            let mut seats = vec![seat("main".to_owned(), first)];
            loop {
                seats.extend(
                    spawner.take().into_iter().map(|(n, t)| seat(n, t as Pin<Box<dyn Future<Output = ()>>>)),
                );
                if self.poll_woken(&mut seats) {
                    // Lets the tasks of the surrounding runtime run, and renews its budget of polls.
                    tokio::task::yield_now().await;
                    continue;
                }
                if seats.is_empty() {
                    break;
                }
                let awake = self.awake(&seats);
                if awake.is_empty() {
                    self.keep_pace(&mut spent).await;
                    let wakers = self.world.lock().step();
                    wakers.into_iter().for_each(Waker::wake);
                    on_step(self.world.now());
                    continue;
                }
                let woken = poll_fn(|cx| {
                    *driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                    let any = seats.iter().any(|s| s.flag.woken.load(Ordering::SeqCst));
                    if any { Poll::Ready(()) } else { Poll::Pending }
                });
                if tokio::time::timeout(self.patience, woken).await.is_err() {
                    return Err(Stalled { at: self.world.now(), who: awake });
                }
            }
        }
        out.ok_or_else(|| Stalled { at: self.world.now(), who: vec!["main".to_owned()] })
    }

    fn poll_woken(&self, seats: &mut Vec<Seat<'_>>) -> bool {
        let mut moved = false;
        seats.retain_mut(|s| {
            if !s.flag.woken.swap(false, Ordering::SeqCst) {
                return true;
            }
            moved = true;
            self.world.lock().seat = Some(s.id);
            let waker = Waker::from(Arc::clone(&s.flag));
            let done = s.task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            self.world.lock().seat = None;
            !done
        });
        moved
    }

    /// Names the participants that do not sleep.
    fn awake(&self, seats: &[Seat<'_>]) -> Vec<String> {
        let w = self.world.lock();
        let awake = |s: &&Seat<'_>| s.flag.woken.load(Ordering::SeqCst) || !w.sleeps(s.id);
        seats.iter().filter(awake).map(|s| s.name.clone()).collect()
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
