//! Reads numbers and durations, and says what a text that is neither was meant to be.

use super::ast::Literal;
use super::sink::quoted;
use crate::value::parse_duration;

/// Reads a number or a duration; the error is a message and what to do.
pub(super) fn classify_number(text: &str) -> Result<Literal, (String, String)> {
    let shown = quoted(text);
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let digits_only = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (magnitude, None),
    };
    let parts: Vec<&str> = mantissa.split('.').collect();
    let numeric =
        parts.len() <= 2 && parts.iter().all(|p| digits_only(p)) && exponent.is_none_or(digits_only);
    if numeric {
        if parts[0].len() > 1 && parts[0].starts_with('0') {
            return Err((
                format!("`{shown}` starts with a zero"),
                "write the number without leading zeros, or in quotes if it is a text".to_owned(),
            ));
        }
        if parts.len() == 1 && exponent.is_none() {
            return text.parse().map(Literal::Int).map_err(|_| {
                (
                    format!("`{shown}` is too large"),
                    format!("whole numbers lie between {} and {}", i64::MIN, i64::MAX),
                )
            });
        }
        return match text.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Literal::Float(x)),
            _ => Err((
                format!("`{shown}` is too large"),
                format!("numbers lie between -{0:e} and {0:e}", f64::MAX),
            )),
        };
    }
    if parts.len() > 2 && parts.iter().all(|p| digits_only(p)) {
        return Err((format!("`{shown}` is a version"), format!("write a version in quotes: '{shown}'")));
    }
    if text.starts_with('-') {
        return Err((
            format!("`{shown}` is not a number"),
            "write numbers as 5, -5 or 0.5; a duration has no sign".to_owned(),
        ));
    }
    parse_duration(text).map(Literal::Duration).map_err(|_| {
        (
            format!("`{shown}` is neither a number nor a duration"),
            "write numbers as 5 or 0.5, durations as 90s, 5m, 1h30m or 2d".to_owned(),
        )
    })
}
