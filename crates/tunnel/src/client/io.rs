//! A connection to a server: TCP and TLS, or a Unix socket.
//!
//! Must not know what is spoken on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use model::TunnelServer;
use tls::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Client;
use super::server::ServerError;
use crate::buffered::Buffered;
use crate::http2;

/// For all that it takes to reach a server; whoever calls [`open`] sees to it.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(super) enum Io {
    /// TLS on TCP.
    Tls(Box<ClientStream<Buffered<TcpStream>>>),
    /// A Unix socket.
    Unix(Buffered<UnixStream>),
}

/// Connects. What is written is sent when it is flushed. Dropped, it is closed.
pub(super) async fn open(client: &Client, server: &TunnelServer) -> Result<Io, ServerError> {
    match server {
        TunnelServer::Tcp(target) => {
            let tls = client.tls.as_ref().ok_or(ServerError::NoTls)?.load_full();
            let stream = client.dialer.connect_tcp(target, CONNECT_TIMEOUT).await?;
            http2::keep_queue_short(&stream);
            let stream = tls.connect(Buffered::new(stream), &target.host()).await?;
            stream.io().bundle_writes();
            Ok(Io::Tls(Box::new(stream)))
        }
        TunnelServer::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(ServerError::Unix)?;
            let stream = Buffered::new(stream);
            stream.bundle_writes();
            Ok(Io::Unix(stream))
        }
    }
}

impl Io {
    /// Makes the close that follows a reset; a Unix socket knows none.
    pub(super) fn reset_on_close(&self) {
        if let Some(socket) = self.tcp() {
            // Where that fails it is closed in the usual way.
            let _ = socket.set_zero_linger();
        }
    }

    /// The socket, where it is TCP's.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tls(stream) => Some(stream.io().inner()),
            Self::Unix(_) => None,
        }
    }
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io.get_mut() {
            Io::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
            Io::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
