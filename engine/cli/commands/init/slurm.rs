//! `init slurm`: the lines by which Slurm starts `slurmedic-hook` at this site, and whether they are there.

use super::super::Global;
use crate::config;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_adapters::process::{self, Program};
use engine_adapters::slurm::Verdict;
use engine_adapters::slurm::hooks::{Hooks, Trigger, hooks, triggers};
use engine_core::known::Known;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to print or to check.
#[derive(Debug, clap::Args)]
pub(crate) struct SlurmArgs {
    /// Compare what slurmctld has with what it should have; changes nothing.
    #[arg(long)]
    check: bool,
    /// Where the hook lies on every host.
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/slurmedic-hook")]
    hook: PathBuf,
    /// Its configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/slurmedic/hook.conf")]
    hook_config: PathBuf,
    /// Seconds between two looks at a node.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=3600))]
    interval: u64,
}

/// Links that tell the hook why a trigger fired.
const TRIGGERS: [&str; 2] = ["down", "up"];

/// Runs `init slurm`.
pub(crate) async fn run(args: &SlurmArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let found = hooks(&config.slurm).await;
    if !args.check {
        if let Err(why) = &found {
            printer.say(format!("slurmctld was not asked, so the lines are for any site: {why}"));
        }
        printer.out(lines(args, found.ok().as_ref()));
        return Ok(Exit::Ok);
    }
    let found = found.map_err(|why| {
        CliError::failed(format!("what slurmctld has is not known: {why}"))
            .with_hint("run it where scontrol works; slurm.scontrol and slurm.slurm_conf name other places")
    })?;
    let triggers = triggers(&config.slurm).await;
    let here = if is_program(&args.hook) { Some(own_check(args).await) } else { None };
    show(&judge(args, &found, &triggers, here), printer)
}

/// The lines for people to copy.
fn lines(args: &SlurmArgs, found: Option<&Hooks>) -> String {
    let hook = args.hook.display();
    let none = Hooks::default();
    let found = found.unwrap_or(&none);
    let conf = found.slurm_conf.as_ref().map_or("slurm.conf".into(), |p| p.display().to_string());
    let user = found.slurm_user.as_deref().unwrap_or("slurm");
    let mut out = format!("# {conf}, then `scontrol reconfigure`\n");
    if let Some(other) = found.health_program.as_ref().filter(|p| **p != args.hook) {
        out += &format!(
            "# HealthCheckProgram is {} now.\n# Slurm starts only one: let a script of yours start both, the hook first,\n# or let the hook take its place.\n",
            tame(&other.display().to_string())
        );
    }
    out += &format!(
        "HealthCheckProgram={hook}\nHealthCheckInterval={}\n# ANY looks at drained nodes too, CYCLE spreads the looks over the interval\nHealthCheckNodeState=ANY,CYCLE\n",
        args.interval
    );
    out += "# what a job left behind is seen when it ends\n";
    match found.epilog.iter().find(|p| **p != args.hook) {
        Some(other) => {
            out += &format!(
                "# Epilog is {} now.\n# Call the hook at its end, `{hook} || true`, instead of\n#Epilog={hook}\n",
                tame(&other.display().to_string())
            );
        }
        None => out += &format!("Epilog={hook}\n"),
    }
    out += &format!(
        "# Not needed, as the engine looks every few seconds: tells it that a job ended\n#EpilogSlurmctld={hook}\n"
    );
    out += &format!(
        "# Only with prolog_fail in {}:\n# a prolog that fails drains its node\n#Prolog={hook}\n\n",
        args.hook_config.display()
    );
    out += "# once, on the controller; a trigger belongs to the user that slurmctld runs as\n";
    for event in TRIGGERS {
        out += &format!(
            "ln -sf {} {hook}-{event}\nrunuser -u {user} -- strigger --set --node --{event} --flags=PERM \\\n  --program={hook}-{event}\n",
            args.hook.file_name().unwrap_or_default().to_string_lossy()
        );
    }
    out += &format!(
        "\n# on every node, and on the controller for {user} to read\n{hook} --example >{config}   # then edit it\n{hook} --check-config\n{hook} --dry-run",
        config = args.hook_config.display()
    );
    out
}

/// One line of `--check`.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    found: String,
    verdict: Verdict,
    advice: String,
}

