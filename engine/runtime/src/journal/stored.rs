//! The stored form of events, records and run summaries, shared by every store.

use super::chain::{Owner, RawEvent, link};
use super::stream::{NewRecord, StreamName};
use super::{JournalError, MAX_EVENT, NewEvent, RunSummary};
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, IllegalEvent, RunState, Status};
use jiff::Timestamp;
use std::borrow::Cow;

/// How far a run is, for the index of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was begun.
    Waiting = 0,
    /// An engine carries it out, or did until it died.
    Acting = 1,
    /// Over.
    Over = 2,
}

impl Phase {
    pub(super) fn of(status: Status) -> Self {
        match status {
            Status::Proposed | Status::AwaitingApproval | Status::Approved => Self::Waiting,
            Status::Running | Status::Verifying | Status::RollingBack => Self::Acting,
            Status::Ended(_) => Self::Over,
        }
    }
}

/// What is kept of a run beside its events, so that listing runs does not fold them all. Derived, never believed:
/// `verify` compares it with the fold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) seq: u64,
    pub(super) phase: Phase,
    pub(super) line: RunSummary,
}

impl Summary {
    pub(super) fn of(state: &RunState) -> Self {
        Self {
            seq: state.seq,
            phase: Phase::of(state.status),
            line: RunSummary {
                run: state.run.clone(),
                playbook: state.plan.playbook.clone(),
                node: state.plan.target.node.clone(),
                status: state.status,
                proposed_at: state.proposed_at,
                last_event_at: state.last_event_at,
                initiator: state.plan.initiator.name.clone(),
                why: state.why.clone(),
            },
        }
    }
}

/// A summary as a store has it, before anything in it is believed.
#[derive(Debug, Clone)]
pub(super) struct RawSummary {
    pub(super) run: String,
    pub(super) seq: u64,
    pub(super) phase: i64,
    pub(super) node: String,
    pub(super) playbook: String,
    pub(super) version: String,
    pub(super) digest: String,
    pub(super) initiator: String,
    pub(super) status: String,
    pub(super) proposed_at: String,
    pub(super) last_event_at: String,
    pub(super) why: String,
}

impl RawSummary {
    pub(super) fn of(summary: &Summary) -> Result<Self, JournalError> {
        let line = &summary.line;
        Ok(Self {
            run: line.run.to_string(),
            seq: summary.seq,
            phase: summary.phase as i64,
            node: line.node.to_string(),
            playbook: line.playbook.id.clone(),
            version: line.playbook.version.to_string(),
            digest: line.playbook.digest.to_string(),
            initiator: line.initiator.clone(),
            status: serde_json::to_string(&line.status).map_err(|e| store("written", e))?,
            proposed_at: line.proposed_at.to_string(),
            last_event_at: line.last_event_at.to_string(),
            why: line.why.clone(),
        })
    }

    /// Reads it; says which part cannot be read.
    pub(super) fn decode(self) -> Result<Summary, String> {
        let time = |what: &str, text: &str| {
            text.parse::<Timestamp>().map_err(|e| format!("its {what} is no time: {e}"))
        };
        let status: Status =
            serde_json::from_str(&self.status).map_err(|e| format!("its status cannot be read: {e}"))?;
        let phase = Phase::of(status);
        if phase as i64 != self.phase {
            return Err(format!("its phase {} is not that of its status {status}", self.phase));
        }
        Ok(Summary {
            seq: self.seq,
            phase,
            line: RunSummary {
                run: RunId::new(&self.run).map_err(|e| e.to_string())?,
                playbook: PlaybookRef {
                    id: self.playbook,
                    version: self.version.parse().map_err(|e| format!("its playbook has no version: {e}"))?,
                    digest: Digest::parse(&self.digest).ok_or("its playbook has no digest")?,
                },
                node: NodeName::new(&self.node).map_err(|e| e.to_string())?,
                status,
                proposed_at: time("beginning", &self.proposed_at)?,
                last_event_at: time("last event", &self.last_event_at)?,
                initiator: self.initiator,
                why: self.why,
            },
        })
    }
}

/// An event or a record in the form in which it is stored, with its place in the chain.
#[derive(Debug, Clone)]
pub(super) struct StoredEvent {
    pub(super) owner: Owner,
    pub(super) pos: u64,
    /// Name of the run or of the stream.
    pub(super) name: String,
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) kind: Cow<'static, str>,
    pub(super) body: String,
    pub(super) prev: Digest,
    pub(super) hash: Digest,
    /// Both digests as bytes, for a record: that is how it keeps them.
    pub(super) bytes: Option<Box<[[u8; 32]; 2]>>,
}

impl StoredEvent {
    pub(super) fn raw(&self) -> RawEvent<'_> {
        let (prev, hash) = match self.bytes.as_deref() {
            None => (self.prev.as_str().as_bytes(), self.hash.as_str().as_bytes()),
            Some([prev, hash]) => (prev.as_slice(), hash.as_slice()),
        };
        RawEvent {
            owner: self.owner,
            pos: self.pos,
            name: self.name.as_bytes(),
            seq: self.seq,
            at: self.at.as_bytes(),
            kind: self.kind.as_bytes(),
            body: self.body.as_bytes(),
            prev,
            hash,
        }
    }
}

