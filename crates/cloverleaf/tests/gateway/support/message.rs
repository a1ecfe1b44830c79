//! HTTP/1 requests as they reached an upstream, read as the strictest server would read them.
//!
//! Whatever could be read in two ways is an error, so that a test that parses with this has shown that the
//! gateway forwards one unambiguous form.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line.
    pub(crate) line: String,
    /// Its fields in their order, names as they came.
    pub(crate) fields: Vec<(String, String)>,
    /// Its body without chunk framing.
    pub(crate) body: Vec<u8>,
    /// Fields behind a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a field.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        match self.all(name).as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// All complete requests in the bytes, and whether something incomplete is left behind them.
pub(crate) fn requests(mut bytes: &[u8]) -> Result<(Vec<Message>, bool), String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match request(bytes)? {
            Some((message, rest)) => {
                all.push(message);
                bytes = rest;
            }
            None => return Ok((all, true)),
        }
    }
    Ok((all, false))
}

/// The only request in the bytes.
pub(crate) fn only(bytes: &[u8]) -> Message {
    let shown = String::from_utf8_lossy(bytes);
    match requests(bytes) {
        Ok((mut all, false)) if all.len() == 1 => all.remove(0),
        other => panic!("not one request: {other:?}\n{shown}"),
    }
}

fn request(bytes: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    let Some((line, rest)) = line(bytes)? else { return Ok(None) };
    let words: Vec<_> = line.split(' ').collect();
    let fine = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    let [method, target, "HTTP/1.1"] = words.as_slice() else {
        return Err(format!("request line {line:?}"));
    };
    if !method.bytes().all(token) || method.is_empty() || !fine(target) {
        return Err(format!("request line {line:?}"));
    }
    if !target.starts_with('/') && *target != "*" {
        return Err(format!("target {target:?}"));
    }
    let Some((fields, rest)) = fields(rest)? else { return Ok(None) };
    let message = Message { line: line.clone(), fields, body: Vec::new(), trailers: Vec::new() };
    if message.all("host").len() != 1 {
        return Err(format!("hosts {:?}", message.all("host")));
    }
    body(message, rest)
}

fn body(mut message: Message, rest: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    let codings: Vec<_> = message.all("transfer-encoding");
    let lengths: Vec<_> = message.all("content-length");
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(Some((message, rest))),
        ([], [length]) => {
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length: usize = length.parse().ok().filter(|_| digits).ok_or("content-length")?;
            let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
            message.body = body.to_vec();
            Ok(Some((message, rest)))
        }
        (["chunked"], []) => chunks(message, rest),
        other => Err(format!("framing {other:?}")),
    }
}

fn chunks(mut message: Message, mut rest: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    loop {
        let Some((size, behind)) = line(rest)? else { return Ok(None) };
        let hex = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let bytes = usize::from_str_radix(&size, 16).ok().filter(|_| hex);
        let bytes = bytes.ok_or_else(|| format!("chunk size {size:?}"))?;
        if bytes == 0 {
            let Some((trailers, behind)) = fields(behind)? else { return Ok(None) };
            message.trailers = trailers;
            return Ok(Some((message, behind)));
        }
        let Some((data, behind)) = behind.split_at_checked(bytes) else { return Ok(None) };
        message.body.extend_from_slice(data);
        let Some((end, behind)) = behind.split_at_checked(2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err("no CRLF behind a chunk".to_owned());
        }
        rest = behind;
    }
}

type Fields = Vec<(String, String)>;

fn fields(mut bytes: &[u8]) -> Result<Option<(Fields, &[u8])>, String> {
    let mut all = Vec::new();
    loop {
        let Some((text, rest)) = line(bytes)? else { return Ok(None) };
        bytes = rest;
        if text.is_empty() {
            return Ok(Some((all, bytes)));
        }
        let (name, value) = text.split_once(": ").ok_or_else(|| format!("field {text:?}"))?;
        if name.is_empty() || !name.bytes().all(token) || value.trim() != value {
            return Err(format!("field {text:?}"));
        }
        all.push((name.to_owned(), value.to_owned()));
    }
}

/// Up to CR LF; neither may stand alone, and there are no other control characters but tabs.
fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, String> {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Ok(None) };
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let line = line.strip_suffix(b"\r").ok_or("a bare LF")?;
    if line.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
        return Err(format!("control characters in {:?}", String::from_utf8_lossy(line)));
    }
    Ok(Some((String::from_utf8_lossy(line).into_owned(), rest)))
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