fn judge(
    args: &SlurmArgs,
    found: &Hooks,
    triggers: &Known<Vec<Trigger>>,
    here: Option<Result<String, String>>,
) -> Vec<Line> {
    let mut out = Vec::new();
    let mut add = |what: &str, found: String, verdict, advice: String| {
        out.push(Line { what: what.to_owned(), found, verdict, advice });
    };
    let hook = args.hook.display().to_string();
    let list = |all: &[PathBuf]| all.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    match &found.health_program {
        Some(p) if *p == args.hook => add("HealthCheckProgram", hook.clone(), Verdict::Ok, String::new()),
        Some(p) => add(
            "HealthCheckProgram",
            p.display().to_string(),
            Verdict::Warn,
            format!("if it does not start {hook}, nodes are not looked at"),
        ),
        None => add(
            "HealthCheckProgram",
            "not set".to_owned(),
            Verdict::Fail,
            format!("nodes are not looked at; set HealthCheckProgram={hook}"),
        ),
    }
    match found.health_interval {
        Some(n) if n >= 10 => add("HealthCheckInterval", format!("{n} s"), Verdict::Ok, String::new()),
        Some(0) => add(
            "HealthCheckInterval",
            "0: never".to_owned(),
            Verdict::Fail,
            format!("set HealthCheckInterval={}", args.interval),
        ),
        Some(n) => add(
            "HealthCheckInterval",
            format!("{n} s"),
            Verdict::Warn,
            "it is short for a fleet; 60 s is enough".to_owned(),
        ),
        None => add(
            "HealthCheckInterval",
            "not understood".to_owned(),
            Verdict::Warn,
            "look at `scontrol show config`".to_owned(),
        ),
    }
    let any = found.health_states.iter().any(|w| w == "ANY");
    add(
        "HealthCheckNodeState",
        found.health_states.join(","),
        if any { Verdict::Ok } else { Verdict::Warn },
        if any { String::new() } else { "with ANY drained nodes are looked at too".to_owned() },
    );
    let (shown, verdict, advice) = if found.epilog.contains(&args.hook) {
        (list(&found.epilog), Verdict::Ok, String::new())
    } else if found.epilog.is_empty() {
        let advice = format!("set Epilog={hook} to see what a job left behind when it ends");
        ("not set".to_owned(), Verdict::Warn, advice)
    } else {
        let advice = format!("call {hook} at its end to see what a job left behind");
        (list(&found.epilog), Verdict::Warn, advice)
    };
    add("Epilog", shown, verdict, advice);
    if found.epilog_slurmctld.contains(&args.hook) {
        add("EpilogSlurmctld", list(&found.epilog_slurmctld), Verdict::Ok, String::new());
    }
    match triggers {
        Known::Unknown(why) => add(
            "triggers",
            format!("not known: {why}"),
            Verdict::Warn,
            "without them the engine polls, which is enough but later".to_owned(),
        ),
        Known::Known(all) => {
            for event in TRIGGERS {
                let link = PathBuf::from(format!("{hook}-{event}"));
                let ours: Vec<&Trigger> =
                    all.iter().filter(|t| t.resource == "node" && t.program == link).collect();
                let (shown, verdict, advice) = match ours.iter().find(|t| t.event == event) {
                    Some(t) if t.permanent => ("set".to_owned(), Verdict::Ok, String::new()),
                    Some(_) => (
                        "set, gone when it fires".to_owned(),
                        Verdict::Warn,
                        "set it again with --flags=PERM".to_owned(),
                    ),
                    None => (
                        "not set".to_owned(),
                        Verdict::Warn,
                        "`slurmedic init slurm` prints the command; without it the engine polls".to_owned(),
                    ),
                };
                add(&format!("trigger {event}"), shown, verdict, advice);
            }
        }
    }
    match here {
        None => add(
            "hook on this host",
            format!("{hook} is not there"),
            Verdict::Warn,
            "install it on the controller and on every node, or name its place with --hook".to_owned(),
        ),
        Some(Ok(said)) => add("hook on this host", said, Verdict::Ok, String::new()),
        Some(Err(said)) => add(
            "hook on this host",
            said,
            Verdict::Fail,
            "the hook checks nothing until its configuration is right".to_owned(),
        ),
    }
    out
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What the hook itself says about its configuration.
async fn own_check(args: &SlurmArgs) -> Result<String, String> {
    let program = Program::new(&args.hook)
        .args(["--config", &args.hook_config.display().to_string(), "--check-config"])
        .deadline(Duration::from_secs(10))
        .max_output(64 * 1024);
    let done = process::run(&program).await.map_err(|e| e.to_string())?;
    let first = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(300)
            .collect::<String>()
    };
    if done.exit.success() { Ok(first(&done.stdout)) } else { Err(first(&done.stderr)) }
}

