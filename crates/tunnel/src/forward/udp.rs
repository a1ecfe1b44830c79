//! A local port for UDP: each of those who send there has a connection of its own through the tunnel, until nothing was
//! sent for a while.
//!
//! Must not know how datagrams are carried.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::{DIAL_TIMEOUT, Forward};
use crate::client::To;
use crate::datagrams::{self, Datagrams};
use crate::server::listen::{self, Accepting};

/// Of one port on one worker: who may send there at a time; datagrams of others are dropped.
pub const SENDERS_MAX: usize = 4096;
/// Datagrams of one sender that wait, as until there is a connection; further ones are dropped.
const WAITING_MAX: usize = 64;
/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = u16::MAX as usize;
/// New senders after which it is looked for those that have gone.
const LOOK_AFTER: usize = 64;

/// Serves a local port for UDP on this worker thread until what it returns is dropped; so are those who send there.
///
/// # Errors
/// Where the runtime does not take the socket.
pub fn serve(
    forward: &Arc<Forward>,
    socket: std::net::UdpSocket,
    to: &To,
    idle: Duration,
) -> io::Result<Accepting> {
    let port = Port {
        forward: forward.clone(),
        socket: Arc::new(UdpSocket::from_std(socket)?),
        to: to.clone(),
        idle,
        senders: FxHashMap::default(),
        new: 0,
    };
    Ok(Accepting::new(vec![net::task::spawn_local("local port", port.run())]))
}

struct Port {
    forward: Arc<Forward>,
    socket: Arc<UdpSocket>,
    to: To,
    idle: Duration,
    senders: FxHashMap<SocketAddr, mpsc::Sender<Bytes>>,
    new: usize,
}

impl Port {
    async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                    if !self.take(from, datagram) {
                        self.forward.stats.datagrams_dropped.add(1);
                    }
                }
                Err(error) => listen::pause(&error).await,
            }
        }
    }

    /// Whether there is room for a datagram.
    fn take(&mut self, from: SocketAddr, datagram: Bytes) -> bool {
        let known = self.senders.get(&from).filter(|sender| !sender.is_closed());
        match known.cloned().or_else(|| self.begin(from)) {
            Some(sender) => sender.try_send(datagram).is_ok(),
            None => false,
        }
    }

    /// A connection for one more sender, if there may be one.
    fn begin(&mut self, from: SocketAddr) -> Option<mpsc::Sender<Bytes>> {
        self.new += 1;
        if self.new >= LOOK_AFTER || self.senders.len() >= SENDERS_MAX {
            self.new = 0;
            self.senders.retain(|_, sender| !sender.is_closed());
        }
        if self.senders.len() >= SENDERS_MAX {
            return None;
        }
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        self.senders.insert(from, sender.clone());
        let side = Sender { waiting, socket: self.socket.clone(), address: from };
        let (forward, to, idle) = (self.forward.clone(), self.to.clone(), self.idle);
        drop(net::task::spawn_local("forwarded datagrams", async move {
            let _open = forward.stats.open.count();
            match forward.client.connect(&to, DIAL_TIMEOUT).await {
                Ok(connection) => {
                    datagrams::carry(connection, side, idle, &forward.stats.datagrams_dropped)
                        .await;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%from, %to, error, "datagrams were not forwarded");
                }
            }
        }));
        Some(sender)
    }
}

/// One of those who send to a local port.
struct Sender {
    waiting: mpsc::Receiver<Bytes>,
    socket: Arc<UdpSocket>,
    address: SocketAddr,
}

impl Datagrams for Sender {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(datagram) = ready!(self.waiting.poll_recv(cx)) else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        into.put_slice(&datagram);
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, datagram, self.address)
    }
}
