//! The only writer to the terminal: data to stdout, talk to stderr.
//!
//! Colour never carries meaning alone; `NO_COLOR` and pipes are honoured by the stream itself.

use crate::exit::CliError;
use anstyle::{AnsiColor, Style};

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs; every document carries `"format": "slurmedic/<kind>/<version>"`.
    Json,
}

/// Meaning of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Went well.
    Good,
    /// Worth a look.
    Warn,
    /// Went wrong.
    Bad,
    /// Less important.
    Dim,
    /// Heading.
    Strong,
}

/// Writes to the terminal.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Form of the data.
    pub(crate) format: Format,
}

#[expect(clippy::unused_self, reason = "whoever writes must hold the printer")]
impl Printer {
    /// Builds the printer.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Writes a line of data.
    pub(crate) fn out(&mut self, line: impl AsRef<str>) {
        write_line(&mut anstream::stdout().lock(), line.as_ref());
    }

    /// Writes a document as JSON.
    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| CliError::caused("the answer could not be encoded", e))?;
        self.out(text);
        Ok(())
    }

    /// Writes a line of talk.
    pub(crate) fn say(&mut self, line: impl AsRef<str>) {
        write_line(&mut anstream::stderr().lock(), line.as_ref());
    }

    /// Writes an error and what to do next.
    pub(crate) fn error(&mut self, error: &CliError) {
        self.say(format!("{} {error}", paint(Tone::Bad, "error:")));
        if let Some(hint) = error.hint() {
            self.say(format!("{} {hint}", paint(Tone::Strong, "hint:")));
        }
    }
}

/// A reader that has gone away (`| head`) is no error of ours.
fn write_line(to: &mut impl std::io::Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

/// Colours a text.
pub(crate) fn paint(tone: Tone, text: impl AsRef<str>) -> String {
    let style = match tone {
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Tone::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Tone::Dim => Style::new().dimmed(),
        Tone::Strong => Style::new().bold(),
    };
    format!("{style}{}{style:#}", text.as_ref())
}

/// Makes text from outside safe for a terminal: control characters are shown, not obeyed, and it stays one line.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' '.to_string(),
            c if c.is_control() => format!("\\u{{{:x}}}", c as u32),
            c => c.to_string(),
        })
        .collect()
}

/// Wraps a text to 80 columns behind an indent.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let width = 80_usize.saturating_sub(indent).max(20);
    let pad = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join(&format!("\n{pad}"))
}
