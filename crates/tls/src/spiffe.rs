//! SPIFFE IDs, and which of them are meant: names of workloads as `spiffe://trust-domain/path`. Pure.
//!
//! Source: the SPIFFE ID specification, section 2; what it does not allow is no ID here, so that two texts that differ
//! never name one workload.

use std::fmt;

/// The longest ID (section 2.3).
pub const ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// IDs that are meant: one, or all of a trust domain or below a path of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffePattern {
    /// With its scheme, and without a slash at its end.
    base: String,
    below: bool,
}

impl SpiffePattern {
    /// `spiffe://domain/path` for one ID, `spiffe://domain/path/*` for all below a path, `spiffe://domain/*` or
    /// `spiffe://domain` for all of a trust domain. `None` where it is none of that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (base, below) = match text.strip_suffix("/*") {
            Some(base) => (base, true),
            None => (text, !text.strip_prefix(SCHEME)?.contains('/')),
        };
        is_id(base).then(|| Self { base: base.to_owned(), below })
    }

    /// Whether an ID is meant. What is no ID is not.
    #[must_use]
    pub fn means(&self, id: &str) -> bool {
        let Some(rest) = id.strip_prefix(&self.base) else { return false };
        is_id(id) && if self.below { rest.starts_with('/') } else { rest.is_empty() }
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, if self.below { "/*" } else { "" })
    }
}

/// Whether a text is a SPIFFE ID, that of a trust domain included.
pub(crate) fn is_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(SCHEME).filter(|_| text.len() <= ID_BYTES_MAX) else {
        return false;
    };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let in_domain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_segment);
    (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && parts.all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_id() {
        for (text, expected) in [
            ("spiffe://cluster.local/ns/mesh/sa/proxy", true),
            ("spiffe://cluster.local", true),
            ("spiffe://a_b-1.test/A.b_c-1/..x", true),
            ("spiffe://", false),
            ("spiffe:///x", false),
            ("SPIFFE://a/x", false),
            ("https://a/x", false),
            ("spiffe://A/x", false),
            ("spiffe://a:80/x", false),
            ("spiffe://u@a/x", false),
            ("spiffe://a/", false),
            ("spiffe://a//x", false),
            ("spiffe://a/x/", false),
            ("spiffe://a/./x", false),
            ("spiffe://a/../x", false),
            ("spiffe://a/x?y", false),
            ("spiffe://a/x#y", false),
            ("spiffe://a/%61", false),
            ("spiffe://a/é", false),
            ("spiffe://a/*", false),
        ] {
            assert_eq!(is_id(text), expected, "{text}");
        }
        let long = |count: usize| format!("spiffe://a/{}", "x".repeat(count));
        let most = ID_BYTES_MAX - "spiffe://a/".len();
        assert!(is_id(&long(most)) && !is_id(&long(most + 1)));
        let domain = |count: usize| format!("spiffe://{}/x", "a".repeat(count));
        assert!(is_id(&domain(255)) && !is_id(&domain(256)));
    }

    #[test]
    fn which_ids_are_meant() {
        for (pattern, meant, not_meant) in [
            ("spiffe://a/x", &["spiffe://a/x"][..], &["spiffe://a/x/y", "spiffe://a/xy"][..]),
            ("spiffe://a/x/*", &["spiffe://a/x/y", "spiffe://a/x/y/z"], &["spiffe://a/x"]),
            ("spiffe://a", &["spiffe://a/x", "spiffe://a/x/y"], &["spiffe://a", "spiffe://ab/x"]),
            ("spiffe://a/*", &["spiffe://a/x"], &["spiffe://a", "spiffe://a/../x", "spiffe://b/x"]),
        ] {
            let parsed = SpiffePattern::parse(pattern).unwrap();
            assert!(meant.iter().all(|id| parsed.means(id)), "{pattern}");
            assert!(!not_meant.iter().any(|id| parsed.means(id)), "{pattern}");
        }
        for text in ["", "*", "spiffe://", "spiffe://*", "spiffe://a/x*", "spiffe://a/*/x", "a/x"] {
            assert_eq!(SpiffePattern::parse(text), None, "{text}");
        }
        assert_eq!(SpiffePattern::parse("spiffe://a").unwrap().to_string(), "spiffe://a/*");
    }
}
