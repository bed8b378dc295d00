//! `xid`: what an XID of the NVIDIA driver means, and what would be done about it.

use super::{Global, knowledge};
use crate::exit::{CliError, Exit};
use crate::page;
use crate::printer::{Format, Printer, Tone, paint, tame};
use engine_core::knowledge::{GpuAsked, Knowledge, Listed, Verdict, Xid, XidAnswer};
use serde_json::{Value, json};

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct XidArgs {
    /// A number from the kernel log; without it, all of them are listed.
    code: Option<u32>,
    /// Branch of the driver, e.g. 570 or 570.86.15.
    #[arg(long, value_name = "VERSION")]
    driver: Option<String>,
    /// Model of the GPU, e.g. H100.
    #[arg(long, value_name = "MODEL")]
    gpu: Option<String>,
}

/// Runs `xid`.
pub(crate) fn run(args: &XidArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let known = knowledge::of_site(global)?;
    let driver = args.driver.as_deref().map(branch).transpose()?;
    let model = args.gpu.as_deref();
    if let Some(m) = model.filter(|m| known.column(m).is_none() && known.generation(m).is_none()) {
        printer.say(format!(
            "{} the model {} is not known here, so nothing is said about it",
            paint(Tone::Warn, "note:"),
            tame(&m.chars().take(40).collect::<String>())
        ));
    }
    let asked = GpuAsked { model, driver };
    if let Some(code) = args.code {
        let answer = known.xid(code, asked);
        if printer.format == Format::Json {
            let mut one = object(&known, &answer);
            if let Some(o) = one.as_object_mut() {
                o.insert("format".to_owned(), json!("slurmedic/xid/1"));
            }
            printer.json(&one)?;
        } else {
            show(&known, &answer, model.is_some(), printer);
        }
        return Ok(Exit::Ok);
    }
    if printer.format == Format::Json {
        let all: Vec<Value> = known.xids.keys().map(|c| object(&known, &known.xid(*c, asked))).collect();
        printer.json(&json!({ "format": "slurmedic/xids/1", "xids": all }))?;
    } else {
        table(&known, &mut |name, width, text| {
            let gap = " ".repeat(width.saturating_sub(name.chars().count()).max(1));
            printer.out(format!("{name}{gap}{}", crate::printer::wrapped(&tame(text), width)));
        });
    }
    Ok(Exit::Ok)
}

fn branch(text: &str) -> Result<u32, CliError> {
    let digits = text.trim_start_matches(['R', 'r']).split('.').next().unwrap_or_default();
    digits.parse().map_err(|_| {
        CliError::usage(format!(
            "{} is no version of a driver",
            tame(&text.chars().take(40).collect::<String>())
        ))
        .with_hint("write its branch, as in --driver 570")
    })
}

/// Writes all XIDs, one after the other: number, class, what is done, meaning.
pub(crate) fn table(known: &Knowledge, line: &mut impl FnMut(&str, usize, &str)) {
    for x in known.xids.values() {
        let name = format!("{:>3} {:<11}", x.code, x.class.as_str());
        line(&name, 16, &format!("{}: {}", x.playbook, x.means));
    }
}

fn says(known: &Knowledge, answer: &XidAnswer<'_>) -> String {
    match (answer.verdict, answer.playbook) {
        (Verdict::Playbook, Some(id)) => {
            let summary = known.playbooks.get(id).map(|p| format!(": {}", p.summary)).unwrap_or_default();
            format!("playbook {id}{summary}")
        }
        (Verdict::Nothing, _) => "nothing is to be done; it is on record".to_owned(),
        _ => "a person decides".to_owned(),
    }
}

fn approvals(known: &Knowledge, playbook: Option<&str>) -> Vec<String> {
    let book = playbook.and_then(|p| known.playbooks.get(p));
    let rung = |r: &engine_core::knowledge::PlaybookRung| {
        format!("{} ({}): {}", r.id, r.approval.as_str(), r.actions.join(", "))
    };
    book.map(|b| b.rungs.iter().map(rung).collect()).unwrap_or_default()
}

fn show(known: &Knowledge, answer: &XidAnswer<'_>, model: bool, printer: &mut Printer) {
    let Some(x) = answer.xid else {
        printer.out(paint(Tone::Strong, format!("XID {}: not known", answer.code)));
        page::row(printer, "decision", "a person decides");
        page::rows(printer, "", &answer.why);
        page::rows(printer, "never", &answer.never);
        return;
    };
    printer.out(format!("{}  {}", paint(Tone::Strong, format!("XID {}", x.code)), tame(&x.name)));
    page::row(printer, "means", &x.means);
    page::row(printer, "class", &format!("{}, {}", x.class.as_str(), x.severity));
    page::row(printer, "GPUs", &gpus(x, answer, model));
    if let Some(g) = answer.generation.filter(|_| x.class == engine_core::knowledge::Class::Memory) {
        page::row(printer, "", &g.effect);
    }
    page::row(printer, "NVIDIA", &vendor(known, &x.vendor));
    page::row(printer, "", &format!("then {}", vendor(known, &x.vendor_then)));
    page::row(printer, "lost work", &x.job_loss.replace('_', " "));
    page::row(printer, "the node", &x.rest_of_node.replace('_', " "));
    if !x.legacy.is_empty() && (!model || answer.listed == Listed::Older) {
        let causes = x.legacy.join(", ").replace('_', " ");
        page::row(printer, "causes", &format!("on GPUs older than Ampere: {causes}"));
    }
    page::row(printer, "decision", &says(known, answer));
    page::rows(printer, "", &answer.why);
    page::rows(printer, "rungs", approvals(known, answer.playbook));
    page::rows(printer, "never", &answer.never);
    page::row(printer, "notes", x.notes.as_deref().unwrap_or_default());
    for d in &answer.disagreements {
        page::row(printer, "others", &d.says);
        page::row(printer, "", &format!("here: {}", d.ours));
    }
    page::rows(printer, "sources", answer.sources.iter().map(|s| knowledge::source_short(s)));
    knowledge::changes(answer.changes.iter().copied(), printer);
}

fn gpus(x: &Xid, answer: &XidAnswer<'_>, model: bool) -> String {
    let list = if x.gpus.is_empty() { "none listed".to_owned() } else { x.gpus.join(", ") };
    let this = match answer.listed {
        _ if !model => "",
        Listed::Yes => "; this one is among them",
        Listed::No => "; this one is not among them",
        Listed::Older => "; this one is older than the catalogue",
        Listed::Unknown => "; nothing is said about this one",
    };
    format!("{list}{this}")
}

fn vendor(known: &Knowledge, word: &str) -> String {
    known.vendor_actions.get(word).map_or_else(|| word.to_owned(), |v| format!("{word}: {}", v.means))
}

fn object(known: &Knowledge, a: &XidAnswer<'_>) -> Value {
    json!({
        "code": a.code,
        "known": a.xid,
        "counts_as": a.counts_as.map(|x| x.code),
        "decision": {
            "verdict": a.verdict,
            "playbook": a.playbook,
            "drains": a.drains,
            "why": a.why,
            "rungs": a.playbook.and_then(|p| known.playbooks.get(p)).map(|p| &p.rungs),
        },
        "listed": a.listed,
        "generation": a.generation,
        "never": a.never,
        "disagreements": a.disagreements,
        "sources": a.sources,
        "changes": a.changes,
    })
}
