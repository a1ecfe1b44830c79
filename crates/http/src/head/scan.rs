//! Finds where a head ends while it arrives piece by piece, looking at every byte once.
//!
//! Must not know what the lines mean; it only holds that each ends in CR LF (RFC 9112 section 2.2 lets a receiver
//! take a bare LF; two proxies that differ in it can be played against each other, so it is refused).

use super::HeadError;

/// How far a head has been looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Bytes looked at.
    seen: usize,
    /// Where the line that is under way began.
    line: usize,
}

impl Scan {
    /// Looks at what has arrived so far (the same bytes again, with more behind them) and gives the length of the
    /// head with its empty line, once that is there.
    pub(crate) fn find_end(
        &mut self,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Option<usize>, HeadError> {
        let from = self.seen;
        for found in memchr::memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
            let at = from + found;
            let line = bytes.get(self.line..at).unwrap_or_default();
            if line.last() != Some(&b'\r') {
                return Err(HeadError::BareLineFeed);
            }
            self.seen = at + 1;
            self.line = at + 1;
            if line.len() == 1 {
                return if at < limit { Ok(Some(at + 1)) } else { Err(HeadError::TooLarge) };
            }
        }
        self.seen = bytes.len();
        if bytes.len() >= limit { Err(HeadError::TooLarge) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_in_any_pieces() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for cut in 0..head.len() {
            let mut scan = Scan::default();
            let first = scan.find_end(&head[..cut], 1000).unwrap();
            let end = first.or_else(|| scan.find_end(head, 1000).unwrap());
            assert_eq!(end, Some(27), "cut at {cut}");
        }
    }

    #[test]
    fn bare_line_feeds_and_large_heads_are_refused() {
        assert_eq!(Scan::default().find_end(b"GET /\n", 99), Err(HeadError::BareLineFeed));
        assert_eq!(Scan::default().find_end(b"\n", 99), Err(HeadError::BareLineFeed));
        assert_eq!(Scan::default().find_end(&[b'a'; 99], 99), Err(HeadError::TooLarge));
        assert_eq!(Scan::default().find_end(b"aaaa\r\n\r\n", 7), Err(HeadError::TooLarge));
        assert_eq!(Scan::default().find_end(b"aaaa\r\n\r\n", 8), Ok(Some(8)));
    }
}
