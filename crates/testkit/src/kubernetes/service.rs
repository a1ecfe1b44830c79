//! Long-running programs of a cluster: started, looked after by process id and start time, stopped.
//!
//! A service either dies with the process that started it ([`Tie::Process`]: also when that is killed), or
//! lives on ([`Tie::None`]: for `cargo xtask cluster up`). It must not know what the programs are.
//!
//! Dying together is the kernel's work (`setpriv --pdeathsig`), with one trap: the signal comes when the
//! *thread* that started the program ends, and the threads of tests end soon. So one thread that never
//! ends, [`keeper`], starts them all.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::wait::wait_until;

use super::command::end_of;
use super::error::Error;

/// Starts that wait for the keeper at one time.
const STARTS_WAITING_MAX: usize = 16;
/// From SIGKILL to the end of the process.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// Of a log, what an error shows.
const LOG_SHOWN_BYTES: usize = 2000;

/// What a service's life hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Tie {
    /// It is killed by the kernel when the process that started it ends, however that ends.
    Process,
    /// It lives until it is stopped.
    None,
}

/// A program with its arguments, and the process that runs it, if one does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    tie: Tie,
    running: Option<Running>,
}

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) pid: i32,
    /// In clock ticks since the machine's start.
    start: u64,
}

impl Service {
    /// Not started yet; its output goes to `NAME.log` in the folder.
    pub(super) fn new(name: &str, command: Vec<String>, logs: &Path, tie: Tie) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name: name.to_owned(), command, environment: Vec::new(), log, tie, running: None }
    }

    /// With an environment variable.
    pub(super) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it, unless it runs.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        if self.alive() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(Error::io(format!("write {}", self.log.display())))?;
        let both = log.try_clone().map_err(Error::io("share a log"))?;
        let mut command = match self.tie {
            Tie::Process => Command::new("setpriv"),
            Tie::None => Command::new("setsid"),
        };
        if self.tie == Tie::Process {
            command.args(["--pdeathsig", "KILL"]);
        }
        command
            .arg("--")
            .args(&self.command)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both);
        let pid = keeper_start(command).map_err(Error::io(format!("start {}", self.name)))?;
        self.running = Running::of(pid);
        if self.running.is_none() {
            return Err(self.late("process", Duration::ZERO));
        }
        Ok(())
    }

    /// Whether its process runs. A zombie does not: process 1 of some containers reaps late.
    pub(super) fn alive(&self) -> bool {
        self.running.is_some_and(|running| running.alive())
    }

    /// Its process, while it runs.
    pub(super) fn running(&self) -> Option<Running> {
        self.running.filter(|running| running.alive())
    }

    /// Asks it to end, and kills it when the time is over. With no time at all it is killed at once.
    pub(super) fn stop(&mut self, grace: Duration) -> Result<(), Error> {
        let Some(running) = self.running.take() else { return Ok(()) };
        if !grace.is_zero() {
            running.signal(Signal::TERM);
            if wait_until(grace, || !running.alive()) {
                return Ok(());
            }
        }
        running.signal(Signal::KILL);
        if wait_until(KILLED_WITHIN, || !running.alive()) {
            return Ok(());
        }
        Err(self.late("end", KILLED_WITHIN))
    }

    /// That something of it did not happen in time, with the end of its log.
    pub(super) fn late(&self, what: &str, within: Duration) -> Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let log = format!(":\n{}", end_of(log.trim_end(), LOG_SHOWN_BYTES));
        Error::Late { what: format!("{what} of {}", self.name), within, log }
    }
}

impl Running {
    /// The process with this id, unless it has ended.
    fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: status_of(pid)?.start })
    }

    /// This process.
    pub(super) fn myself() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    pub(super) fn alive(self) -> bool {
        // The first thread may be a zombie while the others still hold sockets.
        status_of(self.pid).is_some_and(|status| {
            let ended = matches!(status.state, 'Z' | 'X' | 'x') && status.threads <= 1;
            status.start == self.start && !ended
        })
    }

    fn signal(self, signal: Signal) {
        if self.alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the look and the signal; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }
}

