//! Field lines to [`Fields`], through `httparse` and then stricter.
//!
//! Used for heads and for trailer sections. Must not know which fields matter.

use std::mem::MaybeUninit;

use super::{Fields, HeadError, Span};

/// Fields that one head can have at most, whatever the configuration says: the parser's table is on the stack.
pub(crate) const FIELDS_MAX: usize = 256;

/// A table for the parser.
pub(crate) type Table<'t> = [MaybeUninit<httparse::Header<'t>>; FIELDS_MAX];

/// An empty one.
pub(crate) fn table<'t>() -> Table<'t> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// What the parser says, in our words.
pub(crate) fn refused(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::Version => HeadError::Version,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadError::Field,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            HeadError::StartLine
        }
    }
}

/// Where a slice stands within the text that it was cut from.
pub(crate) fn span_in(text: &[u8], part: &[u8]) -> Span {
    let at = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    if part.is_empty() || at > text.len() { Span::default() } else { Span::new(at, part.len()) }
}

/// Parses a trailer section, empty line included, into fields with a text of their own.
pub(crate) fn parse_fields(text: &[u8], fields_max: usize) -> Result<Fields, HeadError> {
    let mut table = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let limit = fields_max.min(FIELDS_MAX);
    let parsed = match httparse::parse_headers(text, table.get_mut(..limit).unwrap_or_default()) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        Ok(httparse::Status::Partial) => return Err(HeadError::Field),
        Err(error) => return Err(refused(error)),
    };
    let mut fields = Fields::default();
    for header in parsed.iter() {
        check_value(header.value)?;
        fields.push(header.name.as_bytes(), header.value);
    }
    Ok(fields)
}

/// The parser lets nothing through but visible characters, spaces, tabs and bytes from 0x80; held here again so that
/// a later version of it cannot loosen what goes to an upstream.
pub(crate) fn check_value(value: &[u8]) -> Result<(), HeadError> {
    debug_assert!(value.iter().all(|b| *b >= 0x20 && *b != 0x7f || *b == b'\t'));
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        Err(HeadError::Field)
    } else {
        Ok(())
    }
}
