//! What a connection costs that carries one call, as gRPC's Go library makes it: memory while it is idle, and how often
//! it writes. Alone in its process, because it asks how much memory that has.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cloverleaf_http2::{Block, Call, Connection, Limits};
use testkit::running::resident_bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of a connection with one open call on which nothing happens, without the stream below and who serves the call.
const IDLE_BYTES_MAX: u64 = 1536;
/// So many are held at once: what the allocator and the kernel round up to counts little.
const CONNECTIONS: usize = 4000;
/// From the client's dial to its close, a payload each way, after the greeting.
const WRITES_MAX: usize = 6;

const LIMITS: Limits = Limits {
    stream_window_bytes: 512 * 1024,
    connection_window_bytes: 64 * 1024 * 1024,
    frame_bytes_max: 128 * 1024,
    send_buffer_bytes: 256 * 1024,
    streams_max: 65_536,
    header_bytes_max: 64 * 1024,
    header_table_bytes: 0,
    reset_streams_max: 4096,
};

/// What the client has written and not yet been read, and how often it was written to.
#[derive(Default)]
struct Wire {
    input: Vec<u8>,
    writes: usize,
}

#[derive(Clone, Default)]
struct Client(Rc<RefCell<Wire>>);

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        if wire.input.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(&std::mem::take(&mut wire.input));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().writes += 1;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().writes += 1;
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// The fields of a call, to be remembered as the library would have it.
fn request() -> Vec<u8> {
    let field = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    let block = [
        vec![0x83, 0x87],
        field(&[0x44], "/ProxyService/Proxy"),
        field(&[0x41], "server.cluster.example:8090"),
        field(&[0x5f], "application/grpc"),
        field(&[0x7a], "grpc-go/1.75.0"),
        field(b"\x40\x02te", "trailers"),
    ];
    frame(1, 4, 1, &block.concat())
}

fn ping() -> Vec<u8> {
    frame(6, 0, 0, b"\x02\x04\x10\x10\x09\x0e\x07\x07")
}

/// A connection with its call.
struct Called {
    connection: Connection<Client, Bytes>,
    call: Call<Bytes>,
    client: Client,
}

impl Called {
    /// One whose call is not answered yet.
    async fn new() -> Self {
        let client = Client::default();
        let mut connection = Connection::new(client.clone(), LIMITS);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for bytes in [preface, frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), request()] {
            client.0.borrow_mut().input.extend(bytes);
        }
        connection.ready().await.unwrap();
        let call = connection.accept().await.unwrap().unwrap();
        let mut called = Self { connection, call, client };
        called.settle(&[]).await;
        assert_eq!(called.writes(), 1, "the greeting is one piece");
        called
    }

    fn writes(&self) -> usize {
        self.client.0.borrow().writes
    }

    /// Takes in what the client says, does what follows, and waits for longer than anything is held back.
    async fn settle(&mut self, input: &[Vec<u8>]) {
        self.client.0.borrow_mut().input.extend(input.concat());
        let idle = tokio::time::timeout(Duration::from_millis(50), self.connection.accept());
        assert!(idle.await.is_err(), "nobody calls or leaves");
    }

    /// The client asks what it does after payload, and says something.
    async fn hear(&mut self, said: &[u8]) {
        self.settle(&[ping(), frame(0, 0, 1, said)]).await;
        let bytes = poll_fn(|cx| self.call.body.poll_data(cx)).await.unwrap().unwrap();
        self.call.body.release(bytes.len());
        assert_eq!(bytes, said);
    }

    async fn say(&mut self, said: &'static [u8]) {
        self.call.answer.send_data(Bytes::from_static(said)).unwrap();
        self.settle(&[]).await;
    }
}

/// A dial, a byte each way, and the close: how often is written after the greeting, where every answer comes late.
async fn writes_of_a_short_one() -> usize {
    let mut called = Called::new().await;
    called.hear(b"dial").await;
    called.call.answer.send_head(Block::answer(200), false).unwrap();
    called.say(b"dialled").await;
    called.hear(b"x").await;
    called.say(b"y").await;
    called.hear(b"close").await;
    called.call.answer.send_data(Bytes::from_static(b"closed")).unwrap();
    let trailers = Block::trailers().field("grpc-status", b"0");
    called.call.answer.send_end(Some(trailers)).unwrap();
    called.settle(&[]).await;
    // The library takes note of the end, and leaves.
    called.settle(&[frame(3, 0, 1, &[0; 4])]).await;
    called.client.0.borrow_mut().input.extend(frame(7, 0, 0, &[0; 8]));
    let Called { mut connection, call, client } = called;
    drop(call);
    assert!(connection.accept().await.is_none(), "the client has said goodbye");
    let writes = client.0.borrow().writes;
    writes - 1
}

/// One whose call has been answered and goes on.
async fn idle() -> Called {
    let mut called = Called::new().await;
    called.call.answer.send_head(Block::answer(200), false).unwrap();
    for said in [&b"dialled"[..], b"y"] {
        called.hear(b"dial").await;
        called.say(said).await;
    }
    // As whoever serves the call, who knows by now what it is.
    called.call.head = cloverleaf_http2::Head::default();
    called
}

#[test]
fn a_connection_with_one_call_holds_little_and_writes_seldom() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let writes = writes_of_a_short_one().await;
        assert!(writes <= WRITES_MAX, "{writes} writes");
        let mut all = Vec::with_capacity(CONNECTIONS);
        let before = resident_bytes(std::process::id());
        for _ in 0..CONNECTIONS {
            all.push(idle().await);
        }
        let bytes = (resident_bytes(std::process::id()) - before) / CONNECTIONS as u64;
        println!("{bytes} bytes idle, {writes} writes");
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes");
    });
}
