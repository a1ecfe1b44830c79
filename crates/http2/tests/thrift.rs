//! What a connection costs that carries one call, as gRPC's Go library makes it: memory while it is idle, and how often
//! it writes. The only test of its program, since it counts what all threads allocate.

use std::alloc::System;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cap::Cap;
use cloverleaf_http2::{Block, Call, Connection, Limits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Of a connection with one open call on which nothing happens, without the stream below and who serves the call.
const IDLE_BYTES_MAX: usize = 1536;
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

/// What the client has written and not yet been read, and what it was sent, piece by piece.
#[derive(Default)]
struct Wire {
    input: VecDeque<u8>,
    writes: Vec<usize>,
}

struct Client(Rc<RefCell<Wire>>);

impl Client {
    fn new() -> (Self, Rc<RefCell<Wire>>) {
        // Large enough for all of it, so that it does not grow while memory is counted.
        let wire = Wire { input: VecDeque::with_capacity(4096), writes: Vec::with_capacity(64) };
        let wire = Rc::new(RefCell::new(wire));
        (Self(wire.clone()), wire)
    }
}

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
        wire.input.drain(..).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().writes.push(buf.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = bufs.iter().map(|buf| buf.len()).sum();
        self.0.borrow_mut().writes.push(count);
        Poll::Ready(Ok(count))
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

type Tested = Connection<Client, Bytes>;

/// Lets the connection do what it has to, and waits for longer than it holds anything back.
async fn settle(connection: &mut Tested, wire: &RefCell<Wire>, input: &[Vec<u8>]) {
    input.iter().for_each(|bytes| wire.borrow_mut().input.extend(bytes));
    let idle = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
    assert!(idle.is_err(), "{idle:?}");
}

/// A connection with one call that is not answered yet.
async fn called() -> (Tested, Call<Bytes>, Rc<RefCell<Wire>>) {
    let (client, wire) = Client::new();
    let mut connection = Connection::new(client, LIMITS);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for bytes in [preface, frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), request()] {
        wire.borrow_mut().input.extend(bytes);
    }
    connection.ready().await.unwrap();
    let call = connection.accept().await.unwrap().unwrap();
    settle(&mut connection, &wire, &[]).await;
    assert_eq!(wire.borrow().writes.len(), 1, "the greeting is one piece");
    (connection, call, wire)
}

async fn read(call: &mut Call<Bytes>) -> Bytes {
    let bytes = poll_fn(|cx| call.body.poll_data(cx)).await.unwrap().unwrap();
    call.body.release(bytes.len());
    bytes
}

/// A dial, a byte each way, and the close, with the questions that the library asks after payload.
async fn short_connection() -> usize {
    let (mut connection, mut call, wire) = called().await;
    let send = |call: &mut Call<Bytes>, bytes| call.answer.send_data(Bytes::from_static(bytes));
    settle(&mut connection, &wire, &[frame(0, 0, 1, b"dial")]).await;
    assert_eq!(read(&mut call).await, "dial");
    call.answer.send_head(Block::answer(200), false).unwrap();
    send(&mut call, b"dialled").unwrap();
    settle(&mut connection, &wire, &[]).await;
    settle(&mut connection, &wire, &[ping(), frame(0, 0, 1, b"x")]).await;
    assert_eq!(read(&mut call).await, "x");
    send(&mut call, b"y").unwrap();
    settle(&mut connection, &wire, &[]).await;
    settle(&mut connection, &wire, &[ping(), frame(0, 0, 1, b"close")]).await;
    assert_eq!(read(&mut call).await, "close");
    send(&mut call, b"closed").unwrap();
    call.answer.send_end(Some(Block::trailers().field("grpc-status", b"0"))).unwrap();
    settle(&mut connection, &wire, &[]).await;
    drop(call);
    for bytes in [frame(3, 0, 1, &[0; 4]), frame(7, 0, 0, &[0; 8])] {
        wire.borrow_mut().input.extend(bytes);
    }
    assert!(connection.accept().await.is_none(), "the client has said goodbye");
    wire.borrow().writes.len() - 1
}

/// What is allocated for a connection whose call has been answered and goes on.
async fn idle_bytes() -> usize {
    let before = MEMORY.allocated();
    let (mut connection, mut call, wire) = called().await;
    let of_wire = wire.borrow().input.capacity() + wire.borrow().writes.capacity() * 8;
    call.answer.send_head(Block::answer(200), false).unwrap();
    for round in [&b"dialled"[..], b"y"] {
        settle(&mut connection, &wire, &[ping(), frame(0, 0, 1, b"dial")]).await;
        read(&mut call).await;
        call.answer.send_data(Bytes::from_static(round)).unwrap();
        settle(&mut connection, &wire, &[]).await;
    }
    // As whoever serves the call, who knows by now what it is.
    call.head = cloverleaf_http2::Head::default();
    MEMORY.allocated() - before - of_wire + size_of_val(&connection) + size_of_val(&call)
}

#[test]
fn a_connection_with_one_call_holds_little_and_writes_seldom() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // The thread's own buffer comes with the first.
        let writes = short_connection().await;
        assert!(writes <= WRITES_MAX, "{writes} writes");
        let bytes = idle_bytes().await;
        println!("{bytes} bytes idle, {writes} writes");
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes");
    });
}
