//! What is wrong with an input, said so that its author can mend it: the place, the value, what was expected.
//!
//! Every source reports through these, `check` prints them, `/state` shows them. Must not know any file format.

use std::fmt;
use std::sync::Arc;

/// Where in a source something stands: `file:line:column`, or an object's name with both numbers 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file's path as the user gave it, or `Kind namespace/name` of an object, or `flag --x`, `environment X`.
    pub source: Arc<str>,
    /// Line, from 1; 0 where the source has no lines.
    pub line: usize,
    /// Column in characters, from 1; 0 where the source has no lines.
    pub column: usize,
}

impl Place {
    /// A place in a text file.
    #[must_use]
    pub fn at(source: Arc<str>, line: usize, column: usize) -> Self {
        Self { source, line, column }
    }

    /// A source without lines: a flag, an environment variable, an object, a file as a whole.
    #[must_use]
    pub fn whole(source: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.source)
        } else {
            write!(f, "{}:{}:{}", self.source, self.line, self.column)
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Served all the same, but probably not what was meant.
    Warning,
    /// Not served: the last good state stays.
    Error,
}

impl Severity {
    /// `error` or `warning`, as printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is wrong: `place: severity: key: problem (found VALUE, expected EXPECTED)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// The path of the key, as `rules[2].matchMode`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, one sentence without a full stop.
    pub problem: String,
    /// The offending value as it stands in the input, shortened; never a secret. Empty where there is none.
    pub value: String,
    /// What was expected; empty where the problem says it.
    pub expected: String,
}

impl Diagnostic {
    /// An error without value and expectation; add them with [`Self::value`] and [`Self::expected`].
    #[must_use]
    pub fn error(place: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place,
            key: key.into(),
            problem: problem.into(),
            value: String::new(),
            expected: String::new(),
        }
    }

    /// A warning; see [`Self::error`].
    #[must_use]
    pub fn warning(place: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, key, problem) }
    }

    /// The offending value; cut at 80 characters.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        const SHOWN_CHARS_MAX: usize = 80;
        let value = value.into();
        self.value = match value.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((cut, _)) => format!("{}…", &value[..cut]),
            None => value,
        };
        self
    }

    /// What would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.severity.as_str())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match (self.value.is_empty(), self.expected.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => write!(f, " (found {:?})", self.value),
            (true, false) => write!(f, " (expected {})", self.expected),
            (false, false) => write!(f, " (found {:?}, expected {})", self.value, self.expected),
        }
    }
}

/// All that is wrong with one input, in the order of their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether any is an error: then nothing of the input may be applied.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// The errors alone.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|d| d.severity == Severity::Error)
    }

    /// The warnings alone.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|d| d.severity == Severity::Warning)
    }

    /// In the order of place, as a person mends a file.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| a.place.cmp(&b.place));
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_names_place_key_value_and_expectation() {
        let d = Diagnostic::error(Place::at("a.yaml".into(), 3, 7), "rules[0].port", "not a port")
            .value("70000")
            .expected("a number from 1 to 65535");
        assert_eq!(
            d.to_string(),
            "a.yaml:3:7: error: rules[0].port: not a port (found \"70000\", expected a number from 1 to 65535)"
        );
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let d = Diagnostic::error(Place::whole("x"), "k", "p").value("é".repeat(200));
        assert_eq!(d.value.chars().count(), 81);
    }
}
