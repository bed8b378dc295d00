//! The text of `/metrics`: OpenMetrics 1.0 where the reader asks for it, else the older text format of Prometheus.

use crate::metrics::{BUCKETS, Family, Histogram, Kind};
use std::fmt::Write as _;

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.
    Open,
    /// Prometheus 0.0.4.
    Plain,
}

impl Form {
    /// Chooses by the request's `Accept`.
    pub(crate) fn of(accept: Option<&str>) -> Self {
        if accept.is_some_and(|a| a.contains("application/openmetrics-text")) {
            Self::Open
        } else {
            Self::Plain
        }
    }

    /// Returns the content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Series of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// Counters and gauges.
    Numbers(Vec<(Vec<String>, f64)>),
    /// Histograms.
    Histograms(Vec<(Vec<String>, Histogram)>),
}

/// Writes all of it. A metric without series is left out.
pub(crate) fn write(all: &[(&Family, Values)], form: Form) -> String {
    let mut out = String::new();
    for (family, values) in all {
        let empty = match values {
            Values::Numbers(v) => v.is_empty(),
            Values::Histograms(v) => v.is_empty(),
        };
        if empty {
            continue;
        }
        head(&mut out, family, form);
        match values {
            Values::Numbers(series) => {
                let ending = if family.kind == Kind::Counter { "_total" } else { "" };
                for (labels, value) in series {
                    line(&mut out, family, ending, labels, None, *value);
                }
            }
            Values::Histograms(series) => {
                for (labels, h) in series {
                    histogram(&mut out, family, labels, h);
                }
            }
        }
    }
    if form == Form::Open {
        out.push_str("# EOF\n");
    }
    out
}

fn head(out: &mut String, family: &Family, form: Form) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // The older format names a counter with its ending.
    let name = match (form, family.kind) {
        (Form::Plain, Kind::Counter) => format!("{}_total", family.name),
        _ => family.name.to_owned(),
    };
    // Writing to a text cannot fail.
    let _ = writeln!(out, "# HELP {name} {}", family.help);
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if form == Form::Open && !family.unit.is_empty() {
        let _ = writeln!(out, "# UNIT {name} {}", family.unit);
    }
}

fn histogram(out: &mut String, family: &Family, labels: &[String], h: &Histogram) {
    let mut below = 0;
    for (i, n) in h.buckets.iter().enumerate() {
        below += n;
        let bound = BUCKETS.get(i).map_or_else(|| "+Inf".to_owned(), |b| number(*b));
        line(out, family, "_bucket", labels, Some(&bound), below as f64);
    }
    line(out, family, "_sum", labels, None, h.sum);
    line(out, family, "_count", labels, None, below as f64);
}

fn line(out: &mut String, family: &Family, ending: &str, labels: &[String], le: Option<&str>, value: f64) {
    out.push_str(family.name);
    out.push_str(ending);
    let names = family.labels.iter().copied().chain(le.map(|_| "le"));
    let values = labels.iter().map(String::as_str).chain(le);
    let pairs: Vec<String> = names.zip(values).map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
    if !pairs.is_empty() {
        let _ = write!(out, "{{{}}}", pairs.join(","));
    }
    let _ = writeln!(out, " {}", number(value));
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        // Whole numbers are written with a fraction in bucket bounds only where they have one.
        format!("{value}")
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    static C: Family =
        Family { name: "runs", kind: Kind::Counter, unit: "", help: "Runs.", labels: &["end"] };
    static H: Family =
        Family { name: "took_seconds", kind: Kind::Histogram, unit: "seconds", help: "Time.", labels: &[] };

    fn sample() -> Vec<(&'static Family, Values)> {
        let mut h = Histogram::default();
        h.buckets[1] = 2;
        h.buckets[BUCKETS.len()] = 1;
        h.sum = 1.5;
        vec![
            (&C, Values::Numbers(vec![(vec!["a\"b\\c\nd".to_owned()], 3.0)])),
            (&H, Values::Histograms(vec![(vec![], h)])),
        ]
    }

    #[test]
    fn both_texts_are_as_their_readers_want_them() {
        let open = write(&sample(), Form::Open);
        assert!(
            open.starts_with(
                "# HELP runs Runs.\n# TYPE runs counter\nruns_total{end=\"a\\\"b\\\\c\\nd\"} 3\n"
            )
        );
        assert!(open.contains("# UNIT took_seconds seconds\n") && open.ends_with("# EOF\n"));
        assert!(open.contains("took_seconds_bucket{le=\"0.025\"} 2\n"));
        assert!(
            open.contains("took_seconds_bucket{le=\"+Inf\"} 3\ntook_seconds_sum 1.5\ntook_seconds_count 3\n")
        );
        let plain = write(&sample(), Form::Plain);
        assert!(plain.starts_with("# HELP runs_total Runs.\n# TYPE runs_total counter\nruns_total{"));
        assert!(!plain.contains("EOF") && !plain.contains("UNIT"));
    }

    #[test]
    fn the_form_is_that_which_was_asked_for() {
        assert_eq!(Form::of(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")), Form::Open);
        assert_eq!(Form::of(Some("*/*")), Form::Plain);
        assert_eq!(Form::of(None), Form::Plain);
    }
}
