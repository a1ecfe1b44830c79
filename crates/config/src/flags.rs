//! A file whose keys are the flags of a command: sections by name, each with plain values.
//!
//! Knows neither commands nor flags; whoever asks says which sections there may be. Start at [`load_flags`].

use std::path::Path;

use model::{Diagnostic, Diagnostics, Place};

use crate::report::{Mark, Report};
use crate::tree::{self, Data, Node};

/// A section of such a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagSection {
    /// Its name.
    pub name: String,
    /// In the order of the file.
    pub settings: Vec<Setting>,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As it stands there.
    pub key: String,
    /// As text; a list's items between commas.
    pub value: String,
    /// Where the key stands.
    pub place: Place,
}

/// Reads a file of sections. `None` where it has none of these names, and so is another kind of file, or cannot be
/// read: then nothing is said about it. Blocks on the file system.
///
/// # Errors
/// All that is wrong, each with its place.
#[must_use]
pub fn load_flags(path: &Path, names: &[&str]) -> Option<Result<Vec<FlagSection>, Diagnostics>> {
    let text = String::from_utf8(crate::read_bounded(path).ok()?).ok()?;
    parse_flags(&text, &path.display().to_string(), names)
}

/// As [`load_flags`], of a text; `source` is what diagnostics call it.
///
/// # Errors
/// As there.
#[must_use]
pub fn parse_flags(
    text: &str,
    source: &str,
    names: &[&str],
) -> Option<Result<Vec<FlagSection>, Diagnostics>> {
    let mut report = Report::new(source);
    let Some(root) = tree::read(text, &mut report) else {
        let found = report.finish();
        return found.has_errors().then_some(Err(found));
    };
    let Data::Map(entries) = &root.data else { return None };
    if !entries.iter().any(|entry| names.contains(&entry.key.as_ref())) {
        return None;
    }
    let mut sections = Vec::new();
    for entry in entries {
        let name = entry.key.as_ref();
        if !names.contains(&name) {
            let place = report.place(entry.mark);
            let expected = names.join(", ");
            let unknown = Diagnostic::error(place, name, "unknown key").expected(expected);
            report.push(unknown);
            continue;
        }
        let settings = settings(name, &entry.value, &mut report);
        sections.push(FlagSection { name: name.to_owned(), settings });
    }
    let found = report.finish();
    Some(if found.has_errors() { Err(found) } else { Ok(sections) })
}

fn settings(section: &str, value: &Node<'_>, report: &mut Report) -> Vec<Setting> {
    let Data::Map(entries) = &value.data else {
        if !value.is_null() {
            wrong(report, value.mark, section, "a mapping of keys");
        }
        return Vec::new();
    };
    let mut settings = Vec::new();
    for entry in entries {
        let key = entry.key.as_ref();
        match plain(&entry.value) {
            Some(value) => {
                let place = report.place(entry.mark);
                settings.push(Setting { key: key.to_owned(), value, place });
            }
            None => {
                let path = format!("{section}.{key}");
                wrong(report, entry.value.mark, &path, "a text, a number, or a list of such");
            }
        }
    }
    settings
}

/// A value as a flag has it.
fn plain(node: &Node<'_>) -> Option<String> {
    match &node.data {
        _ if node.is_null() => Some(String::new()),
        Data::Scalar { text, .. } => Some(text.to_string()),
        Data::List(items) => {
            let text = |item: &Node<'_>| match &item.data {
                Data::Scalar { text, .. } if !text.contains(',') => Some(text.to_string()),
                _ => None,
            };
            Some(items.iter().map(text).collect::<Option<Vec<_>>>()?.join(","))
        }
        Data::Map(_) => None,
    }
}

fn wrong(report: &mut Report, mark: Mark, key: &str, expected: &str) {
    let place = report.place(mark);
    report.push(Diagnostic::error(place, key, "not a plain value").expected(expected));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["server", "agent"];

    #[test]
    fn values_are_read_as_flags_have_them() {
        let text = "server:\n  a: 1\n  b: [x, y]\n  c: ''\n  d: true\n  e:\nagent:\n";
        let found = parse_flags(text, "f", &NAMES).unwrap().unwrap();
        let values: Vec<_> =
            found[0].settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        assert_eq!(values, [("a", "1"), ("b", "x,y"), ("c", ""), ("d", "true"), ("e", "")]);
        assert_eq!(found[0].settings[1].place, Place::at("f".into(), 3, 3));
        assert_eq!((found[1].name.as_str(), found[1].settings.len()), ("agent", 0));
    }

    #[test]
    fn other_files_are_none_and_mistakes_have_their_place() {
        for text in ["", "rules: []", "- server", "server"] {
            assert_eq!(parse_flags(text, "f", &NAMES), None, "{text}");
        }
        for (text, place, part) in [
            ("{", "f:", "not YAML"),
            ("server: 1", "f:1:9", "a mapping"),
            ("server: {a: {b: 1}}", "f:1:13", "server.a"),
            ("server: {a: [[1]]}", "f:1:13", "a list of such"),
            ("server: {a: 1, a: 2}", "f:1:16", "a"),
            ("server: {}\nservers: {}", "f:2:1", "unknown key"),
        ] {
            let found = parse_flags(text, "f", &NAMES).unwrap().unwrap_err().to_string();
            assert!(found.starts_with(place) && found.contains(part), "{text}: {found}");
        }
    }
}
