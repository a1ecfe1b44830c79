//! The part of a path that a rule matched taken away, in the bytes that the client sent.

use std::borrow::Cow;

use model::PathMatch;

use super::path_match::segments_key;
use super::request::decoded_byte;

/// The raw path without what the rule's path matched at its beginning; what is left keeps its encoding and
/// gets a leading slash if it has none. A path that the rule does not match, or a rule that names none,
/// leaves it as it is.
///
/// `NanoProxy` decodes the rest as well, so that `%2F` becomes a slash; that is a deliberate departure.
#[must_use]
pub fn strip_match<'p>(raw_path: &'p [u8], rule: &PathMatch) -> Cow<'p, [u8]> {
    let matched = match rule {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text.as_bytes(),
        PathMatch::Segments(text) => segments_key(text),
        PathMatch::Any | PathMatch::Never => return Cow::Borrowed(raw_path),
    };
    let Some(rest) = after_decoded(raw_path, matched) else {
        return Cow::Borrowed(raw_path);
    };
    let cut = raw_path.len() - rest.len();
    match (rest.first(), cut.checked_sub(1).map(|at| raw_path[at])) {
        (Some(b'/'), _) => Cow::Borrowed(rest),
        // The slash that was cut off last serves as the leading one.
        (_, Some(b'/')) => Cow::Borrowed(&raw_path[cut - 1..]),
        (None, _) => Cow::Borrowed(b"/"),
        (Some(_), _) => Cow::Owned([b"/", rest].concat()),
    }
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
}
