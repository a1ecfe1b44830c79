//! What a request must go through before it can be matched: its host folded, its path decoded or cleaned.
//! Pure functions over what the client sent.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use model::InvalidHost;

/// The longest host taken, in bytes, without port and trailing dot (RFC 1035 section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// A percent sign that is not followed by two hexadecimal digits (RFC 3986 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a percent sign without two hexadecimal digits")]
pub struct InvalidEscape;

/// A byte that may stand in a host.
const PLAIN: u8 = 1;
/// One that must be folded.
const UPPER: u8 = 2;

/// RFC 3986 section 3.2.2: `reg-name`, but for percent escapes, which no DNS name has and servers read
/// differently.
const HOST_BYTES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_uppercase() {
            classes[byte] = UPPER;
        } else if b.is_ascii_alphanumeric() {
            classes[byte] = PLAIN;
        }
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut i = 0;
    while i < others.len() {
        classes[others[i] as usize] = PLAIN;
        i += 1;
    }
    classes
};

/// The host of a `Host` header, `:authority` or absolute-form target, as rules know it: without port,
/// brackets and one trailing dot, in lower case, IPv6 addresses in their shortest form. Borrowed where
/// nothing had to be folded. An empty host stays empty.
///
/// # Errors
/// [`InvalidHost`] where RFC 9110 section 7.2 allows no such value, where a percent escape is in it, or
/// where the host is longer than [`HOST_BYTES_MAX`]. The answer is 400.
pub fn normalize_host(raw: &[u8]) -> Result<Cow<'_, str>, InvalidHost> {
    if raw.first() == Some(&b'[') {
        return address_in_brackets(raw).map(Cow::Owned);
    }
    let mut seen = 0;
    let mut end = raw.len();
    for (at, &byte) in raw.iter().enumerate() {
        let class = HOST_BYTES[usize::from(byte)];
        if class == 0 {
            if !is_port(&raw[at..]) {
                return Err(InvalidHost);
            }
            end = at;
            break;
        }
        seen |= class;
    }
    let name = match &raw[..end] {
        b"." => return Err(InvalidHost),
        [name @ .., b'.'] => name,
        name => name,
    };
    if name.len() > HOST_BYTES_MAX {
        return Err(InvalidHost);
    }
    let name = std::str::from_utf8(name).map_err(|_| InvalidHost)?;
    Ok(if seen & UPPER == 0 { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) })
}

/// `:` and digits; the digits may be missing (RFC 3986 section 3.2.3).
fn is_port(raw: &[u8]) -> bool {
    raw.split_first()
        .is_some_and(|(&colon, digits)| colon == b':' && digits.iter().all(u8::is_ascii_digit))
}

/// `[v6]` with or without a port.
fn address_in_brackets(raw: &[u8]) -> Result<String, InvalidHost> {
    let close = raw.iter().position(|&b| b == b']').ok_or(InvalidHost)?;
    let port = &raw[close + 1..];
    if !port.is_empty() && !is_port(port) {
        return Err(InvalidHost);
    }
    let text = std::str::from_utf8(&raw[1..close]).map_err(|_| InvalidHost)?;
    let address: Ipv6Addr = text.parse().map_err(|_| InvalidHost)?;
    Ok(address.to_string())
}

/// A path, without the query, with its percent escapes decoded, as rules are compared with it. Borrowed
/// from `raw` where there is nothing to decode, else from `scratch`, whose former content is lost and
/// whose memory is reused.
///
/// # Errors
/// [`InvalidEscape`]; the answer is 400.
pub fn decode_path<'p>(raw: &'p [u8], scratch: &'p mut Vec<u8>) -> Result<&'p [u8], InvalidEscape> {
    let Some(first) = memchr::memchr(b'%', raw) else {
        return Ok(raw);
    };
    scratch.clear();
    scratch.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some((byte, after)) = decoded_byte(rest)? {
        scratch.push(byte);
        rest = after;
    }
    Ok(scratch)
}

/// The first byte of a path, decoded, and what follows it; `None` at the end.
pub(super) fn decoded_byte(raw: &[u8]) -> Result<Option<(u8, &[u8])>, InvalidEscape> {
    match raw {
        [] => Ok(None),
        [b'%', high, low, rest @ ..] => {
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(InvalidEscape);
            // Two digits of four bits.
            Ok(Some(((digit(*high)? << 4 | digit(*low)?) as u8, rest)))
        }
        [b'%', ..] => Err(InvalidEscape),
        [byte, rest @ ..] => Ok(Some((*byte, rest))),
    }
}

