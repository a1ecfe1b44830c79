//! Collecting what is wrong with one file, so that all of it is said at once.
//!
//! Knows neither YAML nor what the keys mean. Key paths are chained on the stack and only written out when
//! something is wrong, so that a file without mistakes pays nothing for them.

use std::fmt;
use std::sync::Arc;

use model::{Diagnostic, Diagnostics, Place, Severity};

/// Diagnostics kept of each severity; what is beyond is counted and said in one line. A file with one
/// mistake in each of a hundred thousand rules must not make a hundred megabytes of text.
const DIAGNOSTICS_KEPT_MAX: usize = 1_000;

/// The diagnostics of one source under way.
pub(crate) struct Report {
    source: Arc<str>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Report {
    /// Nothing wrong yet.
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.into(), kept: Vec::new(), errors: 0, warnings: 0 }
    }

    /// The place of a line and column (both from 1) in the source.
    pub(crate) fn place(&self, mark: Mark) -> Place {
        Place::at(self.source.clone(), mark.line as usize, mark.column as usize)
    }

    /// The source as a whole.
    pub(crate) fn whole(&self) -> Place {
        Place::whole(self.source.clone())
    }

    /// Errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether anything so far forbids serving the source.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Adds one, unless there are far too many of its kind already.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= DIAGNOSTICS_KEPT_MAX {
            self.kept.push(diagnostic);
        }
    }

    /// Whether another warning would still be kept: if not, its text need not be made.
    pub(crate) fn keeps_warnings(&self) -> bool {
        self.warnings < DIAGNOSTICS_KEPT_MAX
    }

    /// Counts a warning that would not be kept.
    pub(crate) fn skip_warning(&mut self) {
        self.warnings += 1;
    }

    /// All of it, in the order of the file.
    pub(crate) fn finish(self) -> Diagnostics {
        let (place, mut all) = (self.whole(), Diagnostics(self.kept));
        all.sort();
        if let Some(more) = self.errors.checked_sub(DIAGNOSTICS_KEPT_MAX).filter(|n| *n > 0) {
            all.push(Diagnostic::error(place.clone(), "", format!("{more} more errors not shown")));
        }
        if let Some(more) = self.warnings.checked_sub(DIAGNOSTICS_KEPT_MAX).filter(|n| *n > 0) {
            all.push(Diagnostic::warning(place, "", format!("{more} more warnings not shown")));
        }
        all
    }
}

/// A position in a text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// The path of a key, chained on the stack; its text is `rules[2].matchMode`.
#[derive(Clone, Copy)]
pub(crate) enum KeyPath<'p> {
    /// The file itself.
    Root,
    /// A key of a mapping.
    Key(&'p KeyPath<'p>, &'p str),
    /// An item of a list, from 0.
    Item(&'p KeyPath<'p>, usize),
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(KeyPath::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_a_person_writes_them() {
        let (root, list) = (KeyPath::Root, "rules");
        let rules = KeyPath::Key(&root, list);
        let rule = KeyPath::Item(&rules, 2);
        assert_eq!(KeyPath::Key(&rule, "path").to_string(), "rules[2].path");
        assert_eq!(root.to_string(), "");
    }

    #[test]
    fn what_is_too_much_is_counted_and_errors_stay_errors() {
        let mut report = Report::new("f");
        for line in 0..DIAGNOSTICS_KEPT_MAX + 5 {
            let place = Place::at("f".into(), line + 1, 1);
            report.push(Diagnostic::warning(place, "k", "odd"));
        }
        report.push(Diagnostic::error(Place::at("f".into(), 9_999, 1), "k", "wrong"));
        let all = report.finish();
        assert!(all.has_errors());
        assert_eq!(all.0.len(), DIAGNOSTICS_KEPT_MAX + 2);
        assert_eq!(all.0.last().unwrap().problem, "5 more warnings not shown");
    }
}
