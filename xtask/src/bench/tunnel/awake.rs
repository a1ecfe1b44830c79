//! Cores that do not go to sleep: what wakes one of a virtual machine costs more than most of what is measured.
//!
//! Must not know what for.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::CORES;
use crate::bench::process::pinned;

/// Each ends by itself after so many seconds of processor time.
const SECONDS_MAX: u32 = 60;

/// A busy loop on each core, in which everybody else goes first (`SCHED_IDLE`). Dropped, they end.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    pub(super) fn keep() -> Result<Awake> {
        let mut awake = Awake(Vec::new());
        for core in CORES.split(',') {
            let mut busy = Command::new("prlimit");
            busy.arg(format!("--cpu={SECONDS_MAX}"));
            busy.args(["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]);
            let child = pinned(&busy, core).stdin(Stdio::null()).spawn();
            awake.0.push(child.context("keep a core awake")?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
