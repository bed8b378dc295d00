//! The run's own marks on a node: the lock (journal lease and MAINT reservation) and the text that says why it is held.

use super::{Ctx, Performed, Performer, Prepared, drain};
use crate::journal::Lease;
use crate::ports::{LockReservation, RefusalKind, Write};
use async_trait::async_trait;
use engine_core::known::{Known, Unknown};
use engine_core::model::Reservation;
use engine_core::ownership::{self, NodeMark, reservation_name};
use engine_core::run::{Effect, Outcome, Resolution};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

/// Takes the lock.
pub(super) struct Lock;

#[async_trait]
impl Performer for Lock {
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        let ready = Prepared::from_look(ctx.look);
        if !ready.report.passed {
            return ready;
        }
        let node = &ctx.state.plan.target.node;
        let now = ctx.engine.ports.clock.now();
        match ctx.engine.ports.journal.take_lease(node, &ctx.state.run, now).await {
            Ok(Lease::Taken { token }) => {
                // A creation that timed out may still be applied: a retry asks for the very same reservation, so that it
                // is known for ours when it comes.
                let first =
                    ctx.state.contexts.get(&Effect::Lock).and_then(|c| lock_of(ctx, c)).map(|l| l.end);
                let end = first.filter(|end| *end > now).unwrap_or_else(|| reservation_end(ctx, now));
                ready.with_context(
                    serde_json::json!({ "end": end, "token": token, "name": reservation_name(node) }),
                )
            }
            Ok(Lease::HeldBy { key, run }) => ready.refuse(format!("run {run} has the lock on {key}")),
            Ok(Lease::NotAdmitted(why)) => ready.refuse(why),
            Err(e) => {
                let mut no = ready.refuse(format!("the journal's lock could not be taken: {e}"));
                no.transient = true;
                no
            }
        }
    }

    async fn act(&self, ctx: &Ctx<'_>, context: &Json) -> Outcome {
        let Some(lock) = lock_of(ctx, context) else {
            return Outcome::permanent("the intent names no end for the reservation");
        };
        match ctx.engine.ports.scheduler.create_lock(&lock).await {
            Write::Accepted => match find_lock(ctx, &lock).await {
                Found::Ours => Outcome::succeeded(format!("reservation {} until {}", lock.name, lock.end))
                    .with_data(serde_json::json!({ "reservation": lock.name, "end": lock.end })),
                Found::Theirs(r) => Outcome::permanent(taken(&r)),
                Found::None => Outcome::ambiguous("slurmctld accepted the reservation, but it is not listed"),
                Found::Unreadable(u) => Outcome::ambiguous(format!("the reservations are {u}")),
            },
            Write::Ambiguous(why) => Outcome::ambiguous(format!("whether the reservation exists is not known: {why}")),
            Write::Refused(r) => match r.kind {
                RefusalKind::AlreadyExists => match find_lock(ctx, &lock).await {
                    // A first attempt that is told so has made nothing: the same end is chance, and it is another's.
                    Found::Ours if ctx.attempt == 1 => Outcome::permanent(format!(
                        "reservation {} exists already: another engine has the node; it ends by itself at {}",
                        lock.name, lock.end
                    )),
                    Found::Ours => Outcome::succeeded(format!("reservation {} until {}", lock.name, lock.end))
                        .with_data(serde_json::json!({ "reservation": lock.name, "end": lock.end })),
                    Found::Theirs(r) => Outcome::permanent(taken(&r)),
                    Found::None | Found::Unreadable(_) => Outcome::transient(r.text),
                },
                RefusalKind::NotPermitted => Outcome::succeeded(format!(
                    "no right to create reservations ({}): the reason and its read-back are the only lock; a job may start between a check and the drain",
                    r.text
                ))
                .with_data(serde_json::json!({ "reservation": null })),
                RefusalKind::NotFound | RefusalKind::InvalidState | RefusalKind::Other => {
                    Outcome::permanent(format!("slurmctld refused the reservation: {}", r.text))
                }
            },
        }
    }

    async fn probe(&self, ctx: &Ctx<'_>, context: &Json) -> Performed {
        let Some(lock) = lock_of(ctx, context) else {
            return Performed::unclear("the intent names no end for the reservation");
        };
        // The journal's part of the lock may have been lost with the engine that died: take it again first.
        let now = ctx.engine.ports.clock.now();
        match ctx.engine.ports.journal.take_lease(&lock.node, &ctx.state.run, now).await {
            Ok(Lease::Taken { .. }) => {}
            Ok(Lease::HeldBy { key, run }) => {
                return Performed::unclear(format!("run {run} has the lock on {key}"));
            }
            Ok(Lease::NotAdmitted(why)) => return Performed::unclear(why),
            Err(e) => return Performed::unclear(format!("the journal's lock could not be taken: {e}")),
        }
        match find_lock_patiently(ctx, &lock).await {
            Found::Ours => {
                let mut done =
                    Performed::new(Resolution::Applied, format!("reservation {} is there", lock.name), None);
                done.data = serde_json::json!({ "reservation": lock.name, "end": lock.end }).into();
                done
            }
            Found::None => Performed::new(Resolution::NotApplied, "there is no such reservation", None),
            Found::Theirs(r) => Performed::unclear(taken(&r)),
            Found::Unreadable(u) => Performed::unclear(format!("the reservations are {u}")),
        }
    }
}

