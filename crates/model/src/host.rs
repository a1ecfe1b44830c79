//! Host names and patterns of them, compared the way DNS does: without regard to case or a trailing dot.

use std::fmt;
use std::sync::Arc;

/// A host name or address literal, in lower case, without port, trailing dot or brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// A text that is no host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHost;

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a host name")
    }
}

impl std::error::Error for InvalidHost {}

impl HostName {
    /// At most 253 characters (RFC 1035 section 2.3.4 without the root's), none of them a space, a control
    /// character, or one that a URI would take for a delimiter. Underscores pass: real names have them. IPv6
    /// literals are taken with or without brackets.
    ///
    /// # Errors
    /// [`InvalidHost`] where the text is none of that.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        const HOST_BYTES_MAX: usize = 253;
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let is_v6 = bare.contains(':');
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        if bare.is_empty() || bare.len() > HOST_BYTES_MAX {
            return Err(InvalidHost);
        }
        if is_v6 {
            let address: std::net::Ipv6Addr = bare.parse().map_err(|_| InvalidHost)?;
            return Ok(Self(address.to_string().into()));
        }
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !bare.bytes().all(fine) || bare.split('.').any(str::is_empty) {
            return Err(InvalidHost);
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which hosts a scope or rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HostPattern {
    /// Every host, also a request without one.
    #[default]
    Any,
    /// This name alone.
    Exact(HostName),
    /// `*.name`: names with exactly one label more (Ingress).
    OneLabel(HostName),
    /// `**.name` in files, `*.name` in Gateway API: names with one or more labels more.
    ManyLabels(HostName),
}

impl HostPattern {
    /// Whether a host, already in the form of [`HostName`], fits. An empty host fits only [`Self::Any`].
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.as_str() == host,
            Self::OneLabel(name) => {
                prefix_of(host, name.as_str()).is_some_and(|label| !label.contains('.'))
            }
            Self::ManyLabels(name) => prefix_of(host, name.as_str()).is_some(),
        }
    }
}

/// What stands before `.name` in a host, if it ends so and something does.
fn prefix_of<'h>(host: &'h str, name: &str) -> Option<&'h str> {
    host.strip_suffix(name)?.strip_suffix('.').filter(|label| !label.is_empty())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => write!(f, "{name}"),
            Self::OneLabel(name) => write!(f, "*.{name}"),
            Self::ManyLabels(name) => write!(f, "**.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded() {
        assert_eq!(HostName::parse("API.Test.").unwrap().as_str(), "api.test");
        assert_eq!(HostName::parse("[::0001]").unwrap().as_str(), "::1");
        for bad in ["", ".", "a..b", "a b", "a/b", "a:80", "a\u{e9}", "[::1", "*"] {
            assert_eq!(HostName::parse(bad), Err(InvalidHost), "{bad:?}");
        }
    }

    #[test]
    fn wildcards_need_a_label() {
        let name = HostName::parse("foo.com").unwrap();
        let one = HostPattern::OneLabel(name.clone());
        let many = HostPattern::ManyLabels(name);
        assert!(one.matches("bar.foo.com") && many.matches("bar.foo.com"));
        assert!(!one.matches("baz.bar.foo.com") && many.matches("baz.bar.foo.com"));
        for host in ["foo.com", ".foo.com", "barfoo.com", ""] {
            assert!(!one.matches(host) && !many.matches(host), "{host:?}");
        }
    }
}
