//! Header fields: one buffer of text and a list of where names and values stand in it.
//!
//! Cheaper than a map of allocated names and values, and it keeps order, case and repetition as they came. Removing
//! marks an entry, adding appends text. Must not know which fields mean what beyond [`Known`].

use std::ops::Range;

/// Where something stands in the text of its [`Fields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub(crate) fn new(at: usize, len: usize) -> Self {
        // Heads are bounded far below 4 GiB; an impossible value becomes an empty span rather than a wrong one.
        match (u32::try_from(at), u32::try_from(len)) {
            (Ok(at), Ok(len)) => Self { at, len },
            _ => Self::default(),
        }
    }

    pub(crate) fn of<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.range()).unwrap_or_default()
    }

    fn range(&self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.len as usize
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Names that the proxy itself acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Known {
    #[default]
    Other,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Server,
    Te,
    Traceparent,
    Tracestate,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XProxy,
    XProxyInstance,
    /// `X_Forwarded_For` and its like: what a CGI or WSGI server takes for a field that we set or check.
    Lookalike,
}

impl Known {
    /// The name's kind, without regard to case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let at = |index: usize| name.get(index).map_or(0, u8::to_ascii_lowercase);
        // Length and one letter leave a single candidate, and most names none.
        let (known, kind) = match (name.len(), at(0)) {
            (2, b't') => ("te", Self::Te),
            (4, b'd') => ("date", Self::Date),
            (4, b'h') => ("host", Self::Host),
            (6, b'e') => ("expect", Self::Expect),
            (6, b's') => ("server", Self::Server),
            (7, b'u') => ("upgrade", Self::Upgrade),
            (7, b'x') => ("x-proxy", Self::XProxy),
            (9, b'f') => ("forwarded", Self::Forwarded),
            (10, b'c') => ("connection", Self::Connection),
            (10, b'k') => ("keep-alive", Self::KeepAlive),
            (10, b't') => ("tracestate", Self::Tracestate),
            (11, b't') => ("traceparent", Self::Traceparent),
            (14, b'c') => ("content-length", Self::ContentLength),
            (14, b'h') => ("http2-settings", Self::Http2Settings),
            (15, b'x') => ("x-forwarded-for", Self::XForwardedFor),
            (16, b'x') if at(2) == b'f' => ("x-forwarded-host", Self::XForwardedHost),
            (16, b'x') => ("x-proxy-instance", Self::XProxyInstance),
            (16, b'p') => ("proxy-connection", Self::ProxyConnection),
            (17, b'x') => ("x-forwarded-proto", Self::XForwardedProto),
            (17, b't') => ("transfer-encoding", Self::TransferEncoding),
            (18, b'p') => ("proxy-authenticate", Self::ProxyAuthenticate),
            (19, b'p') => ("proxy-authorization", Self::ProxyAuthorization),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(known.as_bytes()) {
            kind
        } else if kind.is_trusted() && looks_like(name, known) {
            Self::Lookalike
        } else {
            Self::Other
        }
    }

    /// Whether servers act on what it says because a proxy is trusted to have set or checked it.
    fn is_trusted(self) -> bool {
        matches!(
            self,
            Self::ContentLength
                | Self::TransferEncoding
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedProto
        )
    }

    /// Whether it belongs to one connection and never goes further (RFC 9110 section 7.6.1, and those that
    /// RFC 2616 named beside it), or must not because it would pass for one that we set. `TE` and
    /// `Transfer-Encoding` among them: what goes on is written anew.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        Self::HOP_BY_HOP.contains(&self)
    }

    /// See [`Self::is_hop_by_hop`].
    const HOP_BY_HOP: [Self; 10] = [
        Self::Connection,
        Self::Http2Settings,
        Self::KeepAlive,
        Self::Lookalike,
        Self::ProxyAuthenticate,
        Self::ProxyAuthorization,
        Self::ProxyConnection,
        Self::Te,
        Self::TransferEncoding,
        Self::Upgrade,
    ];
}

