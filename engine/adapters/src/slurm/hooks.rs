//! Which programs Slurm starts on its own: what `scontrol show config` and `strigger --get` say about hooks.

use super::answer::ParseError;
use super::cli::Cli;
use super::config::SlurmConfig;
use crate::process;
use engine_core::known::{Cause, Known, Unknown};
use std::path::PathBuf;

/// The most triggers that are read.
const MAX_TRIGGERS: usize = 10_000;

/// The hooks of a cluster as its controller has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// The controller's slurm.conf.
    pub slurm_conf: Option<PathBuf>,
    /// Name of the user that slurmctld runs as.
    pub slurm_user: Option<String>,
    /// `HealthCheckProgram`.
    pub health_program: Option<PathBuf>,
    /// `HealthCheckInterval` in seconds; 0 is never.
    pub health_interval: Option<u64>,
    /// Words of `HealthCheckNodeState`, in upper case.
    pub health_states: Vec<String>,
    /// `Prolog`, one or several.
    pub prolog: Vec<PathBuf>,
    /// `Epilog`, one or several.
    pub epilog: Vec<PathBuf>,
    /// `EpilogSlurmctld`, one or several.
    pub epilog_slurmctld: Vec<PathBuf>,
}

/// A trigger as `strigger --get` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// What it is for, e.g. `node`.
    pub resource: String,
    /// When it fires, e.g. `down`.
    pub event: String,
    /// Whether it stays after it fired.
    pub permanent: bool,
    /// What it starts.
    pub program: PathBuf,
}

/// Reads the hooks of the cluster.
pub async fn hooks(config: &SlurmConfig) -> Result<Hooks, Unknown> {
    let cli = cli(config)?;
    let text = cli.read(cli.scontrol(["show", "config"])).await?;
    parse_hooks(&text).map_err(|e| Unknown::new(e.cause(), format!("scontrol show config: {e}")))
}

/// Reads the triggers. `strigger` is looked for beside `scontrol`.
pub async fn triggers(config: &SlurmConfig) -> Known<Vec<Trigger>> {
    let cli = match cli(config) {
        Ok(cli) => cli,
        Err(why) => return Known::Unknown(why),
    };
    let program = cli.program(&cli.clients.scontrol.with_file_name("strigger")).args(["--get"]);
    let shown = program.display();
    match process::run(&program).await {
        Ok(done) if done.exit.success() && !done.truncated => {
            parse_triggers(&String::from_utf8_lossy(&done.stdout))
        }
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).trim().chars().take(200).collect::<String>();
            Known::unknown(Cause::ReadFailed, format!("{shown}: {said}"))
        }
        Err(e) => Known::unknown(Cause::ReadFailed, format!("{shown}: {e}")),
    }
}

fn cli(config: &SlurmConfig) -> Result<Cli, Unknown> {
    let clients = config.clients().map_err(|e| Unknown::new(Cause::NotObserved, e.to_string()))?;
    Ok(Cli::new(config, clients))
}

/// Parses `scontrol show config`.
pub fn parse_hooks(text: &str) -> Result<Hooks, ParseError> {
    const WHAT: &str = "the configuration of the controller";
    let values = |wanted: &str| {
        text.lines()
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| (k.trim(), v.trim()))
            // Since 25.05 several programs have keys `Prolog[0]`, `Prolog[1]`.
            .filter(|(k, _)| k.split('[').next() == Some(wanted))
            .map(|(_, v)| v)
            .filter(|v| !v.is_empty() && *v != "(null)")
            .collect::<Vec<&str>>()
    };
    let paths = |key| values(key).into_iter().map(PathBuf::from).collect::<Vec<_>>();
    let first = |key| values(key).first().copied();
    let Some(interval) = first("HealthCheckInterval") else {
        return Err(ParseError::Drift { what: WHAT, key: "HealthCheckInterval", line: 0 });
    };
    Ok(Hooks {
        slurm_conf: first("SLURM_CONF").map(PathBuf::from),
        slurm_user: first("SlurmUser").map(|u| u.split('(').next().unwrap_or(u).to_owned()),
        health_program: first("HealthCheckProgram").map(PathBuf::from),
        health_interval: interval.split(' ').next().and_then(|n| n.parse().ok()),
        health_states: first("HealthCheckNodeState")
            .map(|v| v.split(',').map(|w| w.trim().to_ascii_uppercase()).collect())
            .unwrap_or_default(),
        prolog: paths("Prolog"),
        epilog: paths("Epilog"),
        epilog_slurmctld: paths("EpilogSlurmctld"),
    })
}

