//! What lies between two ends: it cuts what it carries anywhere, keeps each piece for a while, and may be broken.

use std::time::Duration;

use balance::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// What a kernel would keep.
const BUFFER_BYTES: usize = 64 * 1024;

/// A wire with its two ends. Where the relays are aborted it is broken.
pub(super) struct Wire {
    pub(super) near: DuplexStream,
    pub(super) far: DuplexStream,
    pub(super) relays: Vec<AbortHandle>,
}

/// A new one.
pub(super) fn wire(rng: &Rng, delay_max: Duration) -> Wire {
    let mut rng = rng.clone();
    let (near, here) = duplex(BUFFER_BYTES);
    let (far, there) = duplex(BUFFER_BYTES);
    let (from_here, to_here) = split(here);
    let (from_there, to_there) = split(there);
    let (one, other) = (Rng::new(rng.next_u64()), Rng::new(rng.next_u64()));
    let relays = [
        net::task::spawn_local("wire", carry(from_here, to_there, one, delay_max)),
        net::task::spawn_local("wire", carry(from_there, to_here, other, delay_max)),
    ];
    Wire { near, far, relays: relays.iter().map(tokio::task::JoinHandle::abort_handle).collect() }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut rng: Rng,
    delay_max: Duration,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let most = 1 + rng.below(BUFFER_BYTES as u64) as usize;
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { break };
        sleep(Duration::from_micros(rng.below(delay_max.as_micros() as u64))).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
