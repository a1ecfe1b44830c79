//! An encrypted stream over any other: rustls' state machine driven by polls, for both sides.
//!
//! Memory a connection: none for bytes while it is idle. Else at most [`SEND_BUFFER_BYTES_MAX`] of sealed bytes that
//! the peer has not taken, and on the way in a part of a record, or of a message of the handshake, and what was read at
//! once beyond what the reader had place for: two records' payload. Buffers belong to the thread (`incoming`,
//! `outgoing`). An end of the bytes below without the peer's close_notify is an error (`UnexpectedEof`), so that a cut
//! body is never taken for a complete one.
//!
//! [`SEND_BUFFER_BYTES_MAX`]: crate::outgoing::SEND_BUFFER_BYTES_MAX

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use model::HttpVersions;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError, WriteTraffic};
use rustls::{Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain::ClientDomain;
use crate::incoming::{Arrived, Incoming, RECORD_PAYLOAD_BYTES_MAX, Unread};
use crate::names::ClientNames;
use crate::outgoing::Outgoing;
use crate::side::Side;

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
    pub(crate) session: Session<S, UnbufferedServerConnection>,
    pub(crate) domain: ClientDomain,
}

impl<S> ServerStream<S> {
    /// What is spoken inside.
    #[must_use]
    pub fn alpn(&self) -> Protocol {
        Protocol::from_alpn(self.session.tls.alpn_protocol())
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
pub(crate) struct Session<S, C> {
    pub(crate) io: S,
    pub(crate) tls: C,
    incoming: Incoming,
    /// Opened, and more than a reader had place for.
    unread: Unread,
    outgoing: Outgoing,
    end: Option<End>,
    /// close_notify is queued: nothing more may be written.
    write_closed: bool,
}

/// Why nothing more is read.
enum End {
    /// The peer said so.
    CloseNotify,
    /// The stream below came to its end before the peer said so.
    Cut,
    /// Somebody broke the protocol. The peer has been told.
    Failed(Box<Error>),
}

impl<S: fmt::Debug, C> fmt::Debug for Session<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and payload are behind the rest.
        f.debug_struct("Session").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<S, C> Session<S, C> {
    pub(crate) fn new(io: S, tls: C) -> Self {
        Self {
            io,
            tls,
            incoming: Incoming::default(),
            unread: Unread::default(),
            outgoing: Outgoing::default(),
            end: None,
            write_closed: false,
        }
    }

    /// Whether data has come that was not read yet.
    pub(crate) fn has_plaintext(&self) -> bool {
        !self.unread.is_empty()
    }

    fn failure(&self) -> io::Result<()> {
        match &self.end {
            Some(End::Failed(error)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, Error::clone(error)))
            }
            _ => Ok(()),
        }
    }
}

