//! `alert`: feeds alerts by hand.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, tame};
use crate::site::{Access, open};
use engine_core::incident::{Alert, Fingerprint, Heard};
use engine_core::model::NodeName;
use jiff::Timestamp;
use serde::Deserialize;
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

/// An alert as people and programs write it. `node` and `fault` are needed; the rest has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    node: String,
    fault: String,
    gpu: Option<Gpu>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default = "yes")]
    firing: bool,
    #[serde(default)]
    seen_at: Option<Timestamp>,
    #[serde(default)]
    summary: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Gpu {
    Index(u32),
    Name(String),
}

fn yes() -> bool {
    true
}

/// Runs `alert`.
pub(crate) async fn run(args: &AlertArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let text = read(&args.file)?;
    let now = Timestamp::now();
    let alerts: Vec<Alert> = parse(&text)?
        .into_iter()
        .enumerate()
        .map(|(i, w)| lower(w, now).map_err(|why| CliError::usage(format!("alert {}: {why}", i + 1))))
        .collect::<Result<_, _>>()?;
    let site = open(global, printer, Access::Change, None).await?;
    let (_site, fleet) = site.gated().await?;
    fleet.look().await?;
    let mut heard = Vec::new();
    for part in alerts.chunks(engine_runtime::fleet::MAX_POST) {
        heard.extend(fleet.intake.take(part.to_vec()).await.map_err(|e| CliError::caused("the alerts", e))?);
    }
    let new = heard.iter().filter(|h| matches!(h, Heard::New(_))).count();
    let not = heard.iter().filter(|h| matches!(h, Heard::Not(_))).count();
    match printer.format {
        Format::Json => printer.json(&serde_json::json!({
            "format": "slurmedic/alert/1",
            "taken": heard.len() - not,
            "new": new,
            "refused": not,
            "answers": heard.iter().map(word).collect::<Vec<_>>(),
        }))?,
        Format::Text => {
            for (alert, h) in alerts.iter().zip(&heard).take(50) {
                let gpu = alert.gpu.as_ref().map(|g| format!(" GPU {}", tame(g))).unwrap_or_default();
                printer.out(format!("{}{gpu} {}: {}", alert.node, alert.fault, word(h)));
            }
            if heard.len() > 50 {
                printer.out(format!("... {} alerts in all, {new} new, {not} refused", heard.len()));
            }
        }
    }
    Ok(if not == 0 { Exit::Ok } else { Exit::Findings })
}

fn word(heard: &Heard) -> String {
    match heard {
        Heard::New(event) => match &**event {
            engine_core::incident::FleetEvent::Joined { incident, .. } => {
                format!("joins incident {incident}")
            }
            _ => "opens an incident".to_owned(),
        },
        Heard::Counted(incident) => format!("counted for incident {incident}"),
        Heard::Not(why) => format!("not taken, {why}"),
    }
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

fn parse(text: &str) -> Result<Vec<Written>, CliError> {
    let bad = |e: serde_json::Error| {
        CliError::usage(format!("no alert: {e}"))
            .with_hint(r#"write {"node": "gpu017", "fault": "gpu-ecc-uncorrectable", "gpu": 3}"#)
    };
    let text = text.trim();
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(bad);
    }
    serde_json::Deserializer::from_str(text).into_iter::<Written>().collect::<Result<_, _>>().map_err(bad)
}

fn lower(w: Written, now: Timestamp) -> Result<Alert, String> {
    let gpu = w.gpu.map(|g| match g {
        Gpu::Index(i) => i.to_string(),
        Gpu::Name(name) => name,
    });
    let named = format!("{}/{}/{}", w.fault, w.node, gpu.as_deref().unwrap_or("-"));
    let fingerprint = Fingerprint::new(w.fingerprint.as_deref().unwrap_or(&named));
    Alert {
        source: w.source.unwrap_or_else(|| "cli".to_owned()),
        fingerprint: fingerprint.map_err(|e| e.to_string())?,
        fault: w.fault,
        node: NodeName::new(&w.node).map_err(|e| e.to_string())?,
        gpu,
        firing: w.firing,
        seen_at: w.seen_at.unwrap_or(now),
        summary: w.summary,
    }
    .checked()
    .map_err(|e| e.to_string())
}
