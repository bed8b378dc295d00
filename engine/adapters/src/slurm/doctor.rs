//! What works, what does not, and what to do about it: the Slurm part of `slurmedic doctor`.
//!
//! Changes nothing. What could only be proven by a write is said to be not proven.

use super::answer::Release;
use super::backend::SlurmBackend;
use super::probe::{self, Access, ControllerConfig, Me};
use super::rest::VERSIONS;
use super::text::parse_version;
use engine_core::known::{Known, Unknown};
use engine_runtime::ports::Scheduler as _;
use jiff::Timestamp;
use serde::Serialize;
use std::cmp::Ordering;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

/// The clock of the controller may differ from ours by this many seconds.
const SKEW_SECONDS: i64 = 3;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with a limit worth knowing.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorLine {
    /// What was looked at.
    pub what: &'static str,
    /// What was found; may hold text from outside.
    pub found: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

fn line(
    verdict: Verdict,
    what: &'static str,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> DoctorLine {
    DoctorLine { what, found: found.into(), verdict, advice: advice.into() }
}

fn ok(what: &'static str, found: impl Into<String>) -> DoctorLine {
    line(Verdict::Ok, what, found, "")
}

impl SlurmBackend {
    /// Looks at everything the engine needs of Slurm; changes nothing.
    pub async fn doctor(&self) -> Vec<DoctorLine> {
        let mut lines = Vec::new();
        let client = self.client_release(&mut lines).await;
        let asked = Timestamp::now();
        let controller = match probe::controller_config(&self.cli).await {
            Ok(c) => c,
            Err(u) => {
                let advice = "start slurmctld, or correct slurm.slurm_conf; nothing is read or written until it answers";
                lines.push(line(Verdict::Fail, "controller", u.to_string(), advice));
                return lines;
            }
        };
        lines.push(controller_line(&controller));
        if let (Some(c), Known::Known(s)) = (&client, &controller.release) {
            lines.push(releases(c, s));
        }
        lines.extend(clock(&controller, asked));
        self.ways_of_reading(&controller, &mut lines).await;
        match self.probe_again().await {
            Ok(access) => {
                lines.push(ok(
                    "chosen for reading",
                    format!("{}: {}", self.read_by(&access.reader), access.reason),
                ));
                lines.push(self.writing(&access));
                lines.push(private_data(&access));
                self.reads(&mut lines).await;
            }
            Err(u) => {
                let advice =
                    "no read is possible; see the lines above, and set slurm.read_via to a way that works";
                lines.push(line(Verdict::Fail, "chosen for reading", u.to_string(), advice));
            }
        }
        lines.push(rights(&controller, &Me::now()));
        lines
    }

    async fn client_release(&self, lines: &mut Vec<DoctorLine>) -> Option<Release> {
        let path = self.cli.clients.scontrol.display();
        let parsed = match self.cli.read(self.cli.scontrol(["--version"])).await {
            Ok(out) => parse_version(&out).map_err(|e| Unknown::new(e.cause(), e.to_string())),
            Err(u) => Err(u),
        };
        match parsed {
            Ok(release) => {
                lines.push(ok(
                    "clients",
                    format!("{path} of {release}, {}", self.cli.clients.squeue.display()),
                ));
                Some(release)
            }
            Err(u) => {
                let advice = "set slurm.scontrol to the absolute path of a working scontrol";
                lines.push(line(Verdict::Fail, "clients", format!("{path}: {u}"), advice));
                None
            }
        }
    }

    /// Tries text, JSON and slurmrestd, whichever is chosen in the end.
    async fn ways_of_reading(&self, controller: &ControllerConfig, lines: &mut Vec<DoctorLine>) {
        let start = Instant::now();
        lines.push(match probe::try_text(&self.cli).await {
            Ok(()) => ok(
                "text",
                format!(
                    "nodes, jobs, reservations and partitions understood in {} ms",
                    start.elapsed().as_millis()
                ),
            ),
            Err(u) => line(
                Verdict::Fail,
                "text",
                u.to_string(),
                "nothing may stand on stderr; try slurm.read_via = \"json\" or \"rest\"",
            ),
        });
        let forms: Vec<String> = probe::json_forms(&self.cli, controller)
            .await
            .iter()
            .map(super::cli::JsonForm::describe)
            .collect();
        let start = Instant::now();
        lines.push(match probe::try_json(&self.cli, controller).await {
            Ok((form, _)) => ok(
                "JSON",
                format!(
                    "{} understood in {} ms; offered: {}",
                    form.describe(),
                    start.elapsed().as_millis(),
                    forms.join("; ")
                ),
            ),
            Err(u) => line(
                Verdict::Warn,
                "JSON",
                u.to_string(),
                "needed only for slurm.read_via = \"json\", or where text fails",
            ),
        });
        let Some(rest) = &self.rest else {
            lines.push(ok("slurmrestd", "not configured (section slurm.rest); it is not needed"));
            return;
        };
        let start = Instant::now();
        lines.push(match probe::try_rest(rest).await {
            Ok((version, _)) => ok(
                "slurmrestd",
                format!("{} understood in {} ms", rest.describe(&version), start.elapsed().as_millis()),
            ),
            Err(u) => {
                let advice = format!(
                    "is it running at {}, with one of {}, and is the token good?",
                    rest.address(),
                    VERSIONS.join(", ")
                );
                line(Verdict::Fail, "slurmrestd", u.to_string(), advice)
            }
        });
        lines.extend(self.token_file());
    }

    fn token_file(&self) -> Option<DoctorLine> {
        let path = self.config.rest.as_ref()?.token_file.as_ref()?;
        let shown = path.display();
        Some(match std::fs::metadata(path) {
            Ok(m) if m.mode() & 0o077 != 0 => {
                let found = format!("{shown} has mode {:03o}: others can use the token", m.mode() & 0o777);
                line(Verdict::Warn, "token file", found, format!("chmod 600 {shown}"))
            }
            Ok(_) => ok("token file", format!("{shown}, for its owner alone")),
            Err(e) => line(
                Verdict::Fail,
                "token file",
                format!("{shown}: {e}"),
                "correct slurm.rest.token_file or its mode",
            ),
        })
    }

    fn writing(&self, access: &Access) -> DoctorLine {
        let timeout = access.config.message_timeout.as_secs();
        let found = format!(
            "{}; given up after {} s, MessageTimeout is {timeout} s",
            self.written_by(),
            access.write_deadline.as_secs()
        );
        match self.config.write_deadline_seconds {
            Some(s) if s <= timeout => {
                let advice =
                    format!("slurm.write_deadline_seconds = {s} was raised: it must exceed MessageTimeout");
                line(Verdict::Warn, "chosen for writing", found, advice)
            }
            _ => ok("chosen for writing", found),
        }
    }

    /// Reads everything the chosen way and counts it.
    async fn reads(&self, lines: &mut Vec<DoctorLine>) {
        let count = |what, read: Result<usize, Unknown>, start: Instant| match read {
            Ok(n) => ok(what, format!("{n} read in {} ms", start.elapsed().as_millis())),
            Err(u) => line(
                Verdict::Fail,
                what,
                u.to_string(),
                "runs that need this are refused until it can be read",
            ),
        };
        let start = Instant::now();
        lines.push(count("nodes", self.nodes().await.map(|o| o.value.len()), start));
        let start = Instant::now();
        lines.push(count("jobs", self.jobs().await.map(|o| o.value.len()), start));
        let start = Instant::now();
        lines.push(count("reservations", self.reservations().await.map(|o| o.value.len()), start));
        let start = Instant::now();
        lines.push(count("partitions", self.partitions().await.map(|o| o.value.len()), start));
    }
}

fn controller_line(c: &ControllerConfig) -> DoctorLine {
    match (&c.release, &c.cluster) {
        (Known::Known(r), Known::Known(name)) => {
            ok("controller", format!("cluster {name}, slurmctld {r} answers"))
        }
        (release, cluster) => {
            let found = format!("it answers; cluster {cluster}, release {release}");
            line(Verdict::Warn, "controller", found, "its configuration lacks SLURM_VERSION or ClusterName")
        }
    }
}

/// Slurm supports clients up to two releases behind the controller, and none ahead of it.
fn releases(client: &Release, controller: &Release) -> DoctorLine {
    let found = format!("clients {client}, controller {controller}");
    let advice = match (client.major, client.minor).cmp(&(controller.major, controller.minor)) {
        Ordering::Equal => return ok("releases", found),
        Ordering::Greater => "clients newer than the controller are not supported by Slurm",
        Ordering::Less => "older clients may not show every flag; use those of the controller's release",
    };
    line(Verdict::Warn, "releases", found, advice)
}

fn clock(c: &ControllerConfig, asked: Timestamp) -> Option<DoctorLine> {
    let skew = c.at?.as_second() - asked.as_second();
    let found = format!("the controller's clock differs from ours by {skew} s or less");
    Some(if skew.abs() <= SKEW_SECONDS {
        ok("clock", found)
    } else {
        let advice = "synchronise the clocks: reasons and reservations are compared by their times";
        line(
            Verdict::Warn,
            "clock",
            format!("the controller's clock differs from ours by about {skew} s"),
            advice,
        )
    })
}

fn private_data(access: &Access) -> DoctorLine {
    let private = access.config.private.join(",");
    match (&access.sees_all, private.is_empty()) {
        (_, true) => ok("PrivateData", "nothing is hidden from anybody"),
        (Ok(()), false) => ok("PrivateData", format!("{private}, which hides nothing from this user")),
        (Err(who), false) => {
            let hurts =
                ["jobs", "nodes", "partitions", "reservations"].iter().any(|k| access.complete(k).is_err());
            let verdict = if hurts { Verdict::Fail } else { Verdict::Ok };
            let advice = if hurts {
                "lists are unknown, never empty: read as root or SlurmUser, or as an operator with slurm.sees_private_data = true"
            } else {
                ""
            };
            line(verdict, "PrivateData", format!("{private}, for {who}"), advice)
        }
    }
}

/// Says which writes this user may make, as far as that is known without making one.
fn rights(c: &ControllerConfig, me: &Me) -> DoctorLine {
    if me.is_master(c) {
        return ok("rights", format!("user {}: may drain, resume and make reservations", me.name));
    }
    let slurm = c.slurm_user.as_ref().map_or("SlurmUser", |(name, _)| name.as_str());
    let found = format!(
        "user {} is neither root nor {slurm}: not proven that it may drain or make reservations",
        me.name
    );
    let advice = format!(
        "check `sacctmgr show user {}`: drain and resume need AdminLevel Administrator, reservations Operator; without slurmdbd only root and {slurm} may",
        me.name
    );
    line(Verdict::Warn, "rights", found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn controller() -> ControllerConfig {
        ControllerConfig {
            release: Known::Known(Release::parse("24.11.7").unwrap()),
            cluster: Known::Known("c".into()),
            message_timeout: Duration::from_secs(10),
            slurm_user: Some(("slurm".into(), 64030)),
            private: vec![],
            at: Some("2026-11-21T08:00:10Z".parse().unwrap()),
        }
    }

    #[test]
    fn rights_are_proven_for_root_and_slurm_user_only() {
        let me = |uid, name: &str| Me { uid, name: name.into() };
        assert_eq!(rights(&controller(), &me(0, "root")).verdict, Verdict::Ok);
        assert_eq!(rights(&controller(), &me(64030, "slurm")).verdict, Verdict::Ok);
        let l = rights(&controller(), &me(1000, "alice"));
        assert!(
            l.verdict == Verdict::Warn && l.found.contains("not proven") && l.advice.contains("sacctmgr"),
            "{l:?}"
        );
    }

    #[test]
    fn clocks_and_releases() {
        let at = |t: &str| clock(&controller(), t.parse().unwrap()).unwrap().verdict;
        assert_eq!(at("2026-11-21T08:00:10.9Z"), Verdict::Ok);
        assert_eq!(at("2026-11-21T08:01:10Z"), Verdict::Warn);
        assert_eq!(at("2026-11-21T07:59:10Z"), Verdict::Warn);
        let r = |a, b| releases(&Release::parse(a).unwrap(), &Release::parse(b).unwrap()).verdict;
        assert_eq!(r("24.11.0", "24.11.7"), Verdict::Ok);
        assert_eq!(r("25.05.0", "24.11.7"), Verdict::Warn);
        assert_eq!(r("23.11.0", "24.11.7"), Verdict::Warn);
    }
}
