//! A stream of packets: the same however it is cut, and read as `prost` reads it.
//!
//! What peers write is understood: whatever `prost` takes, we take and read in the same way, within our bounds. That we
//! take a little more (a broken part that the type does not use) does no harm, since nothing is passed on as it
//! came: packets are written anew, and what we write `prost` takes.

use bytes::{Buf, Bytes};
use prost::Message as _;

use crate::packet::{DecodeError, Decoder, Malformed, Message, Packet};

/// Bytes of one input that are looked at.
const INPUT_BYTES_MAX: usize = 256 * 1024;
/// gRPC's head of a message: not compressed, and the length.
const HEAD_BYTES: usize = 5;

/// The original's messages, by the numbers of its fields, and our two.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Packet {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
        #[prost(oneof = "Content", tags = "2, 3, 4, 5, 6, 7, 8, 1000, 1001")]
        pub(super) content: Option<Content>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Content {
        #[prost(message, tag = "2")]
        DialRequest(DialRequest),
        #[prost(message, tag = "3")]
        DialResponse(DialResponse),
        #[prost(message, tag = "4")]
        Data(Data),
        #[prost(message, tag = "5")]
        CloseRequest(CloseRequest),
        #[prost(message, tag = "6")]
        CloseResponse(CloseResponse),
        #[prost(message, tag = "7")]
        CloseDial(CloseDial),
        #[prost(message, tag = "8")]
        Drain(Drain),
        #[prost(message, tag = "1000")]
        Credit(Credit),
        #[prost(message, tag = "1001")]
        Finish(Finish),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialRequest {
        #[prost(string, tag = "1")]
        pub(super) protocol: String,
        #[prost(string, tag = "2")]
        pub(super) address: String,
        #[prost(int64, tag = "3")]
        pub(super) random: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialResponse {
        #[prost(string, tag = "1")]
        pub(super) error: String,
        #[prost(int64, tag = "2")]
        pub(super) connect_id: i64,
        #[prost(int64, tag = "3")]
        pub(super) random: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Data {
        #[prost(int64, tag = "1")]
        pub(super) connect_id: i64,
        #[prost(string, tag = "2")]
        pub(super) error: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) data: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CloseRequest {
        #[prost(int64, tag = "1")]
        pub(super) connect_id: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CloseResponse {
        #[prost(string, tag = "1")]
        pub(super) error: String,
        #[prost(int64, tag = "2")]
        pub(super) connect_id: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CloseDial {
        #[prost(int64, tag = "1")]
        pub(super) random: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Drain {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Credit {
        #[prost(int64, tag = "1")]
        pub(super) connect_id: i64,
        #[prost(uint64, tag = "2")]
        pub(super) bytes: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Finish {
        #[prost(int64, tag = "1")]
        pub(super) connect_id: i64,
    }
}

use wire::Content;

/// Reads the bytes as a stream of packets: whole, cut, and message by message beside `prost`.
///
/// # Panics
/// Where anything differs: that is its purpose.
pub fn packets(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    let whole = decoded(data, data.len().max(1));
    for piece in [1, 7, 4096] {
        assert_eq!(decoded(data, piece), whole, "in pieces of {piece}: {}", data.escape_ascii());
    }
    let mut stream = data;
    while let Some((content, rest)) = split(stream) {
        compare(content);
        stream = rest;
    }
    for packet in whole.0 {
        written_again(&packet);
    }
}

/// The packets of a stream that arrives in pieces, DATA put together again, and how it ended.
fn decoded(data: &[u8], piece: usize) -> (Vec<Packet>, Result<(), DecodeError>) {
    let mut decoder = Decoder::default();
    let mut found: Vec<Packet> = Vec::new();
    for chunk in data.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_packet() {
                Ok(Some(packet)) => join(&mut found, packet),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    (found, Ok(()))
}

fn join(found: &mut Vec<Packet>, packet: Packet) {
    match (found.last_mut(), packet) {
        (
            Some(Packet::Data { connection: before, bytes: first }),
            Packet::Data { connection, bytes },
        ) if *before == connection => *first = [&first[..], &bytes[..]].concat().into(),
        (_, packet) => found.push(packet),
    }
}

/// The first message of a stream, and what follows it; `None` where it is not whole, or compressed.
fn split(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = stream.split_first_chunk::<HEAD_BYTES>()?;
    let [0, length @ ..] = head else { return None };
    let length = u32::from_be_bytes(*length) as usize;
    (length <= rest.len()).then(|| rest.split_at(length))
}

/// One message's content, as we and as `prost` read it.
fn compare(content: &[u8]) {
    let Ok(theirs) = wire::Packet::decode(content) else { return };
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let message = [&[0][..], &length, content].concat();
    let ours = match decoded(&message, message.len()) {
        (found, Ok(())) => found,
        // Ours alone: bounds on what is no payload, and on groups, which nobody has used for decades.
        (_, Err(DecodeError::TooLong { .. } | DecodeError::Malformed(Malformed::Tag))) => return,
        (_, Err(error)) => panic!("we refuse with {error:?}: {}", content.escape_ascii()),
    };
    let expected: Vec<Packet> = expected(theirs).into_iter().collect();
    assert_eq!(ours, expected, "{}", content.escape_ascii());
}

/// What a message comes to: the content of its type, or an empty one.
fn expected(theirs: wire::Packet) -> Option<Packet> {
    macro_rules! content {
        ($kind:ident) => {
            match theirs.content {
                Some(Content::$kind(content)) => content,
                _ => wire::$kind::default(),
            }
        };
    }
    Some(match theirs.kind {
        0 => {
            let wire::DialRequest { protocol, address, random } = content!(DialRequest);
            Packet::DialRequest { protocol, address, dial: random }
        }
        1 => {
            let wire::DialResponse { error, connect_id, random } = content!(DialResponse);
            Packet::DialResponse { error, connection: connect_id, dial: random }
        }
        2 => Packet::CloseRequest { connection: content!(CloseRequest).connect_id },
        3 => {
            let wire::CloseResponse { error, connect_id } = content!(CloseResponse);
            Packet::CloseResponse { error, connection: connect_id }
        }
        4 => {
            let wire::Data { connect_id, data, .. } = content!(Data);
            if data.is_empty() {
                return None;
            }
            Packet::Data { connection: connect_id, bytes: data.into() }
        }
        5 => Packet::CloseDial { dial: content!(CloseDial).random },
        6 => Packet::Drain,
        1000 => {
            let wire::Credit { connect_id, bytes } = content!(Credit);
            Packet::Credit { connection: connect_id, bytes }
        }
        1001 => Packet::Finish { connection: content!(Finish).connect_id },
        _ => return None,
    })
}

/// A packet as bytes: ours and `prost`'s are the same, and come back as the packet.
fn written_again(packet: &Packet) {
    const ERROR_BYTES_MAX: usize = 4096;
    let mut message = Message::new(packet);
    let written = message.copy_to_bytes(message.remaining());
    let (again, end) = decoded(&written, written.len());
    if let Packet::DialResponse { error, .. } | Packet::CloseResponse { error, .. } = packet
        && error.len() > ERROR_BYTES_MAX
    {
        // It is cut.
        return assert_eq!((again.len(), end), (1, Ok(())));
    }
    assert_eq!((again, end), (vec![packet.clone()], Ok(())));
    assert_eq!(written[HEAD_BYTES..], theirs(packet.clone()).encode_to_vec()[..], "{packet:?}");
}

/// The message for a packet.
fn theirs(packet: Packet) -> wire::Packet {
    let (kind, content) = match packet {
        Packet::DialRequest { protocol, address, dial } => {
            let content = wire::DialRequest { protocol, address, random: dial };
            (0, Content::DialRequest(content))
        }
        Packet::DialResponse { error, connection, dial } => {
            let content = wire::DialResponse { error, connect_id: connection, random: dial };
            (1, Content::DialResponse(content))
        }
        Packet::CloseRequest { connection } => {
            (2, Content::CloseRequest(wire::CloseRequest { connect_id: connection }))
        }
        Packet::CloseResponse { error, connection } => {
            let content = wire::CloseResponse { error, connect_id: connection };
            (3, Content::CloseResponse(content))
        }
        Packet::Data { connection, bytes } => {
            let data = bytes.to_vec();
            let content = wire::Data { connect_id: connection, error: String::new(), data };
            (4, Content::Data(content))
        }
        Packet::CloseDial { dial } => (5, Content::CloseDial(wire::CloseDial { random: dial })),
        Packet::Drain => (6, Content::Drain(wire::Drain {})),
        Packet::Credit { connection, bytes } => {
            (1000, Content::Credit(wire::Credit { connect_id: connection, bytes }))
        }
        Packet::Finish { connection } => {
            (1001, Content::Finish(wire::Finish { connect_id: connection }))
        }
    };
    wire::Packet { kind, content: Some(content) }
}