/// What an append comes to, before it is made durable.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) events: Vec<Event>,
    pub(super) stored: Vec<StoredEvent>,
    pub(super) state: RunState,
}

/// Folds new events onto a run and puts them in stored form, chained behind `head`.
///
/// `state` is the run as it is on record; `None` begins a run. Refuses what may not follow, what is too large, and
/// what would not read back as it was written.
pub(super) fn prepare(
    run: &RunId,
    state: Option<RunState>,
    head: (u64, Digest),
    new: Vec<NewEvent>,
) -> Result<Prepared, JournalError> {
    let (mut pos, mut prev) = head;
    let mut state = state;
    let mut events = Vec::with_capacity(new.len());
    let mut stored = Vec::with_capacity(new.len());
    for NewEvent { at, kind } in new {
        let event = Event { run: run.clone(), seq: state.as_ref().map_or(1, |s| s.seq + 1), at, kind };
        match &mut state {
            None => state = Some(RunState::begin(&event)?),
            Some(s) => s.apply(&event)?,
        }
        let body = encode(&event)?;
        pos += 1;
        let mut row = StoredEvent {
            owner: Owner::Run,
            pos,
            name: run.to_string(),
            seq: event.seq,
            at: at.to_string(),
            kind: Cow::Borrowed(event.kind.word()),
            body,
            prev: prev.clone(),
            hash: prev.clone(),
            bytes: None,
        };
        row.hash = link(&prev, &row.raw());
        prev = row.hash.clone();
        events.push(event);
        stored.push(row);
    }
    let state = state.ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
    Ok(Prepared { events, stored, state })
}

/// A record's place in its stream and in the chain.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pos: u64,
    pub(super) seq: u64,
    pub(super) prev: Digest,
    pub(super) hash: Digest,
}

/// Chains new records behind `head`; the stream has `length` records before them.
pub(super) fn place_records(
    stream: &StreamName,
    length: u64,
    head: (u64, Digest),
    at: &str,
    records: &[NewRecord],
) -> Vec<Place> {
    let (mut pos, mut prev) = head;
    let mut places = Vec::with_capacity(records.len());
    for (seq, record) in (length + 1..).zip(records) {
        pos += 1;
        let raw = RawEvent {
            owner: Owner::Stream,
            pos,
            name: stream.as_str().as_bytes(),
            seq,
            at: at.as_bytes(),
            kind: record.kind().as_bytes(),
            body: record.body().as_bytes(),
            prev: &[],
            hash: &[],
        };
        let hash = link(&prev, &raw);
        let prev = std::mem::replace(&mut prev, hash.clone());
        places.push(Place { pos, seq, prev, hash });
    }
    places
}

/// Writes an event's body, and makes sure that it reads back to the very same bytes: a number that JSON cannot
/// carry must be found now, not after a crash.
fn encode(event: &Event) -> Result<String, JournalError> {
    let unreadable = |why: String| IllegalEvent {
        run: event.run.clone(),
        seq: event.seq,
        event: event.kind.word(),
        why: format!("it would not read back as it was written: {why}"),
    };
    let body = serde_json::to_string(&event.kind).map_err(|e| store("written", e))?;
    if body.len() > MAX_EVENT {
        return Err(JournalError::TooLarge { what: "the event", size: body.len(), limit: MAX_EVENT });
    }
    let back: EventKind = serde_json::from_str(&body).map_err(|e| unreadable(e.to_string()))?;
    if back == event.kind {
        return Ok(body);
    }
    // Comparing costs a fraction of writing it out once more. A form may drop what is finer than it tells, such as less
    // than a millisecond; what counts is that it reads back to the very same bytes.
    let again = serde_json::to_string(&back).map_err(|e| store("written", e))?;
    if again != body {
        let at = again.bytes().zip(body.bytes()).take_while(|(a, b)| a == b).count();
        let part = |s: &str| {
            let near = at.saturating_sub(24)..(at + 24).min(s.len());
            String::from_utf8_lossy(s.as_bytes().get(near).unwrap_or_default()).into_owned()
        };
        return Err(unreadable(format!("{:?} becomes {:?}", part(&body), part(&again))).into());
    }
    Ok(body)
}

/// Reads an event out of its stored form; `Err` says what in it cannot be read.
pub(super) fn decode(raw: &RawEvent<'_>) -> Result<Event, String> {
    let text = |what: &str, bytes: &[u8]| {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| format!("its {what} is not text: {e}"))
    };
    let kind: EventKind = serde_json::from_slice(raw.body).map_err(|e| {
        format!("its content is not an event this release knows ({e}); a newer release may have written it")
    })?;
    if kind.word().as_bytes() != raw.kind {
        return Err(format!("it is called {} and is {}", shown(raw.kind), kind.word()));
    }
    Ok(Event {
        run: RunId::new(&text("run", raw.name)?).map_err(|e| e.to_string())?,
        seq: raw.seq,
        at: text("time", raw.at)?.parse().map_err(|e| format!("its time cannot be read: {e}"))?,
        kind,
    })
}

/// Shows stored bytes to people: bounded, and whatever is not text replaced.
pub(super) fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..64).unwrap_or(bytes);
    String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Wraps the cause of a failed access.
pub(super) fn store<E>(doing: &'static str, source: E) -> JournalError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    JournalError::Store { doing, source: source.into() }
}
