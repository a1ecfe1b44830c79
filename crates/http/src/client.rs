//! A client's connection as requests see it: who it is, over what it came, what to count for it.
//!
//! Must not know the protocol spoken on it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::stats::ListenerCells;
use crate::worker::{Handle, Local, Worker};

/// One client connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// The client's address, IPv4 as IPv4.
    pub(crate) ip: IpAddr,
    /// The same as text.
    pub(crate) ip_text: Box<str>,
    pub(crate) port: u16,
    /// The address that the listener was configured with: how it is found again in a new program.
    pub(crate) listener: SocketAddr,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) cells: Arc<ListenerCells>,
    pub(crate) handle: Rc<Handle>,
}

impl Client {
    /// Counts the connection as open until this is dropped.
    pub(crate) fn new(
        worker: Rc<Worker>,
        peer: SocketAddr,
        listener: SocketAddr,
        scheme: &'static str,
        cells: Arc<ListenerCells>,
    ) -> Self {
        let ip = peer.ip().to_canonical();
        let handle = worker.register(listener);
        worker.shared.connections.fetch_add(1, Ordering::Relaxed);
        cells.connections.add(1);
        cells.open.add(1);
        Self { worker, ip, ip_text: ip.to_string().into(), port: peer.port(), listener, scheme, cells, handle }
    }

    /// Whether the connection should end after the request under way.
    pub(crate) fn is_closing(&self) -> bool {
        self.handle.is_closing() || self.worker.shared.is_draining()
    }

    /// The newest program and this listener's index in it; `None` where it is no longer in it. Then the connection
    /// is closing, and a request that is already there is answered by the rules that are left in `last`.
    pub(crate) fn program(&self, last: &mut Option<(Rc<Local>, usize)>) -> Option<(Rc<Local>, usize)> {
        let local = self.worker.local();
        if let Some((known, index)) = last
            && known.program.generation == local.program.generation
        {
            return Some((local, *index));
        }
        if let Some(index) = local.program.listener_at(self.listener) {
            *last = Some((local, index));
        }
        last.clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.cells.open.sub(1);
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
