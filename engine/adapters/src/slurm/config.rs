//! Configuration of the Slurm backend: where the clients are, how to read, how long to wait.

use crate::process::SAFE_PATH;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where else than on the usual search path sites install the clients.
const MORE_DIRECTORIES: &str =
    "/opt/slurm/bin:/opt/slurm/current/bin:/usr/local/slurm/bin:/cm/shared/apps/slurm/current/bin";

/// How the cluster is reached. Every key has a default; an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlurmConfig {
    /// Absolute path of `scontrol`; looked for in the usual directories where not set.
    pub scontrol: Option<PathBuf>,
    /// Absolute path of `squeue`; looked for beside `scontrol` and in the usual directories where not set.
    pub squeue: Option<PathBuf>,
    /// Absolute path of `sinfo`, needed only for JSON on Slurm 22.05; looked for as `squeue` is.
    pub sinfo: Option<PathBuf>,
    /// `slurm.conf` handed to the clients as `SLURM_CONF`; their built-in place where not set.
    pub slurm_conf: Option<PathBuf>,
    /// How to read.
    pub read_via: ReadVia,
    /// slurmrestd, needed for `read_via = "rest"`.
    pub rest: Option<RestConfig>,
    /// Seconds after which a read is given up, 1 to 600.
    pub read_deadline_seconds: u64,
    /// Seconds after which a write is given up and its outcome is taken as not known; `MessageTimeout` of the
    /// controller plus 10 where not set, and never less than `MessageTimeout` plus 1.
    pub write_deadline_seconds: Option<u64>,
    /// User for whom the lock reservation is made. Only this user's jobs could start in it.
    pub lock_user: String,
    /// Says that the reading user is an operator or administrator in slurmdbd, so that `PrivateData` hides nothing
    /// from it. Without it, what `PrivateData` can hide is unknown to any user but root and SlurmUser.
    pub sees_private_data: bool,
}

impl Default for SlurmConfig {
    fn default() -> Self {
        Self {
            scontrol: None,
            squeue: None,
            sinfo: None,
            slurm_conf: None,
            read_via: ReadVia::Auto,
            rest: None,
            read_deadline_seconds: 15,
            write_deadline_seconds: None,
            lock_user: "root".to_owned(),
            sees_private_data: false,
        }
    }
}

/// How to read nodes, jobs, reservations and partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadVia {
    /// The first of text, JSON and REST whose answer this release of Slurmedic understands.
    #[default]
    Auto,
    /// `scontrol -o` and `squeue`: every release of Slurm, by far the fastest for the whole cluster.
    Text,
    /// `scontrol --json` and `squeue --json`; on 22.05 `sinfo --json` and `squeue --json`.
    Json,
    /// slurmrestd.
    Rest,
}

/// How slurmrestd is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestConfig {
    /// `http://host:port` or `https://host:port`; exactly one of this and `socket`.
    #[serde(default)]
    pub url: Option<String>,
    /// Path of the UNIX socket of slurmrestd.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// File with the JWT, read again for each request so that it can be renewed; needed for `url`, and only its owner
    /// should be able to read it.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// User named to slurmrestd; the token's own where not set.
    #[serde(default)]
    pub user: Option<String>,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A client was not found.
    #[error(
        "{name} was not found in {searched}; install the Slurm clients or set slurm.{name} to its absolute path"
    )]
    NotFound {
        /// Its name.
        name: &'static str,
        /// Where it was looked for.
        searched: String,
    },
    /// A path is not absolute.
    #[error("slurm.{key} is {}: give an absolute path", path.display())]
    NotAbsolute {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// A file that must be there is not.
    #[error("slurm.{key} is {}, which is not there; correct the path", path.display())]
    Missing {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// A value that cannot be.
    #[error("slurm.{key}: {problem}")]
    Bad {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

/// The clients' paths, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clients {
    pub(crate) scontrol: PathBuf,
    pub(crate) squeue: PathBuf,
    /// Its absence matters only where it is needed.
    pub(crate) sinfo: Option<PathBuf>,
}

impl SlurmConfig {
    /// Checks every key and finds the clients. Starts nothing and connects to nothing.
    pub(crate) fn clients(&self) -> Result<Clients, ConfigError> {
        for (key, seconds, least) in [
            ("read_deadline_seconds", Some(self.read_deadline_seconds), 1),
            ("write_deadline_seconds", self.write_deadline_seconds, 1),
        ] {
            if seconds.is_some_and(|s| !(least..=600).contains(&s)) {
                return Err(ConfigError::Bad { key, problem: format!("give {least} to 600 seconds") });
            }
        }
        if !is_plain_word(&self.lock_user) {
            let problem = "give the name of one user: letters, digits, `-`, `_` and `.`".to_owned();
            return Err(ConfigError::Bad { key: "lock_user", problem });
        }
        if let Some(conf) = &self.slurm_conf {
            existing("slurm_conf", conf)?;
        }
        match (&self.rest, self.read_via) {
            (Some(rest), _) => rest.check()?,
            (None, ReadVia::Rest) => {
                let problem =
                    "it is \"rest\", but there is no section slurm.rest with url or socket".to_owned();
                return Err(ConfigError::Bad { key: "read_via", problem });
            }
            (None, _) => {}
        }
        let scontrol = client("scontrol", self.scontrol.as_deref(), None)?;
        let beside = scontrol.parent();
        let squeue = client("squeue", self.squeue.as_deref(), beside)?;
        let sinfo = match client("sinfo", self.sinfo.as_deref(), beside) {
            Ok(p) => Some(p),
            Err(ConfigError::NotFound { .. }) => None,
            Err(e) => return Err(e),
        };
        Ok(Clients { scontrol, squeue, sinfo })
    }

    pub(crate) fn read_deadline(&self) -> Duration {
        Duration::from_secs(self.read_deadline_seconds)
    }
}

impl RestConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: &str| Err(ConfigError::Bad { key, problem: problem.to_owned() });
        match (&self.url, &self.socket) {
            (Some(url), None) => {
                let Ok(parsed) = reqwest::Url::parse(url) else {
                    return bad("rest.url", "give http://host:port or https://host:port");
                };
                if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
                    return bad("rest.url", "give http://host:port or https://host:port");
                }
                if !parsed.username().is_empty() || parsed.password().is_some() {
                    return bad(
                        "rest.url",
                        "no user or password in the address; put the token into token_file",
                    );
                }
                if self.token_file.is_none() {
                    return bad(
                        "rest.token_file",
                        "slurmrestd over TCP needs a token: name the file that holds it",
                    );
                }
            }
            (None, Some(socket)) if !socket.is_absolute() => {
                return Err(ConfigError::NotAbsolute { key: "rest.socket", path: socket.clone() });
            }
            (None, Some(_)) => {}
            _ => return bad("rest", "give either url or socket"),
        }
        if let Some(file) = &self.token_file
            && !file.is_absolute()
        {
            return Err(ConfigError::NotAbsolute { key: "rest.token_file", path: file.clone() });
        }
        if self.user.as_ref().is_some_and(|u| !is_plain_word(u)) {
            return bad("rest.user", "give the name of one user");
        }
        Ok(())
    }
}

