//! Protocol buffers, as far as packets need them: fields of a message one after the other, and writing them.
//!
//! Must not know packets.

use bytes::{BufMut, Bytes};

/// Longer numbers do not exist (64 bits in groups of 7).
const VARINT_BYTES_MAX: usize = 10;
/// Groups within groups are an old thing of which nobody makes use; those who try are cut off.
const GROUP_DEPTH_MAX: usize = 8;

/// What a message's bytes break of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends within a field.
    #[error("it ends within a field")]
    Cut,
    /// A number has more than 64 bits.
    #[error("a number is longer than 64 bits")]
    LongNumber,
    /// A field has a number or a wire type that does not exist.
    #[error("a field has no valid tag")]
    Tag,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Bytes(Bytes),
    /// Of fixed width, or a group: no packet has it, it is passed over.
    Other,
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    /// The next one, by its number; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire) = self.tag()?;
        let value = match wire {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            other => {
                self.skip(number, other, 0)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u32, u32), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::Tag)?;
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 { Err(Malformed::Tag) } else { Ok((number, wire)) }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (number, length) = varint(&self.0)?.ok_or(Malformed::Cut)?;
        drop(self.0.split_to(length));
        Ok(number)
    }

    fn take(&mut self, length: u64) -> Result<Bytes, Malformed> {
        match usize::try_from(length) {
            Ok(length) if length <= self.0.len() => Ok(self.0.split_to(length)),
            _ => Err(Malformed::Cut),
        }
    }

    /// Passes over a field of a type that packets do not have.
    fn skip(&mut self, number: u32, wire: u32, depth: usize) -> Result<(), Malformed> {
        match wire {
            0 => drop(self.varint()?),
            1 => drop(self.take(8)?),
            2 => {
                let length = self.varint()?;
                drop(self.take(length)?);
            }
            3 if depth < GROUP_DEPTH_MAX => loop {
                let (inner, wire) = self.tag()?;
                if wire == 4 {
                    return if inner == number { Ok(()) } else { Err(Malformed::Tag) };
                }
                self.skip(inner, wire, depth + 1)?;
            },
            5 => drop(self.take(4)?),
            _ => return Err(Malformed::Tag),
        }
        Ok(())
    }
}

/// A number at the beginning of bytes, and how long it is there; `None` where it is cut off.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == VARINT_BYTES_MAX - 1 && bits > 1 {
            return Err(Malformed::LongNumber);
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((number, index + 1)));
        }
    }
    if bytes.len() >= VARINT_BYTES_MAX { Err(Malformed::LongNumber) } else { Ok(None) }
}

/// How many bytes a number takes.
pub(super) fn varint_bytes(number: u64) -> usize {
    let bits = (64 - number.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

pub(super) fn put_varint(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// A number's field; nothing for 0, which is what a missing one says.
pub(super) fn put_number(out: &mut impl BufMut, field: u32, number: u64) {
    if number != 0 {
        put_varint(out, u64::from(field << 3));
        put_varint(out, number);
    }
}

/// The beginning of a field of bytes: the bytes themselves follow.
pub(super) fn put_length(out: &mut impl BufMut, field: u32, length: usize) {
    put_varint(out, u64::from(field << 3 | 2));
    put_varint(out, length as u64);
}

/// A text's field; nothing for an empty one.
pub(super) fn put_text(out: &mut impl BufMut, field: u32, text: &str) {
    if !text.is_empty() {
        put_length(out, field, text.len());
        out.put_slice(text.as_bytes());
    }
}
