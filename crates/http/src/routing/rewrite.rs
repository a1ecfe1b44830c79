//! The path as the upstream gets it: the part that a rule matched taken away or replaced, in the bytes that
//! the client sent.

use std::borrow::Cow;

use model::{PathMatch, PathRewrite, Rule};

use super::path_match::segments_key;
use super::request::{clean_path, decoded_byte};

/// Path and query as the upstream gets them; `target` is what the client sent. `clean`: a path that
/// rewriting made unclean (`/strip../x`) is cleaned, so that no upstream sees one that the gateway itself
/// would not take.
#[must_use]
pub fn rewritten<'t>(target: &'t [u8], rule: &Rule, clean: bool) -> Cow<'t, [u8]> {
    let cut = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(cut);
    let changed = match &rule.rewrite {
        PathRewrite::Keep => return Cow::Borrowed(target),
        PathRewrite::StripMatch => strip_match(path, &rule.path),
        PathRewrite::ReplaceMatch(with) => replace_match(path, &rule.path, with),
        PathRewrite::ReplaceWhole(with) => escaped(with),
    };
    let cleaned = clean.then(|| clean_path(&changed)).flatten();
    let mut changed = cleaned.map_or_else(|| changed.into_owned(), String::into_bytes);
    changed.extend_from_slice(query);
    Cow::Owned(changed)
}

/// The raw path without what the rule's path matched at its beginning; what is left keeps its encoding and
/// gets a leading slash if it has none. A path that the rule does not match, or a rule that names none,
/// leaves it as it is.
///
/// `NanoProxy` decodes the rest as well, so that `%2F` becomes a slash; that is a deliberate departure.
pub(super) fn strip_match<'p>(raw_path: &'p [u8], rule: &PathMatch) -> Cow<'p, [u8]> {
    if matches!(rule, PathMatch::Any) {
        return Cow::Borrowed(raw_path);
    }
    let Some(rest) = after_match(raw_path, rule) else { return Cow::Borrowed(raw_path) };
    let cut = raw_path.len() - rest.len();
    match (rest.first(), cut.checked_sub(1).map(|at| raw_path[at])) {
        (Some(b'/'), _) => Cow::Borrowed(rest),
        // The slash that was cut off last serves as the leading one.
        (_, Some(b'/')) => Cow::Borrowed(&raw_path[cut - 1..]),
        (None, _) => Cow::Borrowed(b"/"),
        (Some(_), _) => Cow::Owned([b"/", rest].concat()),
    }
}

/// The raw path with another in place of what the rule's path matched, and at most one slash at the seam; see
/// [`PathRewrite::ReplaceMatch`]. A path that the rule does not match stays as it is.
fn replace_match<'p>(raw_path: &'p [u8], rule: &PathMatch, with: &str) -> Cow<'p, [u8]> {
    let Some(rest) = after_match(raw_path, rule) else { return Cow::Borrowed(raw_path) };
    let cut_slash = raw_path.get(..raw_path.len() - rest.len()).is_some_and(|m| m.ends_with(b"/"));
    let with = &*escaped(with);
    let seam: &[&[u8]] = match (with.strip_suffix(b"/"), rest.first()) {
        (Some(begin), Some(b'/')) => &[begin, rest],
        (None, Some(first)) if *first != b'/' && cut_slash => &[with, b"/", rest],
        _ => &[with, rest],
    };
    Cow::Owned(seam.concat())
}

/// A path whose bytes can all stand in a request's head; the percent escapes in it stay.
fn escaped(path: &str) -> Cow<'_, [u8]> {
    let plain = |b: &u8| matches!(b, 0x21..=0x7e) && !matches!(b, b'?' | b'#');
    if path.as_bytes().iter().all(plain) {
        return Cow::Borrowed(path.as_bytes());
    }
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len() + 16);
    for &byte in path.as_bytes() {
        if plain(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend([b'%', DIGITS[high], DIGITS[low]]);
        }
    }
    Cow::Owned(out)
}

/// What a rule's path leaves of a raw path; `None` where it does not match.
fn after_match<'p>(raw_path: &'p [u8], rule: &PathMatch) -> Option<&'p [u8]> {
    let matched = match rule {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text.as_bytes(),
        PathMatch::Segments(text) => segments_key(text),
        PathMatch::Any => b"",
        PathMatch::Never => return None,
    };
    after_decoded(raw_path, matched)
}

