//! Reads literals and words as values of the type of the fact they are compared with.

use super::{Checker, Side};
use crate::condition::ast::Literal;
use crate::condition::codes;
use crate::condition::eval::UNKNOWN_WORD;
use crate::condition::scope::{Ty, Words};
use crate::condition::sink::quoted;
use crate::condition::version;
use crate::diag::{Span, did_you_mean};
use crate::value::{Value, format_duration};

impl Checker<'_, '_> {
    /// Reads a literal or a word as a value of the type of the fact it is compared with.
    pub(super) fn value(&mut self, fact: &str, ty: &Ty, side: &Side<'_>, span: Span) -> Option<Value> {
        match (side, ty) {
            (Side::Word(word), Ty::Word(set)) => self.word(fact, set, word, span),
            (Side::Word(word), _) => {
                self.misplaced_word(fact, ty, word, span);
                None
            }
            (Side::Literal(literal), _) => self.literal(fact, ty, literal, span),
            (Side::Fact(_) | Side::Bad, _) => None,
        }
    }

    fn word(&mut self, fact: &str, set: &Words, word: &str, span: Span) -> Option<Value> {
        if !set.contains(word) {
            if is_no_value(word) {
                self.no_value(word, span);
                return None;
            }
            let words = || set.words.iter().map(AsRef::as_ref);
            let help = match did_you_mean(word, words()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the words are {}", words().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("`{}` is not a word of {}", quoted(word), set.set);
            self.sink.error(codes::UNKNOWN_WORD, message, span, "no such word", help);
            return None;
        }
        if word == UNKNOWN_WORD {
            self.sink.error(
                codes::WORD_UNKNOWN,
                format!("{UNKNOWN_WORD} is not a value, and nothing equals it"),
                span,
                "never holds",
                format!("write `{fact} is unknown` or `{fact} is known`"),
            );
            return None;
        }
        Some(Value::Word(word.to_owned()))
    }

    fn misplaced_word(&mut self, fact: &str, ty: &Ty, word: &str, span: Span) {
        if is_no_value(word) {
            return self.no_value(word, span);
        }
        let shown = quoted(word);
        let help = match ty {
            Ty::Text | Ty::Version => match did_you_mean(word, self.scope.names()) {
                Some(near) => {
                    format!("write a text in quotes: '{shown}'; or did you mean the fact `{near}`?")
                }
                None => format!("write a text in quotes: '{shown}'"),
            },
            Ty::Bool => "write true or false".to_owned(),
            Ty::TextList | Ty::WordList(_) => format!("ask for an item: `... in {fact}`"),
            _ => match did_you_mean(word, self.scope.names()) {
                Some(near) => format!("did you mean the fact `{near}`?"),
                None => format!("compare `{fact}` with {}", ty.describe()),
            },
        };
        let message = format!("`{fact}` is {}, and `{shown}` is a bare word", ty.describe());
        self.sink.error(codes::BARE_WORD, message, span, "a word has no meaning here", help);
    }

    fn literal(&mut self, fact: &str, ty: &Ty, literal: &Literal, span: Span) -> Option<Value> {
        let written = &self.source[span.start..span.end];
        let help = match (ty, literal) {
            (Ty::Bool, Literal::Bool(b)) => return Some(Value::Bool(*b)),
            (Ty::Int | Ty::Float, Literal::Int(i)) => return Some(Value::Int(*i)),
            (Ty::Float, Literal::Float(x)) => return Some(Value::Float(*x)),
            (Ty::Text, Literal::Text(t)) => return Some(Value::Text(t.clone())),
            (Ty::Duration, Literal::Duration(d)) => return Some(Value::Duration(*d)),
            (Ty::Version, Literal::Text(t)) if version::is_version(t) => {
                return Some(Value::Version(t.clone()));
            }
            (Ty::Version, Literal::Text(_)) => {
                self.sink.error(
                    codes::BAD_VERSION,
                    format!("{} is not a version", quoted(written)),
                    span,
                    "not a version",
                    "write numbers between dots, such as '23.02' or '550.54.15'",
                );
                return None;
            }
            (Ty::Version, Literal::Int(_) | Literal::Float(_)) => {
                format!("write the version in quotes: '{}'", quoted(written))
            }
            (Ty::Int, Literal::Float(_)) => "an int is compared with a whole number".to_owned(),
            (Ty::Int | Ty::Float | Ty::Duration | Ty::Bool, Literal::Text(t)) => {
                format!("write it without quotes: {}", quoted(t))
            }
            (Ty::Int | Ty::Float, Literal::Bool(_)) => format!("compare `{fact}` with a number"),
            (Ty::Int | Ty::Float, Literal::Duration(d)) => {
                format!("`{fact}` is a number without a unit of time: {} is none", format_duration(*d))
            }
            (Ty::Duration, Literal::Int(i)) => format!("give the unit: `{i}s`, `{i}m`, `{i}h`"),
            (Ty::Bool, Literal::Int(0 | 1)) => "write true or false".to_owned(),
            (Ty::Word(set), Literal::Text(t)) if set.contains(t) => {
                format!("write the word without quotes: {t}")
            }
            (Ty::Word(set), Literal::Text(t)) => match did_you_mean(t, set.words.iter().map(AsRef::as_ref)) {
                Some(near) => format!("did you mean the word {near}, without quotes?"),
                None => format!("write a word of {} without quotes", set.set),
            },
            (Ty::Text, _) => format!("write a text in quotes: '{}'", quoted(written)),
            (Ty::TextList | Ty::WordList(_), _) => format!("ask for an item: `... in {fact}`"),
            _ => format!("compare `{fact}` with {}", ty.describe()),
        };
        let message = format!("`{fact}` is {}, compared with {}", ty.describe(), literal.type_name());
        self.mismatch(message, span, format!("this is {}", literal.type_name()), help);
        None
    }

    pub(super) fn no_value(&mut self, word: &str, span: Span) {
        self.sink.error(
            codes::NO_VALUE,
            format!("`{word}` is not a value"),
            span,
            "nothing equals it",
            "use `is known` or `is unknown` behind the fact",
        );
    }
}

/// Says whether the word is how another language writes the absence of a value.
pub(super) fn is_no_value(word: &str) -> bool {
    matches!(word, "none" | "None" | "null" | "Null" | "NULL" | "nil" | "undefined" | "unknown" | "known")
}