struct Status {
    state: char,
    threads: u32,
    start: u64,
}

/// Of a process: fields 3, 20 and 22 of proc_pid_stat(5).
fn status_of(pid: i32) -> Option<Status> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything, also parentheses.
    let (_, fields) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Some(Status {
        state: fields.first()?.chars().next()?,
        threads: fields.get(17)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

struct Start {
    command: Command,
    answer: SyncSender<std::io::Result<i32>>,
}

/// Has the keeper start a program; its process id.
fn keeper_start(command: Command) -> std::io::Result<i32> {
    static KEEPER: OnceLock<SyncSender<Start>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, starts) = sync_channel(STARTS_WAITING_MAX);
        std::thread::spawn(move || keeper(&starts));
        sender
    });
    let gone = |_| std::io::Error::other("the thread that starts services has ended");
    let (answer, answered) = sync_channel(1);
    keeper.send(Start { command, answer }).map_err(|error| gone(error.to_string()))?;
    answered.recv().map_err(|error| gone(error.to_string()))?
}

/// Starts programs for as long as this process lives, and reaps those that have ended.
fn keeper(starts: &Receiver<Start>) {
    let mut children: Vec<Child> = Vec::new();
    while let Ok(Start { mut command, answer }) = starts.recv() {
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let started = command.spawn().map(|child| {
            let pid = child.id();
            children.push(child);
            i32::try_from(pid).unwrap_or(i32::MAX)
        });
        // Nobody waits only if the asking thread panicked.
        let _ = answer.send(started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping(folder: &Path, tie: Tie) -> Service {
        Service::new("sleep", vec!["sleep".to_owned(), "60".to_owned()], folder, tie)
    }

    #[test]
    fn a_service_starts_once_and_ends_when_stopped() {
        let folder = tempfile::tempdir().unwrap();
        for tie in [Tie::Process, Tie::None] {
            let mut service = sleeping(folder.path(), tie);
            assert!(!service.alive());
            service.start().unwrap();
            let first = service.running();
            service.start().unwrap();
            assert_eq!((service.running(), first.is_some()), (first, true));
            service.stop(Duration::ZERO).unwrap();
            assert!(!service.alive());
        }
    }

    #[test]
    fn a_service_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = sleeping(folder.path(), Tie::Process);
        let mut service = std::thread::spawn(move || {
            service.start().unwrap();
            service
        })
        .join()
        .unwrap();
        // The thread has ended; a signal for that would have come by now or never.
        assert!(!wait_until(Duration::from_millis(100), || !service.alive()));
        service.stop(Duration::from_secs(5)).unwrap();
    }

    /// Set for the process that [`a_service_ends_with_a_process_that_is_killed`] starts.
    const CHILD_VARIABLE: &str = "CLOVERLEAF_TESTKIT_CHILD";

    /// Not a test by itself: the process that is killed.
    #[test]
    fn child() {
        let Some(file) = std::env::var_os(CHILD_VARIABLE).map(PathBuf::from) else { return };
        let mut service = sleeping(file.parent().unwrap(), Tie::Process);
        service.start().unwrap();
        let beside = file.with_extension("new");
        std::fs::write(&beside, serde_json::to_string(&service).unwrap()).unwrap();
        std::fs::rename(beside, file).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_service_ends_with_a_process_that_is_killed() {
        const WITHIN: Duration = Duration::from_secs(20);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("service.json");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kubernetes::service::tests::child"])
            .env(CHILD_VARIABLE, &file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = wait_until(WITHIN, || file.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(started);
        let service: Service = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(service.running.is_some());
        assert!(wait_until(WITHIN, || !service.alive()));
    }

    #[test]
    fn the_state_of_a_process_is_read() {
        assert!(Running::myself().unwrap().alive());
        assert!(!Running { start: 0, ..Running::myself().unwrap() }.alive());
        assert!(status_of(i32::MAX).is_none());
    }
}
