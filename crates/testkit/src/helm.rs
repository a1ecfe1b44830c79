//! Helm for tests: where it is, and calls of it on a cluster. What a chart says is not known here.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::kubernetes::{Access, cache_folder};

/// Names the program; `cargo xtask test` sets it.
pub const HELM_VARIABLE: &str = "CLOVERLEAF_TEST_HELM";
/// The version in `xtask/helm/go.mod`; it is in the name of the installed file.
pub const HELM_VERSION: &str = "3.20.2";
/// What one call may take, waiting included.
const CALL_SECONDS_MAX: u32 = 180;

/// The program, with a configuration of its own that is empty.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Where it belongs on this machine: in the user's cache, so that every clone of the repository shares
    /// it. `None` without a home folder.
    #[must_use]
    pub fn file() -> Option<PathBuf> {
        let folder = cache_folder()?;
        Some(folder.parent()?.join(format!("helm-{HELM_VERSION}")))
    }

    /// For a test: `None` if it is not there and the test is to be left out, which it says.
    ///
    /// # Panics
    /// If there is none and `CI` is `true`, where nothing is left out; or without a temporary folder.
    #[must_use]
    pub fn for_test() -> Option<Self> {
        let named = std::env::var_os(HELM_VARIABLE).filter(|value| !value.is_empty());
        let found = named.map(PathBuf::from).or_else(Self::file).filter(|file| file.is_file());
        let Some(program) = found else {
            let why = "helm is not built: `cargo xtask test --only helm`";
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        Some(Self { program, home: tempfile::tempdir().expect("a temporary folder") })
    }

    /// Runs it as the holder of this access; what it wrote to standard output, or to stderr if it failed.
    ///
    /// # Errors
    /// If it fails or does not end within three minutes.
    pub fn run(&self, access: &Access, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("timeout");
        command.arg(CALL_SECONDS_MAX.to_string()).arg(&self.program).args(arguments);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        command.env("KUBECONFIG", access.kubeconfig()).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("helm: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!("helm {}: {}", arguments.join(" "), text(&output.stderr)))
    }
}
