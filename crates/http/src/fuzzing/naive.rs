//! What the real parsers do, naively: the chunked coding, the whole body at once, line by line, as RFC
//! 9112 section 7.1 reads; and the form of a `traceparent`. Shares no code with them.

/// A complete chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub(super) data: Vec<u8>,
    /// The trailer section, empty line included.
    pub(super) section: Vec<u8>,
    /// Bytes of the whole coding.
    pub(super) used: usize,
}

/// `None` where the body is malformed or incomplete.
pub(super) fn chunks(input: &[u8], trailer_bytes_max: usize) -> Option<Chunks> {
    let mut data = Vec::new();
    let mut rest = input;
    loop {
        let (line, after) = line(rest)?;
        let size = size(line)?;
        if size == 0 {
            rest = after;
            break;
        }
        data.extend_from_slice(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let section = rest;
    loop {
        // A trailer line may hold a bare CR here: the parser of fields refuses it.
        let at = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..at].strip_suffix(b"\r")?;
        rest = &rest[at + 1..];
        if line.is_empty() {
            break;
        }
    }
    let section = section[..section.len() - rest.len()].to_vec();
    let used = input.len() - rest.len();
    (section.len() <= trailer_bytes_max).then_some(Chunks { data, section, used })
}

/// A line without its end, and what follows.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&text[..at], &text[at + 2..]))
}

/// The size in a chunk's first line: 1 to 15 digits, then perhaps white space, then perhaps extensions,
/// 256 bytes of both together.
fn size(line: &[u8]) -> Option<usize> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    let text = extension.trim_ascii_start();
    let fine = (1..=15).contains(&digits)
        && extension.len() <= 256
        && (text.is_empty() || text.starts_with(b";"))
        && !extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if !fine {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

/// Four fields of lower case hexadecimal digits (W3C Trace Context section 3.2.2), neither id zero, and
/// behind them nothing, or in a version after 00 what it may add.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value.get(..55).unwrap_or_default()) else { return false };
    let rest = value.get(55..).unwrap_or_default();
    let digits = |part: &str| part.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, _flags] = parts.as_slice() else { return false };
    parts.iter().map(|part| part.len()).eq([2, 32, 16, 2])
        && parts.iter().all(|part| digits(part))
        && *version != "ff"
        && !zero(trace)
        && !zero(parent)
        && (rest.is_empty() || *version != "00" && rest.starts_with(b"-"))
}
