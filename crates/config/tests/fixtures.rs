//! Files in `tests/fixtures`, each with the diagnostics that it must give and, if it is valid, what it
//! becomes.
//!
//! `NAME.yaml` has beside it `NAME.txt` (the diagnostics, as printed) and, in `valid/`, `NAME.json` (the
//! snapshot). What was found instead is written to the build directory, so that an intended change can be
//! copied over.

use std::fs;
use std::path::{Path, PathBuf};

use cloverleaf_config::Overrides;

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {}", directory.display());
    files
}

/// Compares with the file beside the fixture. A difference is described line by line.
fn compare(fixture: &Path, extension: &str, found: &str) -> Result<(), String> {
    let expected_file = fixture.with_extension(extension);
    let expected = fs::read_to_string(&expected_file).unwrap_or_default();
    if expected == found {
        return Ok(());
    }
    let kind = fixture.parent().and_then(Path::file_name).unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures").join(kind);
    fs::create_dir_all(&directory).unwrap();
    let copy = directory.join(expected_file.file_name().unwrap());
    fs::write(&copy, found).unwrap();
    let mut report = format!("{} differs (found: {}):\n", expected_file.display(), copy.display());
    let (mut expected, mut found) = (expected.lines(), found.lines());
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return Err(report),
            (e, f) if e == f => {}
            (e, f) => {
                for (sign, line) in [("-", e), ("+", f)] {
                    report.extend(line.map(|line| format!("  {sign} {line}\n")));
                }
            }
        }
    }
}

fn check(kind: &str, valid: bool) {
    let mut wrong = Vec::new();
    for fixture in fixtures(kind) {
        let text = fs::read_to_string(&fixture).unwrap();
        let source = fixture.file_name().unwrap().to_string_lossy().into_owned();
        let (parsed, diagnostics) = cloverleaf_config::parse(
            &text,
            &source,
            Path::new("/etc/cloverleaf"),
            &Overrides::default(),
        );
        if parsed.is_some() != valid || diagnostics.has_errors() == valid {
            wrong.push(format!("{source}: valid is {}\n{diagnostics}", parsed.is_some()));
        }
        let mut printed = diagnostics.to_string();
        if !printed.is_empty() {
            printed.push('\n');
        }
        wrong.extend(compare(&fixture, "txt", &printed).err());
        if let Some(parsed) = parsed {
            let json = cloverleaf_config::snapshot_json(&parsed.snapshot);
            let json = format!("{}\n", serde_json::to_string_pretty(&json).unwrap());
            wrong.extend(compare(&fixture, "json", &json).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_files_become_what_stands_beside_them() {
    check("valid", true);
}

#[test]
fn invalid_files_give_all_their_errors_at_once() {
    check("invalid", false);
}