impl<S, C> Session<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Side,
{
    /// Drives the handshake to its end, which is when data may be written. What we send last may still wait
    /// for [`Self::poll_flush`].
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.incoming.kept().is_empty() && self.tls.wants_write() {
            // A client begins.
            self.open(&mut [], &mut ReadBuf::new(&mut []));
        }
        while self.tls.is_handshaking() {
            ready!(self.poll_flush(cx))?;
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))?;
            self.failure()?;
            if self.end.is_some() && self.tls.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes in that were read from the stream before.
    ///
    /// # Errors
    /// As they break the protocol; the peer gets an alert.
    pub(crate) fn feed(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let arrived = self.incoming.with(bytes);
        self.take_in(cx, arrived, &mut ReadBuf::new(&mut []));
        self.failure()
    }

    /// Takes in what the stream has. Data goes to the reader, and what is too much for it is kept.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reading = self.incoming.poll_read(&mut self.io, cx, reader.remaining());
        let (arrived, count) = ready!(reading)?;
        if count == 0 {
            self.end = Some(End::Cut);
        } else {
            self.take_in(cx, arrived, reader);
        }
        Poll::Ready(Ok(()))
    }

    fn take_in(&mut self, cx: &mut Context<'_>, mut arrived: Arrived, reader: &mut ReadBuf<'_>) {
        let used = self.open(&mut arrived, reader);
        if !self.incoming.keep(&arrived, used) {
            let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            self.end = Some(End::Failed(Box::new(error)));
        }
        drop(arrived);
        if matches!(self.end, Some(End::Failed(_))) {
            // As far as the stream takes it at once: nobody waits for it.
            let _ = self.poll_send(cx);
        }
        self.outgoing.release();
    }

    /// Lets rustls use bytes up, and collects what it has to say to the peer. How many it needs no more.
    fn open(&mut self, bytes: &mut [u8], reader: &mut ReadBuf<'_>) -> usize {
        let mut used = 0;
        loop {
            let status = self.tls.process(&mut bytes[used..]);
            used += status.discard;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(Ok(record)) = records.next_record() {
                        used += record.discard;
                        let now = record.payload.len().min(reader.remaining());
                        let (now, later) = record.payload.split_at(now);
                        reader.put_slice(now);
                        self.unread.append(later);
                    }
                    if used == bytes.len() && !self.tls.wants_write() {
                        // The most common end, without asking again.
                        return used;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    if self.outgoing.append_message(&mut message).is_err() {
                        return bytes.len();
                    }
                }
                Ok(ConnectionState::TransmitTlsData(collected)) => collected.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    // What comes after it is ignored (RFC 8446 section 6.1).
                    self.end = Some(End::CloseNotify);
                    return bytes.len();
                }
                Ok(_) => return used,
                Err(error) => {
                    self.fail(error);
                    return bytes.len();
                }
            }
        }
    }

    /// Ends the connection, and collects the alert for the peer.
    fn fail(&mut self, error: Error) {
        self.end = Some(End::Failed(Box::new(error)));
        while self.tls.wants_write() {
            // An alert that waits comes before anything else.
            let Ok(ConnectionState::EncodeTlsData(mut alert)) = self.tls.process(&mut []).state
            else {
                return;
            };
            if self.outgoing.append_message(&mut alert).is_err() {
                return;
            }
        }
    }

    /// Hands all sealed bytes to the stream below.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_send(&mut self.io, cx)
    }

    /// Fills the buffer with what has arrived, as far as it reaches. Nothing filled is the peer's
    /// close_notify.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if !self.unread.is_empty() {
            self.unread.give(buf);
            return Poll::Ready(Ok(()));
        }
        while buf.filled().len() == before && buf.remaining() > 0 {
            match self.end {
                None => ready!(self.poll_receive(cx, buf))?,
                Some(End::CloseNotify) => break,
                Some(End::Cut) => return Poll::Ready(Err(cut())),
                Some(End::Failed(_)) => return Poll::Ready(self.failure()),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals as much of the slices as the send buffer takes, and sends what the stream takes.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.failure()?;
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let count = self.seal_slices(bufs)?;
            match self.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The stream is full and nothing more was taken in: it wakes us.
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Ready(Ok(())) if count == 0 => {}
                _ => return Poll::Ready(Ok(count)),
            }
        }
    }

    /// Seals as much as there is place for; slices that are smaller than a record share one.
    fn seal_slices(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = self.outgoing.room();
        if let [one] = bufs {
            let count = one.len().min(room);
            self.seal(&one[..count])?;
            return Ok(count);
        }
        let mut gathered = Gathered::take();
        let mut left = room;
        for buf in bufs {
            let mut rest = &buf[..buf.len().min(left)];
            left -= rest.len();
            while !rest.is_empty() {
                let (now, later) = gathered.split(rest);
                if gathered.0.is_empty() && now.len() == RECORD_PAYLOAD_BYTES_MAX {
                    self.seal(now)?;
                } else {
                    gathered.0.extend_from_slice(now);
                }
                if gathered.0.len() == RECORD_PAYLOAD_BYTES_MAX {
                    self.seal(&gathered.0)?;
                    gathered.0.clear();
                }
                rest = later;
            }
        }
        self.seal(&gathered.0)?;
        Ok(room - left)
    }

    fn seal(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        self.outgoing.reserve_for(payload.len());
        self.with_keys(|keys, place| keys.encrypt(payload, place))
    }

    /// Does something that needs the keys for writing, which there are after the handshake.
    fn with_keys(
        &mut self,
        mut seal: impl FnMut(&mut WriteTraffic<'_, C::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            // What is kept cannot be used before more has come, but rustls wants to see it.
            match self.tls.process(self.incoming.kept()).state {
                Ok(ConnectionState::WriteTraffic(mut keys)) => {
                    return self.outgoing.append(|place| Ok(seal(&mut keys, place)?));
                }
                Ok(ConnectionState::TransmitTlsData(collected)) => collected.done(),
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    self.outgoing.append_message(&mut message)?;
                }
                Ok(ConnectionState::PeerClosed) => {}
                Ok(state) => {
                    return Err(io::Error::other(format!("TLS cannot write: {state:?}")));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Sends close_notify and closes the stream below for writing.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.write_closed, true) && self.failure().is_ok() {
            self.with_keys(|keys, place| keys.queue_close_notify(place))?;
        }
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // The peer is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

fn cut() -> io::Error {
    let words = "the peer closed the connection without TLS' close_notify";
    io::Error::new(io::ErrorKind::UnexpectedEof, words)
}

thread_local! {
    /// Between two writes it belongs to nobody.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Slices of less than a record, in the thread's buffer.
struct Gathered(Vec<u8>);

impl Gathered {
    fn take() -> Self {
        let mut buffer = SPARE.take();
        buffer.clear();
        buffer.reserve(RECORD_PAYLOAD_BYTES_MAX);
        Self(buffer)
    }

    /// What still fits into the record, and the rest.
    fn split<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        bytes.split_at(bytes.len().min(RECORD_PAYLOAD_BYTES_MAX - self.0.len()))
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // At the end of the thread there may be no place left.
        let _ = SPARE.try_with(|spare| spare.replace(buffer));
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
