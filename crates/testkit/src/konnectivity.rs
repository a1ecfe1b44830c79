//! A client of tunnels on Konnectivity's own library, built from `tests/konnectivity`: where it is, and runs of it.

use std::path::PathBuf;
use std::process::Command;

use aws_lc_rs::digest;

use crate::kubernetes::cache_folder;

/// Names the program; `cargo xtask test` sets it.
pub const KONNECTIVITY_VARIABLE: &str = "CLOVERLEAF_TEST_KONNECTIVITY";
/// What one run may take.
const RUN_SECONDS_MAX: u32 = 120;

/// What the program is built from: together they name its file.
const SOURCES: [&[u8]; 3] = [
    include_bytes!("../../../tests/konnectivity/go.mod"),
    include_bytes!("../../../tests/konnectivity/go.sum"),
    include_bytes!("../../../tests/konnectivity/main.go"),
];

/// The program.
#[derive(Debug)]
pub struct Konnectivity {
    program: PathBuf,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Outcome {
    /// How often it went well.
    pub good: usize,
    /// How often not.
    pub bad: usize,
    /// What was wrong last.
    pub last: String,
    /// How long all of it took.
    pub milliseconds: u64,
}

impl Konnectivity {
    /// Where it belongs on this machine: in the user's cache, named after its sources. `None` without a home folder.
    #[must_use]
    pub fn file() -> Option<PathBuf> {
        let mut hash = digest::Context::new(&digest::SHA256);
        for source in SOURCES {
            hash.update(&(source.len() as u64).to_be_bytes());
            hash.update(source);
        }
        let hash = hash.finish();
        let hash: String = hash.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(cache_folder()?.parent()?.join(format!("konnectivity-{hash}")))
    }

    /// For a test: `None` if it is not there and the test is to be left out, which it says.
    ///
    /// # Panics
    /// If there is none and `CI` is `true`, where nothing is left out.
    #[must_use]
    pub fn for_test() -> Option<Self> {
        let named = std::env::var_os(KONNECTIVITY_VARIABLE).filter(|value| !value.is_empty());
        let found = named.map(PathBuf::from).or_else(Self::file).filter(|file| file.is_file());
        let Some(program) = found else {
            let why =
                "the client on Konnectivity's library is not built: `cargo xtask test --only test`";
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        Some(Self { program })
    }

    /// Runs it.
    ///
    /// # Panics
    /// If it does not say how it went, or not within two minutes.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("timeout");
        command.arg(RUN_SECONDS_MAX.to_string()).arg(&self.program).args(arguments);
        let ran = command.output().expect("the program timeout");
        let stderr = String::from_utf8_lossy(&ran.stderr);
        serde_json::from_slice(&ran.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stderr:.2000}"))
    }
}
