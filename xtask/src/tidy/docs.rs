//! Documents that point somewhere: relative links in Markdown lead to a file, and the README's commands
//! exist.

use std::collections::BTreeSet;

use clap::CommandFactory;

use super::{File, Finding};

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let known: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let Some(text) = &file.text else { continue };
        findings.extend(broken_links(&file.path, text, &known));
        if file.path == "README.md" {
            findings.extend(unknown_commands(&file.path, text, &known));
        }
    }
    findings
}

fn broken_links(path: &str, text: &str, known: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        for target in links(line).filter(|_| !fenced) {
            let file = target.split('#').next().unwrap_or_default();
            let outside =
                target.contains("://") || target.starts_with("mailto:") || file.is_empty();
            if !outside && !exists(&resolved(path, file), known) {
                let advice = format!("the link `{target}` leads to no file: correct it");
                findings.push(Finding::new(path, index + 1, advice));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` in a line, and of `src="target"` and `href="target"`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    [("](", ')'), ("src=\"", '"'), ("href=\"", '"')].into_iter().flat_map(move |(open, close)| {
        line.match_indices(open).filter_map(move |(at, _)| {
            let (target, _) = line[at + open.len()..].split_once(close)?;
            // A title may follow the target.
            target.split_whitespace().next()
        })
    })
}

/// `link` as seen from the folder of `path`, without `.` and `..`.
fn resolved(path: &str, link: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn exists(path: &str, known: &BTreeSet<&str>) -> bool {
    let folder = format!("{path}/");
    path.is_empty() || known.contains(path) || known.iter().any(|file| file.starts_with(&folder))
}

/// In the fenced blocks: tasks of `cargo xtask`, and files of this repository that a command names.
fn unknown_commands(path: &str, text: &str, known: &BTreeSet<&str>) -> Vec<Finding> {
    let tasks = crate::Cli::command();
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().filter(|_| fenced).collect();
        let mut found = |advice: String| findings.push(Finding::new(path, index + 1, advice));
        if let Some(task) = words.iter().skip_while(|word| **word != "xtask").nth(1)
            && tasks.find_subcommand(task).is_none()
        {
            found(format!("`cargo xtask {task}` does not exist"));
        }
        for word in
            words.iter().filter(|word| word.starts_with("examples/") || word.starts_with("deploy/"))
        {
            if !exists(word.trim_end_matches('/'), known) {
                found(format!("`{word}` is no file of this repository"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str, known: &[&str]) -> Vec<usize> {
        let mut files: Vec<File> = known
            .iter()
            .map(|path| File { path: (*path).to_owned(), size: 0, text: None })
            .collect();
        files.push(File { path: path.to_owned(), size: 0, text: Some(text.to_owned()) });
        check(&files).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn links_lead_to_files() {
        let text = "[a](../README.md) [b](b.md#part)\n[c](missing.md)\n![d](img/)\n\
                    [e](https://example.com) [f](#here)\n";
        assert_eq!(lines("docs/a.md", text, &["README.md", "docs/b.md", "docs/img/x.svg"]), [2]);
    }

    #[test]
    fn code_is_not_searched_for_links() {
        assert_eq!(lines("docs/a.md", "```\nx[0](y)\n```\n", &[]), [0usize; 0]);
    }

    #[test]
    fn commands_of_the_readme_exist() {
        let text = "```sh\ncargo xtask test\ncargo xtask tset\ncargo run -- gateway -c examples/a.yaml\n\
                    cargo run -- gateway -c examples/b.yaml\n```\ncargo xtask prose\n";
        assert_eq!(lines("README.md", text, &["examples/a.yaml"]), [3, 5]);
    }
}
