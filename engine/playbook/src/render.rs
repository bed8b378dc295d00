//! Diagnostics for people, with the text they point into, and for programs.

use crate::source::{SourceText, is_forbidden};
use engine_core::diag::{Diagnostic, Severity, Span};
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteSpanContents, NarratableReportHandler,
    SourceCode, SourceSpan, SpanContents,
};
use std::fmt;

/// How diagnostics look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With colours and lines drawn.
    Colour,
    /// With lines drawn, without colours.
    Plain,
    /// In sentences, for screen readers and logs.
    Narrated,
}

/// Longest line that is shown, in bytes; the rest of it is cut.
const MAX_LINE: usize = 240;

/// Renders diagnostics one after the other; the result ends with a line break, or is empty.
pub fn render_diagnostics(diagnostics: &[Diagnostic], source: &SourceText, style: Style) -> String {
    let shown = Shown::new(source);
    let mut out = String::new();
    for d in diagnostics {
        let report = Report { diagnostic: d, shown: &shown };
        // Formatting into a string does not fail; a report that could not be drawn still has its sentence.
        if !out.is_empty() {
            out.push('\n');
        }
        let before = out.len();
        let drawn = match style {
            Style::Colour => graphical(GraphicalTheme::unicode()).render_report(&mut out, &report),
            Style::Plain => graphical(GraphicalTheme::unicode_nocolor()).render_report(&mut out, &report),
            Style::Narrated => {
                NarratableReportHandler::new().with_context_lines(1).render_report(&mut out, &report)
            }
        };
        if drawn.is_err() {
            out.truncate(before);
            out.push_str(&one_line(d, source));
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

fn graphical(theme: GraphicalTheme) -> GraphicalReportHandler {
    GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_context_lines(1)
        .with_links(false)
        .with_urls(false)
}

/// Renders a diagnostic as `file:line:column: severity[code]: message`.
pub fn one_line(d: &Diagnostic, source: &SourceText) -> String {
    let at = source.position(d.labels.first().map_or(0, |l| l.span.start));
    let severity = if d.severity == Severity::Error { "error" } else { "warning" };
    format!("{}:{}:{}: {severity}[{}]: {}", source.file, at.line, at.column, d.code, d.message)
}

/// Returns diagnostics for programs: code, severity, message, help, labels with bytes, line and column.
pub fn diagnostics_json(diagnostics: &[Diagnostic], source: &SourceText) -> serde_json::Value {
    let items: Vec<_> = diagnostics
        .iter()
        .map(|d| {
            let labels: Vec<_> = d
                .labels
                .iter()
                .map(|l| {
                    serde_json::json!({
                        "text": l.text,
                        "bytes": [l.span.start, l.span.end],
                        "start": source.position(l.span.start),
                        "end": source.position(l.span.end),
                    })
                })
                .collect();
            serde_json::json!({
                "file": source.file,
                "code": d.code,
                "severity": d.severity,
                "message": d.message,
                "help": d.help,
                "labels": labels,
            })
        })
        .collect();
    serde_json::Value::Array(items)
}

/// The source as it is shown: long lines cut, characters that do not print replaced, with the way to its places.
#[derive(Debug)]
struct Shown {
    name: String,
    text: String,
    /// For each line: start in the source, start in the shown text, shown bytes.
    lines: Vec<(usize, usize, usize)>,
}

impl Shown {
    fn new(source: &SourceText) -> Self {
        let mut text = String::new();
        let mut lines = Vec::new();
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            let body = line.strip_suffix('\n').unwrap_or(line);
            let body = body.strip_suffix('\r').unwrap_or(body);
            let mut cut = body.len().min(MAX_LINE);
            while !body.is_char_boundary(cut) {
                cut -= 1;
            }
            lines.push((at, text.len(), cut));
            for c in body[..cut].chars() {
                // As many bytes as before, so that places stay.
                if is_forbidden(c) || c == '\r' {
                    text.extend(std::iter::repeat_n('?', c.len_utf8()));
                } else {
                    text.push(c);
                }
            }
            if cut < body.len() {
                text.push_str(" …");
            }
            text.push('\n');
            at += line.len();
        }
        if lines.is_empty() || source.text.ends_with('\n') {
            lines.push((at, text.len(), 0));
        }
        let name = source.file.chars().map(|c| if is_forbidden(c) { '?' } else { c }).collect();
        Self { name, text, lines }
    }

    fn place(&self, at: usize) -> usize {
        let i = self.lines.partition_point(|(start, _, _)| *start <= at).saturating_sub(1);
        let Some((start, shown, len)) = self.lines.get(i) else { return 0 };
        shown + (at - start).min(*len)
    }

    fn span(&self, span: Span) -> SourceSpan {
        let start = self.place(span.start);
        // A label over several lines would draw the whole block: its first line says enough.
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        let end = self.place(span.end).clamp(start, line_end);
        (start, end - start).into()
    }
}

impl SourceCode for Shown {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, miette::MietteError> {
        let c = self.text.read_span(span, before, after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            c.data(),
            *c.span(),
            c.line(),
            c.column(),
            c.line_count(),
        )))
    }
}

struct Report<'a> {
    diagnostic: &'a Diagnostic,
    shown: &'a Shown,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Warning => miette::Severity::Warning,
            Severity::Error => miette::Severity::Error,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (!self.shown.text.is_empty()).then_some(self.shown)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.diagnostic.labels.iter().enumerate().map(|(i, l)| {
            let text = (!l.text.is_empty()).then(|| l.text.clone());
            if i == 0 {
                LabeledSpan::new_primary_with_span(text, self.shown.span(l.span))
            } else {
                LabeledSpan::new_with_span(text, self.shown.span(l.span))
            }
        });
        Some(Box::new(labels))
    }
}
