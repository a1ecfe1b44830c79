//! Hosts and paths of Ingresses as patterns. Pure; errors say what was expected, for the owner of the
//! Ingress.

use std::net::IpAddr;

use model::{HostName, HostPattern, PathMatch};

use crate::objects::PathType;

/// Bytes of a path; the API has no bound of its own.
pub(super) const PATH_BYTES_MAX: usize = 4 * 1024;

/// A host of a rule or certificate; empty is every host, `*.name` stands for one label.
///
/// # Errors
/// What was expected.
pub(super) fn host(text: &str) -> Result<HostPattern, &'static str> {
    if text.is_empty() {
        return Ok(HostPattern::Any);
    }
    let (name, wildcard) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if name.parse::<IpAddr>().is_ok() || name.contains(':') {
        return Err("a host name without port, not an address");
    }
    let name = HostName::parse(name).map_err(|_| "a host name, or one behind \"*.\"")?;
    Ok(if wildcard { HostPattern::OneLabel(name) } else { HostPattern::Exact(name) })
}

/// A path of a rule. Those that mean the same come out equal: a prefix stands for whole segments, with or
/// without a slash at its end.
///
/// # Errors
/// Which part of the path is wrong (`pathType` or `path`), and what was expected.
pub(super) fn path(
    path_type: &PathType,
    text: &str,
) -> Result<PathMatch, (&'static str, &'static str)> {
    let implementation_specific = *path_type == PathType::ImplementationSpecific;
    let text = if text.is_empty() && implementation_specific { "/" } else { text };
    if let PathType::Unknown(_) = path_type {
        return Err(("pathType", "Exact, Prefix or ImplementationSpecific"));
    }
    if !text.starts_with('/') {
        return Err(("path", "a path that begins with a slash"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(("path", "at most 4096 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(("path", "a path without control characters"));
    }
    if *path_type == PathType::Exact {
        return Ok(PathMatch::Exact(text.to_owned()));
    }
    let segments = text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(text);
    Ok(PathMatch::Segments(segments.to_owned()))
}

/// Why a path, although valid, probably never matches what its author meant.
pub(super) fn oddity(text: &str) -> Option<&'static str> {
    let escape = |at: usize| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if text.match_indices('%').any(|(at, _)| escape(at)) {
        return Some(
            "paths are compared with the decoded path: write the character in place of its escape",
        );
    }
    if text.contains('?') {
        return Some(
            "paths are compared without the query: \"?\" only matches one that is escaped",
        );
    }
    if text.contains('*') {
        return Some("paths are no patterns: the characters are compared as they stand");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let name = |text: &str| HostName::parse(text).unwrap();
        assert_eq!(host(""), Ok(HostPattern::Any));
        assert_eq!(host("Foo.Bar.com"), Ok(HostPattern::Exact(name("foo.bar.com"))));
        assert_eq!(host("*.foo.com"), Ok(HostPattern::OneLabel(name("foo.com"))));
        for bad in [
            "*", "*.", "a.*.b", "**.a", "*a.b", "a b", "a\nb", "a:80", "1.2.3.4", "::1", "[::1]",
            "a/b", "é.com",
        ] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        let segments = |text: &str| Ok(PathMatch::Segments(text.into()));
        let exact = |text: &str| Ok(PathMatch::Exact(text.into()));
        let unknown = PathType::Unknown("Regex".into());
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        let cases = [
            (PathType::Prefix, "/", segments("/")),
            (PathType::Prefix, "/a", segments("/a")),
            (PathType::Prefix, "/a/", segments("/a")),
            (PathType::Exact, "/a/", exact("/a/")),
            (PathType::ImplementationSpecific, "", segments("/")),
            (PathType::ImplementationSpecific, "/a/", segments("/a")),
            (PathType::Prefix, "/a{b};c", segments("/a{b};c")),
        ];
        for (path_type, text, wanted) in cases {
            assert_eq!(path(&path_type, text), wanted, "{path_type:?} {text:?}");
        }
        let bad = [
            (PathType::Prefix, "", "path"),
            (PathType::Exact, "", "path"),
            (PathType::ImplementationSpecific, "a", "path"),
            (PathType::Prefix, "/a\nb", "path"),
            (PathType::Exact, "/\u{7f}", "path"),
            (PathType::Exact, &long, "path"),
            (unknown, "/", "pathType"),
        ];
        for (path_type, text, part) in bad {
            assert_eq!(path(&path_type, text).unwrap_err().0, part, "{path_type:?} {text:?}");
        }
    }

    #[test]
    fn oddities() {
        for odd in ["/a%20b", "/a?b=c", "/a/(.*)", "/*"] {
            assert!(oddity(odd).is_some(), "{odd}");
        }
        for fine in ["/100%", "/a%zz", "/a{b}", "/a;b=c", "/é", "/a b"] {
            assert!(oddity(fine).is_none(), "{fine}");
        }
    }
}
