//! The exploration: every situation once, nearest first, so that the first way found to a broken rule is a shortest one.

use super::machine::Machine;
use super::moves::{Move, Obstacle, Told, moves};
use super::rule::{Broken, Rule};
use super::situation::Situation;
use super::subject::{Before, Subject, views};
use super::world::found;
use engine_core::condition::Truth;
use engine_core::run::{Effect, EffectState, End, Next, OutcomeKind, Resolution, RunState};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Events folded anew, at most: a run may crash in each situation until they are used up. Enough for every situation
/// of a playbook of usual length.
const REFOLDED_EVENTS: u64 = 500_000;

/// One situation as the graph keeps it.
struct Node {
    /// The situation before it and which of its moves led here; the first ones have none, and their place instead.
    from: Option<(u32, u16)>,
    root: u16,
    /// Where its successors begin in the list of edges.
    edges: u32,
}

/// What an exploration found.
pub(super) struct Found {
    pub(super) situations: usize,
    pub(super) events: u64,
    /// Situations in which the engine was stopped, and its run folded anew.
    pub(super) crashes: usize,
    pub(super) ends: BTreeSet<End>,
    /// Events of the longest way.
    pub(super) longest: u32,
    /// Effects that were begun in some situation.
    pub(super) begun: BTreeSet<Effect>,
    /// Effects that were done in some situation.
    pub(super) done: BTreeSet<Effect>,
    /// What stood against effects.
    pub(super) obstacles: BTreeMap<Effect, BTreeSet<Obstacle>>,
    /// The way to the first situation in which an effect was due.
    pub(super) due: BTreeMap<Effect, Vec<(Situation, Move)>>,
    /// The way to the first situation in which a run turned back though every step before this one was done, and why.
    pub(super) turned: BTreeMap<Effect, (Vec<(Situation, Move)>, String)>,
    /// How many kinds of nodes the preconditions let in.
    pub(super) admitted: usize,
}

/// How an exploration stopped early.
pub(super) enum Stopped {
    /// A rule broke; the way there.
    Broken(Broken, Vec<(Situation, Move)>),
    /// A way leads back to itself; the way, and the place from which it repeats.
    Endless(Vec<(Situation, Move)>, usize),
    /// The limit was reached.
    Limit(usize),
    /// The playbook cannot be played.
    Unplayable(String),
}

struct Explorer<'a, M> {
    subject: &'a Subject<'a>,
    machine: &'a M,
    limit: usize,
    roots: Vec<Situation>,
    nodes: Vec<Node>,
    edges: Vec<(u32, u8)>,
    known: HashMap<Vec<u8>, u32>,
    waiting: VecDeque<(u32, Situation)>,
    found: Found,
    due: BTreeMap<Effect, u32>,
    refolded: u64,
}

/// Explores every situation of a playbook.
pub(super) fn explore(
    subject: &Subject<'_>,
    machine: &impl Machine,
    limit: usize,
) -> Result<Found, (Stopped, usize)> {
    let mut e = Explorer {
        subject,
        machine,
        limit,
        roots: Vec::new(),
        nodes: Vec::new(),
        edges: Vec::new(),
        known: HashMap::new(),
        waiting: VecDeque::new(),
        found: Found {
            situations: 0,
            events: 0,
            crashes: 0,
            ends: BTreeSet::new(),
            longest: 0,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
            obstacles: BTreeMap::new(),
            due: BTreeMap::new(),
            turned: BTreeMap::new(),
            admitted: 0,
        },
        due: BTreeMap::new(),
        refolded: 0,
    };
    let explored = e.run();
    e.found.situations = e.nodes.len();
    explored.map_err(|stopped| (stopped, e.nodes.len()))?;
    for (effect, at) in std::mem::take(&mut e.due) {
        let way = e.way_to(at);
        e.found.due.insert(effect, way);
    }
    Ok(e.found)
}

