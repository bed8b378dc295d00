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
