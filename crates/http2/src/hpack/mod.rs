//! HPACK (RFC 7541): blocks of header fields, read with bounds and written without memory.
//!
//! Must not know frames or what fields mean. Start at [`Decoder`] and [`encode`].

mod decode;
mod encode;
mod huffman;
mod table;

pub use decode::Decoder;
pub use encode::{put_field, put_status};

/// Why a block cannot be read; the connection is of no use then (RFC 9113 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("a field is cut off")]
    Short,
    /// A number that nobody needs.
    #[error("a number is too long")]
    Number,
    /// There is no field of this number.
    #[error("a field's number is not in the tables")]
    Index,
    /// A string in Huffman's code makes no sense.
    #[error("a string is not in the Huffman code")]
    Huffman,
    /// A change of the table's size comes late or is larger than allowed.
    #[error("a table's size is not allowed")]
    Size,
}
