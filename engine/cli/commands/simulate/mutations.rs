//! `simulate --mutations`: the table of broken guards.

use super::grouped;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_testkit::mutants::{Hunt, Means, hunt_all};
use std::time::Instant;

/// Breaks each guard on purpose and says who found it, and how soon.
pub(super) fn run(jobs: usize, printer: &mut Printer) -> Result<Exit, CliError> {
    let began = Instant::now();
    let hunts = hunt_all(jobs).map_err(|e| CliError::caused("a simulation did not come to its end", e))?;
    let alive = hunts.iter().filter(|h| h.found.is_none()).count();
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({
            "format": "slurmedic/mutations/1",
            "mutants": hunts,
            "alive": alive,
            "wall_seconds": began.elapsed().as_secs_f64(),
        }))?;
    } else {
        printer.out(paint(Tone::Strong, format!("{:>4}  {:<44} FOUND", "RULE", "BROKEN ON PURPOSE")));
        for h in &hunts {
            tell_hunt(h, printer);
        }
        printer.out("");
        let took = began.elapsed().as_secs_f64();
        if alive == 0 {
            let all = format!("Each of {} broken guards was found ({took:.0} s).", hunts.len());
            printer.out(paint(Tone::Good, all));
        } else {
            printer
                .out(paint(Tone::Bad, format!("{alive} of {} broken guards were not found.", hunts.len())));
        }
    }
    Ok(if alive == 0 { Exit::Ok } else { Exit::Findings })
}

fn tell_hunt(h: &Hunt, printer: &mut Printer) {
    let (tone, text) = match &h.found {
        None => (Tone::Bad, "not found".to_owned()),
        Some(c) if h.means == Means::Checker => {
            (Tone::Good, format!("checker, {} situations", grouped(c.after)))
        }
        Some(c) => (Tone::Good, format!("simulator, run {}", grouped(c.after))),
    };
    printer.out(format!("{:>4}  {:<44} {}", h.rule, h.broken, paint(tone, text)));
    if let Some(c) = &h.found {
        let what = tame(&c.what);
        printer.out(paint(Tone::Dim, format!("      {}", wrapped(&what, 6))));
    }
}
