//! API tokens: 256 random bits each, of which the file keeps only the hash, with name, role, scopes and end.

use crate::caller::{Caller, Means, TokenScope};
use crate::peer::{groups_of, is_name};
use crate::secret::{SecretError, hex, random_hex};
use engine_core::policy::Role;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq as _;

/// What a token begins with, so that one that leaked is recognised.
const PREFIX: &str = "slurmedic_";
/// The most tokens of one file.
const MAX_TOKENS: usize = 1_000;
/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The longest life of a token, in days.
pub(crate) const MAX_LIFE_DAYS: i64 = 400;

/// A token as the file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    /// Its name, for the log and for revoking it.
    pub name: String,
    /// SHA-256 of the token, as hexadecimal digits.
    pub sha256: String,
    /// Most that it may.
    pub role: Role,
    /// What it is for.
    pub scopes: BTreeSet<TokenScope>,
    /// The person whose it is; a program's has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is void.
    pub expires_at: Timestamp,
}

/// What a new token shall be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// Most that it may.
    pub role: Role,
    /// What it is for.
    pub scopes: BTreeSet<TokenScope>,
    /// The person whose it is.
    pub person: Option<String>,
    /// When it is void.
    pub expires_at: Timestamp,
}

/// All tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// `slurmedic/tokens/1`.
    pub format: String,
    /// Each.
    pub tokens: Vec<StoredToken>,
}

impl Default for TokenFile {
    fn default() -> Self {
        Self { format: FORMAT.to_owned(), tokens: Vec::new() }
    }
}

const FORMAT: &str = "slurmedic/tokens/1";

/// Why tokens cannot be read, made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("the file of tokens {path} could not be {doing}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no file of tokens, or not one that only its owner may read.
    #[error("{path} is not used as a file of tokens: {why}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// No random bytes.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl TokenFile {
    /// Reads the file; one that is not there has no tokens.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let fail = |source| TokenError::File { path: path.to_owned(), doing: "read", source };
        let bad = |why: String| TokenError::Bad { path: path.to_owned(), why };
        let file = match std::fs::File::open(path) {
            Ok(f) => f,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(fail(e)),
        };
        let mode = file.metadata().map_err(fail)?.mode();
        if mode & 0o022 != 0 {
            return Err(bad(format!("others may write it (mode {:o}): run `chmod 600`", mode & 0o777)));
        }
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(fail)?;
        if text.len() as u64 > MAX_FILE {
            return Err(bad(format!("it has more than {MAX_FILE} bytes")));
        }
        let all: Self = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if all.format != FORMAT {
            return Err(bad(format!("its format is {:?}, not {FORMAT:?}", all.format)));
        }
        if all.tokens.len() > MAX_TOKENS {
            return Err(bad(format!("it has more than {MAX_TOKENS} tokens")));
        }
        Ok(all)
    }

    /// Writes the file: whole or not at all, with the owner and the mode of the one that was there. A new one may be read
    /// by others, since the engine may run as another user than the one who makes tokens, and a hash of 256 random bits is
    /// of no use to whoever reads it; it may be written by its owner only.
    pub fn write(&self, path: &Path) -> Result<(), TokenError> {
        let fail = |source| TokenError::File { path: path.to_owned(), doing: "written", source };
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| TokenError::Bad { path: path.to_owned(), why: e.to_string() })?;
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let work = || {
            let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            let mut mode = 0o644;
            f.write_all(text.as_bytes())?;
            f.write_all(b"\n")?;
            f.sync_all()?;
            // The engine may run as the owner of the file that was there.
            if let Ok(old) = std::fs::metadata(path) {
                std::os::unix::fs::chown(&beside, Some(old.uid()), Some(old.gid()))?;
                mode = old.mode() & 0o755;
            }
            f.set_permissions(std::fs::Permissions::from_mode(mode))?;
            std::fs::rename(&beside, path)
        };
        work().map_err(|e| {
            let _ = std::fs::remove_file(&beside);
            fail(e)
        })
    }

    /// Makes a token; returns its text, which is shown once and kept nowhere.
    pub fn add(&mut self, new: NewToken, now: Timestamp) -> Result<String, TokenError> {
        let usage = |why: String| Err(TokenError::Usage(why));
        if !is_name(&new.name) {
            return usage("the name of a token has 1 to 64 letters, digits, `-`, `_`, `.` or `@`".to_owned());
        }
        if self.tokens.iter().any(|t| t.name == new.name) {
            return usage(format!(
                "there is a token {} already: revoke it, or choose another name",
                new.name
            ));
        }
        if new.person.as_ref().is_some_and(|p| !is_name(p)) {
            return usage("a person is named by their login name".to_owned());
        }
        if new.scopes.is_empty() {
            return usage("a token needs a scope: api, alerts or metrics".to_owned());
        }
        let life = new.expires_at.duration_since(now);
        if life <= jiff::SignedDuration::ZERO || life > jiff::SignedDuration::from_hours(24 * MAX_LIFE_DAYS) {
            return usage(format!(
                "a token lives for at most {MAX_LIFE_DAYS} days, and longer than not at all"
            ));
        }
        if self.tokens.len() >= MAX_TOKENS {
            return usage(format!("there are {MAX_TOKENS} tokens already: revoke some"));
        }
        let text = format!("{PREFIX}{}", random_hex(32)?);
        self.tokens.push(StoredToken {
            name: new.name,
            sha256: hash(&text),
            role: new.role,
            scopes: new.scopes,
            person: new.person,
            created_at: now,
            expires_at: new.expires_at,
        });
        Ok(text)
    }

    /// Takes a token away; false where there is none of this name.
    pub fn revoke(&mut self, name: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|t| t.name != name);
        self.tokens.len() != before
    }

    /// Finds the token that a text is. Every entry is compared, each in constant time.
    fn find(&self, text: &str) -> Option<&StoredToken> {
        let hashed = hash(text);
        let mut found = None;
        for t in &self.tokens {
            if bool::from(t.sha256.as_bytes().ct_eq(hashed.as_bytes())) {
                found = Some(t);
            }
        }
        found
    }
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

