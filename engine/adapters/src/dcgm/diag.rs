//! `dcgmi diag -r N -j`: the 3.x and the 4.x shape, and the runs that did not happen.
//!
//! The exit code is non-zero on Fail, and the text agrees; both are looked at by the caller. The status of
//! one GPU is not exact attribution: a lost GPU fails its neighbours, 3.x names GPU 0 whichever it was.

use super::json::documents;
use super::text::{decode, missing, one_line, version};
use engine_core::model::gpu::{DiagReport, Health, HealthIncident};
use engine_core::{Cause, Known, Unknown};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a diagnostic printed. The level is not in it: the caller knows what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diag {
    /// Version that the output names.
    pub version: Known<String>,
    /// Driver version that the output names.
    pub driver_version: Known<String>,
    /// GPUs that the output gives results for; empty in 3.x, which does not say.
    pub gpus: BTreeSet<u32>,
    /// Whether every test that ran passed; at least one did.
    pub overall: Health,
    /// Number of results that were Pass.
    pub passed: u32,
    /// Number of results that were Skip.
    pub skipped: u32,
    /// Every result that was neither.
    pub incidents: Vec<HealthIncident>,
}

impl Diag {
    /// Adds the level that was asked for.
    pub fn report(self, level: u8) -> DiagReport {
        DiagReport { level, overall: self.overall, passed: self.passed, incidents: self.incidents }
    }
}

/// Root keys of the two shapes.
const ROOTS: [&str; 2] = ["DCGM Diagnostic", "DCGM GPU Diagnostic"];

/// Says whether the output is of a diagnostic.
pub fn is_diag(text: &str) -> bool {
    ROOTS.iter().any(|r| text.contains(&format!("\"{r}\"")))
}

/// Reads a diagnostic. A run that did not happen, and any status word not known here, is unknown.
pub fn parse(bytes: &[u8]) -> Known<Diag> {
    match read(&decode(bytes)) {
        Ok(d) => Known::Known(d),
        Err(u) => Known::Unknown(u),
    }
}

fn unparsable(what: &str) -> Unknown {
    Unknown::new(Cause::Unparsable, format!("diagnostic without {what}"))
}

fn read(text: &str) -> Result<Diag, Unknown> {
    let docs = documents(text)?;
    let mut roots = docs.iter().filter_map(|d| ROOTS.iter().find_map(|r| d.get(r)).map(|root| (d, root)));
    let (doc, root) = roots.next().ok_or_else(|| missing(text, "diagnostic"))?;
    if roots.next().is_some() {
        return Err(Unknown::new(Cause::Conflicting, "two diagnostics in one answer"));
    }
    for place in [root, doc] {
        if let Some(e) = place.get("runtime_error") {
            let words = e.as_str().map_or_else(|| e.to_string(), str::to_owned);
            return Err(Unknown::new(
                Cause::ReadFailed,
                format!("the diagnostic did not run: {}", one_line(&words)),
            ));
        }
    }
    let meta = doc.get("metadata").unwrap_or(doc);
    let text_of = |key: &str| match meta.get(key).and_then(Value::as_str) {
        Some(v) => version(v),
        None => Known::unknown(Cause::NotReported, format!("no {key:?} in the diagnostic")),
    };
    let mut out = Diag {
        version: text_of("version"),
        driver_version: text_of("Driver Version Detected"),
        gpus: BTreeSet::new(),
        overall: Health::Pass,
        passed: 0,
        skipped: 0,
        incidents: Vec::new(),
    };
    let categories =
        root.get("test_categories").and_then(Value::as_array).ok_or_else(|| unparsable("categories"))?;
    for category in categories {
        let tests = category.get("tests").and_then(Value::as_array).ok_or_else(|| unparsable("tests"))?;
        for test in tests {
            out.test(test)?;
        }
    }
    out.overall = out.incidents.iter().map(|i| i.health).max().unwrap_or(Health::Pass);
    if out.overall == Health::Pass && out.passed == 0 {
        return Err(Unknown::new(Cause::EmptyAnswer, "the diagnostic ran no test"));
    }
    Ok(out)
}

/// What a status word means: passed, skipped, or how bad.
enum Status {
    Passed,
    Skipped,
    Bad(Health),
}

fn status(node: &Value) -> Result<Status, Unknown> {
    let word = node.get("status").and_then(Value::as_str).ok_or_else(|| unparsable("status"))?;
    Ok(match word {
        "Pass" => Status::Passed,
        "Skip" => Status::Skipped,
        "Warn" | "Not Run" => Status::Bad(Health::Warn),
        "Fail" => Status::Bad(Health::Fail),
        other => {
            return Err(Unknown::new(
                Cause::UnrecognisedWord,
                format!("diagnostic status {:?}", one_line(other)),
            ));
        }
    })
}

