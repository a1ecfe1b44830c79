//! The fields of a request or of its trailers, as one buffer and a list of places, and what a request must be like
//! (RFC 9113 sections 8.1 to 8.3).
//!
//! Must not know frames or streams.

use crate::hpack::{put_field, put_status};

/// What a field counts beside its bytes (section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// What most requests of gRPC need.
const USUAL_BYTES: usize = 256;
const USUAL_FIELDS: usize = 10;

/// A list of fields in their order. The first of a request are the pseudo fields, such as `:path`.
#[derive(Debug, Clone, Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// Where a name begins, where its value does and where that ends.
    places: Vec<[u32; 3]>,
}

impl Head {
    /// All fields, names in lower case.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |from: u32, to: u32| self.bytes.get(from as usize..to as usize).unwrap_or(&[]);
        self.places.iter().map(move |[name, value, end]| (part(*name, *value), part(*value, *end)))
    }

    /// The value of the first field of a name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// What is asked for; empty where nothing is.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.get(":path").unwrap_or(&[])
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.places.push([begin, middle, self.bytes.len()].map(|at| at as u32));
    }
}

/// Takes in the fields of a block and looks at each. What follows a mistake is passed over, not kept.
#[derive(Debug)]
pub(crate) struct Reading {
    head: Head,
    wrong: Option<Wrong>,
    bytes_left: usize,
    trailers: bool,
    /// A field that is no pseudo field has come.
    regular: bool,
    content_length: Option<u64>,
}

/// Why a block is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Malformed,
    TooLong,
}

/// The pseudo fields of a request.
const PSEUDO: [&[u8]; 4] = [b":method", b":scheme", b":authority", b":path"];
/// What concerns a single connection of HTTP/1 (section 8.2.2).
const OF_A_CONNECTION: [&[u8]; 5] =
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

impl Reading {
    pub(crate) fn new(trailers: bool, bytes_max: usize) -> Self {
        Self {
            head: Head {
                bytes: Vec::with_capacity(USUAL_BYTES),
                places: Vec::with_capacity(USUAL_FIELDS),
            },
            wrong: None,
            bytes_left: bytes_max,
            trailers,
            regular: false,
            content_length: None,
        }
    }

    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        if self.wrong.is_some() {
            return;
        }
        let count = name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        let Some(left) = self.bytes_left.checked_sub(count) else {
            self.wrong = Some(Wrong::TooLong);
            return;
        };
        self.bytes_left = left;
        if !self.fits(name, value) {
            self.wrong = Some(Wrong::Malformed);
            return;
        }
        self.head.push(name, value);
    }

    fn fits(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name.first() == Some(&b':') {
            return !self.trailers
                && !self.regular
                && PSEUDO.contains(&name)
                && self.head.fields().all(|(known, _)| known != name)
                && value.iter().all(u8::is_ascii_graphic)
                && (name == b":authority" || !value.is_empty());
        }
        self.regular = true;
        if name == b"content-length" {
            let digits = value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| digits);
            let number = text.and_then(|text| text.parse().ok());
            if number.is_none() || self.content_length.is_some_and(|known| number != Some(known)) {
                return false;
            }
            self.content_length = number;
        }
        is_name(name)
            && is_value(value)
            && !OF_A_CONNECTION.contains(&name)
            && (name != b"te" || value == b"trailers")
    }

    /// The list, and how long the body says it is.
    pub(crate) fn finish(self) -> Result<(Head, Option<u64>), Wrong> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let has = |name: &str| self.head.get(name).is_some();
        let whole = match self.head.get(":method") {
            // Section 8.5.
            Some(b"CONNECT") => !has(":scheme") && !has(":path") && has(":authority"),
            Some(_) => has(":scheme") && has(":path"),
            None => false,
        };
        if whole || self.trailers {
            Ok((self.head, self.content_length))
        } else {
            Err(Wrong::Malformed)
        }
    }
}

/// Lower case, and nothing that separates (section 8.2.1, RFC 9110 section 5.6.2).
fn is_name(name: &[u8]) -> bool {
    let fine = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(fine)
}

