//! The document (`docs/dispatcher.md`) names what the code has.

use std::path::Path;

use crate::translate::POD_VARIABLES;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dispatcher.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_variable_is_documented() {
    let document = document();
    for variable in POD_VARIABLES {
        assert!(document.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn every_reason_is_documented() {
    let document = document();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/translate/pods");
    let mut reasons = 0;
    let inside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for file in inside.chain([folder.with_extension("rs")]).filter(|file| file.is_file()) {
        let source = std::fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for literal in code.split('"').skip(1).step_by(2).filter(|literal| is_reason(literal)) {
            reasons += 1;
            assert!(document.contains(&format!("`{literal}`")), "{literal} of {}", file.display());
        }
    }
    assert!(reasons > 20, "{reasons}");
}

/// `UpperCamelCase` of two words or more.
fn is_reason(literal: &str) -> bool {
    literal.starts_with(|c: char| c.is_ascii_uppercase())
        && literal.chars().all(|c| c.is_ascii_alphabetic())
        && literal.chars().any(|c| c.is_ascii_lowercase())
        && literal.chars().filter(char::is_ascii_uppercase).count() >= 2
}
