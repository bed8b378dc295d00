//! The fleet as the budgets see it: which nodes are out of service and why, in which groups, indexed once per look.

use super::hosts::Hosts;
use super::layout::{Groups, Layout, UNKNOWN_RACK};
use super::service::{Out, Service, service};
use crate::known::{Cause, Known, Unknown};
use crate::model::{Node, NodeName, Partition, Reservation};
use jiff::Timestamp;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What one look at the whole cluster gave. What could not be read is unknown, never empty.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Every node.
    pub nodes: Known<&'a [Node]>,
    /// Every partition.
    pub partitions: Known<&'a [Partition]>,
    /// Every reservation.
    pub reservations: Known<&'a [Reservation]>,
}

/// Kinds of groups that have a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// All nodes.
    Fleet,
    /// A partition.
    Partition,
    /// A rack.
    Rack,
    /// A fabric domain.
    Fabric,
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fleet => "fleet",
            Self::Partition => "partition",
            Self::Rack => "rack",
            Self::Fabric => "fabric domain",
        })
    }
}

/// A group of nodes.
#[derive(Debug, Clone)]
pub struct Group {
    /// What kind.
    pub kind: GroupKind,
    /// Its name; empty for the fleet.
    pub name: String,
    /// Places of its nodes, ascending.
    members: Vec<u32>,
    /// How many of them count: in or out of service, but neither asleep nor apart.
    pub counted: usize,
    /// How many of them are out of service.
    pub out: usize,
}

impl Group {
    fn new(kind: GroupKind, name: &str) -> Self {
        Self { kind, name: name.to_owned(), members: Vec::new(), counted: 0, out: 0 }
    }

    pub(super) fn has(&self, place: u32) -> bool {
        self.kind == GroupKind::Fleet || self.members.binary_search(&place).is_ok()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "{}", self.kind)
        } else {
            write!(f, "{} {}", self.kind, self.name)
        }
    }
}

/// One node of the fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// What the queue can have of it.
    pub service: Service,
    /// Its features.
    pub features: Known<Arc<[String]>>,
    /// Its comment.
    pub comment: Known<Option<String>>,
}

/// The fleet. Cheap to clone; `Send` and `Sync`.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    at: Timestamp,
    /// By name, ascending.
    nodes: Vec<Member>,
    /// The fleet, then partitions, racks, fabric domains, each by name.
    groups: Vec<Group>,
    gaps: Vec<Unknown>,
}

