//! The committed documents are those that the tables generate, and the examples are right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cloverleaf_config::Overrides;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn assert_committed(file: &str, generated: &str) {
    let committed = fs::read_to_string(repository().join(file)).unwrap_or_default();
    if committed != generated {
        let copy =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(Path::new(file).file_name().unwrap());
        fs::write(&copy, generated).unwrap();
        panic!(
            "{file} is not what the tables say; run `cargo xtask generate` (it is in {})",
            copy.display()
        );
    }
}

#[test]
fn the_reference_is_up_to_date() {
    assert_committed("docs/configuration.md", &cloverleaf_config::reference_markdown());
}

#[test]
fn the_schema_is_up_to_date() {
    assert_committed("docs/gateway.schema.json", &cloverleaf_config::json_schema());
}

#[test]
fn every_reference_in_the_schema_leads_somewhere() {
    let schema: serde_json::Value =
        serde_json::from_str(&cloverleaf_config::json_schema()).unwrap();
    let text = schema.to_string();
    for reference in text.split("\"#/$defs/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
    }
}

#[test]
fn every_link_in_the_reference_leads_somewhere() {
    let page = cloverleaf_config::reference_markdown();
    let mut anchors = BTreeSet::new();
    for heading in page.lines().filter(|line| line.starts_with("##")) {
        let title = heading.trim_start_matches('#').trim();
        let kept = title.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ');
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        // Two headings with one anchor: a link would lead to the first. Only sections are linked.
        assert!(anchors.insert(anchor) || heading.starts_with("###"), "{heading}");
    }
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "{anchor} is not among {anchors:?}");
    }
}

/// Whether a file is for a cluster, or for a tunnel: those are tested by whom they are for.
fn is_for_others(path: &Path) -> bool {
    let theirs = ["apiVersion:", "tunnelServer:", "tunnelForward:"];
    let is_theirs = |line: &str| theirs.iter().any(|key| line.starts_with(key));
    fs::read_to_string(path).unwrap().lines().any(is_theirs)
}

#[test]
fn every_example_is_served_without_complaint() {
    let mut directories = vec![repository().join("examples")];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") && !is_for_others(&path) {
                let (config, diagnostics) = cloverleaf_config::load(&path, &Overrides::default());
                assert!(config.is_some() && diagnostics.0.is_empty(), "{diagnostics}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "only {seen} examples");
}
