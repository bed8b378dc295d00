//! Readers of who and where: roles, canary scopes, racks; and what only the whole policy shows.

use super::codes;
use super::read::set;
use crate::read::Reader;
use crate::read::field::Fields;
use crate::tree::{Entry, Kind, Node, short};
use engine_core::diag::{Diagnostic, Span, did_you_mean};
use engine_core::hostlist::{Limits, expand_within};
use engine_core::policy::{
    Canary, Deed, Groups, Hosts, Members, Policy, RackSource, Racks, Role, Roles, UNKNOWN_RACK, may,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most names of nodes in one policy.
const MAX_NAMES: usize = 200_000;

impl Reader<'_> {
    pub(super) fn canary(&mut self, node: &Node, to: &mut Canary) {
        let f = Fields::of(self, node, "`canary`", &["nodes", "partitions", "features"], &[]);
        if let Some(n) = f.get("nodes") {
            let mut room = MAX_NAMES;
            set(&mut to.nodes, self.hosts(n, &mut room));
        }
        if let Some(n) = f.get("partitions") {
            to.partitions = self.words(n);
        }
        if let Some(n) = f.get("features") {
            to.features = self.words(n);
        }
    }

    pub(super) fn roles(&mut self, node: &Node, to: &mut Roles) {
        let words: Vec<&str> = Role::ALL.iter().map(|r| r.as_str()).collect();
        let f = Fields::of(self, node, "`roles`", &words, &[]);
        for role in Role::ALL {
            let Some(n) = f.get(role.as_str()) else { continue };
            let f = Fields::of(self, n, &format!("the role {role}"), &["users", "groups"], &[]);
            let users = f.get("users").map(|n| self.words(n)).unwrap_or_default();
            let groups = f.get("groups").map(|n| self.words(n)).unwrap_or_default();
            to.0.insert(role, Members { users, groups });
        }
    }

    /// Reads a list of names, each once.
    fn words(&mut self, node: &Node) -> BTreeSet<String> {
        let Some(items) = self.list(node, "this key is a list", "write [one, other]") else {
            return BTreeSet::new();
        };
        let mut out = BTreeSet::new();
        for item in items {
            let Some(word) = self.text(item, "a name").map(str::to_owned) else { continue };
            let Some(word) = self.plain_word(&word, item.span) else { continue };
            if !out.insert(word.clone()) {
                let says = format!("`{word}` stands twice");
                self.problem(crate::codes::REPEATED_WORD, says, item.span, "take one of them out");
            }
        }
        out
    }

    pub(super) fn racks(&mut self, node: &Node, to: &mut Racks) {
        let f = Fields::of(self, node, "`racks`", &["from", "map", "fabrics"], &[]);
        let map = f.get("map").filter(|n| !matches!(&n.kind, Kind::Map(entries) if entries.is_empty()));
        let from = f.get("from");
        if let Some(n) = from {
            let word = self.word(n, "from", &["topology.conf", "map", "none"]);
            set(
                &mut to.from,
                word.map(|w| match w {
                    "map" => RackSource::Map,
                    "none" => RackSource::Nowhere,
                    _ => RackSource::Topology,
                }),
            );
        } else if map.is_some() {
            to.from = RackSource::Map;
        }
        let mut room = MAX_NAMES;
        if let Some(n) = map {
            if let Some(from) = from.filter(|_| to.from != RackSource::Map) {
                self.found.push(
                    Diagnostic::error(
                        codes::TWO_SOURCES,
                        "the racks come from two places",
                        n.span,
                        "one place",
                    )
                    .with_label(from.span, "the other")
                    .with_help("write `from: map`, or take the map out"),
                );
            }
            to.map = self.node_groups(n, "rack", &mut room);
        } else if to.from == RackSource::Map {
            let at = from.map_or(node.span, |n| n.span);
            let help = "add `map: { rack: \"gpu[001-010]\" }`";
            self.problem(crate::codes::MISSING_FIELD, "there is no map".to_owned(), at, help);
        }
        if let Some(n) = f.get("fabrics") {
            to.fabrics = self.node_groups(n, "fabric domain", &mut room);
        }
    }

    /// Reads groups of nodes that do not overlap.
    fn node_groups(&mut self, node: &Node, what: &str, room: &mut usize) -> Groups {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, "groups of nodes are a mapping", "write { r1: \"gpu[001-010]\" }");
            return Groups::new();
        };
        let mut groups = Groups::new();
        let mut seen: BTreeMap<String, (&str, Span)> = BTreeMap::new();
        for Entry { key, key_span, value } in entries {
            let Some(name) = self.plain_word(key, *key_span) else { continue };
            if name == UNKNOWN_RACK {
                let says = format!("`{UNKNOWN_RACK}` is the {what} of nodes that are in none");
                self.problem(codes::BAD_WORD, says, *key_span, "give it another name");
                continue;
            }
            let Some(hosts) = self.hosts(value, room) else { continue };
            let mut twice: Vec<(&String, &str, Span)> = Vec::new();
            for host in hosts.names() {
                match seen.get(host) {
                    Some((other, at)) => twice.push((host, other, *at)),
                    None => {
                        seen.insert(host.clone(), (key, value.span));
                    }
                }
            }
            if let Some((host, other, at)) = twice.first() {
                let more =
                    if twice.len() > 1 { format!(" and {} more", twice.len() - 1) } else { String::new() };
                let says = format!(
                    "node {}{more} stands in {what} {} and in {}",
                    short(host),
                    short(other),
                    short(key)
                );
                self.found.push(
                    Diagnostic::error(codes::TWO_RACKS, says, value.span, "again")
                        .with_label(*at, "first here")
                        .with_help(format!("a node is in one {what}")),
                );
            }
            groups.insert(name, hosts);
        }
        groups
    }

    /// Reads a hostlist, or a list of them.
    pub(super) fn hosts(&mut self, node: &Node, room: &mut usize) -> Option<Hosts> {
        let items: Vec<&Node> = match &node.kind {
            Kind::Seq(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut names = Vec::new();
        for item in items {
            let text = self.text(item, "a list of nodes")?;
            if text.is_empty() {
                continue;
            }
            let limits = Limits { names: *room, ..Limits::default() };
            match expand_within(text, limits) {
                Ok(more) => {
                    *room -= more.len().min(*room);
                    names.extend(more);
                }
                Err(engine_core::hostlist::HostlistError::TooMany { .. }) => {
                    let says = format!("the lists of nodes stand for more than {MAX_NAMES} names");
                    self.problem(codes::TOO_MANY_NODES, says, item.span, "is the range right?");
                    return None;
                }
                Err(e) => {
                    self.problem(
                        codes::BAD_HOSTS,
                        e.to_string(),
                        item.span,
                        "write it as Slurm does: gpu[001-004,007]",
                    );
                    return None;
                }
            }
        }
        let odd = names.iter().find(|n| engine_core::model::NodeName::new(n).is_err());
        if let Some(odd) = odd {
            self.problem(
                codes::BAD_HOSTS,
                format!("`{}` is not the name of a node", short(odd)),
                node.span,
                "letters, digits, `-`, `_` and `.` only; no ALL",
            );
            return None;
        }
        Some(Hosts::new(names))
    }

    /// Looks at what only the whole policy shows.
    pub(super) fn judge_whole(&mut self, root: &Node, p: &Policy) {
        let place = |keys: &[&str]| {
            let mut at = root;
            let mut span = root.span;
            for k in keys {
                match at.get(k) {
                    Some(e) => (at, span) = (&e.value, e.key_span),
                    None => break,
                }
            }
            span
        };
        if p.racks.from == RackSource::Map {
            for (key, budgets, groups) in
                [("racks", &p.budgets.racks, &p.racks.map), ("fabrics", &p.budgets.fabrics, &p.racks.fabrics)]
            {
                for name in budgets.keys().filter(|n| !groups.contains_key(*n) && *n != UNKNOWN_RACK) {
                    let near = did_you_mean(name, groups.keys().map(String::as_str));
                    let help = near.map_or("take it out, or add it to the map".to_owned(), |n| {
                        format!("did you mean `{n}`?")
                    });
                    let says = format!("the map has no `{}`", short(name));
                    let at = place(&["budgets", key, name]);
                    self.found.push(Diagnostic::warning(codes::UNKNOWN_GROUP, says, at, "").with_help(help));
                }
            }
        }
        let somebody = |deed: Deed| {
            p.roles.0.iter().any(|(r, m)| may(*r, deed) && !(m.users.is_empty() && m.groups.is_empty()))
        };
        for (deed, says) in [
            (Deed::Approve, "nobody may approve a run"),
            (Deed::BreakerReset, "nobody may reset the breaker"),
        ] {
            if !somebody(deed) {
                let at = place(&["roles"]);
                self.found.push(
                    Diagnostic::warning(codes::NOBODY, says, at, "")
                        .with_help("give the role to a user or a group"),
                );
            }
        }
        let approvers = p.roles.0.iter().filter(|(r, _)| may(**r, Deed::Approve));
        let (mut users, mut open) = (BTreeSet::new(), false);
        for (_, m) in approvers {
            open |= !m.groups.is_empty() || m.users.contains("*");
            users.extend(&m.users);
        }
        let q = &p.approvals.quorum;
        let most = q.reversible.max(q.disruptive);
        if !open && !users.is_empty() && usize::from(most) > users.len() {
            let says = format!("a quorum of {most}, and {} who may approve", users.len());
            let at = place(&["approvals", "quorum"]);
            self.found.push(
                Diagnostic::warning(codes::HOLLOW, says, at, "").with_help("name more approvers, or a group"),
            );
        }
    }
}
