//! A connection between two hosts while it carries one connection of a client in [`crate::frames`]. When both
//! directions have ended it goes back to where it is kept; broken off, or dropped before, it is closed.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use net::dial::{Duplex, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::frames::{END, HEAD_BYTES, Malformed, RAW, Reader, Taken, head};

/// After so many bytes one way there are no frames any more: the connection is worth less than what they cost then.
const RAW_AFTER_BYTES: usize = 256 * 1024;
/// Pieces of payload that are written at once.
const PIECES_MAX: usize = 7;

/// Where a connection goes that can be used again.
pub(crate) trait Home: Debug + Send + 'static {
    /// Takes it, and what has come behind the end of the other side's frames.
    fn take_back(&mut self, stream: Stream, behind: Vec<u8>);
}

/// One.
#[derive(Debug)]
pub(crate) struct Framed<H: Home> {
    /// Until it has gone back.
    stream: Option<Stream>,
    reader: Reader,
    /// What was read before there were frames, and is some.
    early: Vec<u8>,
    behind: Vec<u8>,
    writer: Writer,
    is_broken: Cell<bool>,
    home: H,
}

#[derive(Debug)]
struct Writer {
    stage: Stage,
    /// Of the last head so many bytes are written.
    head: [u8; HEAD_BYTES],
    head_written: usize,
    /// Of the last frame's payload so much is not.
    left: usize,
    sent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Frames,
    Raw,
    Ending,
    Ended,
}

impl<H: Home> Framed<H> {
    /// From now on there are frames, of which `early` has been read.
    pub(crate) fn new(stream: Stream, early: Vec<u8>, home: H) -> Self {
        let writer =
            Writer { stage: Stage::Frames, head: END, head_written: HEAD_BYTES, left: 0, sent: 0 };
        let (reader, is_broken) = (Reader::default(), Cell::new(false));
        let behind = Vec::new();
        Self { stream: Some(stream), reader, early, behind, writer, is_broken, home }
    }

