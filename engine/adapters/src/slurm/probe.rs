//! Finds out what is there: the controller's own configuration, who we are to it, and which way of reading works.

use super::answer::{ParseError, Release, shorten};
use super::cli::{Cli, JsonForm};
use super::config::{ReadVia, SlurmConfig};
use super::rest::{Rest, VERSIONS};
use super::text::TextContext;
use crate::process;
use engine_core::known::{Cause, Known, Unknown};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Releases whose text output is held by captures or read in the source: read as text without a trial.
const FIRST_KNOWN: (u16, u16) = (22, 5);
const LAST_KNOWN: (u16, u16) = (26, 5);

/// What the engine needs of `scontrol show config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControllerConfig {
    /// Release of slurmctld.
    pub(crate) release: Known<Release>,
    pub(crate) cluster: Known<String>,
    /// How long the controller and the clients wait for each other.
    pub(crate) message_timeout: Duration,
    pub(crate) slurm_user: Option<(String, u32)>,
    /// Lower-case words of `PrivateData`; `all` where the line is missing, since that is the careful reading.
    pub(crate) private: Vec<String>,
    /// Time of the controller when it answered, to the second.
    pub(crate) at: Option<Timestamp>,
}

/// Parses `scontrol show config`, printed with `TZ=UTC0`.
pub(crate) fn parse_config(text: &str) -> Result<ControllerConfig, ParseError> {
    const WHAT: &str = "the configuration of the controller";
    let missing = |key| ParseError::Drift { what: WHAT, key, line: 0 };
    if text.trim().is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    let first = text.lines().next().unwrap_or_default();
    if let Some(message) = super::text::failure(first) {
        return Err(ParseError::failed(WHAT, message));
    }
    let keys: BTreeMap<&str, &str> =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let value = |key: &'static str| keys.get(key).copied().filter(|v| !matches!(*v, "" | "(null)"));
    let timeout = value("MessageTimeout").ok_or_else(|| missing("MessageTimeout"))?;
    let seconds: u64 = timeout
        .strip_suffix(" sec")
        .and_then(|n| n.parse().ok())
        .filter(|n| (1..=86_400).contains(n))
        .ok_or_else(|| {
            ParseError::malformed(WHAT, 0, format!("MessageTimeout {:?}", shorten(timeout, 40)))
        })?;
    let known = |key, text: Option<&str>| match text {
        Some(t) => Known::Known(shorten(t, 100)),
        None => Known::unknown(Cause::NotReported, format!("no {key} in the configuration")),
    };
    let version = value("SLURM_VERSION");
    Ok(ControllerConfig {
        release: match version.map(Release::parse) {
            Some(Some(r)) => Known::Known(r),
            Some(None) => Known::unknown(
                Cause::Unparsable,
                format!("version {:?}", shorten(version.unwrap_or_default(), 40)),
            ),
            None => Known::unknown(Cause::NotReported, "no SLURM_VERSION in the configuration"),
        },
        cluster: known("ClusterName", value("ClusterName")),
        message_timeout: Duration::from_secs(seconds),
        slurm_user: value("SlurmUser").and_then(|v| {
            let (name, id) = v.strip_suffix(')')?.split_once('(')?;
            Some((name.to_owned(), id.parse().ok()?))
        }),
        private: match keys.get("PrivateData") {
            Some(v) => v.split(',').map(str::to_ascii_lowercase).filter(|w| w != "none").collect(),
            None => vec!["all".to_owned()],
        },
        at: first
            .strip_prefix("Configuration data as of ")
            .and_then(|at| TextContext::utc().time(at.trim()).into_known().flatten()),
    })
}

/// Who this process is to Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Me {
    pub(crate) uid: u32,
    pub(crate) name: String,
}

impl Me {
    pub(crate) fn now() -> Self {
        let uid = nix::unistd::geteuid();
        let name =
            nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |u| u.name);
        Self { uid: uid.as_raw(), name }
    }

    /// Says whether slurmctld lets this user do everything, whatever slurmdbd says.
    pub(crate) fn is_master(&self, config: &ControllerConfig) -> bool {
        self.uid == 0 || config.slurm_user.as_ref().is_some_and(|(_, uid)| *uid == self.uid)
    }
}