/// The path without empty, `.` and `..` segments, where it has any; `None` where it is clean or no path
/// (`*`). A slash at the end stays. Escaped dots and slashes are other characters here and stay (as Go's
/// `ServeMux` has it).
#[must_use]
pub fn clean_path(raw: &[u8]) -> Option<String> {
    // Whatever is unclean has a slash or a dot behind a slash.
    let suspicious = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.');
    if !raw.windows(2).any(suspicious) {
        return None;
    }
    let raw = std::str::from_utf8(raw).ok()?;
    let segments = raw.strip_prefix('/')?;
    let mut clean = String::with_capacity(raw.len());
    for segment in segments.split('/') {
        match segment {
            "" | "." => {}
            ".." => clean.truncate(clean.rfind('/').unwrap_or(0)),
            _ => {
                clean.push('/');
                clean.push_str(segment);
            }
        }
    }
    if clean.is_empty() || raw.ends_with('/') {
        clean.push('/');
    }
    (clean != raw).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_folded_and_cut() {
        let cases = [
            ("api.test", "api.test"),
            ("api.test:8080", "api.test"),
            ("api.test:", "api.test"),
            ("API.Test.", "api.test"),
            ("api.test.:80", "api.test"),
            ("api.test..", "api.test."),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[2001:DB8::0:1]:443", "2001:db8::1"),
            ("a_b", "a_b"),
            ("", ""),
            (":80", ""),
        ];
        for (raw, wanted) in cases {
            let host = normalize_host(raw.as_bytes()).unwrap();
            assert_eq!(host, wanted, "{raw}");
            let changed = raw.bytes().any(|b| b.is_ascii_uppercase() || b == b'[');
            assert_eq!(matches!(host, Cow::Borrowed(_)), !changed, "{raw}");
        }
        assert!(normalize_host("a".repeat(HOST_BYTES_MAX).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        let cases = [
            ".",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:80x",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:8x",
            "[]",
            "[a.test]",
            "[fe80::1%25eth0]",
            "a%2e",
            "a\tb",
            "a\0",
            "a\r\n",
            "h\u{e9}",
            "a#",
            "a?",
            "http://a",
            "a\\b",
            "<a>",
            &long,
        ];
        for raw in cases {
            assert_eq!(normalize_host(raw.as_bytes()), Err(InvalidHost), "{raw:?}");
        }
        assert_eq!(normalize_host(b"a\xff"), Err(InvalidHost));
    }

    #[test]
    fn a_normalized_host_is_what_the_model_calls_it() {
        for raw in ["API.test", "api.test.", "10.0.0.1", "[::0001]", "a_b.C-d"] {
            let name = model::HostName::parse(raw).unwrap();
            assert_eq!(normalize_host(raw.as_bytes()).unwrap(), name.as_str());
        }
    }

    #[test]
    fn paths_are_decoded_once_and_wholly() {
        let cases: [(&str, &[u8]); 7] = [
            ("/plain", b"/plain"),
            ("/pl%61in", b"/plain"),
            ("/a%2Fb%2fc", b"/a/b/c"),
            ("/%2525", b"/%25"),
            ("%00%fF", b"\0\xff"),
            ("/a+b", b"/a+b"),
            ("", b""),
        ];
        let mut scratch = b"left over".to_vec();
        for (raw, wanted) in cases {
            assert_eq!(decode_path(raw.as_bytes(), &mut scratch), Ok(wanted), "{raw}");
        }
        for raw in ["%", "/%", "/%a", "/%zz", "/%2", "/%%20", "/%+1", "/a%2"] {
            assert_eq!(decode_path(raw.as_bytes(), &mut scratch), Err(InvalidEscape), "{raw}");
        }
        let raw = b"/clean".as_slice();
        assert!(std::ptr::eq(decode_path(raw, &mut scratch).unwrap(), raw));
    }

    /// P47 to P50 of the observed cases, and what Go's `path.Clean` does.
    #[test]
    fn unclean_paths_are_cleaned() {
        let cases = [
            ("//plain", "/plain"),
            ("/plain//x", "/plain/x"),
            ("/a/../plain", "/plain"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a"),
            ("/a/b/../", "/a/"),
            ("/a/.", "/a"),
            ("/a/./", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("//", "/"),
            ("/a//", "/a/"),
            ("/.", "/"),
            ("/a/b/c/../../d", "/a/d"),
            ("//a%2F..%2Fb", "/a%2F..%2Fb"),
        ];
        for (raw, wanted) in cases {
            assert_eq!(clean_path(raw.as_bytes()).as_deref(), Some(wanted), "{raw}");
            assert_eq!(clean_path(wanted.as_bytes()), None, "{wanted}");
        }
        let clean = [
            "/",
            "/a",
            "/a/",
            "/a/b",
            "/.well-known/x",
            "/...",
            "/a/..b",
            "/a/.b/",
            "/%2e%2e/a",
            "/a%2F/b",
            "*",
            "",
            "a//b",
        ];
        for raw in clean {
            assert_eq!(clean_path(raw.as_bytes()), None, "{raw}");
        }
    }
}