type Stamp = (u64, i64, i64, u64);

/// The tokens that are in force: the file is read anew as soon as it changes, so that a revoked one is refused at once. A
/// file that cannot be read leaves no token in force.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    kept: Mutex<Option<(Stamp, Arc<TokenFile>)>>,
}

impl TokenStore {
    /// Builds the store on a file, and reads it once.
    pub fn open(path: PathBuf) -> Result<Self, TokenError> {
        let store = Self { path, kept: Mutex::default() };
        store.now()?;
        Ok(store)
    }

    fn now(&self) -> Result<Arc<TokenFile>, TokenError> {
        let stamp = std::fs::metadata(&self.path)
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
            .unwrap_or_default();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, file)) = &*kept
            && *known == stamp
        {
            return Ok(Arc::clone(file));
        }
        *kept = None;
        let file = Arc::new(TokenFile::read(&self.path)?);
        *kept = Some((stamp, Arc::clone(&file)));
        Ok(file)
    }

    /// Finds out who bears a token; `Ok(None)` for one that is not known or is void.
    pub fn caller(&self, text: &str, now: Timestamp) -> Result<Option<Caller>, TokenError> {
        let file = self.now()?;
        let Some(t) = file.find(text).filter(|t| t.expires_at > now) else { return Ok(None) };
        let means = Means::Token {
            token: t.name.clone(),
            role: t.role,
            scopes: t.scopes.clone(),
            person: t.person.is_some(),
        };
        let name = t.person.clone().unwrap_or_else(|| t.name.clone());
        let groups = t.person.as_deref().map(groups_of).unwrap_or_default();
        Ok(Some(Caller { name, groups, means }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn new(name: &str, life: SignedDuration, now: Timestamp) -> NewToken {
        NewToken {
            name: name.to_owned(),
            role: Role::Approver,
            scopes: BTreeSet::from([TokenScope::Api]),
            person: Some("ada".to_owned()),
            expires_at: now + life,
        }
    }

    #[test]
    fn a_token_works_until_it_expires_or_is_revoked_and_the_file_never_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let now = Timestamp::now();
        let mut file = TokenFile::read(&path).unwrap();
        let text = file.add(new("laptop", SignedDuration::from_hours(1), now), now).unwrap();
        file.write(&path).unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&text));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = TokenStore::open(path.clone()).unwrap();
        let caller = store.caller(&text, now).unwrap().unwrap();
        assert_eq!((caller.name.as_str(), caller.known_by().as_str()), ("ada", "token laptop"));
        assert!(store.caller(&text, now + SignedDuration::from_hours(1)).unwrap().is_none(), "expired");
        for bad in ["", "slurmedic_", &text[..text.len() - 1], &format!("{text}0")] {
            assert!(store.caller(bad, now).unwrap().is_none(), "{bad:?}");
        }
        assert!(file.revoke("laptop") && !file.revoke("laptop"));
        file.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "what was narrowed stays so");
        assert!(store.caller(&text, now).unwrap().is_none(), "revoked, without a restart");
    }

    #[test]
    fn a_broken_or_open_file_leaves_no_token_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let now = Timestamp::now();
        let mut file = TokenFile::default();
        let text = file.add(new("a", SignedDuration::from_hours(1), now), now).unwrap();
        file.write(&path).unwrap();
        let store = TokenStore::open(path.clone()).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(store.caller(&text, now), Err(TokenError::Bad { .. })));
        file.write(&path).unwrap();
        assert!(store.caller(&text, now).unwrap().is_some());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(TokenFile::read(&path).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_no_token() {
        let now = Timestamp::now();
        let mut file = TokenFile::default();
        let hour = SignedDuration::from_hours(1);
        file.add(new("a", hour, now), now).unwrap();
        for bad in [
            new("a", hour, now),
            new("a b", hour, now),
            new("b", SignedDuration::ZERO, now),
            new("b", SignedDuration::from_hours(24 * 500), now),
            NewToken { scopes: BTreeSet::new(), ..new("b", hour, now) },
            NewToken { person: Some("a\nb".to_owned()), ..new("b", hour, now) },
        ] {
            assert!(file.add(bad, now).is_err());
        }
    }
}
