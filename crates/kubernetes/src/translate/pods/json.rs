//! Annotations that are JSON: read whole, looked into by name, and named in messages.
//!
//! Pure. Must not know what the annotations mean.

use std::fmt;

use serde_json::{Map, Value};

/// The longest annotation that is read: all annotations of an object together have at most so many bytes.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
/// Characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 80;

/// What is wrong with an annotation, or with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// As [`crate::translate::Problem::reason`].
    pub(super) reason: &'static str,
    /// As [`crate::translate::Problem::message`].
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The annotation's value; an error is one sentence.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.len() > ANNOTATION_BYTES_MAX {
        return Err(format!("longer than {ANNOTATION_BYTES_MAX} bytes"));
    }
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// The member of that name; without regard to case where there is none of exactly that name, as Go reads
/// JSON. One that is null is none.
pub(super) fn member<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let folded = || object.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
    object.get(name).or_else(folded).filter(|value| !value.is_null())
}

/// Members that nobody reads: probably misspelt ones.
pub(super) fn unknown<'v>(object: &'v Map<String, Value>, known: &[&str]) -> Vec<&'v str> {
    let is_known = |name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name));
    object.keys().map(String::as_str).filter(|name| !is_known(name)).collect()
}

/// A value as a message names it: its type, and what it is where that is short.
pub(super) struct Named<'v>(pub(super) &'v Value);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "the number {value}"),
            Value::String(value) => write!(f, "the text {}", Shown(value)),
            Value::Array(_) => f.write_str("an array"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

/// A text in quotes, shortened, control characters escaped.
pub(super) struct Shown<'t>(pub(super) &'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((cut, _)) => write!(f, "{:?}…", &self.0[..cut]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_as_go_finds_them() {
        let Value::Object(object) = serde_json::json!({"A": 1, "a": 2, "B": 3, "c": null}) else {
            unreachable!()
        };
        assert_eq!(member(&object, "a"), Some(&Value::from(2)));
        assert_eq!(member(&object, "b"), Some(&Value::from(3)));
        assert_eq!(member(&object, "c"), None);
        assert_eq!(unknown(&object, &["a", "c"]), ["B"]);
    }

    #[test]
    fn enormous_annotations_are_not_read() {
        assert!(parse(&format!("[{}]", " ".repeat(ANNOTATION_BYTES_MAX))).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse("\u{201c}a\u{201d}").unwrap_err().starts_with("not JSON"));
    }

    #[test]
    fn long_values_are_cut_and_control_characters_escaped() {
        assert_eq!(Shown("a\n\u{1b}").to_string(), r#""a\n\u{1b}""#);
        assert_eq!(Shown(&"é".repeat(200)).to_string().chars().count(), 83);
    }
}
