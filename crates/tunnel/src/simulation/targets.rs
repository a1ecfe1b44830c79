//! What an agent can connect to. An address says what it does: `KIND-BYTES:1`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use balance::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use crate::agent::dial::{DIAL_TIMEOUT, Targets};

/// How long one holds a connection that it does not read: longer than a run.
const DEAF: Duration = Duration::from_secs(36_000);
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Payload that tells its place.
pub(super) fn pattern(from: usize, bytes: usize) -> &'static [u8] {
    const PERIOD: usize = 251;
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD as u8).cycle().take(1024 * 1024).collect());
    &PATTERN[from % PERIOD..][..bytes]
}

/// All targets there are.
#[derive(Clone)]
pub(super) struct Simulated(Rc<RefCell<Rng>>);

impl Simulated {
    pub(super) fn new(rng: Rng) -> Self {
        Self(Rc::new(RefCell::new(rng)))
    }
}

impl Targets for Simulated {
    type Stream = DuplexStream;

    fn reset(_stream: &DuplexStream) {}

    async fn connect(&self, _protocol: &str, address: &str) -> Result<DuplexStream, String> {
        let mut rng = Rng::new(self.0.borrow_mut().next_u64());
        sleep(Duration::from_millis(rng.below(30))).await;
        let name = address.strip_suffix(":1").unwrap_or(address);
        let (kind, bytes) = name.split_once('-').unwrap_or((name, "0"));
        let bytes = bytes.parse().unwrap();
        if kind == "silent" {
            sleep(DIAL_TIMEOUT).await;
            return Err(format!("dial tcp {address}: i/o timeout"));
        }
        if kind == "refuses" {
            return Err(format!("dial tcp {address}: connect: connection refused"));
        }
        let (near, far) = duplex(1 + rng.below(128 * 1024) as usize);
        let kind = kind.to_owned();
        drop(net::task::spawn_local("target", serve(far, kind, bytes, rng)));
        Ok(near)
    }
}

async fn serve(mut stream: DuplexStream, kind: String, bytes: usize, mut rng: Rng) {
    match kind.as_str() {
        "echo" => echo(stream, rng).await,
        "source" => {
            if write(&mut stream, bytes, &mut rng).await {
                let _ = stream.shutdown().await;
                // Until the other side has taken note.
                let _ = stream.read(&mut [0]).await;
            }
        }
        "replies" => {
            let mut heard = Vec::new();
            if stream.read_to_end(&mut heard).await.is_ok() && heard == pattern(0, heard.len()) {
                write(&mut stream, bytes, &mut rng).await;
                let _ = stream.shutdown().await;
            }
        }
        _ => sleep(DEAF).await,
    }
}

/// Writes a pattern in pieces, at its own pace; whether all could be written.
async fn write(stream: &mut DuplexStream, bytes: usize, rng: &mut Rng) -> bool {
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(1 + rng.below(PIECE_BYTES_MAX as u64) as usize);
        if stream.write_all(pattern(at, count)).await.is_err() {
            return false;
        }
        at += count;
        if rng.below(16) == 0 {
            sleep(Duration::from_millis(rng.below(20))).await;
        }
    }
    true
}

async fn echo(mut stream: DuplexStream, mut rng: Rng) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        let most = 1 + rng.below(PIECE_BYTES_MAX as u64) as usize;
        let Ok(count @ 1..) = stream.read(&mut buffer[..most]).await else { return };
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
