//! An encrypted stream over any other: rustls' state machine driven by polls, for both sides.
//!
//! Memory a connection: at most [`SEND_BUFFER_BYTES_MAX`] of sealed bytes that the peer has not taken, and
//! on the way in one record (16 KiB) plus what rustls reads ahead (4 KiB). An end of the bytes below
//! without the peer's close_notify is an error (`UnexpectedEof`), so that a cut body is never taken for a
//! complete one.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use model::HttpVersions;
use rustls::{ConnectionCommon, ServerConnection, SideData};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain::ClientDomain;
use crate::names::ClientNames;

/// Sealed bytes kept for a peer that reads slowly; beyond it writes wait.
pub(crate) const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The ALPN names offered to clients, preferred first.
pub(crate) fn alpn_served(versions: HttpVersions) -> &'static [&'static [u8]] {
    const SERVED: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];
    match versions {
        HttpVersions::All => SERVED,
        HttpVersions::Http1 => &SERVED[1..],
        HttpVersions::Http2 => &SERVED[..1],
    }
}

/// What is spoken inside, as ALPN settled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1; also without ALPN.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    pub(crate) fn from_alpn(name: Option<&[u8]>) -> Self {
        if name == Some(b"h2") { Self::Http2 } else { Self::Http1 }
    }
}

/// A client's connection after the handshake. Closing for writing ([`AsyncWrite::poll_shutdown`]) sends
/// close_notify; dropping it does not.
#[derive(Debug)]
pub struct ServerStream<S> {
    pub(crate) session: Session<S, ServerConnection>,
    pub(crate) domain: ClientDomain,
}

impl<S> ServerStream<S> {
    /// What is spoken inside.
    #[must_use]
    pub fn alpn(&self) -> Protocol {
        Protocol::from_alpn(self.session.tls.alpn_protocol())
    }

    /// The server name that the client asked for, in lower case.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        self.session.tls.server_name()
    }

    /// What the client had to show.
    #[must_use]
    pub fn domain(&self) -> &ClientDomain {
        &self.domain
    }

    /// Who the client is by its certificate, which has been verified; `None` where it showed none.
    #[must_use]
    pub fn client_names(&self) -> Option<ClientNames> {
        let leaf = self.session.tls.peer_certificates()?.first()?;
        Some(ClientNames::parse(leaf))
    }

    /// Whether the handshake resumed an earlier session.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.session.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The stream below.
    #[must_use]
    pub fn io(&self) -> &S {
        &self.session.io
    }
}

/// A connection of either side over a stream.
#[derive(Debug)]
pub(crate) struct Session<S, C> {
    pub(crate) io: S,
    pub(crate) tls: C,
    /// close_notify is queued: nothing more may be written.
    write_closed: bool,
}

impl<S, C> Session<S, C> {
    pub(crate) fn new(io: S, tls: C) -> Self {
        Self { io, tls, write_closed: false }
    }
}

impl<S, C, D> Session<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: DerefMut + Deref<Target = ConnectionCommon<D>>,
    D: SideData,
{
    /// Drives the handshake to its end, which is when data may be written. What we send last may still wait
    /// for [`Self::poll_flush`].
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_flush(cx))?;
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether data has come that was not read yet.
    pub(crate) fn has_plaintext(&mut self) -> bool {
        self.tls.reader().into_first_chunk().is_ok_and(|chunk| !chunk.is_empty())
    }

    /// Takes in what the stream has and processes it. 0 at its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_take(cx, &mut FirstBytes::default()))?;
        self.process(cx)?;
        Poll::Ready(Ok(count))
    }

    /// Takes in what the stream has, without processing it, and notes how it begins.
    pub(crate) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut FirstBytes,
    ) -> Poll<io::Result<usize>> {
        poll_take(&mut self.io, cx, first, |view| self.tls.read_tls(view))
    }

    /// Processes what was taken in. Where it breaks the protocol the peer gets an alert.
    pub(crate) fn process(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.tls.process_new_packets().map(|_| ()).map_err(|error| {
            // As far as the stream takes it at once: nobody waits for it.
            let _ = self.poll_send(cx);
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    /// Hands all sealed bytes to the stream below.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut BlockingView { io: &mut self.io, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the buffer with what has arrived, as far as it reaches. Nothing filled is the peer's
    /// close_notify.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buf.filled().len();
            while buf.remaining() > 0 {
                match self.tls.reader().into_first_chunk() {
                    Ok([]) => return Poll::Ready(Ok(())),
                    Ok(chunk) => {
                        let count = chunk.len().min(buf.remaining());
                        buf.put_slice(&chunk[..count]);
                        self.tls.reader().consume(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // What came before the cut is still delivered; the next read tells.
                    Err(_) if buf.filled().len() > before => break,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Seals as much of the slices as the send buffer takes, and sends what the stream takes.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            _ if bufs.iter().all(|buf| buf.is_empty()) => Poll::Ready(Ok(0)),
            [one] => self.poll_seal(cx, |tls| tls.writer().write(one)),
            many => self.poll_seal(cx, |tls| tls.writer().write_vectored(many)),
        }
    }

    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl Fn(&mut C) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            let count = seal(&mut self.tls)?;
            match self.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The stream is full and nothing more was taken in: it wakes us.
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Ready(Ok(())) if count == 0 => {}
                _ => return Poll::Ready(Ok(count)),
            }
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Sends close_notify and closes the stream below for writing.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_closed {
            self.tls.send_close_notify();
            self.write_closed = true;
        }
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // The peer is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

/// Lets rustls take in what a stream has, and notes how that begins. 0 at its end.
pub(crate) fn poll_take<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    first: &mut FirstBytes,
    take: impl FnOnce(&mut dyn Read) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    match take(&mut Noting { inner: BlockingView { io, cx }, first }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        taken => Poll::Ready(taken),
    }
}

/// A polled stream as rustls wants to see it: `WouldBlock` for pending.
struct BlockingView<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for BlockingView<'_, '_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        or_would_block(Pin::new(&mut *self.io).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for BlockingView<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

/// How a read began.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes {
    bytes: [u8; Self::BYTES_MAX],
    count: usize,
}

impl FirstBytes {
    const BYTES_MAX: usize = 8;

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.count]
    }
}

/// A reader that notes how what it read begins.
struct Noting<'a, R> {
    inner: R,
    first: &'a mut FirstBytes,
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        let noted = count.min(FirstBytes::BYTES_MAX);
        self.first.bytes[..noted].copy_from_slice(&buf[..noted]);
        self.first.count = noted;
        Ok(count)
    }
}

/// Both traits for a stream of either side, by its `session`.
macro_rules! stream_over_session {
    ($stream:ident) => {
        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for $stream<S> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.session.poll_read(cx, buf)
            }
        }

        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $stream<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.session.poll_write(cx, &[IoSlice::new(buf)])
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.session.poll_write(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.session.poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                self.session.poll_shutdown(cx)
            }
        }
    };
}
pub(crate) use stream_over_session;

stream_over_session!(ServerStream);
