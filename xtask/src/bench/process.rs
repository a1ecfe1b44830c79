//! A program that serves for the length of one measurement: pinned to a core, ended with the value that
//! stands for it, and by the kernel when this process dies, whatever of.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::measure;

/// The core of the proxy that is measured, and nothing else.
pub(crate) const PROXY_CORE: &str = "0";
/// The core of the load and of the backend.
pub(crate) const LOAD_CORE: &str = "1";
/// 10,000 clients and what the programs need for themselves; the hard limit must allow it.
const OPEN_FILES: usize = 20_000;
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between the signal that asks and the one that ends.
const STOP_GRACE: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(20);

/// A running program.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Start `command` on `core`, and wait until `port` of 127.0.0.1 accepts. What it says goes to `log`.
    pub(crate) fn start(command: &Command, core: &str, port: u16, log: &Path) -> Result<Server> {
        let mut server = Server::spawn(command, core, log)?;
        server.wait_until_it_accepts(port)?;
        Ok(server)
    }

    /// Start `command` on `core` and wait for nothing.
    pub(crate) fn spawn(command: &Command, core: &str, log: &Path) -> Result<Server> {
        let output = File::create(log).context("make a log file")?;
        let mut pinned = pinned(command, core);
        pinned.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = pinned.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Server { child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, without asking.
    pub(crate) fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("KILL", &measure::tree(self.pid()));
        }
        let _ = self.child.wait();
    }

    /// The end of what the program said, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn wait_until_it_accepts(&mut self, port: u16) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = self.child.try_wait().context("look after a program")? {
                bail!("it ended at once ({status}):\n{}", self.last_words());
            }
            if start.elapsed() > START_LIMIT {
                bail!("no answer on port {port} after {START_LIMIT:?}:\n{}", self.last_words());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Workers are children of the child: remember them, then ask, then end whoever is left.
        let tree = measure::tree(self.pid());
        signal("TERM", &[self.pid()]);
        let start = Instant::now();
        while start.elapsed() < STOP_GRACE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("KILL", &tree);
        }
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-s").arg(name).args(pids).stderr(Stdio::null()).status();
}

/// `command` on one core, with files enough, ended by the kernel together with this process.
pub(crate) fn pinned(command: &Command, core: &str) -> Command {
    let mut pinned = Command::new("setpriv");
    pinned.args(["--pdeathsig", "TERM", "prlimit", &format!("--nofile={OPEN_FILES}:")]);
    pinned.args(["taskset", "-c", core]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}

/// A port of 127.0.0.1 that was free just now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