/// Parses `strigger --get`: columns under a header, whose names tell which is which; the program is the last.
pub fn parse_triggers(text: &str) -> Known<Vec<Trigger>> {
    let mut lines = text.lines().filter(|l| !l.trim().is_empty());
    let Some(header) = lines.next() else { return Known::Known(Vec::new()) };
    let names: Vec<&str> = header.split_whitespace().collect();
    let at = |name: &str| names.iter().position(|n| *n == name);
    let (Some(resource), Some(event)) = (at("RES_TYPE"), at("TYPE")) else {
        return Known::unknown(Cause::Unparsable, "strigger --get prints other columns than expected");
    };
    // The column of flags is empty for a trigger without any, so that its line has one cell less than the header.
    let read = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (program, front) = cells.split_last()?;
        let full = cells.len() == names.len();
        let flags = front.last().filter(|_| full && names.contains(&"FLAGS"));
        (full || cells.len() + 1 == names.len()).then_some(())?;
        Some(Trigger {
            resource: (*front.get(resource)?).to_owned(),
            event: (*front.get(event)?).to_owned(),
            permanent: flags.is_some_and(|f| f.to_ascii_uppercase().contains("PERM")),
            program: PathBuf::from(*program),
        })
    };
    match lines.take(MAX_TRIGGERS).map(read).collect() {
        Some(all) => Known::Known(all),
        None => Known::unknown(Cause::Unparsable, "strigger --get prints a line with too few columns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(release: &str) -> Hooks {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/slurm-probe");
        parse_hooks(&std::fs::read_to_string(format!("{root}/{release}/config.txt")).unwrap()).unwrap()
    }

    #[test]
    fn hooks_are_read_of_every_captured_release() {
        let old = captured("22.05.8");
        assert_eq!(old.health_interval, Some(5));
        assert_eq!(old.health_states, ["ANY"]);
        assert_eq!(old.slurm_user.as_deref(), Some("slurm"));
        assert_eq!(old.epilog.len(), 1);
        for release in ["23.11.11", "26.05.3"] {
            let new = captured(release);
            assert_eq!(new.epilog, [PathBuf::from("/srv/bin/epilog.sh")], "{release}");
            assert_eq!(new.prolog, [PathBuf::from("/srv/bin/prolog.sh")], "{release}");
            assert_eq!(new.epilog_slurmctld, [PathBuf::from("/srv/bin/epilogctld.sh")], "{release}");
            assert_eq!(new.health_interval, Some(30), "{release}");
        }
    }

    #[test]
    fn a_configuration_without_the_line_is_not_one_without_hooks() {
        assert!(parse_hooks("").is_err());
        assert!(parse_hooks("slurm_load_ctl_conf error: Unable to contact slurm controller").is_err());
    }

    #[test]
    fn triggers_are_read_by_their_header() {
        // As Slurm 22.05.8 prints it.
        let text = "TRIG_ID RES_TYPE   RES_ID TYPE                                OFFSET USER     FLAGS PROGRAM\n      \
                    1 node            * down                                     0 slurm    PERM  /usr/sbin/a\n      \
                    2 node            * up                                       0 slurm          /usr/sbin/b\n";
        let expected =
            [("down", true, "/usr/sbin/a"), ("up", false, "/usr/sbin/b")].map(|(event, permanent, path)| {
                let (resource, event) = ("node".to_owned(), event.to_owned());
                Trigger { resource, event, permanent, program: PathBuf::from(path) }
            });
        assert_eq!(parse_triggers(text), Known::Known(expected.to_vec()));
        assert!(matches!(parse_triggers("RES_TYPE TYPE PROGRAM\nnode"), Known::Unknown(_)));
        assert_eq!(parse_triggers(""), Known::Known(vec![]));
        assert!(matches!(parse_triggers("something else"), Known::Unknown(_)));
    }
}
