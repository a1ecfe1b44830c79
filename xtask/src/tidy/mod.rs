//! `cargo xtask tidy`: the rules of STYLE.md that a machine can hold. Each finding names the place and what
//! to do.
//!
//! This file reads the repository and decides which rule looks at which file; the rules are pure functions
//! from text to findings, one file a subject: `source` (one Rust file), `text` (any file), `manifest` (the
//! direction of dependencies), `metrics` (code against docs/metrics.md), `docs` (links and the README's
//! commands).

mod docs;
mod manifest;
mod metrics;
mod source;
mod text;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::sh;

/// A broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the top of the repository.
    file: String,
    /// Counted from 1.
    line: usize,
    /// What is wrong and what to do.
    advice: String,
}

impl Finding {
    fn new(file: &str, line: usize, advice: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.advice)
    }
}

/// One file of the repository.
struct File {
    /// Relative to the top of the repository, with forward slashes.
    path: String,
    /// Size in bytes.
    size: u64,
    /// `None` for what is not UTF-8.
    text: Option<String>,
}

/// Print every finding; an error when there are any.
pub(crate) fn main() -> Result<()> {
    let files = repository()?;
    let findings = check(&files);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} rules broken", findings.len());
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(text::size(&file.path, file.size));
        let Some(text) = &file.text else { continue };
        findings.extend(text::check(&file.path, text));
        if file.path.ends_with(".rs") {
            findings.extend(source::check(&file.path, text));
        }
        if let Some(name) = manifest::crate_of(&file.path) {
            findings.extend(manifest::check(&file.path, name, text));
        }
    }
    findings.extend(metrics::check(files));
    findings.extend(docs::check(files));
    findings.sort();
    findings.dedup();
    findings
}

/// What git tracks or would track, or, outside of a clone, what lies in the folder.
fn repository() -> Result<Vec<File>> {
    let listed = sh::capture(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(sh::root()),
    );
    let paths = match listed {
        Ok(list) => list.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
        Err(_) => walked(sh::root(), Path::new(""))?,
    };
    // A file that git still tracks may have been deleted just now.
    paths.iter().filter(|path| sh::root().join(path).is_file()).map(|path| read(path)).collect()
}

fn walked(root: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in
        fs::read_dir(root.join(folder)).with_context(|| format!("list {}", folder.display()))?
    {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let ignored = [".git", "target", "out"].iter().any(|name| path.ends_with(name));
        match entry.file_type()? {
            kind if kind.is_dir() && !ignored => paths.extend(walked(root, &path)?),
            kind if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<File> {
    let bytes =
        fs::read(sh::root().join(path)).with_context(|| format!("read {}", path.display()))?;
    let size = bytes.len() as u64;
    Ok(File {
        path: path.to_string_lossy().into_owned(),
        size,
        text: String::from_utf8(bytes).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = check(&repository().expect("read the repository"));
        let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(list.is_empty(), "\n{}", list.join("\n"));
    }

    #[test]
    fn a_finding_reads_like_a_compiler_error() {
        assert_eq!(Finding::new("a/b.rs", 3, "do this").to_string(), "a/b.rs:3: do this");
    }
}
