//! The sockets that are open, and how they follow a snapshot.
//!
//! Binding comes first and can fail; only then does anything change. Must not know what is served.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use http_proxy::{Listening, Shared};
use model::{Listener, Snapshot};
use net::listen::ListenError;
use net::worker::Workers;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Listening sockets by the address that the configuration gives them.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: BTreeMap<SocketAddr, Open>,
    /// Told to close, and not closed within [`CLOSES_WITHIN`]; those that have closed since go at the next look.
    closing: Vec<Closing>,
}

/// A listener's sockets that are about to close.
#[derive(Debug)]
struct Closing {
    address: SocketAddr,
    /// Each completes when its socket is closed.
    sockets: Vec<oneshot::Receiver<()>>,
}

impl Closing {
    fn has_closed(&mut self) -> bool {
        self.sockets.iter_mut().all(|closed| closed.try_recv() != Err(TryRecvError::Empty))
    }
}

/// How long a reload waits for the sockets that it removes, so that the next one can have their addresses again.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Open {
    /// With the real port where the configuration has 0.
    actual: SocketAddr,
    on_workers: Vec<Listening>,
}

/// Sockets that are bound and not served yet. Dropped, they close.
#[derive(Debug)]
pub(super) struct Opened {
    new: Vec<(SocketAddr, Vec<TcpListener>)>,
    wanted: Vec<SocketAddr>,
}

impl Opened {
    /// Whether there is an address that was not listened on before.
    pub(super) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }
}

impl Listeners {
    /// Binds what a snapshot has and is not open yet; changes nothing.
    ///
    /// # Errors
    /// The first address that cannot be had; what was bound is closed again.
    pub(super) fn open(
        &mut self,
        snapshot: &Snapshot,
        workers: usize,
    ) -> Result<Opened, ListenError> {
        self.closing.retain_mut(|closing| !closing.has_closed());
        let wanted: Vec<SocketAddr> = snapshot.listeners.iter().map(|l| l.address).collect();
        let mut ours: Vec<SocketAddr> = self.open.values().map(|open| open.actual).collect();
        ours.extend(self.closing.iter().map(|closing| closing.address));
        let mut new = Vec::new();
        for address in wanted.iter().filter(|address| !self.open.contains_key(address)) {
            let beside_own = ours.iter().any(|known| net::listen::overlap(*known, *address));
            let bind = if beside_own { net::listen::bind_beside_own } else { net::listen::bind };
            new.push((*address, bind(*address, workers)?));
            ours.push(*address);
        }
        Ok(Opened { new, wanted })
    }

    /// Serves what was opened and closes what is no longer wanted.
    ///
    /// # Errors
    /// Where a worker thread is gone, or the kernel does not let it watch a socket.
    pub(super) async fn apply(
        &mut self,
        opened: Opened,
        workers: &Workers,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<()> {
        for (address, sockets) in opened.new {
            let actual = sockets.first().and_then(|s| s.local_addr().ok()).unwrap_or(address);
            let mut on_workers = Vec::with_capacity(sockets.len());
            for (index, socket) in sockets.into_iter().enumerate() {
                on_workers.push(serve(index, address, socket, workers, shared).await?);
            }
            tracing::info!(address = %actual, "listening");
            self.open.insert(address, Open { actual, on_workers });
        }
        let gone: Vec<SocketAddr> =
            self.open.keys().filter(|address| !opened.wanted.contains(address)).copied().collect();
        for address in gone {
            if let Some(open) = self.open.remove(&address) {
                tracing::info!(address = %open.actual, "no longer listening; connections drain");
                let sockets = open.on_workers.into_iter().map(Listening::close).collect();
                let mut closing = Closing { address: open.actual, sockets };
                let closed = join_all(closing.sockets.iter_mut());
                if tokio::time::timeout(CLOSES_WITHIN, closed).await.is_err() {
                    self.closing.push(closing);
                }
            }
        }
        Ok(())
    }

    /// Closes all.
    pub(super) fn close_all(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            // Nobody needs the address again: the end waits for connections, not for sockets.
            open.on_workers.into_iter().map(Listening::close).for_each(drop);
        }
    }

    /// The listeners of a snapshot with the addresses that they really have.
    pub(super) fn addresses<'s>(
        &self,
        snapshot: &'s Snapshot,
    ) -> impl Iterator<Item = (&'s Listener, SocketAddr)> {
        snapshot
            .listeners
            .iter()
            .map(|l| (l, self.open.get(&l.address).map_or(l.address, |open| open.actual)))
    }
}

/// Has a worker serve a socket.
async fn serve(
    index: usize,
    address: SocketAddr,
    socket: TcpListener,
    workers: &Workers,
    shared: &Arc<Shared>,
) -> anyhow::Result<Listening> {
    let (answer, answered) = oneshot::channel();
    let shared = shared.clone();
    let job = Box::new(move || {
        let _ = answer.send(http_proxy::listen(index, &shared, address, socket));
    });
    workers.run(index, job).await?;
    let listening = answered.await.context("a worker thread is gone")?;
    listening.with_context(|| format!("serving {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_closing_leaves_the_list_when_every_socket_has_closed() {
        let (one, other) = (oneshot::channel(), oneshot::channel());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut closing = Closing { address, sockets: vec![one.1, other.1] };
        // As where waiting for them timed out, when one had closed already.
        drop(one.0);
        let wait = join_all(closing.sockets.iter_mut());
        assert!(tokio::time::timeout(Duration::ZERO, wait).await.is_err());
        let mut listeners = Listeners { closing: vec![closing], ..Listeners::default() };
        listeners.open(&Snapshot::default(), 1).unwrap();
        assert_eq!(listeners.closing.len(), 1);
        drop(other.0);
        listeners.open(&Snapshot::default(), 1).unwrap();
        assert!(listeners.closing.is_empty());
    }
}
