//! The documents say what is so: links resolve, verbs exist, tables agree with the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Lists the Markdown files below a directory.
fn pages(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, out);
        } else if path.extension().is_some_and(|e| e == "md") {
            out.push(path);
        }
    }
}

/// Returns the targets of `](target)` outside code blocks.
fn links(page: &str) -> Vec<String> {
    let mut in_code = false;
    let mut out = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            out.extend(targets.map(|(target, _)| target.to_owned()));
        }
    }
    out
}

#[test]
fn every_relative_link_resolves() {
    let mut all = vec![Path::new(ROOT).join("README.md"), Path::new(ROOT).join("ARCHITECTURE.md")];
    pages(&Path::new(ROOT).join("docs"), &mut all);
    let mut seen = 0;
    let mut broken = Vec::new();
    for page in all {
        for link in links(&std::fs::read_to_string(&page).unwrap()) {
            let file = link.split('#').next().unwrap();
            if link.contains("://") || link.starts_with("mailto:") || file.is_empty() {
                continue;
            }
            seen += 1;
            if !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(seen >= 5, "only {seen} links found: the search is broken");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_verb_of_the_readme_exists() {
    let out = Command::new(env!("CARGO_BIN_EXE_slurmedic")).arg("--help").output().unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs: BTreeSet<&str> = commands
        .lines()
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let is_verb = |w: &&str| w.starts_with(|c: char| c.is_ascii_lowercase());
    let readme = text("README.md");
    let named: BTreeSet<&str> = readme
        .split("slurmedic ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next())
        .filter(is_verb)
        .collect();
    assert!(named.len() >= 8, "only {named:?}: the search is broken");
    let absent: Vec<&&str> = named.difference(&verbs).collect();
    assert!(absent.is_empty(), "README.md names verbs that do not exist: {absent:?}");
}

/// Returns the keys of the commented configuration, `section.key`.
fn keys_of_the_file() -> BTreeSet<String> {
    let mut section = String::new();
    let mut out = BTreeSet::new();
    for line in text("engine/cli/slurmedic.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|l| l.split_once(" = "))
            && key.starts_with(|c: char| c.is_ascii_lowercase())
        {
            out.insert(format!("{section}{key}"));
        }
    }
    out
}

/// Returns the first cells of the table rows that begin with a code span.
fn first_cells(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once('`').map(|(cell, _)| cell.to_owned()))
        .collect()
}

#[test]
fn the_configuration_page_lists_every_key_and_no_other() {
    let (file, page) = (keys_of_the_file(), first_cells(&text("docs/guide/configuration.md")));
    assert!(file.len() >= 30, "only {file:?}: the search is broken");
    assert_eq!(page, file);
}

#[test]
fn the_exit_code_page_is_the_one_of_the_code() {
    let source = text("engine/cli/exit.rs");
    let body = source.split("enum Exit {").nth(1).unwrap().split("\n}").next().unwrap();
    let mut doc = "";
    let mut code = Vec::new();
    for line in body.lines().map(str::trim) {
        if let Some(d) = line.strip_prefix("/// ") {
            doc = d;
        } else if let Some((_, number)) = line.split_once(" = ") {
            code.push((number.trim_end_matches(',').to_owned(), doc.to_owned()));
        }
    }
    assert!(code.len() >= 10, "only {code:?}: the search is broken");
    let page: Vec<(String, String)> = text("docs/guide/exit-codes.md")
        .lines()
        .filter(|l| l.starts_with("| ") && l[2..].starts_with(|c: char| c.is_ascii_digit()))
        .map(|l| {
            let cells: Vec<&str> = l.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].to_owned(), cells[1].to_owned())
        })
        .collect();
    assert_eq!(page, code);
}
