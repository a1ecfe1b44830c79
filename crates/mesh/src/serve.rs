//! Serving on a worker thread: takes connections off the sockets of clients and of peers.
//!
//! [`client`] is a connection to a cluster port, [`peer`] one to the port that hosts ask each other on. Everything of a
//! connection stays on its worker. Start at [`serve`].

mod client;
mod peer;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balance::Rng;
use net::timer::Beat;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::kept;
use crate::shared::{Counted, Shared};
use crate::stats::{Cells, Family, Key, Used};

/// How long accepting pauses when the process has no descriptor or memory left for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// How long accepting pauses when there are as many connections as there may be.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// Connections that the kernel had queued and that are still taken when a socket is closed.
const QUEUED_MAX: usize = 4096;

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Where clients connect to cluster ports: to the socket's own, or to any that the kernel steers to it.
    pub clients: Vec<std::net::TcpListener>,
    /// Where peers ask for pods.
    pub peers: Vec<std::net::TcpListener>,
}

/// Sockets that a worker serves. Dropped, they are closed as by [`Serving::close`].
#[derive(Debug)]
pub struct Serving {
    close: watch::Sender<bool>,
}

impl Serving {
    /// Stops accepting: what the kernel has queued is still taken, then the sockets close. Connections go on.
    pub fn close(&self) {
        let _ = self.close.send(true);
    }
}

/// What one worker has to itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    rng: RefCell<Rng>,
    beat: Beat,
    clients: RefCell<Used>,
    peers: RefCell<Used>,
    /// The host in the keys of peers' counts.
    no_host: Arc<str>,
    /// Whether the sockets are about to close.
    closing: watch::Receiver<bool>,
}

impl Worker {
    /// Chance for one connection.
    fn rng(&self) -> Rng {
        Rng::new(self.rng.borrow_mut().next_u64())
    }

    fn client_cells(&self, cluster_port: u16, host: &Arc<str>) -> Arc<Cells> {
        Self::cells(&self.clients, &self.shared.clients, cluster_port, host)
    }

    fn peer_cells(&self, cluster_port: u16) -> Arc<Cells> {
        Self::cells(&self.peers, &self.shared.peers, cluster_port, &self.no_host)
    }

    fn cells(used: &RefCell<Used>, of: &Family, cluster_port: u16, host: &Arc<str>) -> Arc<Cells> {
        used.borrow_mut().cells(of, Key { cluster_port, host: host.clone() })
    }
}

/// Which protocol a socket's connections speak.
#[derive(Debug, Clone, Copy)]
enum Side {
    Clients,
    Peers,
}

/// Serves sockets on this worker thread; to be called within its runtime. `seed` should differ between workers.
///
/// # Errors
/// The kernel's, where a socket cannot be watched.
pub fn serve(shared: &Arc<Shared>, seed: u64, sockets: Sockets) -> io::Result<Serving> {
    kept::begin();
    let (close, closing) = watch::channel(false);
    let worker = Rc::new(Worker {
        shared: shared.clone(),
        rng: RefCell::new(Rng::new(seed)),
        beat: Beat::default(),
        clients: RefCell::default(),
        peers: RefCell::default(),
        no_host: "".into(),
        closing: closing.clone(),
    });
    let sides = [(Side::Clients, sockets.clients), (Side::Peers, sockets.peers)];
    for (side, sockets) in sides {
        for socket in sockets {
            let _ = stream::keep_alive(&socket);
            if matches!(side, Side::Peers) {
                net::listen::answer_soon(&socket);
            }
            let socket = TcpListener::from_std(socket)?;
            let (worker, closing) = (worker.clone(), closing.clone());
            net::task::spawn_local("accept", accept(worker, socket, side, closing));
        }
    }
    Ok(Serving { close })
}

async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    side: Side,
    mut closing: watch::Receiver<bool>,
) {
    let mut closed = pin!(closing.wait_for(|closed| *closed));
    loop {
        let full = worker.shared.is_full();
        tokio::select! {
            biased;
            _ = &mut closed => break,
            () = tokio::time::sleep(FULL_PAUSE), if full => {}
            accepted = socket.accept(), if !full => {
                if !begin(&worker, side, accepted) {
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
    // Else closing would reset what the kernel had already queued.
    for _ in 0..QUEUED_MAX {
        let queued = tokio::time::timeout(Duration::ZERO, socket.accept()).await;
        let Ok(accepted) = queued else { break };
        if !begin(&worker, side, accepted) {
            break;
        }
    }
}

/// Starts a connection's task. `false` where the process has no room for more of them.
fn begin(worker: &Rc<Worker>, side: Side, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
    let (stream, from) = match accepted {
        Ok(accepted) => accepted,
        // It concerns one connection that is gone; anything else is exhaustion.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return true,
        Err(error) => {
            tracing::warn!(%error, "accepting a connection");
            return false;
        }
    };
    // Counted here and not by its task, which runs later: a burst must not get past the limit.
    let counted = Counted::new(&worker.shared);
    worker.beat.go_on();
    let worker = worker.clone();
    match side {
        Side::Clients => {
            net::task::spawn_local("client", client::serve(worker, stream, from, counted));
        }
        Side::Peers => {
            net::task::spawn_local("peer", peer::serve(worker, stream, from, counted));
        }
    }
    true
}
