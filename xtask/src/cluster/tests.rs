//! The cluster for `cargo xtask test`: one for all test programs, up before the first and down after the
//! last. What cannot be had is said here; the tests that need it fail under `CI=true`, and say elsewhere
//! that they were left out.

use std::time::Instant;

use anyhow::Result;
use testkit::kubernetes::{Binaries, Cluster};

/// What the tests get.
pub(crate) struct ForTests {
    /// The programs, for control planes of a test's own.
    pub(crate) binaries: Option<Binaries>,
    /// Whether the cluster is ours to end: one that was up before stays.
    started: bool,
}

/// Builds the programs and starts the cluster, as far as this user and this machine can.
pub(crate) fn for_tests() -> ForTests {
    let binaries = super::binaries();
    if let Err(error) = &binaries {
        eprintln!("Kubernetes is not to be had, its tests cannot run: {error:#}");
    }
    let binaries = binaries.ok();
    let started = binaries.as_ref().map_or(Ok(false), start).unwrap_or_else(|error| {
        eprintln!("a cluster with nodes is not to be had, its tests cannot run: {error:#}");
        false
    });
    ForTests { binaries, started }
}

/// Whether a cluster was started that is to be ended.
fn start(binaries: &Binaries) -> Result<bool> {
    if Cluster::is_named() || Cluster::running()?.is_some() {
        return Ok(false);
    }
    super::packages()?;
    let start = Instant::now();
    Cluster::up(binaries, 2)?;
    println!("the test cluster is up after {:.1} s", start.elapsed().as_secs_f64());
    Ok(true)
}

impl Drop for ForTests {
    fn drop(&mut self) {
        if self.started
            && let Err(error) = Cluster::down()
        {
            eprintln!("the test cluster does not end: {error}");
        }
    }
}
