//! Packets out of the bytes of a gRPC stream, however these are cut.
//!
//! The payload of a DATA packet is passed on piece by piece as it arrives, without being collected: a message may be
//! far longer than anything kept here. That works for the order of fields that every known peer writes; a message in
//! another order is collected first, up to a bound.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::fields::{Fields, Malformed, Value, varint};
use super::message::DATA_HEAD_BYTES_MAX;
use super::{Packet, number};

/// What is collected of a message at most: gRPC's own bound on a message.
pub(super) const COLLECTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest DATA message that is passed on in pieces.
pub(super) const STREAMED_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// What is not DATA: addresses and errors.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// gRPC's head.
const GRPC_HEAD_BYTES: usize = 5;
/// The head of DATA within a message.
const PREFIX_BYTES_MAX: usize = DATA_HEAD_BYTES_MAX - GRPC_HEAD_BYTES;

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A message is compressed, which was not agreed upon.
    #[error("a message is compressed")]
    Compressed,
    /// A message is longer than is taken.
    #[error("a message has {bytes} bytes, more than {most}")]
    TooLong {
        /// How long it says it is.
        bytes: usize,
        /// What is taken of its kind.
        most: usize,
    },
    /// A message is no packet.
    #[error("a message is no packet")]
    Malformed(#[source] Malformed),
}

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Takes bytes in and gives packets out.
#[derive(Debug, Default)]
pub struct Decoder {
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Of a DATA message that is being passed on: the connection, and what is still to come.
    streaming: Option<(i64, usize)>,
}

impl Decoder {
    /// Takes in what has arrived.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// How many bytes have been taken in and not given out.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The next packet; `None` until more has arrived. Types that are not known, and payload that is empty, are
    /// passed over.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream is of no use then.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, DecodeError> {
        loop {
            if let Some((connection, left)) = self.streaming {
                let Some(bytes) = self.piece(left) else { return Ok(None) };
                let left = left - bytes.len();
                self.streaming = (left > 0).then_some((connection, left));
                return Ok(Some(Packet::Data { connection, bytes }));
            }
            let Some(length) = self.message_length()? else { return Ok(None) };
            match self.data_prefix(length) {
                Prefix::Short => return Ok(None),
                Prefix::Data { connection, head, payload } => {
                    self.advance(GRPC_HEAD_BYTES + head);
                    self.streaming = (payload > 0).then_some((connection, payload));
                }
                Prefix::Other => {
                    let most =
                        if self.is_data(length) { COLLECTED_BYTES_MAX } else { CONTROL_BYTES_MAX };
                    if length > most {
                        return Err(DecodeError::TooLong { bytes: length, most });
                    }
                    if self.queued < GRPC_HEAD_BYTES + length {
                        return Ok(None);
                    }
                    self.advance(GRPC_HEAD_BYTES);
                    let message = self.collect(length);
                    if let Some(packet) = packet(message)? {
                        return Ok(Some(packet));
                    }
                }
            }
        }
    }

    /// Of the message that is next.
    fn message_length(&self) -> Result<Option<usize>, DecodeError> {
        let mut head = [0; GRPC_HEAD_BYTES];
        if self.peek(0, &mut head) < GRPC_HEAD_BYTES {
            return Ok(None);
        }
        if head[0] != 0 {
            return Err(DecodeError::Compressed);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > STREAMED_BYTES_MAX {
            return Err(DecodeError::TooLong { bytes: length, most: STREAMED_BYTES_MAX });
        }
        Ok(Some(length))
    }

    /// Whether the next message begins as DATA in the order that all known peers write.
    fn data_prefix(&self, length: usize) -> Prefix {
        let mut prefix = [0; PREFIX_BYTES_MAX];
        let wanted = length.min(PREFIX_BYTES_MAX);
        let had = self.peek(GRPC_HEAD_BYTES, &mut prefix[..wanted]);
        match data_prefix(&prefix[..had], length) {
            Prefix::Short if had == wanted => Prefix::Other,
            found => found,
        }
    }

    /// Whether a message that is not in the usual order may be DATA all the same: it does not begin as anything
    /// else.
    fn is_data(&self, length: usize) -> bool {
        let mut begin = [0; 2];
        let had = self.peek(GRPC_HEAD_BYTES, &mut begin[..length.min(2)]);
        let data = number::DATA.1 as u8;
        matches!(begin[..had], [8, 4] | [8]) || had > 0 && begin[0] >> 3 == data
    }

    /// Copies what lies `from` bytes further on; how much there was.
    fn peek(&self, from: usize, into: &mut [u8]) -> usize {
        let (mut skip, mut had) = (from, 0);
        for bytes in &self.queue {
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let count = (bytes.len() - skip).min(into.len() - had);
            into[had..had + count].copy_from_slice(&bytes[skip..skip + count]);
            had += count;
            skip = 0;
            if had == into.len() {
                break;
            }
        }
        had
    }

    fn advance(&mut self, mut count: usize) {
        self.queued -= count.min(self.queued);
        while let Some(first) = self.queue.front_mut() {
            let step = count.min(first.len());
            first.advance(step);
            count -= step;
            if !first.is_empty() {
                break;
            }
            self.queue.pop_front();
        }
    }

    /// The first piece of what has arrived, at most so long.
    fn piece(&mut self, most: usize) -> Option<Bytes> {
        let first = self.queue.front_mut()?;
        let piece = first.split_to(first.len().min(most));
        if first.is_empty() {
            self.queue.pop_front();
        }
        self.queued -= piece.len();
        Some(piece)
    }

    /// So many bytes in one piece; they are all there.
    fn collect(&mut self, length: usize) -> Bytes {
        match self.queue.front() {
            Some(first) if first.len() >= length => self.piece(length).unwrap_or_default(),
            _ => {
                let mut whole = BytesMut::with_capacity(length);
                while whole.len() < length {
                    let Some(piece) = self.piece(length - whole.len()) else { break };
                    whole.extend_from_slice(&piece);
                }
                whole.freeze()
            }
        }
    }
}

