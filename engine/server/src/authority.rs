//! Who may do what: the policy's roles, applied to callers.

use crate::caller::{Caller, Means, TokenScope};
use crate::problem::{Problem, ProblemKind};
use engine_core::policy::{Deed, Role, Roles, may};

/// The policy's roles, and where they come from.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    roles: Roles,
    /// The site's own policy file; `None` for the built-in policy.
    from: Option<String>,
}

impl Authority {
    /// Takes the roles of a policy; `from` names the site's own file.
    pub fn new(roles: Roles, from: Option<String>) -> Self {
        Self { roles, from }
    }

    /// Makes sure that a caller may do something.
    ///
    /// The user that the engine runs as may do everything where the site has no policy of its own: it can write the
    /// journal anyway. A token does no more than its role, and no more than its person; a program's never approves.
    pub fn permit(&self, caller: &Caller, deed: Deed) -> Result<(), Problem> {
        let by_roles = self.roles.permit(&caller.name, &caller.groups, deed);
        let allowed = match &caller.means {
            Means::Socket { owner, .. } => by_roles || (*owner && self.from.is_none()),
            Means::Token { role, person: true, .. } => {
                caller.has_scope(TokenScope::Api) && may(*role, deed) && by_roles
            }
            Means::Token { role, person: false, .. } => {
                caller.has_scope(TokenScope::Api) && may(*role, deed) && deed != Deed::Approve
            }
        };
        if allowed { Ok(()) } else { Err(self.refusal(caller, deed)) }
    }

    /// Lists what a caller may do.
    pub fn deeds(&self, caller: &Caller) -> Vec<Deed> {
        let all = engine_core::policy::TABLE.iter().map(|(deed, ..)| *deed);
        all.filter(|deed| self.permit(caller, *deed).is_ok()).collect()
    }

    /// Says whether a person, by name and groups, may say yes: for tickets, whose bearer no socket and no token names.
    pub fn person_may<S: AsRef<str>>(&self, person: &str, groups: &[S], deed: Deed) -> bool {
        self.roles.permit(person, groups, deed)
    }

    fn refusal(&self, caller: &Caller, deed: Deed) -> Problem {
        let who: Vec<&str> = Role::ALL.iter().filter(|r| may(**r, deed)).map(|r| r.as_str()).collect();
        let what = deed.as_str().replace('_', " ");
        let from = self.from.as_deref().unwrap_or("the built-in policy");
        let (error, hint) = match &caller.means {
            Means::Token { scopes, token, .. } if !scopes.contains(&TokenScope::Api) => (
                format!("token {token} is not for the API"),
                "`slurmedic token new --scope api` makes one that is".to_owned(),
            ),
            Means::Token { person: false, token, .. } if deed == Deed::Approve => (
                format!("token {token} is a program's, and only a person says yes or no"),
                "`slurmedic token new --person NAME` makes a person's token".to_owned(),
            ),
            Means::Token { role, token, .. } if !may(*role, deed) => (
                format!("token {token} may not {what}: its role is {role}"),
                format!("it needs one of the roles {}", who.join(", ")),
            ),
            _ => (
                format!("{} may not {what}: {from} gives no such role", caller.name),
                format!(
                    "it needs one of the roles {}; `slurmedic policy show` lists who has which",
                    who.join(", ")
                ),
            ),
        };
        Problem::new(ProblemKind::NotPermitted, error).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const DEEDS: [Deed; 8] = [
        Deed::View,
        Deed::Propose,
        Deed::Run,
        Deed::Approve,
        Deed::Cancel,
        Deed::Pause,
        Deed::BreakerReset,
        Deed::Policy,
    ];

    fn socket(name: &str, owner: bool) -> Caller {
        Caller { name: name.to_owned(), groups: Vec::new(), means: Means::Socket { uid: 1000, owner } }
    }

    fn token(name: &str, role: Role, person: bool, scopes: &[TokenScope]) -> Caller {
        let scopes: BTreeSet<TokenScope> = scopes.iter().copied().collect();
        let means = Means::Token { token: "t".to_owned(), role, scopes, person };
        Caller { name: name.to_owned(), groups: Vec::new(), means }
    }

    fn site() -> Authority {
        let roles = serde_json::from_str(
            r#"{"viewer": {"users": ["*"]}, "operator": {"users": ["olga"]}, "approver": {"users": ["ada"]}, "admin": {"users": ["root"]}}"#,
        );
        Authority::new(roles.unwrap(), Some("policy.yaml".to_owned()))
    }

    #[test]
    fn each_role_on_each_deed_is_what_the_table_says() {
        let site = site();
        for (name, role) in
            [("vera", Role::Viewer), ("olga", Role::Operator), ("ada", Role::Approver), ("root", Role::Admin)]
        {
            for deed in DEEDS {
                let wanted = may(role, deed) || deed == Deed::View;
                assert_eq!(site.permit(&socket(name, false), deed).is_ok(), wanted, "{name} {deed}");
                assert_eq!(
                    site.permit(&socket(name, true), deed).is_ok(),
                    wanted,
                    "owner {name} {deed}: a site's policy binds the engine's own user"
                );
            }
        }
    }

    #[test]
    fn the_owner_may_everything_only_without_a_policy_of_the_site() {
        let built_in = Authority::default();
        for deed in DEEDS {
            assert!(built_in.permit(&socket("dev", true), deed).is_ok());
            assert_eq!(built_in.permit(&socket("dev", false), deed).is_ok(), deed == Deed::View);
        }
    }

    #[test]
    fn a_token_does_no_more_than_its_role_and_no_more_than_its_person() {
        let site = site();
        let api = [TokenScope::Api];
        for role in Role::ALL {
            for deed in DEEDS {
                let own = may(Role::Approver, deed) || deed == Deed::View;
                let person = token("ada", role, true, &api);
                assert_eq!(site.permit(&person, deed).is_ok(), own && may(role, deed), "ada {role} {deed}");
                let program = token("bot", role, false, &api);
                let wanted = may(role, deed) && deed != Deed::Approve;
                assert_eq!(site.permit(&program, deed).is_ok(), wanted, "bot {role} {deed}");
                let other = token("ada", role, true, &[TokenScope::Alerts, TokenScope::Metrics]);
                assert!(site.permit(&other, deed).is_err(), "a token for alerts is not one for the API");
            }
        }
    }

    #[test]
    fn refusals_say_what_would_be_needed() {
        let site = site();
        let no = site.permit(&socket("vera", false), Deed::Approve).unwrap_err();
        assert_eq!(no.error, "vera may not approve: policy.yaml gives no such role");
        assert!(no.hint.unwrap().contains("approver, admin"));
        let no = site.permit(&token("bot", Role::Admin, false, &[TokenScope::Api]), Deed::Approve);
        assert!(no.unwrap_err().error.contains("only a person"));
    }
}
