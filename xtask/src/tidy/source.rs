//! Rules for one Rust file: a module comment first, short functions, short lines, no `unsafe` outside of
//! `net`. Lines are read as rustfmt leaves them; nothing is parsed.

use super::Finding;

/// A function that a reader can hold.
const FUNCTION_MAX_LINES: usize = 70;
const LINE_MAX_COLUMNS: usize = 120;
/// The only crate that may hold `unsafe`, each block with its reason.
const UNSAFE_HOME: &str = "crates/net/";

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        let advice =
            "open with a `//!` comment: what it does, what it must not know, where to start";
        findings.push(Finding::new(path, 1, advice));
    }
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_MAX_COLUMNS {
            let advice = format!("{columns} columns: break the line at {LINE_MAX_COLUMNS}");
            findings.push(Finding::new(path, index + 1, advice));
        }
        if !path.starts_with(UNSAFE_HOME) && is_unsafe(line) {
            let advice = "`unsafe` belongs into crates/net: put a safe function there and call it";
            findings.push(Finding::new(path, index + 1, advice));
        }
    }
    findings.extend(long_functions(path, &lines));
    findings
}

fn is_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    let word = concat!("un", "safe");
    !code.starts_with("//")
        && ["{", "fn ", "impl ", "extern ", "trait "]
            .iter()
            .any(|next| code.contains(&format!("{word} {next}")))
}

fn long_functions(path: &str, lines: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut start = 0;
    while start < lines.len() {
        if let Some(name) = function_name(lines[start])
            && let Some(length) = function_length(&lines[start..])
        {
            if length > FUNCTION_MAX_LINES {
                let advice = format!(
                    "`{name}` has {length} lines, at most {FUNCTION_MAX_LINES}: keep the decisions, \
                     move what is pure into functions of its own"
                );
                findings.push(Finding::new(path, start + 1, advice));
            }
            start += length;
        } else {
            start += 1;
        }
    }
    findings
}

/// The name, when a line begins a function.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if rest.starts_with("//") {
        return None;
    }
    if let Some(after) = rest.strip_prefix("pub(") {
        rest = after.split_once(") ")?.1;
    }
    for word in ["pub ", "default ", "const ", "async ", concat!("un", "safe "), "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&name[..end])
}

/// From the line with `fn` to the brace in its column; `None` for a declaration without a body.
fn function_length(lines: &[&str]) -> Option<usize> {
    let indent = &lines[0][..lines[0].len() - lines[0].trim_start().len()];
    let mut body = false;
    for (index, line) in lines.iter().enumerate() {
        let own = line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '));
        body |= line.trim_end().ends_with('{');
        if !body && (line.trim_end().ends_with(';') || line.trim_end().ends_with('}')) {
            return (line.trim_end().ends_with('}')).then_some(index + 1);
        }
        if index > 0 && own && line.trim_start().starts_with('}') {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!(
            "    pub(crate) async fn {name}() {{\n{}    }}\n",
            "        work();\n".repeat(lines - 2)
        )
    }

    #[test]
    fn a_module_comment_comes_first() {
        assert_eq!(check("a.rs", "//! Does.\n"), []);
        assert_eq!(check("a.rs", "use std::fmt;\n//! Late.\n")[0].line, 1);
        assert_eq!(check("a.rs", "")[0].line, 1);
    }

    #[test]
    fn functions_are_counted_from_the_first_line_to_the_brace() {
        let text = format!(
            "//! X.\n{}{}{}",
            function("fits", 70),
            function("long", 71),
            function("more", 80)
        );
        let found = check("a.rs", &text);
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [72, 143]);
        assert!(found[0].advice.starts_with("`long` has 71 lines, at most 70"), "{}", found[0]);
    }

    #[test]
    fn declarations_and_one_liners_are_not_taken_for_long_functions() {
        let text = "//! X.\ntrait T {\n    fn a(&self) -> u8;\n\
                    \x20   fn b(\n        &self,\n    ) -> u8;\n    fn c() {}\n}\n";
        let text = format!("{text}{}", "const A: u8 = 1;\n".repeat(100));
        assert_eq!(check("a.rs", &text), []);
    }

    #[test]
    fn lines_end_at_120_columns() {
        let text = format!("//! X.\n// {}\n// {}\n", "é".repeat(117), "é".repeat(118));
        let found = check("a.rs", &text);
        assert_eq!((found.len(), found[0].line), (1, 3));
    }

    #[test]
    fn unsafe_code_has_one_home() {
        let text = concat!("//! X.\n// un", "safe { in a comment }\nlet x = un", "safe { y() };\n");
        assert_eq!(check("crates/net/src/a.rs", text), []);
        assert_eq!(check("crates/http/src/a.rs", text)[0].line, 3);
    }
}
