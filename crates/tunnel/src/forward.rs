//! Local ports for programs that speak no Konnectivity: each leads through a tunnel, to one target or, by SOCKS5 and
//! HTTP CONNECT, to whatever a program asks for. [`udp`] has those for datagrams.
//!
//! Bytes go between the program's socket and the tunnel without a copy of their own. Must not know flags. Start at
//! [`serve`].

mod ask;
mod socks5;
pub mod udp;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::client::{Client, ClientError, Connection, To};
use crate::server::listen::{self, Accepting};
use crate::splice::{Cut, Manners, splice};
use crate::stats::{Counter, Gauge};

pub use socks5::Credentials;

/// Connections of programs at a time; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 65_536;
/// How long it may take until there is a connection through the tunnel, as Konnectivity's own library has it.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a program may send before there is one; the rest stays in its socket.
const EARLY_BYTES_MAX: usize = 64 * 1024;
/// How long a program may take to say where it wants to go.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// What a local port does.
#[derive(Debug)]
pub enum Port {
    /// Leads to one target.
    Direct(To),
    /// SOCKS5 (RFC 1928) CONNECT, with a name and a password (RFC 1929) if they are given. Names are resolved where the
    /// agent is.
    Socks5 {
        /// Asked for, if there are any.
        credentials: Option<Credentials>,
        /// Whose agent is taken.
        cluster: Option<String>,
    },
    /// HTTP/1.1 CONNECT.
    HttpConnect {
        /// Whose agent is taken, unless the program says it itself.
        cluster: Option<String>,
    },
}

/// What is counted beside what the client counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections of programs now.
    pub open: Gauge,
    /// Programs that did not say where they want to go, or said it wrongly.
    pub unasked: Counter,
    /// Datagrams for which there was no room.
    pub datagrams_dropped: Counter,
}

/// What all local ports have in common.
#[derive(Debug)]
pub struct Forward {
    client: Arc<Client>,
    places: Arc<Semaphore>,
    /// What is counted.
    pub stats: Stats,
}

impl Forward {
    /// Through this client.
    #[must_use]
    pub fn new(client: Arc<Client>) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Arc::new(Self { client, places, stats: Stats::default() })
    }

    /// What it goes through.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

/// Serves a local port on this worker thread until what it returns is dropped. Connections go on.
///
/// # Errors
/// Where the runtime does not take the socket.
pub fn serve(
    forward: &Arc<Forward>,
    listener: std::net::TcpListener,
    port: &Arc<Port>,
) -> io::Result<Accepting> {
    let listener = TcpListener::from_std(listener)?;
    let accepting = accept(forward.clone(), listener, port.clone());
    Ok(Accepting::new(vec![net::task::spawn_local("local port", accepting)]))
}

async fn accept(forward: Arc<Forward>, listener: TcpListener, port: Arc<Port>) {
    loop {
        let Ok(place) = forward.places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (forward, port) = (forward.clone(), port.clone());
                drop(net::task::spawn_local("forwarded connection", async move {
                    let _place = place;
                    let _open = forward.stats.open.count();
                    if let Err(error) = carry(&forward, stream, &port).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(%peer, error, "a connection was not forwarded");
                    }
                }));
            }
            Err(error) => listen::pause(&error).await,
        }
    }
}

/// Why a program's connection was not forwarded.
#[derive(Debug, thiserror::Error)]
enum NotForwarded {
    /// It did not say where to, or wrongly.
    #[error("the program did not ask for a connection: {0}")]
    Unasked(&'static str),
    /// Its socket failed.
    #[error("the program's connection failed")]
    Io(#[from] io::Error),
    /// There is no way there.
    #[error("no connection to {to}")]
    Dial {
        /// Where it was to go.
        to: String,
        /// Why not.
        #[source]
        source: ClientError,
    },
}

async fn carry(forward: &Forward, mut program: TcpStream, port: &Port) -> Result<(), NotForwarded> {
    let asking = tokio::time::timeout(ASK_TIMEOUT, ask::ask(port, &mut program));
    let asked = asking.await.unwrap_or(Err(NotForwarded::Unasked("it said nothing")));
    let asked = asked.inspect_err(|_| forward.stats.unasked.add(1))?;
    let mut early = BytesMut::from(asked.early);
    let dialled = tokio::select! {
        dialled = forward.client.connect(&asked.to, DIAL_TIMEOUT) => dialled,
        error = broken(&mut program, &mut early) => return Err(error.into()),
    };
    match dialled {
        Ok(connection) => {
            ask::granted(port, &mut program).await?;
            run(connection, program, early.freeze()).await;
            Ok(())
        }
        Err(source) => {
            ask::refused(port, program, &source).await;
            Err(NotForwarded::Dial { to: asked.to.to_string(), source })
        }
    }
}

async fn run(connection: Connection, program: TcpStream, early: Bytes) {
    let manners = Manners { linger: None, reset, cut: Cut::BreaksOff };
    let end = splice(connection, program, early, manners).await;
    tracing::trace!(?end, "a connection has ended");
}

/// Ready when the program's connection has broken off. What it sends meanwhile is kept, up to a bound; that it sends
/// nothing more does not mean that it wants no answer.
async fn broken(program: &mut TcpStream, early: &mut BytesMut) -> io::Error {
    while early.len() < EARLY_BYTES_MAX {
        let room = EARLY_BYTES_MAX - early.len();
        match (&mut *program).take(room as u64).read_buf(early).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// Breaks a program's connection off: it asked for nothing that could be told.
fn reset(program: &TcpStream) {
    // Where that fails it is closed in the usual way.
    let _ = program.set_zero_linger();
}
