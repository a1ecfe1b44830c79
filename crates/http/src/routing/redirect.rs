//! Where a rule sends a client: the `Location` of its answer, from what the client asked for.
//!
//! What a client sends can only ever change the path, the query, and the host that it named itself: never so that a
//! path is read as a host. Pure; must not know how the answer is sent.

use model::{Redirect, Rule, Scheme};

use super::request::normalize_host;
use super::rewrite::rewritten;

/// What the client asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// The scheme that it used.
    pub scheme: Scheme,
    /// Host, and perhaps port, as it named them.
    pub authority: &'r [u8],
    /// Path and query.
    pub target: &'r [u8],
}

/// The value of `Location` (RFC 9110 section 10.2.2). `clean` as for [`rewritten`]. `None` where it needs a host,
/// and the client named none.
#[must_use]
pub fn location(rule: &Rule, to: &Redirect, asked: &Asked<'_>, clean: bool) -> Option<Vec<u8>> {
    let target = rewritten(asked.target, rule, clean);
    // Two slashes at the beginning would be followed by a host (RFC 3986 section 4.2), and browsers take a backslash
    // for a slash.
    let slashes = target.iter().take_while(|b| matches!(b, b'/' | b'\\')).count();
    let rest = target.get(slashes..).unwrap_or_default();
    let mut out = Vec::with_capacity(64 + rest.len());
    if !to.is_relative() {
        origin(&mut out, to, asked)?;
    }
    out.push(b'/');
    for &byte in rest {
        match byte {
            b'\\' => out.extend_from_slice(b"%5C"),
            // No head has others: what else came in was refused when it was read.
            0x21..=0x7e => out.push(byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    Some(out)
}

/// Scheme, host and port.
fn origin(out: &mut Vec<u8>, to: &Redirect, asked: &Asked<'_>) -> Option<()> {
    let named;
    let host = match &to.host {
        Some(host) => host.as_str(),
        None => {
            named = normalize_host(asked.authority).ok().filter(|host| !host.is_empty())?;
            &*named
        }
    };
    let scheme = to.scheme.unwrap_or(asked.scheme);
    let same_port = || named_port(asked.authority).filter(|_| to.scheme.is_none());
    let port = to.port.or_else(same_port).filter(|port| *port != scheme.port());
    out.extend_from_slice(scheme.as_str().as_bytes());
    out.extend_from_slice(b"://");
    let is_v6 = host.contains(':');
    out.extend_from_slice(if is_v6 { b"[" } else { b"" });
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(if is_v6 { b"]" } else { b"" });
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    Some(())
}

/// The port of a host that was found to be well-formed; `None` where it has none, or none that there is.
fn named_port(authority: &[u8]) -> Option<u16> {
    let colon = memchr::memrchr(b':', authority)?;
    let port = authority.get(colon + 1..)?;
    std::str::from_utf8(port).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use model::{Action, HostName, PathMatch, PathRewrite};

    use super::*;

    fn rule(path: PathMatch, rewrite: PathRewrite) -> Rule {
        Rule { path, rewrite, ..crate::tests::rule(0, Action::Close) }
    }

    fn to(scheme: Option<Scheme>, host: Option<&str>, port: Option<u16>) -> Redirect {
        let host = host.map(|host| HostName::parse(host).unwrap());
        Redirect { status: 302, scheme, host, port }
    }

    fn located(rule: &Rule, to: &Redirect, asked: &str) -> Option<String> {
        let (scheme, rest) = asked.split_once("://").unwrap();
        let cut = rest.find('/').unwrap();
        let asked = Asked {
            scheme: Scheme::parse(scheme.as_bytes()).unwrap(),
            authority: &rest.as_bytes()[..cut],
            target: &rest.as_bytes()[cut..],
        };
        location(rule, to, &asked, false).map(|location| String::from_utf8(location).unwrap())
    }

    /// Gateway API's `HTTPRequestRedirectFilter`, but for the port where neither scheme nor port is given.
    #[test]
    fn scheme_host_and_port_are_the_clients_or_given() {
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        let cases = [
            (https, None, None, "http://a.test/x?q", "https://a.test/x?q"),
            (https, None, None, "http://a.test:8080/x", "https://a.test/x"),
            (https, None, Some(443), "http://a.test/x", "https://a.test/x"),
            (https, None, Some(8443), "http://a.test:8080/x", "https://a.test:8443/x"),
            (https, None, Some(80), "http://a.test/x", "https://a.test:80/x"),
            (http, None, None, "https://a.test:8443/x", "http://a.test/x"),
            (http, None, Some(443), "https://a.test/x", "http://a.test:443/x"),
            (None, Some("b.test"), None, "http://a.test/x", "http://b.test/x"),
            (None, Some("b.test"), None, "http://a.test:8080/x", "http://b.test:8080/x"),
            (None, Some("b.test"), Some(80), "http://a.test:8080/x", "http://b.test/x"),
            (None, Some("b.test"), None, "https://a.test:443/x", "https://b.test/x"),
            (None, None, Some(81), "http://a.test/x", "http://a.test:81/x"),
            (None, None, Some(81), "https://a.test/x", "https://a.test:81/x"),
            (https, Some("b.test"), Some(8443), "http://a.test/", "https://b.test:8443/"),
            (https, None, None, "http://A.Test./x", "https://a.test/x"),
            (https, None, None, "http://[2001:DB8::0:1]:80/x", "https://[2001:db8::1]/x"),
            (https, Some("::1"), None, "http://a.test/x", "https://[::1]/x"),
            (None, None, Some(1), "http://a.test:99999/x", "http://a.test:1/x"),
            (None, Some("b.test"), None, "http://a.test:99999/x", "http://b.test/x"),
        ];
        let keep = rule(PathMatch::Any, PathRewrite::Keep);
        for (scheme, host, port, asked, wanted) in cases {
            let found = located(&keep, &to(scheme, host, port), asked);
            assert_eq!(found.as_deref(), Some(wanted), "{asked} {scheme:?} {host:?} {port:?}");
        }
        assert_eq!(located(&keep, &to(https, None, None), "http:///x"), None, "no host");
        assert!(located(&keep, &to(https, Some("b.test"), None), "http:///x").is_some());
    }

    /// The table of Gateway API's `HTTPPathModifier`; an empty replacement is `/` to us.
    #[test]
    fn paths_change_as_those_of_requests_do() {
        let segments = |path: &str| PathMatch::Segments(path.into());
        let with = |path: &str| PathRewrite::ReplaceMatch(path.into());
        let cases = [
            (segments("/foo"), with("/xyz"), "/foo/bar", "/xyz/bar"),
            (segments("/foo"), with("/xyz/"), "/foo/bar", "/xyz/bar"),
            (segments("/foo/"), with("/xyz"), "/foo/bar", "/xyz/bar"),
            (segments("/foo/"), with("/xyz/"), "/foo/bar", "/xyz/bar"),
            (segments("/foo"), with("/xyz"), "/foo", "/xyz"),
            (segments("/foo"), with("/xyz"), "/foo/", "/xyz/"),
            (segments("/foo"), with("/"), "/foo/bar", "/bar"),
            (segments("/foo"), with("/"), "/foo/", "/"),
            (segments("/foo"), with("/"), "/foo", "/"),
            (segments("/foo"), PathRewrite::StripMatch, "/foo/b?c=/d", "/b?c=/d"),
            (PathMatch::Any, PathRewrite::ReplaceWhole("/é b".into()), "/x?q", "/%C3%A9%20b?q"),
        ];
        for (path, rewrite, asked, wanted) in cases {
            let rule = rule(path, rewrite);
            let asked = format!("http://a.test{asked}");
            let relative = located(&rule, &to(None, None, None), &asked);
            assert_eq!(relative.as_deref(), Some(wanted), "{asked} {rule:?}");
            let whole = located(&rule, &to(Some(Scheme::Https), None, None), &asked);
            assert_eq!(whole, Some(format!("https://a.test{wanted}")), "{asked} {rule:?}");
        }
    }

    #[test]
    fn no_path_becomes_a_host() {
        let prefix = |path: &str| PathMatch::Prefix(path.into());
        let strip = || PathRewrite::StripMatch;
        let cases = [
            (PathMatch::Any, PathRewrite::Keep, "//evil.test/x", "/evil.test/x"),
            (PathMatch::Any, PathRewrite::Keep, "/\\evil.test/x", "/evil.test/x"),
            (PathMatch::Any, PathRewrite::Keep, "/a\\b", "/a%5Cb"),
            (PathMatch::Any, PathRewrite::Keep, "/%2Fevil.test", "/%2Fevil.test"),
            (prefix("/a"), strip(), "/a//evil.test", "/evil.test"),
            (prefix("/a"), strip(), "/a/\\evil.test", "/evil.test"),
            (prefix("/a/"), strip(), "/a//evil.test", "/evil.test"),
            (prefix("/a"), strip(), "/a@evil.test", "/@evil.test"),
            (prefix("/a"), PathRewrite::ReplaceMatch("//b".into()), "/a", "/b"),
            (PathMatch::Any, PathRewrite::ReplaceWhole("//b".into()), "/a?//c", "/b?//c"),
            (prefix("/a"), PathRewrite::ReplaceMatch("/b\r\nX: y".into()), "/a", "/b%0D%0AX:%20y"),
        ];
        for (path, rewrite, asked, wanted) in cases {
            let rule = rule(path, rewrite);
            let asked = format!("http://a.test{asked}");
            let found = located(&rule, &to(None, None, None), &asked);
            assert_eq!(found.as_deref(), Some(wanted), "{asked}");
            let found = located(&rule, &to(None, Some("b.test"), None), &asked);
            assert_eq!(found, Some(format!("http://b.test{wanted}")), "{asked}");
        }
    }
}
