//! The roles `tunnel server` and `tunnel agent`: Konnectivity's two ends; and `tunnel forward`, a client for programs
//! that are none.
//!
//! `server`, `agent` and `forward` check the flags, start everything and follow the signals; `certificates` are loaded
//! and loaded again, so is the agent `policy`, `cluster` is what concerns an API server, `pages` is the health port,
//! `metrics` what it shows. Wiring only: what happens to a connection is `tunnel`'s.

mod agent;
mod certificates;
mod cluster;
mod forward;
pub(super) mod metrics;
mod pages;
mod policy;
mod server;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub(crate) use agent::{check as check_agent, run as agent};
pub(crate) use forward::{check as check_forward, run as forward};
pub(crate) use server::{check as check_server, run as server};

use model::{Diagnostic, Diagnostics, Place};

use crate::UsageError;
use crate::cli::{Address, CommonAbsent};

/// What is logged at `--v=4` and above is more than usual.
const VERBOSE_FROM: i32 = 4;

/// Flags that are wrong, as `check` says it of a section of a file.
fn wrong_flags(section: &str, wrong: UsageError) -> Diagnostics {
    Diagnostics(vec![Diagnostic::error(Place::whole(section), "", wrong.0)])
}

/// Where a port is served.
fn socket_address(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(address.0.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port)
}

/// Refuses a flag of the original for what is not there, unless it is off.
fn absent(flag: &str, is_off: bool) -> Result<(), UsageError> {
    if is_off {
        return Ok(());
    }
    Err(UsageError(format!(
        "flag {flag}: not available; see docs/tunnel.md for what is in its place"
    )))
}

impl CommonAbsent {
    fn check(&self) -> Result<(), UsageError> {
        absent("--enable-profiling", !self.enable_profiling)?;
        absent("--enable-contention-profiling", !self.enable_contention_profiling)
    }
}

/// `flag`, else the environment's, else a random one.
fn name(flag: Option<String>, variable: &str) -> String {
    let given = flag.filter(|name| !name.is_empty());
    let given = given.or_else(|| crate::env::variable(variable).filter(|name| !name.is_empty()));
    given.unwrap_or_else(|| {
        let (high, low) = (random(), random());
        // In the form of a UUID, version 4.
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    })
}

/// Not for secrets.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
