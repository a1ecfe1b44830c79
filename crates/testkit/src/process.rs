//! The real program as a process, with a configuration file that can be changed in every way files change.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{self, Client, Response};
use crate::metrics;
use crate::ports::Port;
use crate::wait::wait_until;

/// From start to ready.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Kept of each output; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How the configuration file lies in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A plain file.
    File,
    /// As Kubernetes mounts a ConfigMap: `config.yaml` → `..data/config.yaml`, `..data` → a folder of the
    /// version.
    ConfigMap,
}

/// How the program learns where its configuration file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigBy {
    /// By this flag, as `-c`.
    Flag(&'static str),
    /// By the environment variable `CONF_FILE`.
    Environment,
    /// Not at all: it lies in the working directory under its usual name.
    WorkingDirectory,
}

/// A gateway to be started.
#[derive(Debug)]
pub struct Gateway {
    binary: PathBuf,
    /// `None`: no file is written.
    yaml: Option<String>,
    config_by: ConfigBy,
    /// Whether the environment says `PORT`.
    says_port: bool,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    layout: Layout,
    port: Port,
    admin: Port,
    dir: TempDir,
}

impl Gateway {
    /// With this configuration; `binary` is `env!("CARGO_BIN_EXE_cloverleaf")`. Its port for files that
    /// name no listener (`PORT`) and its admin port are free ones. Nothing of the environment is passed on
    /// but `PATH`.
    ///
    /// # Panics
    /// If the machine gives no temporary folder.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, yaml: &str) -> Self {
        Self {
            binary: binary.into(),
            yaml: Some(yaml.to_owned()),
            config_by: ConfigBy::Flag("-c"),
            says_port: true,
            arguments: Vec::new(),
            environment: Vec::new(),
            layout: Layout::File,
            port: Port::reserve(),
            admin: Port::reserve(),
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Where the configuration will lie, for paths in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Without the environment variable `PORT`: for files that name their listeners.
    #[must_use]
    pub fn without_port(mut self) -> Self {
        self.says_port = false;
        self
    }

    /// With the configuration file named in this way instead of by `-c`.
    #[must_use]
    pub fn config_by(mut self, by: ConfigBy) -> Self {
        self.config_by = by;
        self
    }

    /// Without a configuration file, though it is named.
    #[must_use]
    pub fn without_file(mut self) -> Self {
        self.yaml = None;
        self
    }

    /// With the configuration mounted as a ConfigMap is.
    #[must_use]
    pub fn config_map(mut self) -> Self {
        self.layout = Layout::ConfigMap;
        self
    }

    /// Starts it and waits until `/readyz` of the admin port answers 200.
    ///
    /// # Panics
    /// If it ends before or takes longer than 15 seconds, with what it wrote.
    #[must_use]
    pub fn start(self) -> Cloverleaf {
        let mut running = self.start_unready();
        let mut ended = None;
        let ready = wait_until(READY_WITHIN, || {
            ended = running.try_exit();
            ended.is_some() || running.try_admin_get("/readyz").is_some_and(|(s, _)| s == 200)
        });
        if let Some(status) = ended {
            panic!("the gateway ended with {status} instead of getting ready");
        }
        assert!(ready, "the gateway is not ready after {READY_WITHIN:?}");
        running
    }

    /// Starts it without waiting: for one that is expected to fail.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn start_unready(self) -> Cloverleaf {
        let config = self.dir.path().join("config.yaml");
        match (self.layout, &self.yaml) {
            (_, None) => {}
            (Layout::File, Some(yaml)) => write(&config, yaml),
            (Layout::ConfigMap, Some(yaml)) => {
                new_version(self.dir.path(), 0, yaml);
                symlink("..data/config.yaml", &config).expect("a symbolic link");
            }
        }
        let mut command = Command::new(&self.binary);
        command
            .arg("gateway")
            .arg("--admin-address")
            .arg(self.admin.address().to_string())
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        if self.says_port {
            command.env("PORT", self.port.to_string());
        }
        match self.config_by {
            ConfigBy::Flag(flag) => command.arg(flag).arg(&config),
            ConfigBy::Environment => command.env("CONF_FILE", &config),
            ConfigBy::WorkingDirectory => command.current_dir(self.dir.path()),
        };
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.binary.display()));
        let stdout = Capture::start(child.stdout.take().expect("a pipe"));
        let stderr = Capture::start(child.stderr.take().expect("a pipe"));
        Cloverleaf {
            child,
            exit: None,
            stdout,
            stderr,
            config,
            layout: self.layout,
            versions: 1,
            port: self.port,
            admin: self.admin,
            dir: self.dir,
        }
    }
}