impl Diag {
    fn test(&mut self, test: &Value) -> Result<(), Unknown> {
        let name =
            test.get("name").and_then(Value::as_str).map(one_line).ok_or_else(|| unparsable("test name"))?;
        let results = test.get("results").and_then(Value::as_array).ok_or_else(|| unparsable("results"))?;
        let from = self.incidents.len();
        for result in results {
            let gpu = gpu_of(result)?;
            // 4.x names an entity in each result; 3.x names "gpu_id" in some and it is not reliable.
            if result.get("entity_id").is_some() {
                self.gpus.extend(gpu);
            }
            match status(result)? {
                Status::Passed => self.passed += 1,
                Status::Skipped => self.skipped += 1,
                Status::Bad(health) => {
                    let texts = warnings(result);
                    if texts.is_empty() {
                        let text = "no reason is given for it alone".to_owned();
                        self.incidents.push(HealthIncident { gpu, system: name.clone(), health, text });
                    }
                    for text in texts {
                        let gpu = gpu.filter(|id| agrees(*id, &text));
                        self.incidents.push(HealthIncident { gpu, system: name.clone(), health, text });
                    }
                }
            }
        }
        if let Some(summary) = test.get("test_summary") {
            let Status::Bad(health) = status(summary)? else { return Ok(()) };
            let known: BTreeSet<String> = self.incidents[from..].iter().map(|i| i.text.clone()).collect();
            let texts: Vec<String> = warnings(summary).into_iter().filter(|t| !known.contains(t)).collect();
            for text in &texts {
                let (system, text) = (name.clone(), text.clone());
                self.incidents.push(HealthIncident { gpu: None, system, health, text });
            }
            if texts.is_empty() && self.incidents.len() == from {
                let text = "the summary says so and no result does".to_owned();
                self.incidents.push(HealthIncident { gpu: None, system: name, health, text });
            }
        }
        Ok(())
    }
}

/// Returns the GPU of a result; a result of a CPU or of the whole node has none.
fn gpu_of(result: &Value) -> Result<Option<u32>, Unknown> {
    let id = match (result.get("entity_id"), result.get("gpu_id")) {
        (Some(id), _) if result.get("entity_group").and_then(Value::as_str) == Some("GPU") => id,
        (Some(_), _) | (None, None) => return Ok(None),
        (None, Some(id)) => id,
    };
    let number = id.as_u64().or_else(|| id.as_str().and_then(|s| s.parse().ok()));
    number.and_then(|n| u32::try_from(n).ok()).map(Some).ok_or_else(|| unparsable("readable GPU id"))
}

/// Says whether a text that names a GPU names this one.
fn agrees(id: u32, text: &str) -> bool {
    let mut named = text.split("GPU ").skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    named.next().is_none_or(|n| n == id)
}

/// Collects the texts of warnings: a string, a list of strings, or of objects (4.x `warning`, 3.x `warnings`).
fn warnings(node: &Value) -> Vec<String> {
    let list = match node.get("warnings") {
        Some(Value::Array(list)) => list.clone(),
        Some(other) => vec![other.clone()],
        None => Vec::new(),
    };
    let text = |w: &Value| match w {
        Value::String(s) => s.clone(),
        Value::Object(o) => {
            let words = ["warning", "warnings"].iter().find_map(|k| o.get(*k)).and_then(Value::as_str);
            let id = o.get("error_id").and_then(Value::as_u64).map(|i| format!(" (error {i})"));
            format!("{}{}", words.unwrap_or("no text"), id.unwrap_or_default())
        }
        other => other.to_string(),
    };
    list.iter().map(|w| one_line(&text(w))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(status: &str, summary: &str) -> Vec<u8> {
        format!(
            "{{\"DCGM Diagnostic\":{{\"test_categories\":[{{\"category\":\"Deployment\",\"tests\":[{{\"name\":\"software\",\
             \"results\":[{{\"entity_group\":\"GPU\",\"entity_group_id\":1,\"entity_id\":2,\"status\":\"{status}\"}}],\
             \"test_summary\":{{\"status\":\"{summary}\"}}}}]}}]}},\"metadata\":{{\"version\":\"4.6.0\"}}}}"
        )
        .into_bytes()
    }

    fn cause(bytes: &[u8]) -> Cause {
        let Known::Unknown(u) = parse(bytes) else { panic!("known") };
        u.cause
    }

    #[test]
    fn only_pass_is_a_pass() {
        let d = parse(&four("Pass", "Pass")).into_known().unwrap();
        assert_eq!((d.overall, d.passed, d.gpus.len()), (Health::Pass, 1, 1));
        assert_eq!(parse(&four("Pass", "Fail")).into_known().unwrap().overall, Health::Fail);
        assert_eq!(parse(&four("Not Run", "Pass")).into_known().unwrap().overall, Health::Warn);
        assert_eq!(cause(&four("Passed", "Pass")), Cause::UnrecognisedWord);
        assert_eq!(cause(&four("Pass", "Great")), Cause::UnrecognisedWord);
        assert_eq!(cause(&four("Skip", "Skip")), Cause::EmptyAnswer);
        assert_eq!(cause(b"{\"DCGM Diagnostic\":{\"test_categories\":[]}}"), Cause::EmptyAnswer);
        assert_eq!(cause(b"{\"DCGM Diagnostic\":{\"runtime_error\":\"no\"}}"), Cause::ReadFailed);
        assert_eq!(cause(b"{\"New Diagnostic\":{}}"), Cause::Unparsable);
    }

    #[test]
    fn a_text_about_another_gpu_takes_the_attribution_away() {
        assert!(agrees(2, "GPU 2 had errors") && agrees(2, "no number"));
        assert!(!agrees(0, "GPU 2 had errors"));
    }
}
