//! A client of tunnels on Konnectivity's own library, built from `tests/konnectivity`: where it is, and runs of it.

use std::path::PathBuf;
use std::process::Command;

use aws_lc_rs::digest;

use crate::kubernetes::cache_folder;

/// Names the program with the newest library; `cargo xtask test` sets it. The others are found where it built them.
pub const KONNECTIVITY_VARIABLE: &str = "CLOVERLEAF_TEST_KONNECTIVITY";
/// What one run may take.
const RUN_SECONDS_MAX: u32 = 120;

/// What every program is built from: its module's files beside this name its file.
const SOURCES: [&[u8]; 4] = [
    include_bytes!("../../../tests/konnectivity/main.go"),
    include_bytes!("../../../tests/konnectivity/newest.go"),
    include_bytes!("../../../tests/konnectivity/v028.go"),
    include_bytes!("../../../tests/konnectivity/v0014.go"),
];

/// A version of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Library {
    /// Its module's file without the ending, and the tag that it is built with; `None` for the newest.
    pub tag: Option<&'static str>,
    module: [&'static [u8]; 2],
}

impl Library {
    /// v0.37.
    pub const NEWEST: Self = Self {
        tag: None,
        module: [
            include_bytes!("../../../tests/konnectivity/go.mod"),
            include_bytes!("../../../tests/konnectivity/go.sum"),
        ],
    };
    /// v0.28 of 2023, in the form that all have up to v0.36.
    pub const V0_28: Self = Self {
        tag: Some("v028"),
        module: [
            include_bytes!("../../../tests/konnectivity/v028.mod"),
            include_bytes!("../../../tests/konnectivity/v028.sum"),
        ],
    };
    /// v0.0.14 of 2020.
    pub const V0_0_14: Self = Self {
        tag: Some("v0014"),
        module: [
            include_bytes!("../../../tests/konnectivity/v0014.mod"),
            include_bytes!("../../../tests/konnectivity/v0014.sum"),
        ],
    };
    /// All.
    pub const ALL: [Self; 3] = [Self::NEWEST, Self::V0_28, Self::V0_0_14];
}

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
    /// Where one belongs on this machine: in the user's cache, named after its sources. `None` without a home folder.
    #[must_use]
    pub fn file(library: Library) -> Option<PathBuf> {
        let mut hash = digest::Context::new(&digest::SHA256);
        for source in SOURCES.into_iter().chain(library.module) {
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
    pub fn for_test(library: Library) -> Option<Self> {
        let named = std::env::var_os(KONNECTIVITY_VARIABLE);
        let named = named.filter(|value| !value.is_empty() && library == Library::NEWEST);
        let file = named.map(PathBuf::from).or_else(|| Self::file(library));
        let Some(program) = file.filter(|file| file.is_file()) else {
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