fn is_value(value: &[u8]) -> bool {
    let fine = |b: &u8| !matches!(b, 0 | b'\r' | b'\n');
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    value.iter().all(fine) && !blank(value.first()) && !blank(value.last())
}

/// The fields of an answer or of its trailers, as they are sent.
#[derive(Debug, Clone, Default)]
pub struct Block(Vec<u8>);

impl Block {
    /// The beginning of an answer.
    #[must_use]
    pub fn answer(status: u16) -> Self {
        let mut block = Self::default();
        put_status(&mut block.0, status);
        block
    }

    /// The end of one.
    #[must_use]
    pub fn trailers() -> Self {
        Self::default()
    }

    /// Adds a field, its name in lower case; what cannot be sent as one is left out.
    #[must_use]
    pub fn field(mut self, name: &str, value: &[u8]) -> Self {
        let value = value.trim_ascii();
        if is_name(name.as_bytes()) && is_value(value) {
            put_field(&mut self.0, name.as_bytes(), value);
        }
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(trailers: bool, fields: &[(&str, &str)]) -> Result<(Head, Option<u64>), Wrong> {
        let mut reading = Reading::new(trailers, 1000);
        fields.iter().for_each(|(name, value)| reading.take(name.as_bytes(), value.as_bytes()));
        reading.finish()
    }

    const PATH: (&str, &str) = (":path", "/a");
    const METHOD: (&str, &str) = (":method", "POST");
    const SCHEME: (&str, &str) = (":scheme", "http");

    #[test]
    fn requests_are_taken() {
        let authorities = ["localhost:1", "/run/a.sock", "%2Frun%2Fa.sock", "", "a@b[::1]"];
        for authority in authorities {
            let (head, _) =
                read(false, &[METHOD, SCHEME, PATH, (":authority", authority), ("te", "trailers")])
                    .unwrap();
            assert_eq!(head.path(), b"/a");
            assert_eq!(head.get(":authority"), Some(authority.as_bytes()));
            assert_eq!((head.get("te"), head.get("none")), (Some(&b"trailers"[..]), None));
        }
        assert!(read(false, &[(":method", "CONNECT"), (":authority", "a:1")]).is_ok());
        let length = read(false, &[METHOD, SCHEME, PATH, ("content-length", "7")]).unwrap().1;
        assert_eq!(length, Some(7));
        assert!(read(true, &[("a", "b")]).is_ok() && read(true, &[]).is_ok());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let all = [METHOD, SCHEME, PATH];
        for without in 0..3 {
            let fields: Vec<_> = (0..3).filter(|at| *at != without).map(|at| all[at]).collect();
            assert_eq!(read(false, &fields).unwrap_err(), Wrong::Malformed);
        }
        for bad in [
            PATH,
            (":status", "200"),
            (":other", "x"),
            (":authority", "a b"),
            ("Upper", "x"),
            ("", "x"),
            ("na me", "x"),
            ("name", "a\r\nb"),
            ("name", " a"),
            ("name", "a\t"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("te", "gzip"),
            ("content-length", "x"),
            ("content-length", "+1"),
            ("content-length", ""),
        ] {
            let fields = [METHOD, SCHEME, PATH, bad];
            assert_eq!(read(false, &fields).unwrap_err(), Wrong::Malformed, "{bad:?}");
        }
        let late = [METHOD, SCHEME, ("a", "b"), PATH];
        assert_eq!(read(false, &late).unwrap_err(), Wrong::Malformed);
        assert_eq!(read(false, &[METHOD, SCHEME, (":path", "")]).unwrap_err(), Wrong::Malformed);
        assert_eq!(read(true, &[PATH]).unwrap_err(), Wrong::Malformed);
        let long = "x".repeat(900);
        let fields = [METHOD, SCHEME, PATH, ("a", long.as_str())];
        assert_eq!(read(false, &fields).unwrap_err(), Wrong::TooLong);
    }
}