fn show(lines: &[Line], printer: &mut Printer) -> Result<Exit, CliError> {
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({ "format": "slurmedic/init-slurm/1", "lines": lines }))?;
    } else {
        for l in lines {
            let (tone, word) = match l.verdict {
                Verdict::Ok => (Tone::Good, "ok  "),
                Verdict::Warn => (Tone::Warn, "warn"),
                Verdict::Fail => (Tone::Bad, "FAIL"),
            };
            printer.out(format!("{}  {:<20} {}", paint(tone, word), l.what, wrapped(&tame(&l.found), 27)));
            if !l.advice.is_empty() {
                printer.out(format!("{:27}{}", "", paint(Tone::Dim, wrapped(&tame(&l.advice), 27))));
            }
        }
    }
    let worst = lines.iter().map(|l| l.verdict).max().unwrap_or(Verdict::Ok);
    Ok(if worst == Verdict::Fail { Exit::Findings } else { Exit::Ok })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::known::Cause;

    fn args() -> SlurmArgs {
        SlurmArgs {
            check: true,
            hook: "/usr/sbin/slurmedic-hook".into(),
            hook_config: "/etc/slurmedic/hook.conf".into(),
            interval: 60,
        }
    }

    fn good() -> Hooks {
        let hook = args().hook;
        Hooks {
            slurm_conf: Some("/etc/slurm/slurm.conf".into()),
            slurm_user: Some("slurm".to_owned()),
            health_program: Some(hook.clone()),
            health_interval: Some(60),
            health_states: vec!["CYCLE".to_owned(), "ANY".to_owned()],
            prolog: vec![],
            epilog: vec![hook.clone()],
            epilog_slurmctld: vec![hook],
        }
    }

    fn verdicts(found: &Hooks, triggers: &Known<Vec<Trigger>>) -> Vec<(String, Verdict)> {
        let all = judge(&args(), found, triggers, Some(Ok("fine".to_owned())));
        all.into_iter().map(|l| (l.what, l.verdict)).collect()
    }

    #[test]
    fn a_whole_setup_is_fine_and_each_gap_is_named() {
        let trigger = |event: &str| Trigger {
            resource: "node".to_owned(),
            event: event.to_owned(),
            permanent: true,
            program: format!("/usr/sbin/slurmedic-hook-{event}").into(),
        };
        let triggers = Known::Known(TRIGGERS.map(trigger).to_vec());
        assert!(verdicts(&good(), &triggers).iter().all(|(_, v)| *v == Verdict::Ok));
        let without = Hooks { health_program: None, health_interval: Some(0), ..good() };
        let fails: Vec<_> = verdicts(&without, &triggers)
            .into_iter()
            .filter(|(_, v)| *v == Verdict::Fail)
            .map(|(w, _)| w)
            .collect();
        assert_eq!(fails, ["HealthCheckProgram", "HealthCheckInterval"]);
        let unknown = Known::unknown(Cause::TimedOut, "slow");
        assert!(verdicts(&good(), &unknown).contains(&("triggers".to_owned(), Verdict::Warn)));
    }

    #[test]
    fn the_lines_name_what_is_there_already_and_fit_a_terminal() {
        let found = Hooks {
            health_program: Some("/usr/sbin/nhc".into()),
            epilog: vec!["/etc/slurm/epilog.sh".into()],
            epilog_slurmctld: vec![],
            ..good()
        };
        let text = lines(&args(), Some(&found));
        assert!(text.contains("HealthCheckProgram is /usr/sbin/nhc now"), "{text}");
        assert!(text.contains("#Epilog=/usr/sbin/slurmedic-hook\n"), "{text}");
        assert!(text.contains("\n#EpilogSlurmctld=/usr/sbin/slurmedic-hook\n"), "{text}");
        for line in text.lines().chain(lines(&args(), None).lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
