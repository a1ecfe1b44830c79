//! Running a program to its end within a bound. It must not know which programs there are.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Capture;
use crate::wait::wait_until;

use super::error::Error;

/// Of a program's complaint, what an error keeps.
const STDERR_BYTES_MAX: usize = 4096;

/// Runs it with this standard input; what it wrote to standard output. It is killed when the time is over.
pub(super) fn run(
    command: &mut Command,
    stdin: Option<&str>,
    within: Duration,
) -> Result<String, Error> {
    let shown = shown(command);
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("start `{shown}`")))?;
    let mut stdout = Capture::start(child.stdout.take().expect("a pipe"));
    let mut stderr = Capture::start(child.stderr.take().expect("a pipe"));
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), stdin) {
        let text = text.to_owned();
        // A program that does not read must not hold us; it ends or is killed, and the pipe breaks.
        std::thread::spawn(move || pipe.write_all(text.as_bytes()));
    }
    let mut status = None;
    let ended = wait_until(within, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::Late { what: format!("end of `{shown}`"), within, log: String::new() });
    }
    stdout.finish();
    stderr.finish();
    if status.is_some_and(|status| status.success()) {
        return Ok(stdout.text());
    }
    Err(Error::Failed { command: shown, stderr: end_of(stderr.text().trim(), STDERR_BYTES_MAX) })
}

/// A command as one would type it, without the folders of its programs.
fn shown(command: &Command) -> String {
    let base = |part: &std::ffi::OsStr| {
        Path::new(part).file_name().unwrap_or(part).to_string_lossy().into_owned()
    };
    let mut line = base(command.get_program());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// The end of a text, at most so many bytes, cut between characters.
pub(super) fn end_of(text: &str, bytes: usize) -> String {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn what_a_program_says_and_how_it_fails() {
        let cat = run(&mut Command::new("cat"), Some("text"), WITHIN).unwrap();
        assert_eq!(cat, "text");
        let failed = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), None, WITHIN);
        assert_eq!(failed.unwrap_err().to_string(), "`sh -c echo why >&2; exit 3` failed: why");
        let late = run(Command::new("sleep").arg("60"), None, Duration::from_millis(20));
        assert_eq!(late.unwrap_err().to_string(), "no end of `sleep 60` after 20ms");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(end_of("aéb", 2), "b");
        assert_eq!(end_of("aéb", 3), "éb");
        assert_eq!(end_of("ab", 9), "ab");
    }
}
