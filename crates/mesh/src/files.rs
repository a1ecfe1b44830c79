//! The three files of a host, as the Simplenetes tools write them: `proxy.conf` ([`settings`]), `hosts.conf`
//! ([`hosts`]) and `portmappings.conf` ([`mappings`]).
//!
//! What the original proxy took is taken here too; what it dropped without a word, or took for something else than was
//! meant, is said with its place. Sans-io: text in, values and diagnostics out.

pub mod hosts;
pub mod mappings;
pub mod security;
pub mod settings;

use std::sync::Arc;

use model::{Diagnostic, Place};

/// A line of a file, or a part of one.
#[derive(Debug, Clone, Copy)]
struct Part<'t> {
    text: &'t str,
    line: usize,
    /// In characters, from 1.
    column: usize,
}

impl<'t> Part<'t> {
    /// The lines of a text that hold anything but space and comments. A comment is a line that begins with `#`.
    fn lines(text: &'t str) -> impl Iterator<Item = Self> {
        let lines = text.lines().enumerate().map(|(i, text)| Part { text, line: i + 1, column: 1 });
        lines.map(Self::trimmed).filter(|part| !part.text.is_empty())
    }

    fn trimmed(self) -> Self {
        let text = self.text.trim_start();
        let before = &self.text[..self.text.len() - text.len()];
        Self { text: text.trim_end(), column: self.column + before.chars().count(), ..self }
    }

    fn is_comment(&self) -> bool {
        self.text.starts_with('#')
    }

    /// The parts between separators, which may be empty.
    fn split(self, separator: fn(char) -> bool) -> impl Iterator<Item = Self> {
        self.text.split(separator).map(move |text| {
            let at = text.as_ptr() as usize - self.text.as_ptr() as usize;
            let column = self.column + self.text[..at].chars().count();
            Part { text, column, ..self }
        })
    }

    fn warning(&self, file: &Arc<str>, problem: impl Into<String>) -> Diagnostic {
        let place = Place::at(file.clone(), self.line, self.column);
        Diagnostic::warning(place, "", problem).value(self.text)
    }

    fn error(&self, file: &Arc<str>, problem: impl Into<String>) -> Diagnostic {
        let place = Place::at(file.clone(), self.line, self.column);
        Diagnostic::error(place, "", problem).value(self.text)
    }
}

/// A number as the original reads it: the digits at the beginning. Whether anything follows them.
fn leading_number(text: &str) -> Option<(u64, bool)> {
    let text = text.trim();
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, end < text.len()))
}

/// A port in the same way; 0 is none.
fn leading_port(text: &str) -> Option<(u16, bool)> {
    let (number, more) = leading_number(text)?;
    Some((u16::try_from(number).ok().filter(|port| *port > 0)?, more))
}

/// Whether a file holds nothing: it was emptied, or is being written.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_their_places() {
        let text = "\n  # x\n é a:b \n";
        let lines: Vec<_> = Part::lines(text).map(|p| (p.text, p.line, p.column)).collect();
        assert_eq!(lines, [("# x", 2, 3), ("é a:b", 3, 2)]);
        let line = Part::lines(text).nth(1).unwrap();
        let parts: Vec<_> = line.split(|c| c == ' ').map(|p| (p.text, p.column)).collect();
        assert_eq!(parts, [("é", 2), ("a:b", 4)]);
    }

    #[test]
    fn numbers_end_where_their_digits_do() {
        for (text, expected) in [
            ("12", Some((12, false))),
            (" 12 ", Some((12, false))),
            ("12x", Some((12, true))),
            ("x12", None),
            ("", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(leading_number(text), expected, "{text}");
        }
        assert_eq!((leading_port("0"), leading_port("65536")), (None, None));
    }
}
