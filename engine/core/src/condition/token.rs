//! Splits a condition into tokens with spans; knows the habits of other languages and says what is written here.
//!
//! Recovers from everything: what cannot be read is reported once and becomes [`Tok::Junk`].

use super::ast::{CmpOp, Literal};
use super::codes;
use super::number::classify_number;
use super::sink::{Sink, quoted};
use crate::diag::Span;

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) tok: Tok,
    pub(super) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tok {
    /// A dotted name or a bare word; its text is the source under the span.
    Name,
    Literal(Literal),
    Op(CmpOp),
    And,
    Or,
    Not,
    In,
    Is,
    LParen,
    RParen,
    LBracket,
    RBracket,
    Comma,
    /// Something that was reported already.
    Junk,
    End,
}

/// Splits the source; the last token is always [`Tok::End`].
pub(super) fn tokenize(source: &str, sink: &mut Sink) -> Vec<Token> {
    let mut lexer =
        Lexer { source, at: 0, sink, tokens: Vec::with_capacity(source.len() / 3 + 2), braces: false };
    while lexer.at < source.len() {
        lexer.next();
    }
    lexer.tokens.push(Token { tok: Tok::End, span: Span::new(source.len(), source.len()) });
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    sink: &'a mut Sink,
    tokens: Vec<Token>,
    /// Braces were reported: those that close them are passed over.
    braces: bool,
}

/// Spellings of other languages: what was written, the token meant, what to write.
const FOREIGN: &[(&str, Tok, &str)] = &[
    ("&&", Tok::And, "and"),
    ("||", Tok::Or, "or"),
    ("!==", Tok::Op(CmpOp::Ne), "!="),
    ("===", Tok::Op(CmpOp::Eq), "=="),
    ("<>", Tok::Op(CmpOp::Ne), "!="),
    ("=<", Tok::Op(CmpOp::Le), "<="),
    ("=>", Tok::Op(CmpOp::Ge), ">="),
    ("\u{2264}", Tok::Op(CmpOp::Le), "<="),
    ("\u{2265}", Tok::Op(CmpOp::Ge), ">="),
    ("\u{2260}", Tok::Op(CmpOp::Ne), "!="),
    ("\u{ac}", Tok::Not, "not"),
];

/// Our own signs, longest first. `=` and `!` alone are foreign and come after these.
const SIGNS: &[(&str, Tok)] = &[
    ("==", Tok::Op(CmpOp::Eq)),
    ("!=", Tok::Op(CmpOp::Ne)),
    ("<=", Tok::Op(CmpOp::Le)),
    (">=", Tok::Op(CmpOp::Ge)),
    ("<", Tok::Op(CmpOp::Lt)),
    (">", Tok::Op(CmpOp::Gt)),
    ("(", Tok::LParen),
    (")", Tok::RParen),
    ("[", Tok::LBracket),
    ("]", Tok::RBracket),
    (",", Tok::Comma),
];