/// A running one. Killed when dropped; what it wrote to stderr is shown if the test fails.
pub struct Cloverleaf {
    child: Child,
    exit: Option<ExitStatus>,
    stdout: Capture,
    stderr: Capture,
    config: PathBuf,
    layout: Layout,
    /// Of the ConfigMap so far.
    versions: usize,
    port: Port,
    admin: Port,
    dir: TempDir,
}

impl Cloverleaf {
    /// A gateway with this configuration, ready. See [`Gateway`] for more.
    #[must_use]
    pub fn gateway(binary: &str, yaml: &str) -> Self {
        Gateway::new(binary, yaml).start()
    }

    /// Where it serves files that name no listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where its admin port is.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The folder of its configuration file.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection to [`Self::address`].
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// `GET` of a path for a host at [`Self::address`].
    #[must_use]
    pub fn get(&self, host: &str, path: &str) -> Response {
        client::get(self.address(), host, path)
    }

    /// `GET` on the admin port: status and body.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        self.try_admin_get(path).unwrap_or_else(|| panic!("no answer from the admin port"))
    }

    fn try_admin_get(&self, path: &str) -> Option<(u16, String)> {
        let address = self.admin.address();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let response = Client::try_connect(address).ok()?.request(request).ok()?;
        Some((response.status, response.text()))
    }

    /// The value of a metric, its name with labels as in the text format; `None` if it is not there.
    ///
    /// # Panics
    /// If the admin port does not answer.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        metrics::value(&self.admin_get("/metrics").1, name)
    }

    /// What it wrote to stdout so far, the first 4 MiB.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to stderr so far, the first 4 MiB.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stderr contains a text.
    ///
    /// # Panics
    /// If it does not within the time.
    pub fn expect_stderr(&self, text: &str, within: Duration) {
        let found = wait_until(within, || self.stderr().contains(text));
        assert!(found, "stderr lacks {text:?} after {within:?}");
    }

    /// SIGHUP: reload now.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// SIGTERM: grace, then drain.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// SIGINT: drain at once.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        assert!(self.exit.is_none(), "the process has ended: its id may be another's");
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process id");
        rustix::process::kill_process(pid, signal).expect("a child of ours that is not reaped");
    }

    /// How it ended, if it has.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("a child of ours");
            if self.exit.is_some() {
                // The pipes are closed: all that was written is there once the readers have ended.
                self.stdout.finish();
                self.stderr.finish();
            }
        }
        self.exit
    }

    /// Waits for its end. The exit code; `None` if a signal ended it.
    ///
    /// # Panics
    /// If it does not end within the time.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let ended = wait_until(within, || self.try_exit().is_some());
        assert!(ended, "still running after {within:?}");
        self.exit.and_then(|status| status.code())
    }

    /// Writes a new configuration into the file itself.
    ///
    /// # Panics
    /// If the file cannot be written; so do the others.
    pub fn rewrite_in_place(&self, yaml: &str) {
        write(&self.config, yaml);
    }

    /// Writes a new configuration beside the file and renames it over it, as editors do.
    ///
    /// # Panics
    /// If that fails.
    pub fn rewrite_by_rename(&self, yaml: &str) {
        let beside = self.config.with_extension("new");
        write(&beside, yaml);
        std::fs::rename(&beside, &self.config).expect("a rename");
    }

    /// Swaps the folder behind the file, as Kubernetes updates a mounted ConfigMap.
    ///
    /// # Panics
    /// If it was not started with [`Gateway::config_map`].
    pub fn rewrite_by_swap(&mut self, yaml: &str) {
        assert_eq!(self.layout, Layout::ConfigMap, "start it with config_map()");
        new_version(self.dir.path(), self.versions, yaml);
        let old = self.dir.path().join(format!("..version_{}", self.versions - 1));
        std::fs::remove_dir_all(old).expect("the old version's folder");
        self.versions += 1;
    }

    /// Removes the file.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove_config(&self) {
        std::fs::remove_file(&self.config).expect("the configuration file");
    }
}

impl Drop for Cloverleaf {
    fn drop(&mut self) {
        if self.try_exit().is_none() {
            // Nothing of it is worth waiting for; a test of an orderly end waits itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.stderr.finish();
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of the program\n{}---", self.stderr());
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// Makes a folder for a version and points `..data` to it by a rename.
fn new_version(dir: &Path, number: usize, yaml: &str) {
    let name = format!("..version_{number}");
    std::fs::create_dir(dir.join(&name)).expect("a folder for the version");
    write(&dir.join(&name).join("config.yaml"), yaml);
    let beside = dir.join("..data_tmp");
    symlink(&name, &beside).expect("a symbolic link");
    std::fs::rename(&beside, dir.join("..data")).expect("a rename");
}

/// An output read by a thread, so that the program never blocks on it.
pub(crate) struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    pub(crate) fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buf) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&buf[..count.min(room)]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    pub(crate) fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
