//! `alert`: feeds alerts by hand.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer, tame};
use crate::remote;
use crate::site::{Access, open};
use engine_core::incident::Alert;
use engine_core::policy::Deed;
use engine_runtime::fleet::MAX_POST;
use engine_server::sources::native;
use engine_server::{AlertsTaken, feed};
use jiff::Timestamp;
use std::io::Read as _;
use std::path::PathBuf;

/// Where the alerts are.
#[derive(Debug, clap::Args)]
pub(crate) struct AlertArgs {
    /// File with one alert as JSON, a list of them, or one on each line; `-` for stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// The largest file.
const MAX_BYTES: u64 = 32 << 20;
/// Alerts whose answers are listed.
const MAX_LINES: usize = 50;

/// Runs `alert`.
pub(crate) async fn run(args: &AlertArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let alerts = parse(&read(&args.file)?)?;
    let answer = match remote::engine(global).await? {
        Some(engine) => {
            let mut all = AlertsTaken {
                format: "slurmedic/alert/1".to_owned(),
                taken: 0,
                new: 0,
                refused: 0,
                answers: Vec::new(),
            };
            for part in alerts.chunks(MAX_POST) {
                let one: AlertsTaken = engine.post("/api/v1/alerts", &part).await?;
                all.taken += one.taken;
                all.new += one.new;
                all.refused += one.refused;
                all.answers.extend(one.answers);
            }
            all
        }
        None => {
            let site = open(global, printer, Access::Change, None).await?;
            site.permit(&identity::person(), Deed::Propose)?;
            let (_site, fleet) = site.gated().await?;
            fleet.look().await?;
            feed(&fleet.intake, alerts.iter().cloned().map(Ok).collect()).await?.document
        }
    };
    match printer.format {
        Format::Json => printer.json(&answer)?,
        Format::Text => {
            for (alert, said) in alerts.iter().zip(&answer.answers).take(MAX_LINES) {
                let gpu = alert.gpu.as_ref().map(|g| format!(" GPU {}", tame(g))).unwrap_or_default();
                printer.out(format!("{}{gpu} {}: {}", alert.node, alert.fault, tame(said)));
            }
            if alerts.len() > MAX_LINES {
                let (new, refused) = (answer.new, answer.refused);
                printer.out(format!("... {} alerts in all, {new} new, {refused} refused", alerts.len()));
            }
        }
    }
    Ok(if answer.refused == 0 { Exit::Ok } else { Exit::Findings })
}

fn read(path: &PathBuf) -> Result<String, CliError> {
    let mut text = String::new();
    let shown = path.display();
    let done = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text))
    };
    match done {
        Err(e) => Err(CliError::caused(format!("{shown} could not be read"), e).with_exit(Exit::Usage)),
        Ok(n) if n as u64 > MAX_BYTES => {
            Err(CliError::usage(format!("{shown} has more than {} MiB: split it", MAX_BYTES >> 20)))
        }
        Ok(_) => Ok(text),
    }
}

/// Reads them; here one that is wrong stops all of them, since a person can correct it.
fn parse(text: &str) -> Result<Vec<Alert>, CliError> {
    let read = native::read_file(text.as_bytes(), "cli", Timestamp::now()).map_err(|e| {
        CliError::usage(tame(&e.to_string()))
            .with_hint(r#"write {"node": "gpu017", "fault": "gpu-ecc-uncorrectable", "gpu": 3}"#)
    })?;
    let alerts: Result<Vec<Alert>, CliError> = read
        .into_iter()
        .enumerate()
        .map(|(i, a)| a.map_err(|e| CliError::usage(format!("alert {}: {}", i + 1, tame(&e.why)))))
        .collect();
    alerts
}
