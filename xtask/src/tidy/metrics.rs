//! Metrics and their documentation are one list: every name in the code stands in docs/metrics.md, and the
//! other way round. Names are compared as a scrape shows them, so code writes them out whole.

use std::collections::BTreeMap;

use super::{File, Finding};

const PAGE: &str = "docs/metrics.md";
const PREFIX: &str = "cloverleaf_";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut in_code = BTreeMap::new();
    let mut in_docs = BTreeMap::new();
    for file in files {
        let Some(text) = &file.text else { continue };
        if file.path == PAGE {
            collect(&mut in_docs, &file.path, text, '`', is_end_in_docs);
        } else if file.path.ends_with(".rs")
            && file.path.contains("/src/")
            && file.path.starts_with("crates/")
        {
            // Tests may invent metrics; they close a file.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            collect(&mut in_code, &file.path, code, '"', |next| next == '"');
        }
    }
    let undocumented =
        in_code.iter().filter(|(name, _)| !in_docs.contains_key(*name)).map(|(name, place)| {
            Finding::new(
                &place.0,
                place.1,
                format!("metric `{name}` is not in {PAGE}: describe it there"),
            )
        });
    let unknown =
        in_docs.iter().filter(|(name, _)| !in_code.contains_key(*name)).map(|(name, place)| {
            Finding::new(
                &place.0,
                place.1,
                format!("no code has the metric `{name}`: remove it or correct the name"),
            )
        });
    undocumented.chain(unknown).collect()
}

/// In the page a name may be followed by its labels.
fn is_end_in_docs(next: char) -> bool {
    next == '`' || next == '{'
}

type Places = BTreeMap<String, (String, usize)>;

/// Names between `open` and what `is_end` takes, each with the first place where it stands.
fn collect(names: &mut Places, path: &str, text: &str, open: char, is_end: fn(char) -> bool) {
    let start = format!("{open}{PREFIX}");
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(&start) {
            let rest = &line[at + open.len_utf8()..];
            let length =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            if length > PREFIX.len() && rest[length..].starts_with(is_end) {
                names.entry(rest[..length].to_owned()).or_insert((path.to_owned(), index + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), size: 0, text: Some(text.to_owned()) }
    }

    #[test]
    fn code_and_page_are_compared_both_ways() {
        let code = "let a = \"cloverleaf_requests_total\";\nlet b = \"cloverleaf_only_code\";\n";
        let page = "| `cloverleaf_requests_total{listener,class}` | x |\n\n\
                    `cloverleaf_only_page` and `cloverleaf_`\n";
        let found = check(&[file("crates/admin/src/a.rs", code), file(PAGE, page)]);
        let places: Vec<_> = found.iter().map(|f| (f.file.as_str(), f.line)).collect();
        assert_eq!(places, [("crates/admin/src/a.rs", 2), (PAGE, 3)]);
    }

    #[test]
    fn metrics_of_tests_need_no_page() {
        let code = "#[cfg(test)]\nmod tests {\n    const A: &str = \"cloverleaf_x_total\";\n}\n";
        assert_eq!(check(&[file("crates/admin/src/a.rs", code)]), []);
    }

    #[test]
    fn a_string_that_only_begins_like_a_metric_is_not_one() {
        let code = "let a = \"cloverleaf_gateway.yaml\";\nlet b = \"cloverleaf_x=\";\n";
        assert_eq!(check(&[file("crates/admin/src/a.rs", code)]), []);
    }
}
