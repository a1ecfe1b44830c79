//! What the bytes of a connection come over, to a client or to an endpoint: plain, or TLS of either side. Must not know
//! what the bytes mean.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use net::dial::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What bytes come over. A closed set, so that a poll of a socket is a branch and not a call through a table.
#[derive(Debug)]
pub(crate) enum Io {
    /// As they are.
    Plain(Stream),
    /// TLS that a client began with us.
    Accepted(Box<tls::ServerStream<TcpStream>>),
    /// TLS that we began with an upstream.
    Connected(Box<tls::ClientStream<Stream>>),
}

impl From<TcpStream> for Io {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(Stream::Tcp(socket))
    }
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io {
            Io::Plain($stream) => $call,
            Io::Accepted($stream) => {
                let $stream = &mut **$stream;
                $call
            }
            Io::Connected($stream) => {
                let $stream = &mut **$stream;
                $call
            }
        }
    };
}

impl Io {
    /// The stream below, where it is one that was dialled, or plain.
    fn below(&self) -> Result<&Stream, &TcpStream> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Accepted(stream) => Err(stream.io()),
            Self::Connected(stream) => Ok(stream.io()),
        }
    }

    /// The socket over which these bytes come, as they are or encrypted; none where something else stands in between.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self.below() {
            Ok(stream) => stream.tcp(),
            Err(socket) => Some(socket),
        }
    }

    /// See [`net::dial::Duplex::socket`].
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self.below() {
            Ok(stream) => stream.socket(),
            Err(socket) => Some(socket),
        }
    }

    /// See [`net::dial::Duplex::is_current`].
    pub(crate) fn is_current(&self) -> bool {
        self.below().map_or(true, Stream::is_current)
    }

    /// See [`net::dial::Duplex::may_rest`].
    pub(crate) fn may_rest(&self) -> bool {
        self.below().map_or(true, Stream::may_rest)
    }

    /// See [`net::dial::Duplex::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        match self.below() {
            Ok(stream) => stream.reset_on_close(),
            Err(socket) => drop(socket.set_zero_linger()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
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
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
