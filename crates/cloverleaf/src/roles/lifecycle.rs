//! What roles have in common between their start and their end: the admin port, and waiting until connections are over.
//!
//! Must not know any role.

use std::sync::Arc;
use std::time::Duration;

use config::AdminAddress;
use tokio::sync::watch;
use tokio::time::Instant;

/// Starts the admin port, if there is one; until `stopped` says so.
///
/// # Errors
/// Where the port cannot be had.
pub(super) fn start_admin(
    address: AdminAddress,
    provider: Arc<impl admin::Provider>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let AdminAddress::At(address) = address else { return Ok(()) };
    let server = admin::Server::bind(address)?;
    net::task::spawn("admin", async move {
        let end = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if let Err(error) = server.run(provider, end).await {
            tracing::error!(error = &error as &dyn std::error::Error, "admin port");
        }
    });
    Ok(())
}

/// Waits until no connection is open any more, or that long. Dropped, nothing has happened.
pub(super) async fn drained(open_connections: impl Fn() -> usize, within: Duration) {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + within;
    // A connection that the kernel had queued may be accepted after the first look.
    let mut quiet = 0;
    while quiet < 2 && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        quiet = if open_connections() == 0 { quiet + 1 } else { 0 };
    }
}
