//! Who asks, and how that is known.

use engine_core::policy::Role;
use engine_core::run::Actor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// The API, as far as the role goes.
    Api,
    /// Sending alerts.
    Alerts,
    /// Reading `/metrics`.
    Metrics,
}

impl TokenScope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Api, Self::Alerts, Self::Metrics];

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Alerts => "alerts",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How it is known who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// The kernel says so: the peer of the UNIX socket.
    Socket {
        /// User id of the peer.
        uid: u32,
        /// Whether it is the user that the engine runs as, who could write the journal anyway.
        owner: bool,
    },
    /// A token.
    Token {
        /// Its name.
        token: String,
        /// Most that it may.
        role: Role,
        /// What it is for.
        scopes: BTreeSet<TokenScope>,
        /// Whether it stands for a person; else it is a program's.
        person: bool,
    },
}

/// Somebody who asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Login name, or the name of the program.
    pub name: String,
    /// Groups of the person; a program has none.
    pub groups: Vec<String>,
    /// How that is known.
    pub means: Means,
}

impl Caller {
    /// Names the caller for the journal.
    pub fn actor(&self) -> Actor {
        match &self.means {
            Means::Socket { .. } | Means::Token { person: true, .. } => Actor::person(self.name.clone()),
            Means::Token { person: false, .. } => Actor::program(self.name.clone(), None),
        }
    }

    /// Says how the caller is known, for the log.
    pub fn known_by(&self) -> String {
        match &self.means {
            Means::Socket { uid, .. } => format!("uid {uid}"),
            Means::Token { token, .. } => format!("token {token}"),
        }
    }

    /// Says whether this may be used for something of that scope.
    pub fn has_scope(&self, scope: TokenScope) -> bool {
        match &self.means {
            Means::Socket { .. } => true,
            Means::Token { scopes, .. } => scopes.contains(&scope),
        }
    }
}