fn existing(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    if !path.is_absolute() {
        return Err(ConfigError::NotAbsolute { key, path: path.to_owned() });
    }
    if !path.is_file() {
        return Err(ConfigError::Missing { key, path: path.to_owned() });
    }
    Ok(())
}

fn client(name: &'static str, given: Option<&Path>, beside: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = given {
        existing(name, path)?;
        return Ok(path.to_owned());
    }
    let usual = SAFE_PATH.split(':').chain(MORE_DIRECTORIES.split(':')).map(PathBuf::from);
    let found =
        beside.map(Path::to_owned).into_iter().chain(usual).map(|d| d.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| ConfigError::NotFound { name, searched: format!("{SAFE_PATH}:{MORE_DIRECTORIES}") })
}

/// Says whether the text is one plain word that may stand behind a `=` on a command line of scontrol.
pub(crate) fn is_plain_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 256 && !text.starts_with(['-', '.']) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(json: &str) -> Result<(), ConfigError> {
        serde_json::from_str::<RestConfig>(json).unwrap().check()
    }

    #[test]
    fn unknown_keys_are_errors_and_every_key_has_a_default() {
        assert_eq!(serde_json::from_str::<SlurmConfig>("{}").unwrap(), SlurmConfig::default());
        assert!(serde_json::from_str::<SlurmConfig>(r#"{"scontrl":"/bin/x"}"#).is_err());
        assert!(serde_json::from_str::<SlurmConfig>(r#"{"rest":{"uri":"x"}}"#).is_err());
        assert!(serde_json::from_str::<SlurmConfig>(r#"{"read_via":"csv"}"#).is_err());
    }

    #[test]
    fn rest_needs_one_door_and_a_token_for_tcp() {
        assert!(rest(r#"{"url":"http://h:6820","token_file":"/t"}"#).is_ok());
        assert!(rest(r#"{"socket":"/run/slurmrestd.sock"}"#).is_ok());
        for bad in [
            "{}",
            r#"{"url":"http://h:6820"}"#,
            r#"{"url":"http://h:6820","token_file":"t"}"#,
            r#"{"url":"http://u:p@h:6820","token_file":"/t"}"#,
            r#"{"url":"ftp://h","token_file":"/t"}"#,
            r#"{"url":"h:6820","token_file":"/t"}"#,
            r#"{"socket":"run/s"}"#,
            r#"{"socket":"/s","url":"http://h:1","token_file":"/t"}"#,
            r#"{"socket":"/s","user":"a b"}"#,
        ] {
            assert!(rest(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn clients_are_found_or_named() {
        let sh = PathBuf::from("/bin/sh");
        let good =
            SlurmConfig { scontrol: Some(sh.clone()), squeue: Some(sh.clone()), ..SlurmConfig::default() };
        assert_eq!(good.clients().unwrap().squeue, sh);
        for (bad, word) in [
            (SlurmConfig { scontrol: Some("scontrol".into()), ..good.clone() }, "slurm.scontrol"),
            (SlurmConfig { squeue: Some("/no/such".into()), ..good.clone() }, "slurm.squeue"),
            (SlurmConfig { slurm_conf: Some("/no/such".into()), ..good.clone() }, "slurm.slurm_conf"),
            (SlurmConfig { read_via: ReadVia::Rest, ..good.clone() }, "slurm.read_via"),
            (SlurmConfig { read_deadline_seconds: 0, ..good.clone() }, "slurm.read_deadline_seconds"),
            (SlurmConfig { lock_user: "root,alice".into(), ..good.clone() }, "slurm.lock_user"),
        ] {
            let e = bad.clients().unwrap_err().to_string();
            assert!(e.starts_with(word), "{e}");
        }
    }

    #[test]
    fn words() {
        assert!(is_plain_word("slurmedic-gpu001") && is_plain_word("a_b.c"));
        for bad in ["", "-x", "a,b", "a=b", "a b", "a\n", "ALL[1]", "\u{e9}"] {
            assert!(!is_plain_word(bad), "{bad}");
        }
    }
}