impl Fleet {
    /// Makes the fleet of one look. What is missing in it is kept as a gap, and nothing is permitted on it.
    pub fn of(seen: &Seen<'_>, layout: &Layout, now: Timestamp) -> Self {
        let mut gaps: Vec<Unknown> = layout.unknown.iter().cloned().collect();
        let listed: &[Node] = match &seen.nodes {
            Known::Known([]) => {
                gaps.push(Unknown::new(Cause::EmptyAnswer, "the list of nodes is empty"));
                &[]
            }
            Known::Known(nodes) => nodes,
            Known::Unknown(u) => {
                gaps.push(u.clone());
                &[]
            }
        };
        let mut order: Vec<&Node> = listed.iter().collect();
        if !order.is_sorted_by(|a, b| a.name <= b.name) {
            order.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let finder = Finder::new(&order);
        let maintenance = maintenance(&seen.reservations, &finder, now, &mut gaps);
        let nodes = members(&order, &maintenance);
        let mut groups = vec![Group::new(GroupKind::Fleet, "")];
        groups.extend(partitions(&seen.partitions, &order, &finder, &mut gaps));
        groups.extend(racks(&layout.racks, &finder));
        groups.extend(named(GroupKind::Fabric, &layout.fabrics, &finder));
        for group in &mut groups {
            count(group, &nodes);
        }
        Self(Arc::new(Inner { at: now, nodes, groups, gaps }))
    }

    /// Returns when it was looked at.
    pub fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Returns what could not be read. Not empty means that the numbers may be too low.
    pub fn gaps(&self) -> &[Unknown] {
        &self.0.gaps
    }

    /// Returns all nodes, by name.
    pub fn nodes(&self) -> &[Member] {
        &self.0.nodes
    }

    /// Finds a node.
    pub fn node(&self, name: &NodeName) -> Option<&Member> {
        self.0.nodes.get(self.place(name)? as usize)
    }

    /// Returns all groups: the fleet, then partitions, racks and fabric domains, each by name.
    pub fn groups(&self) -> &[Group] {
        &self.0.groups
    }

    /// Returns the groups of a node with their places among all groups, the fleet first. A node that is not known is in
    /// the fleet alone.
    pub fn groups_of(&self, name: &NodeName) -> impl Iterator<Item = (usize, &Group)> {
        let place = self.place(name);
        let holds = move |g: &Group| g.kind == GroupKind::Fleet || place.is_some_and(|p| g.has(p));
        self.0.groups.iter().enumerate().filter(move |(_, g)| holds(g))
    }

    /// Says whether a node is in a group of this fleet. A node that is not known may be in any: yes.
    pub fn is_in(&self, name: &NodeName, group: &Group) -> bool {
        self.place(name).is_none_or(|p| group.has(p))
    }

    /// Returns the places of those nodes that are not out of service already, each once; `None` for one that is not
    /// known.
    pub(super) fn not_yet_out<'a>(&self, names: impl Iterator<Item = &'a NodeName>) -> Vec<Option<u32>> {
        let mut strangers = BTreeSet::new();
        let mut places: Vec<Option<u32>> = Vec::new();
        for name in names {
            match self.place(name) {
                Some(p) if self.0.nodes.get(p as usize).is_some_and(|m| m.service.is_out()) => {}
                Some(p) => places.push(Some(p)),
                None => {
                    strangers.insert(name);
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places.extend(strangers.iter().map(|_| None));
        places
    }

    /// Returns the nodes that are out of service, with why.
    pub fn out(&self) -> impl Iterator<Item = (&NodeName, &Out)> {
        self.0.nodes.iter().filter_map(|m| match &m.service {
            Service::Out(why) => Some((&m.name, why)),
            _ => None,
        })
    }

    fn place(&self, name: &NodeName) -> Option<u32> {
        self.0.nodes.binary_search_by(|m| m.name.cmp(name)).ok().map(|i| i as u32)
    }
}

/// Finds places of names. It looks on from the last one found in growing steps, so that lists in the order of the
/// fleet, or nearly so, cost a few comparisons per name.
struct Finder<'a> {
    names: Vec<&'a str>,
    next: Cell<usize>,
}

impl<'a> Finder<'a> {
    fn new(order: &[&'a Node]) -> Self {
        Self { names: order.iter().map(|n| n.name.as_str()).collect(), next: Cell::new(0) }
    }

    fn find(&self, name: &str) -> Option<u32> {
        let mut from = self.next.get();
        if from >= self.names.len() || self.names.get(from).is_some_and(|n| *n > name) {
            from = 0;
        }
        let mut step = 1;
        let mut to = from;
        while self.names.get(to).is_some_and(|n| *n < name) {
            from = to + 1;
            to += step;
            step *= 2;
        }
        let end = (to + 1).min(self.names.len());
        let found = from + self.names.get(from..end)?.binary_search(&name).ok()?;
        self.next.set(found + 1);
        Some(found as u32)
    }

    fn places<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<u32> {
        let mut places: Vec<u32> = names.filter_map(|n| self.find(n)).collect();
        tidy(&mut places);
        places
    }
}

fn tidy(places: &mut Vec<u32>) {
    if !places.is_sorted_by(|a, b| a < b) {
        places.sort_unstable();
        places.dedup();
    }
}

/// Finds the MAINT reservation over each node now.
fn maintenance<'a>(
    reservations: &'a Known<&[Reservation]>,
    finder: &Finder<'_>,
    now: Timestamp,
    gaps: &mut Vec<Unknown>,
) -> BTreeMap<u32, &'a str> {
    let mut covered = BTreeMap::new();
    let list: &[Reservation] = match reservations {
        Known::Known(list) => list,
        Known::Unknown(u) => {
            gaps.push(u.clone());
            &[]
        }
    };
    for r in list.iter().filter(|r| r.is_maintenance()) {
        // What is unknown about its times counts as now.
        let now_on = r.start.known().is_none_or(|s| *s <= now) && r.end.known().is_none_or(|e| *e > now);
        if !now_on {
            continue;
        }
        match &r.nodes {
            Known::Known(names) => {
                for place in finder.places(names.iter().map(NodeName::as_str)) {
                    covered.entry(place).or_insert(r.name.as_str());
                }
            }
            Known::Unknown(u) => {
                gaps.push(Unknown::new(
                    u.cause,
                    format!("the nodes of reservation {} are not known", r.name),
                ));
            }
        }
    }
    covered
}

fn members(order: &[&Node], maintenance: &BTreeMap<u32, &str>) -> Vec<Member> {
    let mut out: Vec<Member> = Vec::with_capacity(order.len());
    // Neighbours mostly have the same features: they share one list.
    let mut last: Option<(&[String], Arc<[String]>)> = None;
    for (i, node) in order.iter().enumerate() {
        let features = match &node.features {
            Known::Unknown(u) => Known::Unknown(u.clone()),
            Known::Known(list) => Known::Known(match &last {
                Some((seen, shared)) if *seen == list.as_slice() => Arc::clone(shared),
                _ => {
                    let shared: Arc<[String]> = list.as_slice().into();
                    last = Some((list, Arc::clone(&shared)));
                    shared
                }
            }),
        };
        let twice = |j: Option<usize>| j.and_then(|j| order.get(j)).is_some_and(|n| n.name == node.name);
        let service = if twice(i.checked_sub(1)) || twice(Some(i + 1)) {
            Service::Out(Out::Unknown("it is listed twice".to_owned()))
        } else {
            service(node, maintenance.get(&(i as u32)).copied())
        };
        out.push(Member { name: node.name.clone(), service, features, comment: node.comment.clone() });
    }
    out
}

/// Makes the partitions from both sides, what nodes say and what partitions say: a node is in what either names.
fn partitions(
    partitions: &Known<&[Partition]>,
    order: &[&Node],
    finder: &Finder<'_>,
    gaps: &mut Vec<Unknown>,
) -> Vec<Group> {
    let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut adrift = 0;
    let mut at = 0;
    while at < order.len() {
        let Known::Known(names) = &order[at].partitions else {
            adrift += 1;
            at += 1;
            continue;
        };
        // Neighbours mostly are in the same partitions.
        let same = |n: &&Node| matches!(&n.partitions, Known::Known(other) if other == names);
        let end = at + order[at..].iter().take_while(|n| same(n)).count();
        for name in names {
            found.entry(name).or_default().extend(at as u32..end as u32);
        }
        at = end;
    }
    let mut complete = true;
    match partitions {
        Known::Known(list) => {
            for p in *list {
                let of = found.entry(&p.name).or_default();
                match &p.nodes {
                    Known::Known(names) => of.extend(finder.places(names.iter().map(NodeName::as_str))),
                    Known::Unknown(_) => complete = false,
                }
            }
        }
        Known::Unknown(_) => complete = false,
    }
    if adrift > 0 && !complete {
        gaps.push(Unknown::new(
            Cause::NotReported,
            format!("the partitions of {adrift} nodes are not known"),
        ));
    }
    let group = |(name, mut members): (&str, Vec<u32>)| {
        tidy(&mut members);
        Group { members, ..Group::new(GroupKind::Partition, name) }
    };
    found.into_iter().map(group).collect()
}

fn named(kind: GroupKind, groups: &Groups, finder: &Finder<'_>) -> Vec<Group> {
    let group = |(name, nodes): (&String, &Hosts)| Group {
        members: finder.places(nodes.names().iter().map(String::as_str)),
        ..Group::new(kind, name)
    };
    groups.iter().map(group).collect()
}

/// Makes the racks, and the one of the nodes that are in none.
fn racks(groups: &Groups, finder: &Finder<'_>) -> Vec<Group> {
    let mut racks = named(GroupKind::Rack, groups, finder);
    let mut placed = vec![false; finder.names.len()];
    for place in racks.iter().flat_map(|r| &r.members) {
        if let Some(p) = placed.get_mut(*place as usize) {
            *p = true;
        }
    }
    let adrift = (0u32..).zip(&placed).filter(|(_, p)| !**p).map(|(i, _)| i);
    match racks.iter_mut().find(|r| r.name == UNKNOWN_RACK) {
        Some(r) => {
            r.members.extend(adrift);
            tidy(&mut r.members);
        }
        None => {
            let members: Vec<u32> = adrift.collect();
            if !members.is_empty() {
                racks.push(Group { members, ..Group::new(GroupKind::Rack, UNKNOWN_RACK) });
            }
        }
    }
    racks
}

fn count(group: &mut Group, nodes: &[Member]) {
    let mut add = |m: &Member| {
        group.counted += usize::from(m.service.counts());
        group.out += usize::from(m.service.is_out());
    };
    if group.kind == GroupKind::Fleet {
        nodes.iter().for_each(add);
    } else {
        group.members.iter().filter_map(|p| nodes.get(*p as usize)).for_each(&mut add);
    }
}
