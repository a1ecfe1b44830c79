//! The chunked coding decoded naively: the whole body at once, line by line, as RFC 9112 section 7.1 reads. Shares
//! no code with the real decoder.

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

/// The size in a chunk's first line: 1 to 15 digits, then perhaps white space, then perhaps extensions, 256 bytes of
/// both together.
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
