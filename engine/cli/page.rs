//! Pages of labels and texts, at 80 columns.

use crate::printer::{Printer, Tone, paint, tame, wrapped};

/// Width of the labels, with the blank behind them.
const LABEL: usize = 13;

/// Writes a label with a text; a second text of one label comes with an empty one.
pub(crate) fn row(printer: &mut Printer, label: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    let pad = " ".repeat(LABEL.saturating_sub(label.chars().count()));
    let body = wrapped(&tame(text), LABEL);
    printer.out(format!("{}{pad}{body}", paint(Tone::Dim, label)));
}

/// Writes a label with several texts, each on its own lines.
pub(crate) fn rows<T: AsRef<str>>(printer: &mut Printer, label: &str, texts: impl IntoIterator<Item = T>) {
    for (i, text) in texts.into_iter().enumerate() {
        row(printer, if i == 0 { label } else { "" }, text.as_ref());
    }
}

/// Breaks addresses that are longer than a line at their slashes, for texts behind an indent.
pub(crate) fn folded(text: &str, indent: usize) -> String {
    let width = 80_usize.saturating_sub(indent).max(20);
    let mut out = Vec::new();
    for word in text.split(' ') {
        let mut rest = word;
        while rest.chars().count() > width {
            let most = rest.char_indices().nth(width).map_or(rest.len(), |(i, _)| i);
            let at = rest[..most].rfind('/').map_or(most, |i| i + 1);
            out.push(rest[..at].to_owned());
            rest = &rest[at..];
        }
        out.push(rest.to_owned());
    }
    out.join(" ")
}
