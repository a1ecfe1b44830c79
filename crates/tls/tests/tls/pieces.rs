//! However the bytes are cut on their way, they mean the same.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cloverleaf_tls::{ClientTls, Termination};
use testkit::Authority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::common::{client, runtime, server};
use crate::peer::{Peer, client_1_2, server_1_2};

/// A stream whose reads do not go beyond a position before somebody else had a turn, and are never larger than a size.
struct Pieces {
    inner: DuplexStream,
    read: usize,
    cut: Option<usize>,
    most: usize,
}

impl Pieces {
    fn cut(inner: DuplexStream, at: usize) -> Self {
        Self { inner, read: 0, cut: Some(at), most: usize::MAX }
    }

    fn of_one_byte(inner: DuplexStream) -> Self {
        Self { inner, read: 0, cut: None, most: 1 }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut == Some(self.read) {
            self.cut = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before_cut = self.cut.map_or(usize::MAX, |cut| cut - self.read);
        let mut place = vec![0; buf.remaining().min(self.most).min(before_cut)];
        let mut part = ReadBuf::new(&mut place);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        self.read += part.filled().len();
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

const PIPE_BYTES: usize = 64 * 1024;
/// Beyond what a handshake and the words are.
const POSITIONS: usize = 3_000;
/// Where not each is tried: no divisor of anything in it, so that headers, payloads and tags are all cut somewhere.
const STEP: usize = 7;

const WORDS: [&[u8]; 3] = [b"a", b"few", &[b'w'; 300]];

fn words() -> Vec<u8> {
    WORDS.concat()
}

/// Says the words, hears them, and the end.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for word in WORDS {
        stream.write_all(word).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, words());
}

async fn serve(server: &Termination, io: impl AsyncRead + AsyncWrite + Unpin) {
    converse(server.accept(io).await.map_err(|refused| refused.error).unwrap()).await;
}

async fn connect(client: &ClientTls, io: impl AsyncRead + AsyncWrite + Unpin) {
    converse(client.connect(io, "a.test").await.unwrap()).await;
}

#[test]
fn cut_anywhere_bytes_mean_the_same() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let (server, client) = (server(&[&issued]), client(&authority));
    runtime().block_on(async {
        for at in 1..POSITIONS {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::join!(serve(&server, Pieces::cut(near, at)), connect(&client, far));
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::join!(serve(&server, near), connect(&client, Pieces::cut(far, at)));
        }
    });
}

#[test]
fn cut_anywhere_bytes_of_tls_1_2_mean_the_same() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let (server, client) = (server(&[&issued]), client(&authority));
    runtime().block_on(async {
        for at in (1..POSITIONS).step_by(STEP) {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let peer = async {
                let mut peer = Peer::new(client_1_2(&authority), far);
                peer.converse(&WORDS, words().len()).await;
            };
            tokio::join!(serve(&server, Pieces::cut(near, at)), peer);
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let peer = async {
                let mut peer = Peer::new(server_1_2(&issued), near);
                peer.converse(&WORDS, words().len()).await;
            };
            tokio::join!(peer, connect(&client, Pieces::cut(far, at)));
        }
    });
}

#[test]
fn bytes_that_come_one_by_one_mean_the_same() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let (server, client) = (server(&[&issued]), client(&authority));
    runtime().block_on(async {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (near, far) = (Pieces::of_one_byte(near), Pieces::of_one_byte(far));
        tokio::join!(serve(&server, near), connect(&client, far));
    });
}

#[test]
fn the_name_decides_however_the_hello_is_cut() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let mut described = crate::common::termination(&[&issued], model::TlsVersion::V1_2);
    // Without a certificate for all the hello is looked at first.
    described.first_is_default = false;
    let (server, client) = (crate::common::load(&described).unwrap(), client(&authority));
    runtime().block_on(async {
        for at in (1..POSITIONS).step_by(STEP) {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::join!(serve(&server, Pieces::cut(near, at)), connect(&client, far));
        }
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        tokio::join!(serve(&server, Pieces::of_one_byte(near)), connect(&client, far));
    });
}

#[test]
fn a_small_reader_gets_many_records_whole() {
    let authority = Authority::new();
    let (server, client) = (server(&[&authority.server(&["a.test"])]), client(&authority));
    runtime().block_on(async {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (server, client) = tokio::join!(server.accept(near), client.connect(far, "a.test"));
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        let mut sent = Vec::new();
        for size in [1, 2, 700, 16_384, 3, 16_385, 5_000] {
            let piece = vec![u8::try_from(size % 251).unwrap(); size];
            client.write_all(&piece).await.unwrap();
            sent.extend_from_slice(&piece);
        }
        client.shutdown().await.unwrap();
        for size in [1, 10, 1_000, 20_000].into_iter().cycle() {
            let mut place = vec![0; size.min(sent.len().max(1))];
            let count = server.read(&mut place).await.unwrap();
            assert_eq!(place[..count], sent[..count]);
            sent.drain(..count);
            if count == 0 {
                break;
            }
        }
        assert!(sent.is_empty());
        // An end is one for as long as anybody asks, and no reader without a place learns of it.
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        let nothing = poll_fn(|cx| Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut [])));
        nothing.await.unwrap();
    });
}