const FOREIGN_SHORT: &[(&str, Tok, &str)] = &[("=", Tok::Op(CmpOp::Eq), "=="), ("!", Tok::Not, "not")];

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn push(&mut self, tok: Tok, start: usize) {
        self.tokens.push(Token { tok, span: Span::new(start, self.at) });
    }

    /// Advances over the characters that satisfy the predicate.
    fn skip_while(&mut self, f: impl Fn(char) -> bool) {
        self.at += self.rest().find(|c| !f(c)).unwrap_or(self.rest().len());
    }

    fn next(&mut self) {
        let start = self.at;
        let mut chars = self.rest().chars();
        let (Some(first), second) = (chars.next(), chars.next()) else { return };
        match first {
            ' ' | '\t' | '\n' | '\r' => self.skip_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r')),
            '\'' | '"' => self.text(first),
            c if c.is_ascii_digit() => self.number(),
            '-' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            c if c.is_ascii_alphabetic() || c == '_' => self.name(),
            _ => self.sign(first, start),
        }
    }

    fn sign(&mut self, first: char, start: usize) {
        let foreign = |rest: &str, table: &'static [(&str, Tok, &str)]| {
            table.iter().find(|(written, ..)| rest.starts_with(written))
        };
        if let Some((written, tok, ours)) = foreign(self.rest(), FOREIGN) {
            return self.foreign(written, tok.clone(), ours);
        }
        if let Some((written, tok)) = SIGNS.iter().find(|(written, _)| self.rest().starts_with(written)) {
            self.at += written.len();
            return self.push(tok.clone(), start);
        }
        if let Some((written, tok, ours)) = foreign(self.rest(), FOREIGN_SHORT) {
            return self.foreign(written, tok.clone(), ours);
        }
        self.at += first.len_utf8();
        let not_here = |what: &str, help: &str| (codes::NOT_IN_LANGUAGE, what.to_owned(), help.to_owned());
        let (code, message, help) = match first {
            '{' | '}' => {
                // Recovered as if the braces were not there; one report for each pair.
                self.skip_while(|c| c == first);
                if first == '}' && self.braces {
                    return;
                }
                self.braces = true;
                let span = Span::new(start, self.at);
                self.sink.error(
                    codes::NOT_IN_LANGUAGE,
                    "a condition is not a template",
                    span,
                    "no braces here",
                    "write the name alone, such as `params.idle_wait`",
                );
                return;
            }
            '|' => not_here(
                "filters are not part of conditions",
                "compare the fact itself, its type is known; for alternatives write `or`",
            ),
            '+' | '-' | '*' | '/' | '%' => not_here(
                "arithmetic is not part of conditions",
                "compare the fact with a finished value; names are written with `.` and `_`",
            ),
            '&' => not_here("`&` is not an operator here", "write `and`"),
            '?' | ':' => not_here("`a ? b : c` is not part of conditions", "write `a and b or not a and c`"),
            '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => (
                codes::BAD_CHARACTER,
                "typographic quotes do not quote".to_owned(),
                "write 'text' or \"text\" with straight quotes".to_owned(),
            ),
            '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{feff}' | '\u{3000}' => {
                let span = Span::new(start, self.at);
                self.sink.error(
                    codes::BAD_CHARACTER,
                    format!("invisible character U+{:04X}", u32::from(first)),
                    span,
                    "looks like a space, is none",
                    "type a plain space",
                );
                return;
            }
            '.' => (
                codes::BAD_CHARACTER,
                "a `.` without a name before it".to_owned(),
                "write the full name, such as `node.state`, and numbers as `0.5`".to_owned(),
            ),
            c => (
                codes::BAD_CHARACTER,
                format!("`{}` means nothing here", quoted(c.encode_utf8(&mut [0; 4]))),
                "conditions use names, 'texts', numbers, durations, ( ) [ ] , and == != < <= > >=".to_owned(),
            ),
        };
        if code == codes::BAD_CHARACTER {
            // What hangs on it would only be reported a second time.
            self.skip_while(|c| {
                c.is_alphanumeric() || matches!(c, '_' | '.' | '\u{2018}'..='\u{201d}') || c == first
            });
        }
        let span = Span::new(start, self.at);
        self.sink.error(code, message, span, "not understood", help);
        self.push(Tok::Junk, start);
    }

    fn foreign(&mut self, written: &str, tok: Tok, ours: &str) {
        let start = self.at;
        self.at += written.len();
        let span = Span::new(start, self.at);
        let help = format!("write `{ours}`");
        self.sink.error(
            codes::FOREIGN_OPERATOR,
            format!("`{written}` is not an operator here"),
            span,
            help.clone(),
            help,
        );
        self.push(tok, start);
    }

    fn name(&mut self) {
        let start = self.at;
        self.skip_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let text = &self.source[start..self.at];
        let tok = match text {
            "and" => Tok::And,
            "or" => Tok::Or,
            "not" => Tok::Not,
            "in" => Tok::In,
            "is" => Tok::Is,
            "true" => Tok::Literal(Literal::Bool(true)),
            "false" => Tok::Literal(Literal::Bool(false)),
            "AND" | "And" => return self.wrong_case(start, Tok::And, "and"),
            "OR" | "Or" => return self.wrong_case(start, Tok::Or, "or"),
            "NOT" | "Not" => return self.wrong_case(start, Tok::Not, "not"),
            "IN" | "In" => return self.wrong_case(start, Tok::In, "in"),
            "IS" | "Is" => return self.wrong_case(start, Tok::Is, "is"),
            "True" | "TRUE" => return self.wrong_case(start, Tok::Literal(Literal::Bool(true)), "true"),
            "False" | "FALSE" => return self.wrong_case(start, Tok::Literal(Literal::Bool(false)), "false"),
            _ if text.split('.').any(|part| part.is_empty() || part.as_bytes()[0].is_ascii_digit()) => {
                self.sink.error(
                    codes::BAD_CHARACTER,
                    format!("`{}` is not a name", quoted(text)),
                    Span::new(start, self.at),
                    "each part between the dots is a word",
                    "write names as `node.state`",
                );
                Tok::Junk
            }
            _ => Tok::Name,
        };
        self.push(tok, start);
    }

    fn wrong_case(&mut self, start: usize, tok: Tok, ours: &str) {
        let span = Span::new(start, self.at);
        let help = format!("write `{ours}`");
        self.sink.error(
            codes::FOREIGN_OPERATOR,
            format!("`{}` is written in small letters", &self.source[start..self.at]),
            span,
            help.clone(),
            help,
        );
        self.push(tok, start);
    }

    fn number(&mut self) {
        let start = self.at;
        if self.rest().starts_with('-') {
            self.at += 1;
        }
        loop {
            self.skip_while(|c| c.is_alphanumeric() || c == '_' || c == '.');
            // The sign of an exponent: `1e-7`, but not `5m-3`.
            let word = &self.source[start..self.at];
            let exponent =
                word.strip_suffix(['e', 'E']).is_some_and(|w| w.ends_with(|c: char| c.is_ascii_digit()));
            let signed = self.rest().strip_prefix(['+', '-']);
            if exponent && signed.is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) {
                self.at += 1;
            } else {
                break;
            }
        }
        let text = &self.source[start..self.at];
        let tok = match classify_number(text) {
            Ok(literal) => Tok::Literal(literal),
            Err((message, help)) => {
                let span = Span::new(start, self.at);
                self.sink.error(codes::BAD_NUMBER, message, span, "not a number or duration", help);
                Tok::Junk
            }
        };
        self.push(tok, start);
    }

    fn text(&mut self, quote: char) {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        let mut closed = false;
        while let Some(c) = self.rest().chars().next() {
            let here = self.at;
            if c == '\n' || c == '\r' {
                break;
            }
            self.at += c.len_utf8();
            if c == quote {
                closed = true;
                break;
            }
            if c == '\\' {
                match self.escape() {
                    Some(c) => out.push(c),
                    None => self.sink.error(
                        codes::BAD_ESCAPE,
                        "this escape is not known",
                        Span::new(here, self.at),
                        "not an escape",
                        r#"write one of \' \" \\ \n \r \t \u0041, and `\\` for a backslash"#,
                    ),
                }
            } else if c.is_control() && c != '\t' {
                self.sink.error(
                    codes::BAD_CHARACTER,
                    format!("control character U+{:04X} in a text", u32::from(c)),
                    Span::new(here, self.at),
                    "not allowed as it stands",
                    format!("write it as an escape: `\\u{:04x}`", u32::from(c)),
                );
            } else {
                out.push(c);
            }
        }
        if !closed {
            self.sink.error(
                codes::UNTERMINATED_TEXT,
                "this text does not end",
                Span::new(start, self.at),
                format!("no closing {quote} on this line"),
                format!("close it with {quote}; a line break in a text is written \\n"),
            );
        }
        self.push(Tok::Literal(Literal::Text(out)), start);
    }

    /// Reads what follows a backslash and returns the character it stands for.
    fn escape(&mut self) -> Option<char> {
        let c = self.rest().chars().next().filter(|c| *c != '\n' && *c != '\r')?;
        self.at += c.len_utf8();
        match c {
            '\'' | '"' | '\\' => Some(c),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => {
                let high = self.hex4()?;
                if !(0xd800..0xe000).contains(&high) {
                    return char::from_u32(high);
                }
                self.at += self.rest().starts_with("\\u").then_some(2)?;
                let low = self.hex4()?;
                let pair = [u16::try_from(high).ok()?, u16::try_from(low).ok()?];
                let mut decoded = char::decode_utf16(pair);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => Some(c),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let value = u32::from_str_radix(digits, 16).ok()?;
        self.at += 4;
        Some(value)
    }
}
