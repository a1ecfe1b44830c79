//! The programs of a cluster: where they are found, and what they are built from. `cargo xtask cluster
//! build` builds them; this file only knows their names and the sources that decide their place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::error::Error;

/// Names the folder that holds the programs; `cargo xtask test` sets it.
pub const FOLDER_VARIABLE: &str = "CLOVERLEAF_TEST_KUBERNETES";

/// The programs that one binary holds, told apart by the name that it is started by.
pub const COMPONENTS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// The file that is written last, so that a folder that has it is complete.
const LAST: &str = "complete";

/// What the programs are built from, and the recipe's own version: together they name the folder.
const SOURCES: [&[u8]; 8] = [
    b"recipe 1",
    include_bytes!("../../../../tests/cluster/kubeall/go.mod"),
    include_bytes!("../../../../tests/cluster/kubeall/go.sum"),
    include_bytes!("../../../../tests/cluster/kubeall/main.go"),
    include_bytes!("../../../../tests/cluster/coredns/go.mod"),
    include_bytes!("../../../../tests/cluster/coredns/go.sum"),
    include_bytes!("../../../../tests/cluster/coredns/main.go"),
    include_bytes!("../../../../tests/cluster/coredns/pause/main.go"),
];

/// A folder with the programs of a cluster.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those in a folder that `cargo xtask cluster build` made.
    ///
    /// # Errors
    /// If the folder is not complete.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        if folder.join(LAST).is_file() {
            return Ok(Self { folder });
        }
        let shown = folder.display();
        Err(Error::Unable(format!("{shown} does not hold the programs of a cluster")))
    }

    /// Those that the environment names, else those that were built on this machine before; `None` if there
    /// are none.
    ///
    /// # Errors
    /// If the environment names a folder that is not complete.
    pub fn find() -> Result<Option<Self>, Error> {
        match variable(FOLDER_VARIABLE) {
            Some(folder) => Self::in_folder(PathBuf::from(folder)).map(Some),
            None => Ok(cache_folder().and_then(|folder| Self::in_folder(folder).ok())),
        }
    }

    /// For a test: `None` if there are none and the test is to be left out, which it says.
    ///
    /// # Panics
    /// If there are none and `CI` is `true`, where nothing is left out; or if the environment names a folder
    /// that is not complete.
    #[must_use]
    pub fn for_test() -> Option<Self> {
        let found = Self::find().unwrap_or_else(|error| panic!("{FOLDER_VARIABLE}: {error}"));
        if found.is_none() {
            left_out("the programs of a cluster are not built: `cargo xtask cluster build`");
        }
        found
    }

    /// A program by its name: one of [`COMPONENTS`], `coredns` or `pause`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Marks a folder as complete.
///
/// # Errors
/// If it cannot be written to.
pub fn complete(folder: &Path) -> Result<(), Error> {
    super::error::write(&folder.join(LAST), "")
}

/// Where the programs belong on this machine: in the user's cache, in a folder named after what they are
/// built from, so that every clone of the repository shares them. `None` without a home folder.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.filter(|folder| folder.is_absolute());
    let cache =
        cache.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    for source in SOURCES {
        hash.update(&(source.len() as u64).to_be_bytes());
        hash.update(source);
    }
    let hash = super::image::hex(&hash.finish().as_ref()[..6]);
    Some(cache.join("cloverleaf").join(format!("kubernetes-{hash}")))
}

/// A variable of the environment, unless it is empty.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Says that a test is left out.
///
/// # Panics
/// If `CI` is `true`: there a test that cannot run fails.
pub(super) fn left_out(why: &str) {
    assert_ne!(variable("CI"), Some(OsString::from("true")), "{why}");
    eprintln!("skipped: {why}");
}
