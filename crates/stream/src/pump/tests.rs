//! The pump between real sockets of the loopback address.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use super::*;
use crate::opening::{Client, Pod};
use crate::pipes::Held;

const WITHIN: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(50);

#[derive(Default, Clone)]
struct Counts(Rc<Cell<(usize, usize)>>);

impl Meter for Counts {
    fn up(&self, bytes: usize) {
        self.0.set((self.0.get().0 + bytes, self.0.get().1));
    }
    fn down(&self, bytes: usize) {
        self.0.set((self.0.get().0, self.0.get().1 + bytes));
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

struct Rig {
    client: TcpStream,
    server: TcpStream,
    counts: Counts,
    end: JoinHandle<End>,
}

async fn rig(opening: Option<Opening>, first: &[u8], idle: Option<Duration>) -> Rig {
    let (client, inner) = pair().await;
    let (outer, server) = pair().await;
    let counts = Counts::default();
    let (meter, first) = (counts.clone(), first.to_vec());
    let opening = opening.map(|opening| (opening, MOMENT));
    let end = net::task::spawn_local("pump", async move {
        pump(inner, outer, opening, first, idle, &meter).await
    });
    Rig { client, server, counts, end }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let within = async { tokio::time::timeout(WITHIN, test).await.expect("it took too long") };
    local.block_on(&runtime, within);
}

async fn read_some(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn each_direction_ends_by_itself() {
    run(async {
        let mut rig = rig(None, b"first", None).await;
        rig.client.write_all(b"question").await.unwrap();
        rig.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut rig.server).await, b"question");
        rig.server.write_all(b"answer").await.unwrap();
        assert_eq!(read_some(&mut rig.client, 11).await, b"firstanswer");
        assert!(!rig.end.is_finished());
        drop(rig.server);
        assert_eq!(read_all(&mut rig.client).await, b"");
        assert_eq!(rig.end.await.unwrap(), End::Finished);
        assert_eq!(rig.counts.0.get(), (8, 6));
    });
}

#[test]
fn much_goes_both_ways_at_once_whole_and_in_order() {
    run(async {
        let rig = rig(None, b"", None).await;
        let data = pattern(24 * 1024 * 1024);
        let side = |stream: TcpStream, data: Vec<u8>| async move {
            let (mut reader, mut writer) = stream.into_split();
            let sent = data.clone();
            let write = net::task::spawn_local("write", async move {
                writer.write_all(&sent).await.unwrap();
            });
            let mut got = Vec::new();
            // Slow at first, so that buffers are left over.
            let mut small = [0; 1000];
            for _ in 0..200 {
                let count = reader.read(&mut small).await.unwrap();
                got.extend_from_slice(&small[..count]);
                tokio::task::yield_now().await;
            }
            reader.read_to_end(&mut got).await.unwrap();
            write.await.unwrap();
            assert!(got == data, "{} of {} bytes", got.len(), data.len());
        };
        tokio::join!(side(rig.client, data.clone()), side(rig.server, data));
        assert_eq!(rig.end.await.unwrap(), End::Finished);
        assert!(!Buffer::are_short());
    });
}

/// So many bytes to the server, which reads slowly where `slow`; then the end, and an answer the other way.
async fn much_to_the_server(bytes: usize, slow: bool) {
    let mut rig = rig(None, b"", None).await;
    let data = pattern(bytes);
    let sent = data.clone();
    let (mut answer, mut client) = rig.client.into_split();
    let write = net::task::spawn_local("write", async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    let mut part = vec![0; 300_000];
    loop {
        let count = rig.server.read(&mut part).await.unwrap();
        got.extend_from_slice(&part[..count]);
        if count == 0 {
            break;
        }
        if slow && got.len() % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(got == data, "{} of {bytes} bytes", got.len());
    write.await.unwrap();
    rig.server.write_all(b"answer").await.unwrap();
    assert_eq!(answer.read(&mut part).await.unwrap(), 6);
    drop((rig.server, answer));
    assert_eq!(rig.end.await.unwrap(), End::Finished);
    assert_eq!(rig.counts.0.get(), (bytes, 6));
}

#[test]
fn what_goes_through_a_pipe_arrives_whole_and_its_end_too() {
    run(async {
        for slow in [false, true] {
            let before = crate::pipes::taken();
            much_to_the_server(16 * 1024 * 1024 + 12_345, slow).await;
            assert!(crate::pipes::taken() > before, "all of it was copied");
            assert_eq!(crate::pipes::held(), 0);
        }
    });
}

#[test]
fn without_a_free_pipe_it_is_copied() {
    run(async {
        let all: Vec<Held> = std::iter::from_fn(Held::take).collect();
        let before = crate::pipes::taken();
        much_to_the_server(4 * 1024 * 1024, false).await;
        assert_eq!(crate::pipes::taken(), before);
        drop(all);
    });
}

#[test]
fn what_is_in_a_pipe_is_gone_when_a_side_breaks_off() {
    run(async {
        for client_breaks in [true, false] {
            let Rig { mut client, mut server, end, .. } = rig(None, b"", None).await;
            let data = vec![7; 64 * 1024 * 1024];
            client.set_zero_linger().unwrap();
            let write = net::task::spawn_local("write", async move {
                let _ = client.write_all(&data).await;
                client
            });
            // Until pipes are in use, and one waits for the server.
            let mut part = vec![0; 256 * 1024];
            while crate::pipes::held() == 0 {
                let _ = server.read(&mut part).await.unwrap();
                tokio::task::yield_now().await;
            }
            if client_breaks {
                write.abort();
                let _ = write.await;
                // It is noticed when the pipe is empty.
                while server.read(&mut part).await.is_ok_and(|count| count > 0) {}
            } else {
                server.set_zero_linger().unwrap();
                drop(server);
            }
            assert_eq!(end.await.unwrap(), End::Broken);
            assert_eq!(crate::pipes::held(), 0);
        }
    });
}

#[test]
fn who_breaks_off_breaks_the_other_off() {
    run(async {
        for client_breaks in [true, false] {
            let Rig { client, server, end, .. } = rig(None, b"", None).await;
            let (breaks, mut stays) =
                if client_breaks { (client, server) } else { (server, client) };
            breaks.set_zero_linger().unwrap();
            drop(breaks);
            let error = stays.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(end.await.unwrap(), End::Broken);
        }
    });
}

#[test]
fn an_answer_is_delivered_though_nobody_reads_the_question() {
    run(async {
        let mut rig = rig(None, b"", None).await;
        rig.client.write_all(&pattern(100_000)).await.unwrap();
        // Unread data makes closing a reset.
        rig.server.write_all(b"too large").await.unwrap();
        read_some(&mut rig.server, 1).await;
        assert_eq!(read_some(&mut rig.client, 9).await, b"too large");
        drop(rig.server);
        assert_eq!(rig.end.await.unwrap(), End::Broken);
    });
}

#[test]
fn silence_ends_it_and_a_byte_begins_it_anew() {
    run(async {
        let idle = Duration::from_millis(300);
        let mut rig = rig(None, b"", Some(idle)).await;
        let begun = std::time::Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(idle / 2).await;
            rig.client.write_all(b"x").await.unwrap();
            read_some(&mut rig.server, 1).await;
        }
        assert_eq!(rig.end.await.unwrap(), End::Idle);
        assert!(begun.elapsed() >= idle * 3);
    });
}

fn opening(pod: Pod, client: Client) -> Option<Opening> {
    let address = "1.2.3.4:5".parse().unwrap();
    Some(Opening::new(pod, client, address, address))
}

const OWN: &[u8] = b"PROXY TCP4 1.2.3.4 1.2.3.4 5 5\r\n";

#[test]
fn a_server_that_speaks_first_is_not_delayed() {
    run(async {
        let mut rig = rig(opening(Pod::WantsNone, Client::MaySendHeader), b"", None).await;
        rig.server.write_all(b"hello").await.unwrap();
        assert_eq!(read_some(&mut rig.client, 5).await, b"hello");
        rig.client.write_all(b"PROXY TCP4 9.9.9.9 9.9.9.9 9 9\r\nhello").await.unwrap();
        assert_eq!(read_some(&mut rig.server, 5).await, b"hello");
        drop((rig.client, rig.server));
        assert_eq!(rig.end.await.unwrap(), End::Finished);
    });
}

#[test]
fn a_header_is_made_up_for_a_silent_client_and_passed_from_one_that_sends_it() {
    run(async {
        for (sent, expected) in [
            (&b""[..], OWN.to_vec()),
            (b"PRO", [OWN, b"PRO"].concat()),
            (b"data", [OWN, b"data"].concat()),
            (b"PROXY UNKNOWN\r\ndata", b"PROXY UNKNOWN\r\ndata".to_vec()),
        ] {
            for ends in [false, true] {
                let mut rig =
                    rig(opening(Pod::WantsHeader, Client::MaySendHeader), b"", None).await;
                rig.client.write_all(sent).await.unwrap();
                if ends {
                    rig.client.shutdown().await.unwrap();
                    assert_eq!(read_all(&mut rig.server).await, expected);
                } else {
                    assert_eq!(read_some(&mut rig.server, expected.len()).await, expected);
                }
            }
        }
    });
}

#[test]
fn where_clients_send_no_header_nothing_is_waited_for() {
    run(async {
        let mut rig = rig(opening(Pod::WantsHeader, Client::SendsNone), b"", None).await;
        assert_eq!(read_some(&mut rig.server, OWN.len()).await, OWN);
        rig.client.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
        assert_eq!(read_some(&mut rig.server, 15).await, b"PROXY UNKNOWN\r\n");
    });
}

/// Takes everything and sends it when it is told to, as encryption may.
struct Hoards {
    stream: TcpStream,
    kept: Vec<u8>,
}

impl Side for Hoards {
    fn source(&self) -> Option<&TcpStream> {
        None
    }

    fn sink(&self) -> Option<&TcpStream> {
        None
    }

    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

impl AsyncRead for Hoards {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hoards {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.kept.is_empty() {
            let sent = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.kept))?;
            this.kept.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[test]
fn nothing_stays_behind_in_a_side_that_keeps_what_it_takes() {
    run(async {
        let (mut client, inner) = pair().await;
        let (outer, mut server) = pair().await;
        let hoards = |stream| Hoards { stream, kept: Vec::new() };
        let (inner, outer) = (hoards(inner), hoards(outer));
        let end = net::task::spawn_local("pump", async move {
            pump(inner, outer, None, b"first".to_vec(), None, &Unmetered).await
        });
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        server.write_all(b"reply").await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"reply");
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(end.await.unwrap(), End::Finished);
    });
}
