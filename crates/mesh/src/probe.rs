//! Finds out which hosts speak TLS, before a client's connection has to: each host is dialled, the handshake made, and
//! the connection closed. An original closes at once when it hears something that is not its protocol.

use std::sync::Arc;
use std::time::Duration;

use tls::{Mutual, MutualError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Millis;
use crate::asking::Asker;
use crate::hosts::Host;
use crate::security::Direction;
use crate::shared::Shared;

/// Hosts that are dialled at a time.
const PROBED_AT_ONCE_MAX: usize = 16;
/// How soon a host that did not answer is dialled again.
const UNREACHED_AGAIN_MILLIS: Millis = 5_000;
/// Between looks whether one is to be dialled.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps finding out, as long as it is polled. Dropped, it dials no more.
pub async fn keep_probing(shared: Arc<Shared>) {
    loop {
        probe(&shared).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Dials every host of which it is not known, or no longer, whether it speaks TLS. Returns when all have answered or
/// had their time. Dropped, it dials no more of them; those that are being dialled are still heard.
pub async fn probe(shared: &Arc<Shared>) {
    let state = shared.state();
    let Some(mutual) = state.secured.mutual() else { return };
    let now = shared.clock.now();
    let within = state.settings.times.host;
    let due: Vec<_> = state.hosts.iter().filter(|host| host.is_probe_due(now)).collect();
    for hosts in due.chunks(PROBED_AT_ONCE_MAX) {
        let begin = |host: &&Arc<Host>| {
            let asker = shared.asker(&state);
            net::task::spawn("probe", one(asker, mutual.clone(), Arc::clone(host), within))
        };
        let begun: Vec<_> = hosts.iter().map(begin).collect();
        for probe in begun {
            // A panic has been told of.
            let _ = probe.await;
        }
    }
}

async fn one(asker: Asker, mutual: Mutual, host: Arc<Host>, within: Duration) {
    // Who does not answer is as unknown as before.
    host.probe_at(asker.clock.now() + UNREACHED_AGAIN_MILLIS);
    let dialled = async {
        let stream = asker.dialer.connect_tcp(&host.target, within).await.ok()?;
        Some(handshake(&mutual, stream, &host.target.host()).await)
    };
    let Ok(Some(result)) = tokio::time::timeout(within, dialled).await else { return };
    match result {
        Ok(resumed) => {
            asker.counts.complete(Direction::Out, resumed);
            if host.speaks_tls(asker.clock.now()) {
                tracing::info!(host = &*host.name, "a host speaks TLS");
            }
        }
        Err(error) => asker.distrust(&host, &error),
    }
}

/// A handshake in which the other side has accepted our certificate: it answers the end of what we say with its own.
/// Whether it resumed a session.
async fn handshake(mutual: &Mutual, stream: TcpStream, host: &str) -> Result<bool, MutualError> {
    let mut stream = mutual.connect(stream, host).await?;
    stream.shutdown().await?;
    let _ = stream.read(&mut [0; 1]).await?;
    Ok(stream.resumed())
}
