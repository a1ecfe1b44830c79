//! Header fields: one buffer of text and a list of where names and values stand in it.
//!
//! Cheaper than a map of allocated names and values, and it keeps order, case and repetition as they came. Removing
//! marks an entry, adding appends text. Must not know which fields mean what beyond [`Known`].

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
        let at = self.at as usize;
        text.get(at..at + self.len as usize).unwrap_or_default()
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
        let candidates: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host), ("date", Self::Date)],
            6 => &[("expect", Self::Expect), ("server", Self::Server)],
            7 => &[("upgrade", Self::Upgrade), ("x-proxy", Self::XProxy)],
            9 => &[("forwarded", Self::Forwarded)],
            10 => &[
                ("connection", Self::Connection),
                ("keep-alive", Self::KeepAlive),
                ("tracestate", Self::Tracestate),
            ],
            11 => &[("traceparent", Self::Traceparent)],
            14 => {
                &[("content-length", Self::ContentLength), ("http2-settings", Self::Http2Settings)]
            }
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("x-forwarded-host", Self::XForwardedHost),
                ("x-proxy-instance", Self::XProxyInstance),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => &[
                ("x-forwarded-proto", Self::XForwardedProto),
                ("transfer-encoding", Self::TransferEncoding),
            ],
            18 => &[("proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[("proxy-authorization", Self::ProxyAuthorization)],
            _ => &[],
        };
        let exact =
            candidates.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        match exact {
            Some((_, kind)) => *kind,
            None if candidates
                .iter()
                .any(|(known, kind)| kind.is_trusted() && looks_like(name, known)) =>
            {
                Self::Lookalike
            }
            None => Self::Other,
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
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::Lookalike
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
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

/// An ordered list of header fields.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    entries: Vec<Entry>,
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
        self.entries.iter().filter(|e| !e.removed).map(|e| Field {
            name: e.name.of(&self.text),
            value: e.value.of(&self.text),
            known: e.known,
        })
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
        self.entries
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
        let Self { text, entries } = self;
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
