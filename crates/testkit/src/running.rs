//! The program as a process whose log is a file: for roles that a test starts by a command of its own, in a network
//! namespace or with flags. Must not know any role; a gateway with its file is [`crate::process`].

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait::wait_until;

/// For everything that is waited for, on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// Of a failed test's log, what is shown: its end.
const SHOWN_BYTES: usize = 16 * 1024;

/// A running one. Killed when dropped; the end of its log is shown if the test fails.
#[derive(Debug)]
pub struct Running {
    child: Child,
    exit: Option<ExitStatus>,
    log: PathBuf,
}

impl Running {
    /// Starts it. What it writes to stderr is appended to `log`, what it writes to stdout is lost.
    ///
    /// # Panics
    /// If it cannot be started, or the log not be written.
    #[must_use]
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, exit: None, log }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the log says something before long.
    #[must_use]
    pub fn wait_log(&self, part: &str) -> bool {
        wait_until(WITHIN, || self.log().contains(part))
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If it is no child of this process any more.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("a child of ours");
        }
        self.exit
    }

    /// Waits for its end. The exit code; `None` if a signal ended it.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait_exit(&mut self) -> Option<i32> {
        assert!(wait_until(WITHIN, || self.try_exit().is_some()), "still running");
        self.exit.and_then(|status| status.code())
    }

    /// Sends a signal by its name, as `TERM`.
    ///
    /// # Panics
    /// If that fails.
    pub fn signal(&self, name: &str) {
        assert!(self.exit.is_none(), "the process has ended: its id may be another's");
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {name}");
    }

    /// Stops all its threads, until it is sent `CONT`.
    ///
    /// # Panics
    /// If they do not stop in time.
    pub fn stop(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.pid());
        let state = || std::fs::read_to_string(&stat).unwrap_or_default();
        // The state follows the name in brackets.
        assert!(wait_until(WITHIN, || state().contains(") T ")), "it does not stop");
    }

    /// How many descriptors it has open.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a process").count()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn memory_kib(&self) -> u64 {
        resident_bytes(self.pid()) / 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.try_exit().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(SHOWN_BYTES);
            let shown = String::from_utf8_lossy(&log.as_bytes()[from..]).into_owned();
            eprintln!("--- {}\n{shown}---", self.log.display());
        }
    }
}

/// Resident memory of a process, in bytes.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib * 1024
}
