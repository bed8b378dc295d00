//! The check of a journal: the chain event by event, then every run's fold, then what is derived from them.
//!
//! Works on stored bytes and believes nothing in them, so that a changed file gives a finding and never a panic.

use super::chain::{Owner, RawEvent, genesis, is_digest, link};
use super::stored::{Summary, decode, shown};
use super::stream;
use engine_core::digest::Digest;
use engine_core::run::{Event, EventKind, RunState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What the check of a journal found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Events of runs that were checked and are as they were written, before the first entry that is not.
    pub events: u64,
    /// Runs whose events fold.
    pub runs: u64,
    /// Records of streams that were checked and are as they were written, before the first entry that is not.
    pub records: u64,
    /// Streams that these records are in.
    pub streams: u64,
    /// Blobs whose bytes are what their digest says.
    pub blobs: u64,
    /// Digest of the last entry that was checked. Note it elsewhere: who can write the file can rebuild the chain.
    pub head: Digest,
    /// The first thing that is wrong.
    pub broken: Option<ChainBreak>,
}

/// The first thing that is wrong with a journal, named as closely as the file allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainBreak {
    /// Position in the journal, from 1; `None` where it is not one entry that is wrong.
    pub pos: Option<u64>,
    /// The run, as the file has it now, where it is an event of one.
    pub run: Option<String>,
    /// The stream, as the file has it now, where it is a record of one.
    pub stream: Option<Box<str>>,
    /// Place in the run or in the stream.
    pub seq: Option<u64>,
    /// Word of the event or the record.
    pub kind: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl ChainBreak {
    /// Names a break that is not at one entry.
    pub(super) fn of_journal(why: impl Into<String>) -> Self {
        Self { pos: None, run: None, stream: None, seq: None, kind: None, why: why.into() }
    }

    /// Names a break at a position of which nothing else can be read.
    pub(super) fn at(pos: u64, why: impl Into<String>) -> Self {
        Self { pos: Some(pos), ..Self::of_journal(why) }
    }

    /// Names a break at a stored entry.
    pub(super) fn of_entry(e: &RawEvent<'_>, why: impl Into<String>) -> Self {
        let mut b = Self::at(e.pos, why).owned(e.owner, e.name, e.seq);
        b.kind = Some(shown(e.kind));
        b
    }

    /// Says whose the entry is.
    pub(super) fn owned(mut self, owner: Owner, name: &[u8], seq: u64) -> Self {
        match owner {
            Owner::Run => self.run = Some(shown(name)),
            Owner::Stream => self.stream = Some(shown(name).into()),
        }
        self.seq = Some(seq);
        self
    }

    /// Names a break in what is derived of a run.
    pub(super) fn of_run(run: &str, why: impl Into<String>) -> Self {
        Self { run: Some(shown(run.as_bytes())), ..Self::of_journal(why) }
    }

    /// Names a break in a stream as a whole.
    pub(super) fn of_stream(stream: &[u8], why: impl Into<String>) -> Self {
        Self { stream: Some(shown(stream).into()), ..Self::of_journal(why) }
    }
}

impl fmt::Display for ChainBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pos, &self.run, &self.stream) {
            (Some(pos), Some(run), _) => {
                write!(f, "event {pos} of the journal ({} of run {run}", self.number())?;
            }
            (Some(pos), None, Some(stream)) => {
                write!(f, "record {pos} of the journal ({} of stream {stream}", self.number())?;
            }
            (Some(pos), None, None) => return write!(f, "entry {pos} of the journal: {}", self.why),
            (None, Some(run), _) => return write!(f, "run {run}: {}", self.why),
            (None, None, Some(stream)) => return write!(f, "stream {stream}: {}", self.why),
            (None, None, None) => return f.write_str(&self.why),
        }
        match &self.kind {
            Some(kind) => write!(f, ", {kind}): {}", self.why),
            None => write!(f, "): {}", self.why),
        }
    }
}

impl ChainBreak {
    fn number(&self) -> String {
        self.seq.map_or_else(|| "number unknown".to_owned(), |seq| format!("number {seq}"))
    }
}

/// Walks the chain, entry by entry in the order of positions.
#[derive(Debug)]
pub(super) struct ChainWalk {
    last: u64,
    head: Digest,
    events: u64,
    runs: BTreeMap<Vec<u8>, u64>,
    streams: BTreeMap<Vec<u8>, u64>,
}

impl ChainWalk {
    pub(super) fn new() -> Self {
        Self { last: 0, head: genesis(), events: 0, runs: BTreeMap::new(), streams: BTreeMap::new() }
    }

    /// Returns how many entries were walked.
    pub(super) fn len(&self) -> u64 {
        self.last
    }

    /// Returns how many events each run has.
    pub(super) fn runs(&self) -> &BTreeMap<Vec<u8>, u64> {
        &self.runs
    }

    /// Returns how many records each stream has.
    pub(super) fn streams(&self) -> &BTreeMap<Vec<u8>, u64> {
        &self.streams
    }

    /// Says what was found.
    pub(super) fn report(self, runs: u64, blobs: u64, broken: Option<ChainBreak>) -> ChainReport {
        ChainReport {
            events: self.events,
            runs,
            records: self.last - self.events,
            streams: self.streams.len() as u64,
            blobs,
            head: self.head,
            broken,
        }
    }

