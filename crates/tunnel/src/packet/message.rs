//! A packet as bytes of a gRPC stream: a head made here, and the payload as it is.

use std::io::IoSlice;

use ::http2::Payload;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::fields::{put_length, put_number, put_text, put_varint, varint_bytes};
use super::{Packet, number};

/// Of gRPC's own head: a flag and the length.
const GRPC_HEAD_BYTES: usize = 5;
/// The longest head of a DATA packet: gRPC's; the type; tag and length of the content; tag and number of the
/// connection; tag and length of the payload.
pub(super) const DATA_HEAD_BYTES_MAX: usize = GRPC_HEAD_BYTES + 2 + 11 + 11 + 11;
/// The longest error that is sent: it may come from a name resolver or another process.
const ERROR_BYTES_MAX: usize = 4096;

/// One gRPC message, ready to be sent: what HTTP/2 is given.
#[derive(Debug, Clone, Default)]
pub struct Message {
    head: Head,
    body: Bytes,
}

#[derive(Debug, Clone)]
struct Head {
    bytes: [u8; DATA_HEAD_BYTES_MAX],
    from: u8,
    to: u8,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; DATA_HEAD_BYTES_MAX], from: 0, to: 0 }
    }
}

impl Head {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.from)..usize::from(self.to)]
    }
}

impl Message {
    /// More than a DATA packet adds to its payload.
    pub const OVERHEAD_BYTES_MAX: usize = DATA_HEAD_BYTES_MAX;

    /// Of a packet.
    #[must_use]
    pub fn new(packet: &Packet) -> Self {
        if let Packet::Data { connection, bytes } = packet {
            return Self::data(*connection, bytes.clone());
        }
        let mut content = BytesMut::new();
        put_packet(&mut content, packet);
        let mut body = BytesMut::with_capacity(GRPC_HEAD_BYTES + content.len());
        put_grpc_head(&mut body, content.len());
        body.put(content);
        Self { head: Head::default(), body: body.freeze() }
    }

    /// Of payload, which is not copied. At most 4 GiB less the head, which nobody has at once.
    #[must_use]
    pub fn data(connection: i64, bytes: Bytes) -> Self {
        let connection = connection.cast_unsigned();
        let payload = 1 + varint_bytes(bytes.len() as u64) + bytes.len();
        let id = if connection == 0 { 0 } else { 1 + varint_bytes(connection) };
        let content = id + payload;
        let all = 2 + 1 + varint_bytes(content as u64) + content;
        let mut head = Head::default();
        let mut out = &mut head.bytes[..];
        put_grpc_head(&mut out, all);
        put_number(&mut out, number::TYPE, number::DATA.0);
        put_length(&mut out, number::DATA.1, content);
        put_number(&mut out, 1, connection);
        put_length(&mut out, 3, bytes.len());
        let left = out.len();
        head.to = (DATA_HEAD_BYTES_MAX - left) as u8;
        Self { head, body: bytes }
    }
}

fn put_grpc_head(out: &mut impl BufMut, length: usize) {
    // Not compressed.
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_packet(out: &mut BytesMut, packet: &Packet) {
    let mut content = BytesMut::new();
    let (kind, field) = match packet {
        Packet::DialRequest { protocol, address, dial } => {
            put_text(&mut content, 1, protocol);
            put_text(&mut content, 2, address);
            put_number(&mut content, 3, dial.cast_unsigned());
            number::DIAL_REQUEST
        }
        Packet::DialResponse { error, connection, dial } => {
            put_text(&mut content, 1, shortened(error));
            put_number(&mut content, 2, connection.cast_unsigned());
            put_number(&mut content, 3, dial.cast_unsigned());
            number::DIAL_RESPONSE
        }
        Packet::CloseRequest { connection } => {
            put_number(&mut content, 1, connection.cast_unsigned());
            number::CLOSE_REQUEST
        }
        Packet::CloseResponse { error, connection } => {
            put_text(&mut content, 1, shortened(error));
            put_number(&mut content, 2, connection.cast_unsigned());
            number::CLOSE_RESPONSE
        }
        Packet::Data { connection, bytes } => {
            put_number(&mut content, 1, connection.cast_unsigned());
            put_length(&mut content, 3, bytes.len());
            content.put_slice(bytes);
            number::DATA
        }
        Packet::CloseDial { dial } => {
            put_number(&mut content, 1, dial.cast_unsigned());
            number::CLOSE_DIAL
        }
        Packet::Drain => number::DRAIN,
        Packet::Credit { connection, bytes } => {
            put_number(&mut content, 1, connection.cast_unsigned());
            put_number(&mut content, 2, *bytes);
            number::CREDIT
        }
        Packet::Finish { connection } => {
            put_number(&mut content, 1, connection.cast_unsigned());
            number::FINISH
        }
    };
    if kind != 0 {
        put_varint(out, u64::from(number::TYPE << 3));
        put_varint(out, kind);
    }
    put_length(out, field, content.len());
    out.put(content);
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Payload for Message {
    fn split_to(&mut self, bytes: usize) -> Self {
        let of_head = bytes.min(self.head.as_slice().len());
        let of_body = (bytes - of_head).min(self.body.len());
        let mut first = Self { head: self.head.clone(), body: self.body.split_to(of_body) };
        self.head.from += of_head as u8;
        first.head.to = self.head.from;
        first
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.head.as_slice().len() + self.body.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.head.as_slice() {
            [] => &self.body,
            head => head,
        }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for part in [self.head.as_slice(), &self.body] {
            if !part.is_empty() && count < out.len() {
                out[count] = IoSlice::new(part);
                count += 1;
            }
        }
        count
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head.as_slice().len());
        self.head.from += of_head as u8;
        self.body.advance(count - of_head);
    }
}
