//! Both ways in which clients speak, as one: a dial, then bytes out and in.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};

use super::super::World;
use crate::grpc;
use crate::packet::{Decoder, Message, Packet};
use crate::server::Mode;
use crate::server::listen::Port;

/// Read at once.
const READ_BYTES: usize = 32 * 1024;

/// A client; one that speaks gRPC has all its connections over one to the server.
pub(super) enum Client {
    Connect,
    Grpc(SendRequest<Message>),
}

pub(super) enum Dialled {
    Connected(Output, Input),
    Failed(String),
}

pub(super) enum Output {
    Connect(WriteHalf<DuplexStream>),
    Grpc { out: SendStream<Message>, connection: i64 },
}

pub(super) enum Input {
    Connect(ReadHalf<DuplexStream>, Bytes),
    Grpc { incoming: RecvStream, decoder: Decoder, connection: i64 },
}

impl Client {
    pub(super) async fn new(world: &World) -> Self {
        if world.mode == Mode::HttpConnect {
            return Self::Connect;
        }
        let (near, _) = world.connect(Port::Clients);
        let (send, connection) = h2::client::Builder::new().handshake(near).await.unwrap();
        drop(net::task::spawn_local("client connection", connection));
        Self::Grpc(send)
    }

    /// Dropped while it waits, the dial is given up.
    pub(super) async fn dial(&self, world: &World, address: &str) -> Dialled {
        match self {
            Self::Connect => connect(world, address).await,
            Self::Grpc(send) => call(send.clone(), world, address).await,
        }
    }
}

async fn connect(world: &World, address: &str) -> Dialled {
    let (near, _) = world.connect(Port::Clients);
    let (mut from, mut to) = split(near);
    to.write_all(format!("CONNECT {address} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut read = BytesMut::new();
    let head = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break read.split_to(at + 4);
        }
        assert!(matches!(from.read_buf(&mut read).await, Ok(1..)), "no answer");
    };
    if !head.starts_with(b"HTTP/1.1 200 ") {
        // The reason comes in as many pieces as the wire makes of it.
        while matches!(from.read_buf(&mut read).await, Ok(1..)) {}
        return Dialled::Failed(String::from_utf8_lossy(&read).into_owned());
    }
    Dialled::Connected(Output::Connect(to), Input::Connect(from, read.freeze()))
}

async fn call(send: SendRequest<Message>, world: &World, address: &str) -> Dialled {
    let request = grpc::request(grpc::PROXY, "localhost", http::HeaderMap::new()).unwrap();
    let mut send = send.ready().await.unwrap();
    let (answer, mut out) = send.send_request(request, false).unwrap();
    let (protocol, address) = ("tcp".to_owned(), address.to_owned());
    let dial = world.below(u64::MAX).cast_signed();
    let request = Packet::DialRequest { protocol, address, dial };
    out.send_data(Message::new(&request), false).unwrap();
    let incoming = answer.await.unwrap().into_body();
    let mut input = Input::Grpc { incoming, decoder: Decoder::default(), connection: 0 };
    match input.packet().await {
        Some(Packet::DialResponse { error, connection, dial: found }) => {
            assert_eq!(found, dial);
            if !error.is_empty() {
                return Dialled::Failed(error);
            }
            if let Input::Grpc { connection: own, .. } = &mut input {
                *own = connection;
            }
            Dialled::Connected(Output::Grpc { out, connection }, input)
        }
        other => panic!("{other:?} is no answer to a dial"),
    }
}

impl Output {
    /// Whether it could be sent.
    pub(super) async fn send(&mut self, bytes: &'static [u8]) -> bool {
        match self {
            Self::Connect(to) => to.write_all(bytes).await.is_ok() && to.flush().await.is_ok(),
            Self::Grpc { out, connection } => {
                let bytes = Bytes::from_static(bytes);
                let message = Message::data(*connection, bytes);
                let length = bytes::Buf::remaining(&message);
                out.reserve_capacity(length);
                while out.capacity() < length {
                    if !matches!(poll_fn(|cx| out.poll_capacity(cx)).await, Some(Ok(_))) {
                        return false;
                    }
                }
                out.send_data(message, false).is_ok()
            }
        }
    }

    pub(super) fn has_half_close(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// Nothing more is sent.
    pub(super) async fn finish(&mut self) {
        match self {
            Self::Connect(to) => drop(to.shutdown().await),
            Self::Grpc { out, connection } => {
                let close = Packet::CloseRequest { connection: *connection };
                let _ = out.send_data(Message::new(&close), false);
            }
        }
    }

    /// Ends the connection in order.
    pub(super) fn close(mut self) {
        drop(net::task::spawn_local("close", async move {
            self.finish().await;
            if let Self::Grpc { mut out, .. } = self {
                let _ = poll_fn(|cx| out.poll_reset(cx)).await;
            }
        }));
    }
}

impl Input {
    /// Payload; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if let Self::Connect(from, early) = self {
            if !early.is_empty() {
                return Some(std::mem::take(early));
            }
            let mut read = BytesMut::with_capacity(READ_BYTES);
            return matches!(from.read_buf(&mut read).await, Ok(1..)).then(|| read.freeze());
        }
        match self.packet().await {
            Some(Packet::Data { connection: found, bytes }) => {
                let Self::Grpc { connection, .. } = self else { return None };
                assert_eq!(*connection, found, "payload of another connection");
                Some(bytes)
            }
            Some(Packet::CloseResponse { .. }) | None => None,
            other => panic!("{other:?} on a connection"),
        }
    }

    async fn packet(&mut self) -> Option<Packet> {
        let Self::Grpc { incoming, decoder, .. } = self else { return None };
        loop {
            if let Some(packet) = decoder.next_packet().unwrap() {
                return Some(packet);
            }
            let bytes = incoming.data().await?.ok()?;
            incoming.flow_control().release_capacity(bytes.len()).ok()?;
            decoder.push(bytes);
        }
    }
}
