//! `read`: captured outputs in, typed facts out.

use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use engine_adapters::{dcgm, slurm};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What is to be read.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// Files with output of scontrol, squeue, sinfo, slurmrestd, dcgmi, dcgm-exporter or nvidia-smi; `-` for stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Runs `read`. Always prints JSON: the facts are typed, and `unknown` carries its cause.
pub(crate) fn run(args: &ReadArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut all_known = true;
    let mut out = Vec::new();
    for file in &args.files {
        let bytes = slurp(file)?;
        let name = file.display().to_string();
        out.push(match recognise(&bytes)? {
            Some(value) => serde_json::json!({ "file": name, "recognised": value }),
            None => {
                all_known = false;
                serde_json::json!({
                    "file": name,
                    "unknown": { "cause": "unrecognised_word", "detail": "no output of a known tool has this form" }
                })
            }
        });
    }
    printer.json(&serde_json::json!({ "format": "slurmedic/read/1", "files": out }))?;
    Ok(if all_known { Exit::Ok } else { Exit::Findings })
}

fn recognise(bytes: &[u8]) -> Result<Option<serde_json::Value>, CliError> {
    let encode = |e| CliError::caused("the facts could not be encoded", e);
    // The GPU tools first: their outputs have the narrower forms.
    if let Some(found) = dcgm::recognise::recognise(bytes) {
        return serde_json::to_value(found).map(Some).map_err(encode);
    }
    let context = slurm::text::TextContext::utc();
    match slurm::recognise::recognise(bytes, &context) {
        Some(found) => serde_json::to_value(found).map(Some).map_err(encode),
        None => Ok(None),
    }
}

fn slurp(file: &Path) -> Result<Vec<u8>, CliError> {
    let fail =
        |e| CliError::caused(format!("{} could not be read", file.display()), e).with_exit(Exit::Usage);
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        std::fs::File::open(file).map_err(fail)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(CliError::usage(format!("{} is longer than 256 MiB", file.display())));
    }
    Ok(bytes)
}
