//! The first words on a new socket, without a round of waiting: the runtime lets nobody read or write before the kernel
//! has told it that the socket is ready, and of a new one it has not heard yet. Must not know what is said.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::dial::Stream;

/// What has come already on a connection that was just accepted, as far as there is room; `None` where nothing has, or
/// the connection is over.
pub fn read<'b>(socket: &TcpStream, room: &'b mut [u8]) -> Option<&'b [u8]> {
    let count = (&*SockRef::from(socket)).read(room).ok()?;
    room.get(..count).filter(|bytes| !bytes.is_empty())
}

/// Writes all of it and flushes. Dropped, a part may have been written.
///
/// # Errors
/// The stream's.
pub async fn write_all(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let send = |socket| SockRef::from(socket).send_with_flags(bytes, libc::MSG_NOSIGNAL);
    // What is wrong with the socket is heard with the rest.
    let sent = stream.tcp().map(send).and_then(Result::ok).unwrap_or_default();
    stream.write_all(bytes.get(sent..).unwrap_or_default()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_came_with_a_connection_is_read_and_answered_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut room = [0; 16];
        for (said, heard) in [(&b"question"[..], Some(&b"question"[..])), (b"", None)] {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let accepted = listener.accept().await.unwrap().0;
            assert_eq!(read(&accepted, &mut room), heard);
            let mut accepted = Stream::Tcp(accepted);
            write_all(&mut accepted, b"answer").await.unwrap();
            drop(accepted);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"answer");
        }
        let _silent = std::net::TcpStream::connect(address).unwrap();
        let accepted = listener.accept().await.unwrap().0;
        assert_eq!(read(&accepted, &mut room), None);
    }

    #[tokio::test]
    async fn more_than_a_socket_takes_is_written_too_and_a_broken_one_is_an_error() {
        const BYTES: usize = 16 * 1024 * 1024;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut accepted = listener.accept().await.unwrap().0;
        let mut dialled = Stream::Tcp(dialled);
        let bytes = vec![7; BYTES];
        let mut got = vec![0; BYTES];
        let (written, received) =
            tokio::join!(write_all(&mut dialled, &bytes), accepted.read_exact(&mut got));
        written.unwrap();
        received.unwrap();
        assert!(got == bytes);
        accepted.set_zero_linger().unwrap();
        drop(accepted);
        dialled.socket().unwrap().readable().await.unwrap();
        write_all(&mut dialled, b"more").await.unwrap_err();
    }
}