/// Gives the lock back.
pub(super) struct Unlock;

#[async_trait]
impl Performer for Unlock {
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        // Giving our own lock back is right whatever anybody did to the node; only the reservation must be ours.
        let mut ready = Prepared::from_look(ctx.look);
        ready.report.passed = true;
        ready.foreign = false;
        "only our own reservation is deleted".clone_into(&mut ready.report.why);
        ready.report.conditions.clear();
        let lock = ctx.state.contexts.get(&Effect::Lock).cloned().unwrap_or_default();
        ready.with_context(lock)
    }

    async fn act(&self, ctx: &Ctx<'_>, context: &Json) -> Outcome {
        // The journal's part of the lock is given back with the run's last event, which comes next.
        delete_lock(ctx, context).await
    }

    async fn probe(&self, ctx: &Ctx<'_>, context: &Json) -> Performed {
        let Some(lock) = lock_of(ctx, context) else {
            return Performed::new(Resolution::Applied, "there was no reservation", None);
        };
        match find_lock_patiently(ctx, &lock).await {
            Found::None | Found::Theirs(_) => {
                Performed::new(Resolution::Applied, "our reservation is gone", None)
            }
            Found::Ours => Performed::new(Resolution::NotApplied, "our reservation is still there", None),
            Found::Unreadable(u) => Performed::unclear(format!("the reservations are {u}")),
        }
    }
}

async fn delete_lock(ctx: &Ctx<'_>, context: &Json) -> Outcome {
    let reserved = ctx.state.data.get(&Effect::Lock).and_then(|d| d.get("reservation"));
    if reserved.is_some_and(Json::is_null) {
        return Outcome::succeeded("there was no reservation to delete");
    }
    let Some(lock) = lock_of(ctx, context) else {
        return Outcome::succeeded("there was no reservation to delete");
    };
    match find_lock_patiently(ctx, &lock).await {
        Found::None => return Outcome::succeeded("our reservation has ended already"),
        Found::Theirs(r) => {
            return Outcome::succeeded(format!(
                "reservation {} is not the one we made: it was left alone",
                r.name
            ));
        }
        Found::Unreadable(u) => {
            return Outcome::transient(format!(
                "the reservations are {u}; ours ends by itself at {}",
                lock.end
            ));
        }
        Found::Ours => {}
    }
    match ctx.engine.ports.scheduler.delete_reservation(&lock.name).await {
        Write::Accepted => match find_lock(ctx, &lock).await {
            Found::None | Found::Theirs(_) => {
                Outcome::succeeded(format!("reservation {} is gone", lock.name))
            }
            Found::Ours => {
                Outcome::transient("slurmctld accepted the deletion, but the reservation is still listed")
            }
            Found::Unreadable(u) => Outcome::ambiguous(format!("the reservations are {u}")),
        },
        Write::Refused(r) if r.kind == RefusalKind::NotFound => {
            Outcome::succeeded("our reservation has ended already")
        }
        Write::Refused(r) => {
            Outcome::transient(format!("slurmctld refused: {}; it ends by itself at {}", r.text, lock.end))
        }
        Write::Ambiguous(why) => Outcome::ambiguous(why),
    }
}