impl<M: Machine> Explorer<'_, M> {
    fn run(&mut self) -> Result<(), Stopped> {
        self.begin()?;
        while let Some((at, situation)) = self.waiting.pop_front() {
            self.expand(at, &situation)?;
        }
        self.found.longest = self.longest()?;
        Ok(())
    }

    /// Begins with every kind of node that the preconditions let in.
    fn begin(&mut self) -> Result<(), Stopped> {
        for (world, silent) in found() {
            let verdicts = self.subject.verdicts(Before::Run, world, silent);
            if !views(world).iter().any(|jobs| verdicts.at(*jobs).contains(Truth::True)) {
                continue;
            }
            self.found.admitted += 1;
            let first = Situation::first(self.subject, world, silent).map_err(Stopped::Unplayable)?;
            let root = u16::try_from(self.roots.len()).unwrap_or(u16::MAX);
            self.roots.push(first.clone());
            self.meet(first, None, root);
        }
        Ok(())
    }

    /// Keeps a situation if it is new; returns its place.
    fn meet(&mut self, mut situation: Situation, from: Option<(u32, u16)>, root: u16) -> u32 {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let follows = situation.follows(self.machine);
        let at = *self.known.entry(situation.key(self.subject, follows)).or_insert(next);
        if at == next {
            self.nodes.push(Node { from, root, edges: 0 });
            self.waiting.push_back((at, situation));
        }
        at
    }

    fn expand(&mut self, at: u32, situation: &Situation) -> Result<(), Stopped> {
        if self.nodes.len() > self.limit {
            return Err(Stopped::Limit(self.limit));
        }
        let edges = u32::try_from(self.edges.len()).unwrap_or(u32::MAX);
        self.nodes[at as usize].edges = edges;
        let next = self.machine.next(&situation.state, situation.now);
        self.refold(at, situation, &next)?;
        if let Some(end) = situation.judge.end() {
            self.found.ends.insert(end);
        }
        if let Next::Begin { effect, .. } = next {
            self.due.entry(effect).or_insert(at);
        }
        if let Next::StartRollback(why) = &next
            && situation.state.cancel.is_none()
        {
            let done =
                |i: &usize| situation.state.effects.get(&Effect::Step(*i)) == Some(&EffectState::Applied);
            let at_step = Effect::Step((0..situation.state.plan.steps.len()).take_while(done).count());
            if !self.found.turned.contains_key(&at_step) {
                self.found.turned.insert(at_step, (self.way_to(at), why.clone()));
            }
        }
        if let Some(broken) = stands_still(situation, &next) {
            return Err(Stopped::Broken(broken, self.way_to(at)));
        }
        let root = self.nodes[at as usize].root;
        for (i, mv) in moves(self.subject, situation, self.machine, &next).into_iter().enumerate() {
            let events = mv.events.len() + usize::from(mv.late);
            self.found.events += events as u64;
            self.note(&mv.told);
            match situation.after(mv, self.machine) {
                Ok(after) => {
                    let place = (at, u16::try_from(i).unwrap_or(u16::MAX));
                    let to = self.meet(after, Some(place), root);
                    self.edges.push((to, u8::try_from(events).unwrap_or(u8::MAX)));
                }
                Err(broken) => {
                    let mut way = self.way_to(at);
                    let again = moves(self.subject, situation, self.machine, &next).into_iter().nth(i);
                    way.extend(again.map(|mv| (situation.clone(), mv)));
                    return Err(Stopped::Broken(broken, way));
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, told: &Told) {
        match told {
            Told::Begins { effect, .. } => {
                self.found.begun.insert(*effect);
            }
            Told::Comes { effect, kind: OutcomeKind::Succeeded, .. }
            | Told::Probed { effect, resolution: Resolution::Applied } => {
                self.found.done.insert(*effect);
            }
            Told::Refuses { effect, obstacle } => {
                self.found.obstacles.entry(*effect).or_default().insert(*obstacle);
            }
            _ => {}
        }
    }

    /// The way from a first situation to this one: each situation with the move that was made in it.
    fn way_to(&self, at: u32) -> Vec<(Situation, Move)> {
        let mut places = Vec::new();
        let mut here = at;
        while let Some((from, mv)) = self.nodes.get(here as usize).and_then(|n| n.from) {
            places.push(mv);
            here = from;
        }
        let root = self.nodes.get(here as usize).map_or(0, |n| n.root);
        let mut way = Vec::new();
        let Some(mut situation) = self.roots.get(usize::from(root)).cloned() else { return way };
        for place in places.into_iter().rev() {
            let next = self.machine.next(&situation.state, situation.now);
            let mut list = moves(self.subject, &situation, self.machine, &next);
            if usize::from(place) >= list.len() {
                return way;
            }
            let mv = list.swap_remove(usize::from(place));
            let after = situation.after(mv.clone(), self.machine);
            way.push((situation, mv));
            match after {
                Ok(after) => situation = after,
                Err(_) => return way,
            }
        }
        way
    }

    /// Folds the run's journal from the beginning, as the next process does after a crash here: it must stand where
    /// this one stands, and decide alike.
    fn refold(&mut self, at: u32, situation: &Situation, next: &Next) -> Result<(), Stopped> {
        if self.refolded > REFOLDED_EVENTS {
            return Ok(());
        }
        self.refolded += situation.state.seq;
        self.found.crashes += 1;
        let again = self.machine.fold(&situation.journal());
        let alike =
            |again: &RunState| *again == situation.state && self.machine.next(again, situation.now) == *next;
        if again.as_ref().is_ok_and(alike) {
            return Ok(());
        }
        let why = "a process that starts after a crash stands elsewhere than the one that died".to_owned();
        Err(Stopped::Broken(Broken { rule: Rule::Intent, why, effect: None }, self.way_to(at)))
    }

    fn successors(&self, at: usize) -> &[(u32, u8)] {
        let start = self.nodes.get(at).map_or(0, |n| n.edges as usize);
        let end = self.nodes.get(at + 1).map_or(self.edges.len(), |n| n.edges as usize);
        self.edges.get(start..end).unwrap_or(&[])
    }

    /// The events of the longest way; an error where a way leads back to itself (rule 13).
    fn longest(&self) -> Result<u32, Stopped> {
        let n = self.nodes.len();
        let mut into = vec![0_u32; n];
        for (to, _) in &self.edges {
            if let Some(count) = into.get_mut(*to as usize) {
                *count += 1;
            }
        }
        let mut length = vec![1_u32; n];
        let mut ready: Vec<usize> = (0..n).filter(|i| into[*i] == 0).collect();
        let (mut seen, mut longest) = (0, 0);
        while let Some(at) = ready.pop() {
            seen += 1;
            longest = longest.max(length[at]);
            for (to, events) in self.successors(at) {
                let to = *to as usize;
                length[to] = length[to].max(length[at].saturating_add(u32::from(*events)));
                into[to] -= 1;
                if into[to] == 0 {
                    ready.push(to);
                }
            }
        }
        if seen == n { Ok(longest) } else { Err(self.endless(&into)) }
    }

    /// The shortest way into a circle: only situations on or behind one have predecessors left.
    fn endless(&self, into: &[u32]) -> Stopped {
        let on_circle = |at: u32| into.get(at as usize).is_some_and(|n| *n > 0);
        // Nearest first: the first such situation that can reach itself again.
        for start in (0..self.nodes.len()).filter_map(|i| u32::try_from(i).ok()).filter(|i| on_circle(*i)) {
            let mut before: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
            let mut queue = VecDeque::from([start]);
            while let Some(at) = queue.pop_front() {
                for (i, (to, _)) in self.successors(at as usize).iter().enumerate() {
                    if !on_circle(*to) || before.contains_key(to) {
                        continue;
                    }
                    before.insert(*to, (at, i));
                    if *to == start {
                        return self.circle(start, &before);
                    }
                    queue.push_back(*to);
                }
            }
        }
        Stopped::Unplayable("a way without an end was found, and lost again".to_owned())
    }

    fn circle(&self, start: u32, before: &BTreeMap<u32, (u32, usize)>) -> Stopped {
        let mut way = self.way_to(start);
        let repeats = way.len();
        let mut places = Vec::new();
        let mut here = start;
        while let Some((from, place)) = before.get(&here) {
            places.push(*place);
            here = *from;
            if here == start {
                break;
            }
        }
        let mut situation = match way.last() {
            Some((last, mv)) => last.after(mv.clone(), self.machine).ok(),
            None => self.roots.first().cloned(),
        };
        for place in places.into_iter().rev() {
            let Some(here) = situation else { break };
            let next = self.machine.next(&here.state, here.now);
            let Some(mv) = moves(self.subject, &here, self.machine, &next).into_iter().nth(place) else {
                break;
            };
            situation = here.after(mv.clone(), self.machine).ok();
            way.push((here, mv));
        }
        Stopped::Endless(way, repeats)
    }
}

/// A run that neither goes on nor is over, or waits for a time that has come.
fn stands_still(situation: &Situation, next: &Next) -> Option<Broken> {
    let ended = situation.judge.end().is_some();
    let why = match next {
        Next::Over(_) if !ended => "the engine says that the run is over, and no end is on record",
        Next::Over(_) => return None,
        _ if ended => "the run has ended and goes on",
        Next::WaitUntil(t) if *t <= situation.now => "the engine waits for a time that has come already",
        _ => return None,
    };
    Some(Broken { rule: Rule::End, why: why.to_owned(), effect: None })
}
