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
        assert_clean(header.value);
        fields.push(header.name.as_bytes(), header.value);
    }
    Ok(fields)
}

/// What an upstream must never get, whatever a later version of the parser lets through: checked where debug
/// assertions are on, so by every test and every run of a fuzz target, and by the test below.
pub(crate) fn assert_clean(value: &[u8]) {
    debug_assert!(value.iter().all(|b| *b >= 0x20 && *b != 0x7f || *b == b'\t'));
}

#[cfg(test)]
mod tests {
    use crate::head::{RequestHead, ResponseHead};

    #[test]
    fn no_control_character_passes_anywhere_in_a_head() {
        let controls = (0..0x20_u8).chain([0x7f]).map(char::from);
        for control in controls {
            // A tab is white space in a value; CR LF is the end of a line, and is tried in the corpora.
            let in_value = control != '\t';
            for (line, refused) in [
                (format!("GET /a{control}b HTTP/1.1\r\nHost: h\r\n\r\n"), true),
                (format!("GET{control}X / HTTP/1.1\r\nHost: h\r\n\r\n"), true),
                (format!("GET / HTTP/1.1\r\nHost: h\r\nA{control}B: c\r\n\r\n"), true),
                (format!("GET / HTTP/1.1\r\nHost: h\r\nA: b{control}c\r\n\r\n"), in_value),
            ] {
                let parsed = RequestHead::default().parse(line.as_bytes(), 100);
                assert_eq!(parsed.is_err(), refused, "{line:?}");
            }
            for (line, refused) in [
                (format!("HTTP/1.1 200 O{control}K\r\nA: b\r\n\r\n"), in_value),
                (format!("HTTP/1.1 200 OK\r\nA{control}B: c\r\n\r\n"), true),
                (format!("HTTP/1.1 200 OK\r\nA: b{control}c\r\n\r\n"), in_value),
            ] {
                let parsed = ResponseHead::default().parse(line.as_bytes(), 100, false);
                assert_eq!(parsed.is_err(), refused, "{line:?}");
            }
        }
    }
}
