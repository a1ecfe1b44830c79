//! Bytes from one socket to another within the kernel, through a pipe: they are never copied into this process, and
//! mostly not copied at all.
//!
//! It pays for much at a time only: a pipe takes two descriptors, and every piece of it has its own bookkeeping. Must
//! not know when that is so.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds at most: as much as any process may ask for.
pub const PIPE_BYTES: usize = 1024 * 1024;

/// A pipe, and what is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty one, with room for [`PIPE_BYTES`].
    ///
    /// # Errors
    /// The kernel's, where the process has no descriptor left, or its user no memory for pipes.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, PIPE_BYTES)?;
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what a socket has, as far as there is room; into an empty pipe only, for the kernel does not say which
    /// of the two there was none of. 0 is the end of the stream. Else the task is woken when there is something.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0);
        loop {
            ready!(source.poll_read_ready(cx))?;
            let moved = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &self.write, None, PIPE_BYTES, FLAGS)?)
            });
            match moved {
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives a socket what it takes. Else the task is woken when it takes something.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            let moved = sink.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.read, None, sink, None, self.held, FLAGS)?)
            });
            match moved {
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_go_from_one_socket_to_another_until_the_end() {
        let ((mut client, source), (sink, mut server)) = (pair().await, pair().await);
        let mut pipe = Pipe::new().unwrap();
        for words in [&b"one"[..], b"and another"] {
            client.write_all(words).await.unwrap();
            let filled = poll_fn(|cx| pipe.poll_fill(cx, &source)).await.unwrap();
            assert_eq!((filled, pipe.held()), (words.len(), words.len()));
            let drained = poll_fn(|cx| pipe.poll_drain(cx, &sink)).await.unwrap();
            assert_eq!((drained, pipe.held()), (words.len(), 0));
            let mut got = vec![0; words.len()];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(got, words);
        }
        drop(client);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &source)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_socket_that_is_gone_is_an_error() {
        let ((client, source), (sink, server)) = (pair().await, pair().await);
        let mut pipe = Pipe::new().unwrap();
        client.try_write(b"words").unwrap();
        poll_fn(|cx| pipe.poll_fill(cx, &source)).await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        sink.readable().await.unwrap();
        assert!(poll_fn(|cx| pipe.poll_drain(cx, &sink)).await.is_err());
        client.set_zero_linger().unwrap();
        drop(client);
        let mut pipe = Pipe::new().unwrap();
        assert!(poll_fn(|cx| pipe.poll_fill(cx, &source)).await.is_err());
    }
}
