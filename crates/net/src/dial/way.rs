//! Ways to targets that are no address, and what they give: a byte stream.
//!
//! Whoever can reach such targets implements [`Way`], the program hands it to the [`super::Dialer`], and everybody who
//! dials has it from then on. Must not know any way itself.

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use model::Target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::DialError;

/// A connection that is being made. Dropped, all that belongs to it is closed.
pub type Connecting<'w> = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send + 'w>>;

/// Reaches targets of one kind. Shared by all threads.
pub trait Way: Debug + Send + Sync {
    /// Connects to a target within a time. `client` is whose connection it is, where that is one client's.
    fn connect<'w>(
        &'w self,
        target: &'w Target,
        client: Option<SocketAddr>,
        within: Duration,
    ) -> Connecting<'w>;
}

/// A byte stream both ways that is more than a socket: it counts, holds places, or speaks through something else.
pub trait Duplex: AsyncRead + AsyncWrite + Debug + Send + Unpin {
    /// Whether what it reached is still where a new connection would go. An idle connection that is not current had
    /// better not be used again; one in use goes on.
    fn is_current(&self) -> bool;

    /// Whether it may be kept without being used: `false` where it takes a place that others may be waiting for.
    fn may_rest(&self) -> bool {
        true
    }

    /// Makes the close that follows a reset, so that nobody takes what was sent for complete.
    fn reset_on_close(&self);

    /// The socket below it, where it has one of its own: for its addresses and options. Its bytes are not those of the
    /// stream.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// The socket, while what is read from it is what would be read here.
    fn source(&self) -> Option<&TcpStream> {
        None
    }

    /// The socket, while what is written to it is what would be written here.
    fn sink(&self) -> Option<&TcpStream> {
        None
    }
}

/// A connection that came about. A closed set but for [`Stream::Way`], so that plain TCP costs a branch.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// Whatever a [`Way`] gave.
    Way(Box<dyn Duplex>),
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io {
            Stream::Tcp($stream) => $call,
            Stream::Way($stream) => {
                let $stream = &mut **$stream;
                $call
            }
        }
    };
}

impl Stream {
    /// See [`Duplex::is_current`]; an address is where it was.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Way(stream) => stream.is_current(),
        }
    }

    /// See [`Duplex::may_rest`].
    #[must_use]
    pub fn may_rest(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Way(stream) => stream.may_rest(),
        }
    }

    /// The address of this end, where there is a socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket()?.local_addr().ok()
    }

    /// The socket, where nothing stands between it and the bytes.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Way(_) => None,
        }
    }

    /// See [`Duplex::source`].
    #[must_use]
    pub fn source(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Way(stream) => stream.source(),
        }
    }

    /// See [`Duplex::sink`].
    #[must_use]
    pub fn sink(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Way(stream) => stream.sink(),
        }
    }

    /// See [`Duplex::socket`].
    #[must_use]
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Way(stream) => stream.socket(),
        }
    }

    /// See [`Duplex::reset_on_close`].
    pub fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Way(stream) => stream.reset_on_close(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Way(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