/// Writes into the reason why the node stays drained.
pub(super) struct Hold;

#[async_trait]
impl Performer for Hold {
    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        drain::set_reason(ctx, &hold_reason(ctx)).await
    }

    async fn probe(&self, ctx: &Ctx<'_>, _context: &Json) -> Performed {
        drain::find_reason(ctx, &hold_reason(ctx)).await
    }
}

fn hold_reason(ctx: &Ctx<'_>) -> String {
    let why = ctx.state.rollback_why.as_deref().unwrap_or("the run could not finish");
    ownership::reason(&ctx.state.plan.playbook, &ctx.state.run, &format!("held: {why}"))
}

/// What the list of reservations says about our lock.
enum Found {
    Ours,
    Theirs(Reservation),
    None,
    Unreadable(Unknown),
}

async fn find_lock(ctx: &Ctx<'_>, lock: &LockReservation) -> Found {
    match ctx.engine.ports.scheduler.reservations().await {
        Err(u) => Found::Unreadable(u),
        Ok(list) => match list.value.into_iter().find(|r| r.name == lock.name) {
            None => Found::None,
            // The end, to the second, is derived from the run: it tells our reservation from another engine's, unless that
            // one happens to end in the same second. The drain then tells whose the node is.
            Some(r)
                if r.end.is_known_and(|e| e.as_second() == lock.end.as_second()) && !others_drain(ctx) =>
            {
                Found::Ours
            }
            Some(r) => Found::Theirs(r),
        },
    }
}

/// Says whether another run has drained the node since this run last saw it.
fn others_drain(ctx: &Ctx<'_>) -> bool {
    let Known::Known(mark) = &ctx.look.mark else { return false };
    let run_of = |mark: &NodeMark| {
        let drained = mark.reason.as_ref().filter(|_| mark.is_drained());
        drained.and_then(|r| ownership::run_of_reason(&r.text))
    };
    let seen = ctx.state.last_seen.as_ref().and_then(run_of);
    run_of(mark).is_some_and(|run| run != ctx.state.run && seen.as_ref() != Some(&run))
}

async fn find_lock_patiently(ctx: &Ctx<'_>, lock: &LockReservation) -> Found {
    let clock = &ctx.engine.ports.clock;
    let deadline = clock.now() + ctx.engine.config.read_patience;
    loop {
        match find_lock(ctx, lock).await {
            Found::Unreadable(_) if clock.now() < deadline => clock.sleep(ctx.engine.config.poll).await,
            found => return found,
        }
    }
}

fn lock_of(ctx: &Ctx<'_>, context: &Json) -> Option<LockReservation> {
    let end: Timestamp = context.get("end")?.as_str()?.parse().ok()?;
    let node = ctx.state.plan.target.node.clone();
    Some(LockReservation { name: reservation_name(&node), node, end })
}

fn taken(r: &Reservation) -> String {
    let end = match &r.end {
        Known::Known(e) => format!("it ends by itself at {e}"),
        Known::Unknown(u) => format!("its end is {u}"),
    };
    format!(
        "reservation {} exists already: another engine has the node, or one that died had it; {end}",
        r.name
    )
}

/// The reservation ends by itself some time after the run must be over: the dead-man rule. The seconds carry a mark
/// of the run.
fn reservation_end(ctx: &Ctx<'_>, now: Timestamp) -> Timestamp {
    let plan = &ctx.state.plan;
    let steps: u64 = plan.steps.iter().chain(&plan.rollback).map(|s| s.timeout_s).sum();
    let mark =
        ctx.state.digest.as_str().get(..4).and_then(|h| i64::from_str_radix(h, 16).ok()).unwrap_or(0) % 1800;
    let total = SignedDuration::from_secs(i64::try_from(steps).unwrap_or(86_400) + mark);
    let end = now.saturating_add(total).and_then(|t| t.saturating_add(ctx.engine.config.lock_slack));
    let seconds = end.map_or(now.as_second(), Timestamp::as_second);
    Timestamp::from_second(seconds).unwrap_or(now)
}
