//! The check of a journal: the chain event by event, then every run's fold, then what is derived from them.
//!
//! Works on stored bytes and believes nothing in them, so that a changed file gives a finding and never a panic.

use super::chain::{RawEvent, genesis, link};
use super::stored::{Summary, decode, shown};
use engine_core::digest::Digest;
use engine_core::run::{Event, EventKind, RunState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What the check of a journal found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Events that were checked and are as they were written, before the first that is not.
    pub events: u64,
    /// Runs whose events fold.
    pub runs: u64,
    /// Blobs whose bytes are what their digest says.
    pub blobs: u64,
    /// Digest of the last event that was checked. Note it elsewhere: who can write the file can rebuild the chain.
    pub head: Digest,
    /// The first thing that is wrong.
    pub broken: Option<ChainBreak>,
}

/// The first thing that is wrong with a journal, named as closely as the file allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainBreak {
    /// Position in the journal, from 1; `None` where it is not one event that is wrong.
    pub pos: Option<u64>,
    /// The run, as the file has it now.
    pub run: Option<String>,
    /// Place in the run.
    pub seq: Option<u64>,
    /// Word of the event.
    pub kind: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl ChainBreak {
    /// Names a break that is not at one event.
    pub(super) fn of_journal(why: impl Into<String>) -> Self {
        Self { pos: None, run: None, seq: None, kind: None, why: why.into() }
    }

    /// Names a break at a position of which nothing else can be read.
    pub(super) fn at(pos: u64, why: impl Into<String>) -> Self {
        Self { pos: Some(pos), ..Self::of_journal(why) }
    }

    /// Names a break at a stored event.
    fn of_event(e: &RawEvent<'_>, why: impl Into<String>) -> Self {
        Self {
            pos: Some(e.pos),
            run: Some(shown(e.run)),
            seq: Some(e.seq),
            kind: Some(shown(e.kind)),
            why: why.into(),
        }
    }

    /// Names a break in what is derived of a run.
    pub(super) fn of_run(run: &str, why: impl Into<String>) -> Self {
        Self { run: Some(shown(run.as_bytes())), ..Self::of_journal(why) }
    }
}

impl fmt::Display for ChainBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pos, &self.run, self.seq) {
            (Some(pos), Some(run), Some(seq)) => {
                write!(f, "event {pos} of the journal (number {seq} of run {run}")?;
            }
            (Some(pos), _, _) => write!(f, "event {pos} of the journal (of a run that cannot be read")?,
            (None, Some(run), _) => return write!(f, "run {run}: {}", self.why),
            (None, None, _) => return f.write_str(&self.why),
        }
        match &self.kind {
            Some(kind) => write!(f, ", {kind}): {}", self.why),
            None => write!(f, "): {}", self.why),
        }
    }
}

/// Walks the chain, event by event in the order of positions.
#[derive(Debug)]
pub(super) struct ChainWalk {
    last: u64,
    head: Digest,
    seqs: BTreeMap<Vec<u8>, u64>,
}

impl ChainWalk {
    pub(super) fn new() -> Self {
        Self { last: 0, head: genesis(), seqs: BTreeMap::new() }
    }

    /// Returns how many events were walked.
    pub(super) fn events(&self) -> u64 {
        self.last
    }

    /// Returns the digest of the last event walked.
    pub(super) fn head(&self) -> &Digest {
        &self.head
    }

    /// Returns how many events each run has.
    pub(super) fn runs(&self) -> &BTreeMap<Vec<u8>, u64> {
        &self.seqs
    }

    /// Checks one event against all before it.
    pub(super) fn step(&mut self, e: &RawEvent<'_>) -> Result<(), ChainBreak> {
        let due = self.last + 1;
        if e.pos != due {
            let why = format!("it is gone: event {} follows event {}", e.pos, self.last);
            return Err(ChainBreak::at(due, why));
        }
        if e.prev != self.head.as_str().as_bytes() {
            let why = "it does not follow the event before it: one of the two was changed or exchanged";
            return Err(ChainBreak::of_event(e, why));
        }
        let hash = link(e.prev, e);
        if e.hash != hash.as_str().as_bytes() {
            return Err(ChainBreak::of_event(e, "it was changed after it was written"));
        }
        let seq = self.seqs.entry(e.run.to_vec()).or_default();
        if e.seq != *seq + 1 {
            let why = format!("its run has {seq} events before it, so number {} was due", *seq + 1);
            return Err(ChainBreak::of_event(e, why));
        }
        *seq = e.seq;
        self.last = e.pos;
        self.head = hash;
        Ok(())
    }

    /// Compares the end of the walk with the record of the last event, which is written together with it.
    pub(super) fn end(&self, head: Option<(u64, &[u8])>) -> Result<(), ChainBreak> {
        let Some((pos, hash)) = head else {
            return Err(ChainBreak::of_journal("the record of the last event is gone"));
        };
        if pos > self.last {
            let why =
                format!("it is gone: {pos} events were written, and the journal ends after {}", self.last);
            return Err(ChainBreak::at(self.last + 1, why));
        }
        if pos < self.last {
            let why = format!("it is not on the record of the last event, which names event {pos}");
            return Err(ChainBreak::at(pos + 1, why));
        }
        if hash != self.head.as_str().as_bytes() {
            let why = "the record of the last event names another digest for it";
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
        let event = decode(raw).map_err(|why| ChainBreak::of_event(raw, why))?;
        let folded = match &mut self.state {
            None => RunState::begin(&event).map(|s| self.state = Some(s)),
            Some(s) => s.apply(&event),
        };
        folded.map_err(|e| ChainBreak::of_event(raw, format!("it may not follow: {}", e.why)))?;
        playbooks.step(&event).map_err(|why| ChainBreak::of_event(raw, why))
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