/// The same name, but for underscores in place of dashes.
fn looks_like(name: &[u8], known: &str) -> bool {
    let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
    name.len() == known.len() && name.iter().zip(known.as_bytes()).all(same)
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Span,
    value: Span,
    known: Known,
    removed: bool,
}

impl Entry {
    /// Where its line stands in the text, if it stands there as `name: value` and CR LF.
    fn line(&self, text: &[u8]) -> Option<Range<usize>> {
        let (name, value) = (self.name.range(), self.value.range());
        let line = name.start..value.end + 2;
        let as_written =
            text.get(name.end..value.start)? == b": " && text.get(value.end..line.end)? == b"\r\n";
        as_written.then_some(line)
    }
}

/// A set of kinds, a bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds(u32);

impl Kinds {
    fn add(&mut self, known: Known) {
        self.0 |= 1 << known as u32;
    }

    fn has(self, known: Known) -> bool {
        self.0 & (1 << known as u32) != 0
    }

    fn any_hop_by_hop(self) -> bool {
        const HOP_BY_HOP: u32 = {
            let (mut set, mut at) = (0, 0);
            while at < Known::HOP_BY_HOP.len() {
                set |= 1 << Known::HOP_BY_HOP[at] as u32;
                at += 1;
            }
            set
        };
        self.0 & HOP_BY_HOP != 0
    }
}

/// An ordered list of header fields.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Which kinds were ever added since it was cleared: most are not there, and need not be looked for.
    kinds: Kinds,
}

/// One field as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'f> {
    /// Its name, in the case in which it came.
    pub name: &'f [u8],
    /// Its value, without surrounding white space.
    pub value: &'f [u8],
    /// Its name's kind.
    pub known: Known,
}

impl Fields {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.kinds = Kinds::default();
    }

    /// Nothing, with this one's memory, unless that is more than heads usually take.
    pub(crate) fn recycled(mut self) -> Self {
        const TEXT_KEPT_BYTES: usize = 4 * 1024;
        const ENTRIES_KEPT: usize = 64;
        if self.text.capacity() > TEXT_KEPT_BYTES || self.entries.capacity() > ENTRIES_KEPT {
            return Self::default();
        }
        self.clear();
        self
    }

    /// Starts over with a head's text; [`Self::index`] then says what stands where in it.
    pub(crate) fn reset(&mut self, text: &[u8]) {
        self.clear();
        self.text.extend_from_slice(text);
    }

    /// Adds text that is no field (a method, a target), and says where it stands.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Span {
        let span = Span::new(self.text.len(), text.len());
        self.text.extend_from_slice(text);
        span
    }

    /// What stands at a span.
    #[must_use]
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    /// Notes a field that already stands in the text.
    pub(crate) fn index(&mut self, name: Span, value: Span) -> Known {
        let known = Known::of(name.of(&self.text));
        self.kinds.add(known);
        self.entries.push(Entry { name, value, known, removed: false });
        known
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = self.keep(name);
        let value = self.keep(value);
        self.index(name, value);
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().filter(|e| !e.removed).map(|e| self.field(e))
    }

    /// All fields, in order, each with its line where that came in the form in which we write it (`name: value` and
    /// CR LF): neighbours can then go on in one piece.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Field<'_>, Option<Range<usize>>)> {
        self.entries.iter().filter(|e| !e.removed).map(|e| (self.field(e), e.line(&self.text)))
    }

    /// The text of some lines.
    pub(crate) fn raw(&self, lines: Range<usize>) -> &[u8] {
        self.text.get(lines).unwrap_or_default()
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        let (name, value) = (entry.name.of(&self.text), entry.value.of(&self.text));
        Field { name, value, known: entry.known }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|e| !e.removed).count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first value of a known field.
    #[must_use]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// All values of a known field.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let entries = if self.kinds.has(known) { self.entries.as_slice() } else { &[] };
        entries
            .iter()
            .filter(move |e| e.known == known && !e.removed)
            .map(|e| e.value.of(&self.text))
    }

    /// The first value of a field by name, without regard to case.
    #[must_use]
    pub fn by_name(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    }

    /// Removes the field that was added last.
    pub(crate) fn drop_last(&mut self) {
        self.entries.pop();
    }

    /// Removes all fields of that kind.
    pub fn remove(&mut self, known: Known) {
        for entry in self.entries.iter_mut().filter(|e| e.known == known) {
            entry.removed = true;
        }
    }

    /// Removes what belongs to the connection that the head came over: the hop-by-hop fields and those that
    /// `Connection` names. `Connection` cannot take away what the message needs (RFC 9110 section 7.6.1: it
    /// must not name end-to-end fields), so that a client cannot make a proxy drop `Host` or a length.
    pub fn remove_hop_by_hop(&mut self) {
        if !self.kinds.any_hop_by_hop() {
            return;
        }
        for at in 0..self.entries.len() {
            let Some(entry) = self.entries.get(at).copied() else { break };
            if entry.known == Known::Connection {
                self.remove_named_by(entry.value);
            }
        }
        for entry in self.entries.iter_mut().filter(|e| e.known.is_hop_by_hop()) {
            entry.removed = true;
        }
    }

    fn remove_named_by(&mut self, connection: Span) {
        let Self { text, entries, .. } = self;
        for token in tokens(connection.of(text)) {
            for entry in entries.iter_mut() {
                let removable =
                    matches!(entry.known, Known::Other | Known::Traceparent | Known::Tracestate);
                if removable && entry.name.of(text).eq_ignore_ascii_case(token) {
                    entry.removed = true;
                }
            }
        }
    }
}

