//! What answers and ends: one file a command.

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod status;

use clap::CommandFactory;
use model::Diagnostics;
use serde_json::{Value, json};

/// Prints a shell's completions.
pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(
        shell,
        &mut crate::cli::Cli::command(),
        "cloverleaf",
        &mut std::io::stdout(),
    );
}

/// Diagnostics for a program.
pub(crate) fn diagnostics_json(found: &Diagnostics) -> Value {
    let one = |d: &model::Diagnostic| {
        json!({
            "severity": d.severity.as_str(), "file": &*d.place.source, "line": d.place.line,
            "column": d.place.column, "key": d.key, "problem": d.problem, "value": d.value,
            "expected": d.expected,
        })
    };
    Value::Array(found.0.iter().map(one).collect())
}

/// Prints to standard output; a reader that has gone away is nobody's error.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
