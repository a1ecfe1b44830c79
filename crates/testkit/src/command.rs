//! The program as a command that answers and ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Capture;
use crate::wait::wait_until;

/// Every command is over long before.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs the program with these arguments in a folder, without an environment but `PATH` and what is given.
///
/// # Panics
/// If it cannot be started, or has not ended after 20 seconds.
#[must_use]
pub fn run(binary: &str, arguments: &[&str], folder: &Path, environment: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(binary)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
    let mut stdout = Capture::start(child.stdout.take().expect("a pipe"));
    let mut stderr = Capture::start(child.stderr.take().expect("a pipe"));
    let mut status = None;
    let ended = wait_until(ENDS_WITHIN, || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
    }
    stdout.finish();
    stderr.finish();
    let (stdout, stderr) = (stdout.text(), stderr.text());
    assert!(ended, "{arguments:?} has not ended after {ENDS_WITHIN:?}: {stdout}{stderr}");
    Ran { code: status.and_then(|status| status.code()), stdout, stderr }
}
