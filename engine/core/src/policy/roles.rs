//! Who may do what: roles, and the one table of what each may.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A role; [`TABLE`] says what each may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Begins and stops work.
    Operator,
    /// Says yes or no to work.
    Approver,
    /// Resets the breaker and changes the policy.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something a person or a program asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Read runs, plans, incidents, the policy.
    View,
    /// Ask for a plan, and put it up for approval.
    Propose,
    /// Have a plan carried out that needs no further yes.
    Run,
    /// Say yes or no to a plan.
    Approve,
    /// Ask a run to stop at its nearest safe point.
    Cancel,
    /// Stop all mutations, or let them go on again after a pause.
    Pause,
    /// Close the breaker after it has tripped.
    BreakerReset,
    /// Change the policy, or the stage of a playbook.
    Policy,
}

impl Deed {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Propose => "propose",
            Self::Run => "run",
            Self::Approve => "approve",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::BreakerReset => "breaker_reset",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What each role may: deed, then viewer, operator, approver, admin, then why.
///
/// Whoever may stop something is many; whoever may let something go on is few. The operator does not approve and the
/// approver does not begin runs, so that one word is never the whole of the four-eyes rule; a person may hold both.
pub const TABLE: &[(Deed, [bool; 4], &str)] = &[
    (Deed::View, [true, true, true, true], "what the engine does is no secret within the site"),
    (Deed::Propose, [false, true, true, true], "a proposal changes nothing"),
    (Deed::Run, [false, true, false, true], "beginning work is the operator's part"),
    (Deed::Approve, [false, false, true, true], "a yes is another person's part"),
    (Deed::Cancel, [false, true, true, true], "stopping goes to the nearest safe point, so many may"),
    (Deed::Pause, [false, true, true, true], "everybody on call can stop everything"),
    (
        Deed::BreakerReset,
        [false, false, false, true],
        "after a storm or a wrong action somebody answers for going on",
    ),
    (Deed::Policy, [false, false, false, true], "the policy is what the others are bound by"),
];

/// Says whether a role may do something.
pub fn may(role: Role, deed: Deed) -> bool {
    TABLE.iter().find(|(d, ..)| *d == deed).is_some_and(|(_, who, _)| match role {
        Role::Viewer => who[0],
        Role::Operator => who[1],
        Role::Approver => who[2],
        Role::Admin => who[3],
    })
}

/// Who has a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Members {
    /// Users by login name.
    pub users: BTreeSet<String>,
    /// Groups by name.
    pub groups: BTreeSet<String>,
}

/// The roles of people. `*` as a user stands for everybody whose identity is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(pub BTreeMap<Role, Members>);

impl Default for Roles {
    /// Everybody may look; root does the rest.
    fn default() -> Self {
        let of = |name: &str| Members { users: BTreeSet::from([name.to_owned()]), groups: BTreeSet::new() };
        Self(BTreeMap::from([
            (Role::Viewer, of("*")),
            (Role::Operator, of("root")),
            (Role::Approver, of("root")),
            (Role::Admin, of("root")),
        ]))
    }
}

impl Roles {
    /// Returns the roles of a user with these groups. An empty name is nobody and has none.
    pub fn of<S: AsRef<str>>(&self, user: &str, groups: &[S]) -> BTreeSet<Role> {
        if user.is_empty() || user == "*" {
            return BTreeSet::new();
        }
        let has = |m: &Members| {
            m.users.contains(user)
                || m.users.contains("*")
                || groups.iter().any(|g| !g.as_ref().is_empty() && m.groups.contains(g.as_ref()))
        };
        self.0.iter().filter(|(_, m)| has(m)).map(|(r, _)| *r).collect()
    }

    /// Says whether a user with these groups may do something.
    pub fn permit<S: AsRef<str>>(&self, user: &str, groups: &[S], deed: Deed) -> bool {
        self.of(user, groups).into_iter().any(|r| may(r, deed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_deed_once_and_grows_towards_admin() {
        let all = [
            Deed::View,
            Deed::Propose,
            Deed::Run,
            Deed::Approve,
            Deed::Cancel,
            Deed::Pause,
            Deed::BreakerReset,
            Deed::Policy,
        ];
        assert_eq!(TABLE.iter().map(|t| t.0).collect::<Vec<_>>(), all);
        for deed in all {
            assert!(may(Role::Admin, deed), "an admin may {deed}");
            assert_eq!(may(Role::Viewer, deed), deed == Deed::View);
        }
        assert!(may(Role::Operator, Deed::Run) && !may(Role::Operator, Deed::Approve));
        assert!(may(Role::Approver, Deed::Approve) && !may(Role::Approver, Deed::Run));
        for deed in [Deed::BreakerReset, Deed::Policy] {
            assert!(!may(Role::Operator, deed) && !may(Role::Approver, deed));
        }
    }

    #[test]
    fn roles_come_from_names_and_groups_and_nobody_has_none() {
        let roles: Roles = serde_json::from_str(
            r#"{"viewer": {"users": ["*"]}, "operator": {"groups": ["oncall"]}, "approver": {"users": ["ada"], "groups": ["leads"]}}"#,
        )
        .unwrap();
        let none: [&str; 0] = [];
        for (user, groups, deed, yes) in [
            ("bob", vec!["oncall"], Deed::Run, true),
            ("bob", vec!["oncall"], Deed::Approve, false),
            ("bob", vec![], Deed::View, true),
            ("bob", vec![""], Deed::Run, false),
            ("ada", vec![], Deed::Approve, true),
            ("eve", vec!["leads", "oncall"], Deed::Approve, true),
            ("", vec!["oncall"], Deed::View, false),
            ("*", vec!["oncall"], Deed::View, false),
            ("oncall", vec![], Deed::Run, false),
            ("root", vec![], Deed::Policy, false),
        ] {
            assert_eq!(roles.permit(user, &groups, deed), yes, "{user} {groups:?} {deed}");
        }
        let default = Roles::default();
        assert!(default.permit("root", &none, Deed::BreakerReset));
        assert!(default.permit("bob", &none, Deed::View) && !default.permit("bob", &none, Deed::Propose));
        assert_eq!(default.of("", &none), BTreeSet::new());
    }
}