/// A way of reading that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reader {
    Text,
    Json(JsonForm),
    Rest(String),
}

/// What a probe found out; kept until the next one.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) config: ControllerConfig,
    pub(crate) reader: Reader,
    /// Why this way of reading and no other.
    pub(crate) reason: String,
    pub(crate) write_deadline: Duration,
    /// Whether the reading user sees what `PrivateData` hides from others, or why that is not known.
    pub(crate) sees_all: Result<(), String>,
}

impl Access {
    /// Refuses to conclude anything from a list out of which `PrivateData` can take records.
    pub(crate) fn complete(&self, kind: &str) -> Result<(), Unknown> {
        match &self.sees_all {
            Err(who) if self.config.private.iter().any(|w| w == kind || w == "all") => Err(Unknown::new(
                Cause::ReadFailed,
                format!(
                    "PrivateData={} hides {kind} of others from {who}; read as root, as SlurmUser, or as an operator with slurm.sees_private_data = true",
                    self.config.private.join(",")
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Asks the controller for its configuration and chooses how to read.
pub(crate) async fn probe(config: &SlurmConfig, cli: &Cli, rest: Option<&Rest>) -> Result<Access, Unknown> {
    let controller = controller_config(cli).await?;
    let (reader, reason) = choose(config, cli, rest, &controller).await?;
    let timeout = controller.message_timeout;
    let asked = config.write_deadline_seconds.map_or(timeout + Duration::from_secs(10), Duration::from_secs);
    let sees_all = sees_all(config, &controller, &reader);
    Ok(Access {
        write_deadline: asked.max(timeout + Duration::from_secs(1)),
        config: controller,
        reader,
        reason,
        sees_all,
    })
}

pub(crate) async fn controller_config(cli: &Cli) -> Result<ControllerConfig, Unknown> {
    let out = cli.read(cli.scontrol(["show", "config"])).await?;
    parse_config(&out).map_err(|e| Unknown::new(e.cause(), format!("scontrol show config: {e}")))
}

fn sees_all(config: &SlurmConfig, controller: &ControllerConfig, reader: &Reader) -> Result<(), String> {
    if config.sees_private_data {
        return Ok(());
    }
    match reader {
        Reader::Text | Reader::Json(_) => {
            let me = Me::now();
            if me.is_master(controller) { Ok(()) } else { Err(format!("user {}", me.name)) }
        }
        Reader::Rest(_) => {
            let rest = config.rest.as_ref();
            match rest.and_then(|r| r.user.as_deref()) {
                Some(user) if rest.is_some_and(|r| r.url.is_some()) => {
                    let slurm = controller.slurm_user.as_ref().is_some_and(|(name, _)| name == user);
                    if user == "root" || slurm { Ok(()) } else { Err(format!("user {user}")) }
                }
                // Over the socket slurmrestd acts as its own user, which is neither root nor SlurmUser as a rule.
                _ => Err("the user as whom slurmrestd acts".to_owned()),
            }
        }
    }
}

async fn choose(
    config: &SlurmConfig,
    cli: &Cli,
    rest: Option<&Rest>,
    controller: &ControllerConfig,
) -> Result<(Reader, String), Unknown> {
    let via_text = async {
        if controller.release.is_known_and(|r| (FIRST_KNOWN..=LAST_KNOWN).contains(&(r.major, r.minor))) {
            return Ok((Reader::Text, "its text output is known and the fastest".to_owned()));
        }
        try_text(cli)
            .await
            .map(|()| (Reader::Text, "its release is not known here, and a trial was understood".to_owned()))
    };
    let via_json = async {
        let (form, why) = try_json(cli, controller).await?;
        Ok((Reader::Json(form), why))
    };
    let via_rest = async {
        let Some(rest) = rest else {
            return Err(Unknown::new(Cause::NotObserved, "slurmrestd is not configured"));
        };
        let (version, why) = try_rest(rest).await?;
        Ok((Reader::Rest(version), why))
    };
    match config.read_via {
        ReadVia::Text => via_text.await,
        ReadVia::Json => via_json.await,
        ReadVia::Rest => via_rest.await,
        ReadVia::Auto => {
            let text = match via_text.await {
                Ok(found) => return Ok(found),
                Err(u) => u,
            };
            let json = match via_json.await {
                Ok((reader, why)) => return Ok((reader, format!("text was not understood ({text}); {why}"))),
                Err(u) => u,
            };
            match via_rest.await {
                Ok((reader, why)) => {
                    Ok((reader, format!("text ({text}) and JSON ({json}) were not understood; {why}")))
                }
                Err(rest) => Err(Unknown::new(
                    text.cause,
                    format!("no way of reading works: text: {text}; JSON: {json}; slurmrestd: {rest}"),
                )),
            }
        }
    }
}

/// Reads everything once as text.
pub(crate) async fn try_text(cli: &Cli) -> Result<(), Unknown> {
    cli.text_nodes().await?;
    cli.text_jobs(None).await?;
    cli.text_reservations().await?;
    cli.text_partitions().await?;
    Ok(())
}

/// Finds the first form of JSON in which everything can be read.
pub(crate) async fn try_json(
    cli: &Cli,
    controller: &ControllerConfig,
) -> Result<(JsonForm, String), Unknown> {
    let forms = json_forms(cli, controller).await;
    let mut last = Unknown::new(Cause::Unsupported, "scontrol offers no JSON");
    for form in forms {
        let trial = async {
            cli.json_nodes(&form).await?;
            cli.json_jobs(&form).await?;
            cli.json_reservations(&form).await?;
            cli.json_partitions(&form).await.map(|_| ())
        };
        match trial.await {
            Ok(()) => return Ok((form, "a trial of it was understood".to_owned())),
            Err(u) => last = u,
        }
    }
    Err(last)
}

/// Lists the forms of JSON worth a trial, best first.
pub(crate) async fn json_forms(cli: &Cli, controller: &ControllerConfig) -> Vec<JsonForm> {
    // Names come on stdout or stderr and with any exit code, depending on the release.
    let listed = match process::run(&cli.scontrol(["--json=list", "show", "nodes"])).await {
        Ok(done) => {
            [done.stdout, done.stderr].iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect()
        }
        Err(_) => String::new(),
    };
    let names = data_parsers(&listed);
    if !names.is_empty() {
        return names.into_iter().map(JsonForm::Named).collect();
    }
    match &controller.release {
        Known::Known(r) if (r.major, r.minor) < (23, 2) => vec![JsonForm::Sinfo],
        Known::Known(_) => vec![JsonForm::Plain],
        Known::Unknown(_) => vec![JsonForm::Plain, JsonForm::Sinfo],
    }
}

/// Finds data parsers in the answer to `--json=list`: those known, best first, then newer ones, oldest first.
fn data_parsers(listed: &str) -> Vec<String> {
    let mut found: Vec<u32> = listed
        .split(|c: char| c.is_whitespace() || matches!(c, '/' | ',' | '\'' | '"'))
        .filter_map(|w| w.strip_prefix("v0.0.")?.trim_end_matches(['.', '+']).parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    let name = |n: &u32| format!("v0.0.{n}");
    let mut out: Vec<String> =
        VERSIONS.iter().filter(|v| found.iter().any(|n| name(n) == **v)).map(|v| (*v).to_owned()).collect();
    out.extend(found.iter().filter(|n| **n > 45).map(name));
    out
}

/// Finds the first version of the API in which everything can be read.
pub(crate) async fn try_rest(rest: &Rest) -> Result<(String, String), Unknown> {
    let (_, offered) = rest.find_version().await?;
    let mut last = Unknown::new(Cause::Unsupported, "no version");
    for version in &offered {
        let trial = async {
            rest.nodes(version).await?;
            rest.jobs(version).await?;
            rest.reservations(version).await?;
            rest.partitions(version).await.map(|_| ())
        };
        match trial.await {
            Ok(()) => return Ok(((*version).to_owned(), "a trial of it was understood".to_owned())),
            Err(u) => last = u,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "Configuration data as of 2026-11-21T08:58:47\nClusterName             = lab\nMessageTimeout          = 10 sec\nPrivateData             = none\nSlurmUser               = slurm(64030)\nSLURM_VERSION           = 22.05.8\n\nSlurmctld(primary) at localhost is UP\n";

    #[test]
    fn configuration() {
        let c = parse_config(CONFIG).unwrap();
        assert_eq!(c.message_timeout, Duration::from_secs(10));
        assert_eq!(c.slurm_user, Some(("slurm".into(), 64030)));
        assert_eq!(c.cluster, Known::Known("lab".into()));
        assert_eq!(c.release.known().unwrap().to_string(), "22.05.8");
        assert_eq!(c.at.unwrap().as_second(), 1_795_251_527);
        assert!(c.private.is_empty());
        let hidden = parse_config(&CONFIG.replace("= none", "= jobs,Nodes")).unwrap();
        assert_eq!(hidden.private, ["jobs", "nodes"]);
        assert_eq!(parse_config(&CONFIG.replace("PrivateData", "Other")).unwrap().private, ["all"]);
        for bad in [
            String::new(),
            "garbage\n".into(),
            "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)\n".into(),
            CONFIG.replace("MessageTimeout", "Other"),
            CONFIG.replace("10 sec", "soon"),
            CONFIG.replace("10 sec", "0 sec"),
        ] {
            assert!(parse_config(&bad).is_err(), "{bad}");
        }
        assert_eq!(parse_config(&CONFIG.replace("Configuration", "C")).unwrap().at, None);
        assert!(!parse_config(&CONFIG.replace("SLURM_VERSION", "X")).unwrap().release.is_known());
    }

    fn captured(file: &str) -> String {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm-probe");
        std::fs::read_to_string(dir.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    #[test]
    fn captured_configurations() {
        for (release, cluster, user, uid) in [
            ("22.05.8", "lab", "slurm", 64030),
            ("23.11.11", "drift", "root", 0),
            ("26.05.3", "drift", "root", 0),
        ] {
            let c = parse_config(&captured(&format!("{release}/config.txt"))).unwrap();
            assert_eq!(c.release.known().map(ToString::to_string).as_deref(), Some(release));
            assert_eq!(c.cluster, Known::Known(cluster.to_owned()));
            assert_eq!(c.slurm_user, Some((user.to_owned(), uid)));
            assert_eq!((c.message_timeout.as_secs(), c.private.len()), (10, 0), "{release}");
        }
    }

    #[test]
    fn captured_lists_of_data_parsers() {
        assert_eq!(data_parsers(&captured("23.11.11/json-list.txt")), ["v0.0.40", "v0.0.39"]);
        let all = ["v0.0.45", "v0.0.44", "v0.0.43", "v0.0.42"];
        assert_eq!(data_parsers(&captured("26.05.3/json-list.txt")), all);
    }

    #[test]
    fn private_data_makes_lists_of_others_unknown() {
        let access = |private: &str, sees_all: Result<(), String>| Access {
            config: parse_config(&CONFIG.replace("= none", &format!("= {private}"))).unwrap(),
            reader: Reader::Text,
            reason: String::new(),
            write_deadline: Duration::from_secs(20),
            sees_all,
        };
        assert!(access("jobs", Ok(())).complete("jobs").is_ok());
        let u = access("jobs", Err("user alice".into())).complete("jobs").unwrap_err();
        assert!(u.detail.contains("alice") && u.cause == Cause::ReadFailed);
        assert!(access("jobs", Err("user alice".into())).complete("nodes").is_ok());
        assert!(access("all", Err("user alice".into())).complete("nodes").is_err());
        assert!(access("none", Err("user alice".into())).complete("jobs").is_ok());
    }

    #[test]
    fn known_data_parsers_come_first_and_the_empty_one_last() {
        let listed = "Possible data_parser plugins:\ndata_parser/v0.0.41\ndata_parser/v0.0.39\ndata_parser/v0.0.46\ndata_parser/v0.0.42\n";
        assert_eq!(data_parsers(listed), ["v0.0.42", "v0.0.41", "v0.0.39", "v0.0.46"]);
        assert_eq!(data_parsers("v0.0.40 v0.0.36 v0.0.x"), ["v0.0.40"]);
        assert!(data_parsers("scontrol: unrecognized option '--json=list'").is_empty());
    }
}