/// How a message begins.
enum Prefix {
    /// More is needed to tell.
    Short,
    /// As DATA whose payload is the last thing in it.
    Data { connection: i64, head: usize, payload: usize },
    /// In another way.
    Other,
}

/// Reads the type DATA, the length of the content, the connection, and the length of the payload, which must reach to
/// the end of the message.
fn data_prefix(bytes: &[u8], length: usize) -> Prefix {
    let mut at = 0;
    let mut number = |tag: &[u8]| -> Result<Option<u64>, Prefix> {
        let rest = &bytes[at..];
        if rest.len() < tag.len() {
            return if tag.starts_with(rest) { Err(Prefix::Short) } else { Ok(None) };
        }
        let Some(rest) = rest.strip_prefix(tag) else { return Ok(None) };
        match varint(rest) {
            Ok(Some((value, count))) => {
                at += tag.len() + count;
                Ok(Some(value))
            }
            Ok(None) => Err(Prefix::Short),
            Err(_) => Err(Prefix::Other),
        }
    };
    let mut read = || -> Result<Prefix, Prefix> {
        let data = (number::DATA.1 << 3 | 2) as u8;
        // The type is one byte for each number below 128.
        let Some(content) = number(&[8, number::DATA.0 as u8, data])? else {
            return Ok(Prefix::Other);
        };
        let connection = number(&[8])?.unwrap_or(0).cast_signed();
        let Some(payload) = number(&[0x1a])? else { return Ok(Prefix::Other) };
        let (content, payload) = (content as usize, payload as usize);
        Ok(Prefix::Data { connection, head: content, payload })
    };
    match read() {
        Ok(Prefix::Data { connection, head: content, payload }) => {
            let after_content_tag = 3 + super::fields::varint_bytes(content as u64);
            let fits = at.checked_add(payload) == Some(length)
                && after_content_tag.checked_add(content) == Some(length);
            if fits { Prefix::Data { connection, head: at, payload } } else { Prefix::Other }
        }
        Ok(other) | Err(other) => other,
    }
}

/// Every type with the field of its content.
const KINDS: [(u64, u32); 9] = [
    number::DIAL_REQUEST,
    number::DIAL_RESPONSE,
    number::CLOSE_REQUEST,
    number::CLOSE_RESPONSE,
    number::DATA,
    number::CLOSE_DIAL,
    number::DRAIN,
    number::CREDIT,
    number::FINISH,
];

/// The packet in a whole message; `None` for a type that is not known and for empty payload.
fn packet(message: Bytes) -> Result<Option<Packet>, DecodeError> {
    let mut fields = Fields(message);
    let mut kind = 0;
    let mut content: Option<(u32, Bytes)> = None;
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            // An enumeration has 32 bits.
            (number::TYPE, Value::Number(value)) => kind = value & u64::from(u32::MAX),
            // Of several of a `oneof` the last counts; of the same one, both together.
            (_, Value::Bytes(bytes)) if KINDS.iter().any(|(_, known)| *known == field) => {
                content = Some(match content.take() {
                    Some((same, before)) if same == field => (field, joined(&before, &bytes)),
                    _ => (field, bytes),
                });
            }
            // Not known, or not of the type that is known.
            _ => {}
        }
    }
    let content = |wanted: u32| match &content {
        Some((field, bytes)) if *field == wanted => bytes.clone(),
        _ => Bytes::new(),
    };
    decode_content(kind, content)
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}

fn decode_content(
    kind: u64,
    content: impl Fn(u32) -> Bytes,
) -> Result<Option<Packet>, DecodeError> {
    let Some((_, field)) = KINDS.iter().find(|(number, _)| *number == kind) else {
        return Ok(None);
    };
    let mut fields = Fields(content(*field));
    // Every content has at most a text or two, and numbers.
    let (mut numbers, mut texts) =
        ([0_i64; 4], [Bytes::new(), Bytes::new(), Bytes::new(), Bytes::new()]);
    while let Some((field, value)) = fields.next()? {
        let Some(index) = usize::try_from(field).ok().filter(|index| *index < numbers.len()) else {
            continue;
        };
        match value {
            Value::Number(number) => numbers[index] = number.cast_signed(),
            Value::Bytes(bytes) => texts[index] = bytes,
            Value::Other => {}
        }
    }
    let [_, one, two, three] = texts;
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).map_err(|_| Malformed::Text);
    Ok(Some(match (kind, *field) {
        number::DIAL_REQUEST => {
            Packet::DialRequest { protocol: text(one)?, address: text(two)?, dial: numbers[3] }
        }
        number::DIAL_RESPONSE => {
            Packet::DialResponse { error: text(one)?, connection: numbers[2], dial: numbers[3] }
        }
        number::CLOSE_REQUEST => Packet::CloseRequest { connection: numbers[1] },
        number::CLOSE_RESPONSE => {
            Packet::CloseResponse { error: text(one)?, connection: numbers[2] }
        }
        number::DATA if three.is_empty() => return Ok(None),
        number::DATA => Packet::Data { connection: numbers[1], bytes: three },
        number::CLOSE_DIAL => Packet::CloseDial { dial: numbers[1] },
        number::CREDIT => {
            Packet::Credit { connection: numbers[1], bytes: numbers[2].cast_unsigned() }
        }
        number::FINISH => Packet::Finish { connection: numbers[1] },
        _ => Packet::Drain,
    }))
}