    /// Checks one entry against all before it.
    pub(super) fn step(&mut self, e: &RawEvent<'_>) -> Result<(), ChainBreak> {
        let due = self.last + 1;
        if e.pos < due {
            return Err(ChainBreak::of_entry(e, "another entry has its position"));
        }
        if e.pos != due {
            let why = format!("it is gone: entry {} follows entry {}", e.pos, self.last);
            return Err(ChainBreak::at(due, why));
        }
        if !is_digest(e.owner, e.prev, &self.head) {
            let why = "it does not follow the entry before it: one of the two was changed or exchanged";
            return Err(ChainBreak::of_entry(e, why));
        }
        let hash = link(&self.head, e);
        if !is_digest(e.owner, e.hash, &hash) {
            return Err(ChainBreak::of_entry(e, "it was changed after it was written"));
        }
        let (of, counts) = match e.owner {
            Owner::Run => ("run", &mut self.runs),
            Owner::Stream => ("stream", &mut self.streams),
        };
        let count = match counts.get_mut(e.name) {
            Some(count) => count,
            None => counts.entry(e.name.to_vec()).or_default(),
        };
        if e.seq != *count + 1 {
            let why = format!("its {of} has {count} before it, so number {} was due", *count + 1);
            return Err(ChainBreak::of_entry(e, why));
        }
        if e.owner == Owner::Stream {
            // A run's events are read when it is folded.
            stream::decode(e).map_err(|why| ChainBreak::of_entry(e, why))?;
        }
        *count = e.seq;
        self.last = e.pos;
        self.events += u64::from(e.owner == Owner::Run);
        self.head = hash;
        Ok(())
    }

    /// Compares the end of the walk with the record of the last entry, which is written together with it.
    pub(super) fn end(&self, head: Option<(u64, &[u8])>) -> Result<(), ChainBreak> {
        let Some((pos, hash)) = head else {
            return Err(ChainBreak::of_journal("the record of the last entry is gone"));
        };
        if pos > self.last {
            let why =
                format!("it is gone: {pos} entries were written, and the journal ends after {}", self.last);
            return Err(ChainBreak::at(self.last + 1, why));
        }
        if pos < self.last {
            let why = format!("it is not on the record of the last entry, which names entry {pos}");
            return Err(ChainBreak::at(pos + 1, why));
        }
        if hash != self.head.as_str().as_bytes() {
            let why = "the record of the last entry names another digest for it";
            return Err(ChainBreak::at(self.last, why));
        }
        Ok(())
    }
}

/// Folds one run, event by event, and compares what is derived of it.
#[derive(Debug, Default)]
pub(super) struct RunCheck {
    state: Option<RunState>,
}

impl RunCheck {
    /// Folds one event.
    pub(super) fn step(
        &mut self,
        raw: &RawEvent<'_>,
        playbooks: &mut PlaybookCheck,
    ) -> Result<(), ChainBreak> {
        let event = decode(raw).map_err(|why| ChainBreak::of_entry(raw, why))?;
        let folded = match &mut self.state {
            None => RunState::begin(&event).map(|s| self.state = Some(s)),
            Some(s) => s.apply(&event),
        };
        folded.map_err(|e| ChainBreak::of_entry(raw, format!("it may not follow: {}", e.why)))?;
        playbooks.step(&event).map_err(|why| ChainBreak::of_entry(raw, why))
    }

    /// Compares the summary of the run with its fold.
    pub(super) fn end(self, run: &str, summary: Option<Result<Summary, String>>) -> Result<(), ChainBreak> {
        let of_run = |why: &str| Err(ChainBreak::of_run(run, why));
        let Some(state) = self.state else { return of_run("it has a line in the list of runs and no event") };
        match summary {
            None => of_run("it is missing in the list of runs"),
            Some(Err(why)) => of_run(&format!("its line in the list of runs cannot be read: {why}")),
            Some(Ok(s)) if s != Summary::of(&state) => {
                of_run("its line in the list of runs is not what its events say")
            }
            Some(Ok(_)) => Ok(()),
        }
    }
}

/// Compares the playbook versions that runs name with each other and with the pinned ones.
#[derive(Debug, Default)]
pub(super) struct PlaybookCheck {
    seen: BTreeMap<(String, String), Digest>,
}

impl PlaybookCheck {
    /// Takes a pinned version, before any event.
    pub(super) fn pin(&mut self, id: String, version: String, digest: &str) -> Result<(), ChainBreak> {
        let Some(digest) = Digest::parse(digest) else {
            return Err(ChainBreak::of_journal(format!(
                "the digest on record of {}@{} is none",
                shown(id.as_bytes()),
                shown(version.as_bytes())
            )));
        };
        self.seen.insert((id, version), digest);
        Ok(())
    }

    /// Takes an event; says what is wrong with the playbook it names.
    fn step(&mut self, event: &Event) -> Result<(), String> {
        let EventKind::Proposed { plan, .. } = &event.kind else { return Ok(()) };
        let p = &plan.playbook;
        let seen = self.seen.entry((p.id.clone(), p.version.to_string())).or_insert_with(|| p.digest.clone());
        if *seen == p.digest {
            Ok(())
        } else {
            Err(format!("it names {p} with digest {}; on record is {seen}", p.digest))
        }
    }
}
