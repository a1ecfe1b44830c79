//! The two tables of HPACK (RFC 7541 section 2.3): the static one, and the dynamic one of a decoder.
//!
//! Must not know how fields are written.

use std::collections::VecDeque;

/// What a field of the dynamic table counts beside its bytes (section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Appendix A; the first one has the number 1.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What the other side has asked to be remembered, the newest first. It holds memory only while it holds a field.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    entries: VecDeque<Entry>,
    /// By the count of section 4.1.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    both: Box<[u8]>,
    name: usize,
}

impl Dynamic {
    /// The field at a place, counted from 0.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).and_then(|entry| entry.both.split_at_checked(entry.name))
    }

    /// Takes in a field; one longer than the whole table empties it (section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], bytes_max: usize) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if size > bytes_max {
            return self.shrink(0);
        }
        self.shrink(bytes_max - size);
        let both = [name, value].concat().into_boxed_slice();
        self.entries.push_front(Entry { both, name: name.len() });
        self.bytes += size;
    }

    /// Drops the oldest until no more is left than this.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.both.len() + ENTRY_OVERHEAD_BYTES;
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// By the count of section 4.1.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
