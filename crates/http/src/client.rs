//! A client's connection as requests see it: who it is, over what it came, what to count for it.
//!
//! Must not know the protocol spoken on it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

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
    /// What the client had to show to get the connection.
    pub(crate) domain: tls::ClientDomain,
    pub(crate) cells: Arc<ListenerCells>,
    pub(crate) handle: Rc<Handle>,
    /// Where the listener stood when it was last looked up: a program's generation, and the index in it.
    place: Cell<(u64, usize)>,
}

impl Client {
    /// Counts the connection as its listener's until this is dropped.
    pub(crate) fn new(
        worker: Rc<Worker>,
        peer: SocketAddr,
        listener: SocketAddr,
        scheme: &'static str,
        cells: Arc<ListenerCells>,
    ) -> Self {
        let ip = peer.ip().to_canonical();
        let handle = worker.register(listener);
        cells.connections.add(1);
        cells.open.add(1);
        let place = Cell::default();
        let (ip_text, port) = (ip.to_string().into(), peer.port());
        let domain = tls::ClientDomain::default();
        Self { worker, ip, ip_text, port, listener, scheme, domain, cells, handle, place }
    }

    /// Whether the connection should end after the request under way.
    pub(crate) fn is_closing(&self) -> bool {
        self.handle.is_closing() || self.worker.shared.is_draining()
    }

    /// Whether an HTTP/1 answer should be the last of its connection.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_closing() || self.worker.shared.is_leaving()
    }

    /// The newest program and this listener's index in it. Where the listener is no longer in it, the last program
    /// that had it: the connection is closing then, and a request that is already there is still answered.
    ///
    /// To be asked for each request and not kept: an idle connection must not hold on to an old program.
    pub(crate) fn program(&self) -> Option<(Rc<Local>, usize)> {
        let local = self.worker.local();
        let (generation, index) = self.place.get();
        if generation == local.program.generation {
            return Some((local, index));
        }
        match local.program.listener_at(self.listener) {
            Some(index) => {
                self.place.set((local.program.generation, index));
                Some((local, index))
            }
            None => self.worker.last_with(self.listener),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.cells.open.sub(1);
    }
}
