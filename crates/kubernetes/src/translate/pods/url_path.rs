//! Paths as people write them in annotations, made into what a request's path is compared with, or into
//! what is sent.
//!
//! A path is what RFC 3986 section 3.3 says, with letters of all alphabets: what a browser would take in
//! its address line. Pure. Must not know which annotation a path is from.

use std::fmt;

/// The longest path that is taken: it becomes part of the names of rules.
const PATH_BYTES_MAX: usize = 1024;

/// Why a text cannot be a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    NoSlash,
    TooLong,
    Query(char),
    Character(char),
    Control,
    Escape,
    NotText,
    Segment,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a path that begins with / is expected"),
            Self::NoSlash => f.write_str("a path begins with /"),
            Self::TooLong => write!(f, "a path has at most {PATH_BYTES_MAX} bytes"),
            Self::Query(c) => {
                write!(f, "{c:?} ends a path; write it percent-encoded if it is part of it")
            }
            Self::Character(c) => write!(f, "{c:?} stands in no path; write it percent-encoded"),
            Self::Control => f.write_str("control characters stand in no path"),
            Self::Escape => f.write_str("behind % two hexadecimal digits are expected"),
            Self::NotText => f.write_str("what is percent-encoded must be UTF-8"),
            Self::Segment => {
                f.write_str("no request has //, /./ or /../ in its path: it would never match")
            }
        }
    }
}

/// The path with its percent-encoded bytes decoded, as requests are compared with it.
pub(super) fn decoded(text: &str) -> Result<String, Fault> {
    check(text)?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => (escaped(after).ok_or(Fault::Escape)?, &after[2..]),
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    let path = String::from_utf8(bytes).map_err(|_| Fault::NotText)?;
    if path.chars().any(char::is_control) { Err(Fault::Control) } else { Ok(path) }
}

/// The path as it is sent: letters beyond ASCII percent-encoded, all else as it stands.
pub(super) fn encoded(text: &str) -> Result<String, Fault> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    decoded(text)?;
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Ok(path)
}

fn check(text: &str) -> Result<(), Fault> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    if !text.starts_with('/') {
        return Err(Fault::NoSlash);
    }
    for c in text.chars() {
        match c {
            '?' | '#' => return Err(Fault::Query(c)),
            c if c.is_control() => return Err(Fault::Control),
            c if c.is_ascii() && !legal(c) || c.is_whitespace() => return Err(Fault::Character(c)),
            _ => {}
        }
    }
    let mut segments = text[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !is_last) {
            return Err(Fault::Segment);
        }
    }
    Ok(())
}

/// The byte of the two hexadecimal digits at the beginning.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |index: usize| {
        let digit = char::from(*rest.get(index)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    Some(digit(0)? << 4 | digit(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_decoded_and_sent_encoded() {
        for (text, compared, sent) in [
            ("/", "/", "/"),
            ("/nodejs", "/nodejs", "/nodejs"),
            ("/nodejs/", "/nodejs/", "/nodejs/"),
            ("/a;b=c,d", "/a;b=c,d", "/a;b=c,d"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/%7Bid%7d", "/{id}", "/%7Bid%7d"),
            ("/stra\u{df}e", "/stra\u{df}e", "/stra%C3%9Fe"),
            ("/what%3F", "/what?", "/what%3F"),
        ] {
            assert_eq!(decoded(text).as_deref(), Ok(compared), "{text}");
            assert_eq!(encoded(text).as_deref(), Ok(sent), "{text}");
        }
    }

    #[test]
    fn what_can_be_no_path_is_refused_with_the_reason() {
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for (text, fault) in [
            ("", Fault::Empty),
            ("nodejs", Fault::NoSlash),
            ("= /exact", Fault::NoSlash),
            ("~ ^/re", Fault::NoSlash),
            ("[", Fault::NoSlash),
            ("/x { return 418; } location /y", Fault::Character(' ')),
            ("/a{2}", Fault::Character('{')),
            ("/a b", Fault::Character(' ')),
            ("/a\u{a0}b", Fault::Character('\u{a0}')),
            ("/<>asd", Fault::Character('<')),
            ("/a\nb", Fault::Control),
            ("/a%0Ab", Fault::Control),
            ("/a%00", Fault::Control),
            ("/%ZZ", Fault::Escape),
            ("/a%2", Fault::Escape),
            ("/%", Fault::Escape),
            ("/%C3", Fault::NotText),
            ("/%+1", Fault::Escape),
            ("/a?b", Fault::Query('?')),
            ("/a#b", Fault::Query('#')),
            ("//", Fault::Segment),
            ("/a//b", Fault::Segment),
            ("/a/../b", Fault::Segment),
            ("/a/.", Fault::Segment),
            (&long, Fault::TooLong),
        ] {
            assert_eq!(decoded(text), Err(fault), "{text:?}");
            assert_eq!(encoded(text), Err(fault), "{text:?}");
        }
    }
}
