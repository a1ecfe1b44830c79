//! A secured connection between two hosts, as the dialer's kind of stream: a plain one is a socket, this is the other.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use net::dial::{Duplex, Stream};
use tls::{ClientStream, ServerStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One, of either side.
#[derive(Debug)]
pub(crate) struct Sealed<T>(T);

/// What is sealed has a socket below it.
pub(crate) trait OverSocket:
    AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static
{
    fn socket(&self) -> &TcpStream;
}

impl OverSocket for ClientStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.io()
    }
}

impl OverSocket for ServerStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.io()
    }
}

/// Makes it one.
pub(crate) fn sealed(stream: impl OverSocket) -> Stream {
    Stream::Way(Box::new(Sealed(stream)))
}

/// Whether nobody on the way can read a connection between hosts.
pub(crate) fn is_sealed(stream: &Stream) -> bool {
    matches!(stream, Stream::Way(_))
}

impl<T: OverSocket> Duplex for Sealed<T> {
    /// Whoever holds it knows what it leads to.
    fn is_current(&self) -> bool {
        true
    }

    fn reset_on_close(&self) {
        let _ = self.0.socket().set_zero_linger();
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(OverSocket::socket(&self.0))
    }
}

impl<T: OverSocket> AsyncRead for Sealed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<T: OverSocket> AsyncWrite for Sealed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