/// What follows the bytes at the beginning of a raw path whose decoded form is `matched`.
fn after_decoded<'p>(raw_path: &'p [u8], matched: &[u8]) -> Option<&'p [u8]> {
    let mut rest = raw_path;
    for &wanted in matched {
        let (byte, after) = decoded_byte(rest).ok()??;
        if byte != wanted {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_match_goes_and_the_rest_keeps_its_encoding() {
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        let exact = |text: &str| PathMatch::Exact(text.into());
        let segments = |text: &str| PathMatch::Segments(text.into());
        let cases = [
            ("P24", prefix("/strip"), "/strip", "/"),
            ("P25", prefix("/strip"), "/strip/", "/"),
            ("P26", prefix("/strip"), "/strip/a/b", "/a/b"),
            ("P27", prefix("/strip"), "/stripfoo", "/foo"),
            ("P28", prefix("/strip"), "/strip/strip/x", "/strip/x"),
            ("P29", prefix("/s2/"), "/s2/a", "/a"),
            ("P31", prefix("/strip"), "/strip/a%2Fb%20c", "/a%2Fb%20c"),
            ("P34", prefix("/strip"), "/str%69p/x%2Fy", "/x%2Fy"),
            ("P38", exact("/es"), "/es", "/"),
            ("an escaped slash is no leading slash", prefix("/strip"), "/strip%2Fx", "/%2Fx"),
            ("an escaped slash that was cut", prefix("/s2/"), "/s2%2Fx", "/x"),
            ("all but a slash", prefix("/"), "/a", "/a"),
            ("nothing", prefix(""), "/a", "/a"),
            ("any", PathMatch::Any, "/a/b", "/a/b"),
            ("never", PathMatch::Never, "/a/b", "/a/b"),
            ("segments", segments("/api"), "/api/x%20y", "/x%20y"),
            ("segments with slash", segments("/api/"), "/api/x", "/x"),
            ("segments alone", segments("/api/"), "/api", "/"),
            ("segments root", segments("/"), "/a", "/a"),
            ("outside ASCII", prefix("/é"), "/%C3%a9/%C3%A9", "/%C3%A9"),
            ("no match", prefix("/strip"), "/other", "/other"),
            ("shorter than the match", prefix("/strip"), "/st", "/st"),
            ("a broken escape", prefix("/strip"), "/str%6", "/str%6"),
        ];
        for (case, rule, raw, wanted) in cases {
            let left = strip_match(raw.as_bytes(), &rule);
            assert_eq!(std::str::from_utf8(&left).unwrap(), wanted, "{case}: {raw}");
        }
    }

    /// D11 to D19 of the observed cases, but for the double slash of D16.
    #[test]
    fn the_match_is_replaced_and_the_rest_keeps_its_encoding() {
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        let segments = |text: &str| PathMatch::Segments(text.into());
        let cases = [
            ("D11", prefix("/tp"), "/bar", "/tp/1", "/bar/1"),
            ("D12", prefix("/tp"), "/bar", "/tp", "/bar"),
            ("D13", prefix("/tp"), "/bar", "/tpx/y", "/barx/y"),
            ("D16", prefix("/tproot"), "/", "/tproot/1", "/1"),
            ("D16 alone", prefix("/tproot"), "/", "/tproot", "/"),
            ("D17", prefix("/tproot"), "/", "/tproot/1?a=/b?c", "/1?a=/b?c"),
            ("query alone", prefix("/tp"), "/bar", "/tp?x", "/bar?x"),
            ("D19 keeps what stays", prefix("/tp"), "/bar", "/tp/a%2Fb%20c", "/bar/a%2Fb%20c"),
            ("D19 decodes the match", prefix("/tp"), "/bar", "/%74p/x", "/bar/x"),
            ("both have a slash", prefix("/tp"), "/bar/", "/tp/1", "/bar/1"),
            ("the match has it", prefix("/tp/"), "/bar", "/tp/1", "/bar/1"),
            ("match and path have it", prefix("/tp/"), "/bar/", "/tp/1", "/bar/1"),
            ("neither, glued", prefix("/tp"), "/", "/tpx", "/x"),
            ("everything", prefix("/"), "/bar", "/a/b", "/bar/a/b"),
            ("everything, nothing left", prefix("/"), "/bar", "/", "/bar"),
            ("nothing was matched", PathMatch::Any, "/bar", "/a", "/bar/a"),
            ("nothing was matched, root", PathMatch::Any, "/", "/a", "/a"),
            ("segments", segments("/api/"), "/v2", "/api/x", "/v2/x"),
            ("segments alone", segments("/api/"), "/v2", "/api", "/v2"),
            ("exact", PathMatch::Exact("/es".into()), "/new/", "/es?q", "/new/?q"),
            ("no match", prefix("/tp"), "/bar", "/other", "/other"),
            ("escaped", prefix("/tp"), "/b r\r\né?#%20", "/tp", "/b%20r%0D%0A%C3%A9%3F%23%20"),
            ("cleaned", prefix("/tp"), "/bar", "/tp../x", "/bar../x"),
            ("cleaned above", prefix("/tp/."), "/bar/", "/tp/../x", "/bar/x"),
        ];
        for (case, path, with, target, wanted) in cases {
            let rewrite = PathRewrite::ReplaceMatch(with.into());
            let found = rewritten(target.as_bytes(), &rule(path, rewrite), true).into_owned();
            assert_eq!(String::from_utf8(found).unwrap(), wanted, "{case}: {target}");
        }
        let strip = rule(prefix("/strip"), PathRewrite::StripMatch);
        for (clean, wanted) in [(true, "/x?y"), (false, "/../x?y")] {
            assert_eq!(*rewritten(b"/strip../x?y", &strip, clean), *wanted.as_bytes());
        }
        let keep = rule(PathMatch::Any, PathRewrite::Keep);
        assert_eq!(*rewritten(b"//a/../b?c", &keep, true), *b"//a/../b?c");
    }

    fn rule(path: PathMatch, rewrite: PathRewrite) -> Rule {
        Rule {
            name: "r".into(),
            hosts: model::HostPattern::Any,
            path,
            rewrite,
            action: model::Action::Close,
            fallback: false,
            api_key: None,
            request_body_max: None,
            response_timeout: None,
            place: model::Place::whole("test"),
        }
    }
}