    fn fill(
        stream: &mut Stream,
        early: &mut Vec<u8>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if early.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        let count = early.len().min(buf.remaining());
        buf.put_slice(&early[..count]);
        early.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl Writer {
    /// Begins what comes next, where nothing is begun.
    fn begin(&mut self, payload: usize) {
        if self.stage == Stage::Raw || self.is_within() {
            return;
        }
        if self.sent >= RAW_AFTER_BYTES {
            (self.head, self.stage) = (RAW, Stage::Raw);
        } else {
            (self.head, self.left) = head(payload);
        }
        self.head_written = 0;
    }

    /// Whether a frame has begun and is not complete.
    fn is_within(&self) -> bool {
        self.left > 0 || self.head_written < HEAD_BYTES
    }

    /// How much payload may be written now.
    fn may(&self) -> usize {
        if self.stage == Stage::Raw { usize::MAX } else { self.left }
    }

    /// So many bytes are written, the head's first: so many of the payload.
    fn wrote(&mut self, count: usize) -> usize {
        let of_head = count.min(HEAD_BYTES - self.head_written);
        self.head_written += of_head;
        let payload = count - of_head;
        self.left = self.left.saturating_sub(payload);
        self.sent = self.sent.saturating_add(payload);
        payload
    }

    /// Writes what is left of a head.
    fn poll_head(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        while self.head_written < HEAD_BYTES {
            let rest = &self.head[self.head_written..];
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head_written += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl<H: Home> Drop for Framed<H> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().filter(|_| !self.is_broken.get()) else { return };
        match self.writer.stage {
            Stage::Ended if self.reader.has_ended() && self.early.is_empty() => {
                self.home.take_back(stream, std::mem::take(&mut self.behind));
            }
            // A socket that is closed has ended in order, and so has this: as far as the kernel takes it at once.
            Stage::Frames if !self.writer.is_within() => {
                let _ = stream.tcp().map(|socket| socket.try_write(&END));
            }
            _ => {}
        }
    }
}

impl<H: Home + Unpin> Duplex for Framed<H> {
    /// Whoever holds it knows what it leads to.
    fn is_current(&self) -> bool {
        true
    }

    fn reset_on_close(&self) {
        self.is_broken.set(true);
        if let Some(stream) = &self.stream {
            stream.reset_on_close();
        }
    }

    fn socket(&self) -> Option<&TcpStream> {
        self.stream.as_ref()?.socket()
    }

    fn source(&self) -> Option<&TcpStream> {
        let is_raw = self.reader.is_raw() && self.early.is_empty();
        self.stream.as_ref().filter(|_| is_raw)?.source()
    }

    fn sink(&self) -> Option<&TcpStream> {
        let is_raw = self.writer.stage == Stage::Raw && !self.writer.is_within();
        self.stream.as_ref().filter(|_| is_raw)?.sink()
    }
}

fn no_frames(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<H: Home + Unpin> AsyncRead for Framed<H> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        while !this.reader.has_ended() && buf.remaining() > 0 {
            let before = buf.filled().len();
            ready!(Self::fill(stream, &mut this.early, cx, buf))?;
            if buf.filled().len() == before {
                // Without frames that is how it ends, and with them it has broken off.
                let end = if this.reader.is_raw() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
                return Poll::Ready(end);
            }
            let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
            let Taken { payload, used } = this.reader.take(came).map_err(no_frames)?;
            this.behind.extend_from_slice(came.get(used..).unwrap_or_default());
            buf.set_filled(before + payload);
            if payload > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<H: Home + Unpin> AsyncWrite for Framed<H> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// What was begun is gone on with: whoever writes has the bytes that were not taken come first again, as always.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        let pieces = slices.iter().filter(|slice| !slice.is_empty()).take(PIECES_MAX);
        let payload: usize = pieces.clone().map(|piece| piece.len()).sum();
        if payload == 0 {
            return Poll::Ready(Ok(0));
        }
        if matches!(this.writer.stage, Stage::Ending | Stage::Ended) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.writer.begin(payload);
        loop {
            let head = this.writer.head;
            let mut out = [IoSlice::new(&[]); 1 + PIECES_MAX];
            out[0] = IoSlice::new(&head[this.writer.head_written..]);
            let mut may = this.writer.may();
            for (slot, piece) in out[1..].iter_mut().zip(pieces.clone()) {
                let count = piece.len().min(may);
                *slot = IoSlice::new(&piece[..count]);
                may -= count;
            }
            let wrote = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &out))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = this.writer.wrote(wrote);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut().stream.as_mut().ok_or_else(gone)?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        loop {
            match this.writer.stage {
                Stage::Frames if this.writer.left > 0 => {
                    // A part of a frame cannot be taken back.
                    return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
                }
                Stage::Frames => {
                    (this.writer.head, this.writer.head_written) = (END, 0);
                    this.writer.stage = Stage::Ending;
                }
                Stage::Ending => {
                    ready!(this.writer.poll_head(cx, stream))?;
                    ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                    this.writer.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Raw => {
                    ready!(this.writer.poll_head(cx, stream))?;
                    return Pin::new(stream).poll_shutdown(cx);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Home for Kept {
        fn take_back(&mut self, _: Stream, behind: Vec<u8>) {
            self.0.lock().unwrap().push(behind);
        }
    }

    async fn pair() -> (Framed<Kept>, TcpStream, Kept) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let kept = Kept::default();
        near.writable().await.unwrap();
        (Framed::new(Stream::Tcp(near), Vec::new(), kept.clone()), far, kept)
    }

    /// What the other side hears when this one is dropped, and whether that ends in order.
    async fn heard(framed: Framed<Kept>, mut far: TcpStream) -> (Vec<u8>, bool) {
        drop(framed);
        let mut heard = Vec::new();
        let in_order = far.read_to_end(&mut heard).await.is_ok();
        (heard, in_order)
    }

    #[tokio::test]
    async fn it_is_kept_after_both_ends_alone() {
        let (mut framed, mut far, kept) = pair().await;
        far.write_all(b"\0\0\0\x01x\0\0\0\0more").await.unwrap();
        let mut said = Vec::new();
        framed.read_to_end(&mut said).await.unwrap();
        assert_eq!((said.as_slice(), framed.behind.as_slice()), (&b"x"[..], &b"more"[..]));
        framed.write_all(b"yz").await.unwrap();
        framed.shutdown().await.unwrap();
        assert_eq!(heard(framed, far).await, (b"\0\0\0\x02yz\0\0\0\0".to_vec(), true));
        assert_eq!(*kept.0.lock().unwrap(), [b"more".to_vec()]);
    }

    #[tokio::test]
    async fn dropped_before_it_ends_in_order_and_broken_it_does_not() {
        let (mut framed, far, kept) = pair().await;
        framed.write_all(b"yz").await.unwrap();
        assert_eq!(heard(framed, far).await, (b"\0\0\0\x02yz\0\0\0\0".to_vec(), true));
        let (framed, far, other) = pair().await;
        framed.reset_on_close();
        assert_eq!(heard(framed, far).await, (Vec::new(), false));
        assert!(kept.0.lock().unwrap().is_empty() && other.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn much_goes_without_frames_and_small_pieces_together() {
        let (mut framed, mut far, kept) = pair().await;
        let pieces = [&b"a"[..], b"", b"bc"].map(IoSlice::new);
        assert_eq!(framed.write_vectored(&pieces).await.unwrap(), 3);
        let mut head = [0; 7];
        far.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"\0\0\0\x03abc");
        let payload = vec![7; 2 * RAW_AFTER_BYTES];
        let reads = net::task::spawn("reads", async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        for piece in payload.chunks(RAW_AFTER_BYTES / 3) {
            framed.write_all(piece).await.unwrap();
        }
        assert!(framed.sink().is_some() && framed.source().is_none());
        framed.shutdown().await.unwrap();
        drop(framed);
        let mut all = reads.await.unwrap();
        let mut reader = Reader::default();
        let Taken { payload: count, used } = reader.take(&mut all).unwrap();
        assert_eq!(
            (&all[..count] == payload.as_slice(), used, reader.is_raw()),
            (true, all.len(), true)
        );
        assert!(kept.0.lock().unwrap().is_empty());
    }
}