/// The tokens of a comma-separated list, without white space; empty ones are left out.
pub(crate) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn fields_keep_order_case_and_repetition() {
        let mut fields = Fields::default();
        fields.push(b"X-A", b"1");
        fields.push(b"x-a", b"2");
        fields.push(b"HOST", b"h");
        assert_eq!(names(&fields), ["X-A", "x-a", "HOST"]);
        assert_eq!(fields.get(Known::Host), Some(&b"h"[..]));
        fields.remove(Known::Host);
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn every_known_name_is_found_in_any_case() {
        let names = "te date host expect server upgrade x-proxy forwarded connection keep-alive tracestate \
                     traceparent content-length http2-settings x-forwarded-for x-forwarded-host \
                     x-proxy-instance proxy-connection x-forwarded-proto transfer-encoding \
                     proxy-authenticate proxy-authorization";
        let mut seen = Vec::new();
        for name in names.split_whitespace() {
            let known = Known::of(name.as_bytes());
            assert!(known != Known::Other && !seen.contains(&known), "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), known, "{name}");
            assert_eq!(Known::of(format!("{name}s").as_bytes()), Known::Other, "{name}");
            seen.push(known);
        }
        for other in ["", "x", "tx", "cookie", "user-agent", "x-request-idx", "x-forwarded-4or"] {
            assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other}");
        }
        assert_eq!(Known::of(b"X_Forwarded-Host"), Known::Lookalike);
    }

    #[test]
    fn connection_names_what_goes_but_never_what_the_message_needs() {
        let mut fields = Fields::default();
        for (name, value) in [
            ("Connection", "X-Drop, host , content-length,,keep-alive"),
            ("Host", "h"),
            ("Content-Length", "0"),
            ("X-Drop", "1"),
            ("X-Keep", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "secret"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("X_Forwarded_For", "6.6.6.6"),
            ("content_length", "6"),
            ("x_my_own", "1"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields.remove_hop_by_hop();
        assert_eq!(names(&fields), ["Host", "Content-Length", "X-Keep", "x_my_own"]);
    }
}
