//! Layer 4: what happens between two connections once both are there.
//!
//! [`pump()`] carries bytes both ways until both sides are done, with [`buffers`] that only those have who wait for a
//! slow reader, and through [`pipes`] where there is much to carry. [`opening`] adds, removes or passes a PROXY
//! protocol header at the beginning. Must not know how either connection came about, nor any protocol above TCP. Start
//! at [`pump()`].

pub mod buffers;
pub mod opening;
pub mod pipes;
mod pump;

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

pub use opening::{Client, Opening, Pod};
pub use pump::{End, Meter, Side, Unmetered, pump};

/// Without a byte for so long, a connection is asked whether it still lives.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Between questions that are not answered.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// Questions before a connection counts as dead.
const KEEPALIVE_PROBES: u32 = 4;

/// Has the kernel find out within two minutes that the other end has vanished without a word. Accepted sockets take
/// it over from the listening one.
///
/// # Errors
/// The kernel's, where it is not a TCP socket.
pub fn keep_alive(socket: &impl AsFd) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
