//! `rules[].apiKey`: a secret that requests must bring, from the file or from one of its own.
//!
//! The one place that sees the value. No diagnostic may show it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use model::ApiKey;

use crate::context::Context;
use crate::keys;
use crate::tree::Data;
use crate::value::{Map, Value};

/// Longest value: it has to fit into a head beside everything else.
const VALUE_BYTES_MAX: usize = 4_096;

/// Fields that are about the message or the connection, and that a key must not stand in.
const OF_THE_MESSAGE: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "cookie",
];

/// That of a rule, if it has one and it is right.
pub(super) fn decode(cx: &mut Context<'_>, rule: Map<'_, '_>) -> Option<Arc<ApiKey>> {
    let value = rule.lock(cx, "apiKey")?;
    if !matches!(value.node.data, Data::Map(_)) {
        // Somebody may have written the secret itself here.
        let wrong = value.error(cx, "no mapping is given here").expected("header and valueFile");
        cx.report.push(wrong);
        return None;
    }
    let map = value.map(cx, &keys::API_KEY)?;
    let header = header(cx, map);
    let secret = match (map.get("value"), map.get("valueFile")) {
        (Some(inline), None) => inline_value(cx, inline, map),
        (None, Some(file)) => value_in_file(cx, file, map),
        (Some(_), Some(file)) => {
            let both = file.error(cx, "value and valueFile are both given");
            cx.report.push(both.expected("one of them"));
            None
        }
        (None, None) => {
            let missing = map.error(cx, "neither value nor valueFile is given");
            cx.report.push(missing.expected("one of them"));
            None
        }
    };
    Some(Arc::new(ApiKey { header: header?, value: secret?.into() }))
}

/// The field's name in lower case.
fn header(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<model::Name> {
    let name = map.required(cx, "header")?.to_ascii_lowercase();
    // RFC 9110 section 5.6.2.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.bytes().all(token) && !OF_THE_MESSAGE.contains(&name.as_str()) {
        return Some(name.into());
    }
    let value = map.get("header")?;
    let expected = "the name of a header field that is not about the message itself, as X-Api-Key";
    // Not what was found: it may be the name and the secret.
    let wrong = value.error(cx, "no name of a field that can carry a key").expected(expected);
    cx.report.push(wrong);
    None
}

fn inline_value(cx: &mut Context<'_>, value: Value<'_, '_>, map: Map<'_, '_>) -> Option<Vec<u8>> {
    let text = map.required(cx, "value")?;
    checked(cx, value, text.as_bytes())
}

fn value_in_file(cx: &mut Context<'_>, value: Value<'_, '_>, map: Map<'_, '_>) -> Option<Vec<u8>> {
    let path = map.file(cx, "valueFile")?;
    cx.files.insert(path.clone());
    match read(&path) {
        Ok(text) => {
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            checked(cx, value, text.strip_suffix(b"\r").unwrap_or(text))
        }
        Err(error) => {
            let problem = format!("cannot read the API key from {}", path.display());
            let unreadable = value.error(cx, problem).value(error.to_string());
            cx.report.push(unreadable.expected("a readable file of at most 4 KiB"));
            None
        }
    }
}

/// A regular file, of which no more is read than is needed to say that it is too large. A pipe would block.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    // The newline at the end, and one byte more than is allowed.
    File::open(path)?.take(VALUE_BYTES_MAX as u64 + 3).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether a header field can have this value; the diagnostic says nothing of it.
fn checked(cx: &mut Context<'_>, at: Value<'_, '_>, value: &[u8]) -> Option<Vec<u8>> {
    let inner = |b: &u8| matches!(b, 0x20..=0x7e | 0x80..=0xff | b'\t');
    let blank = |b: Option<&u8>| b.is_none_or(|b| matches!(b, b' ' | b'\t'));
    let fine = value.iter().all(inner)
        && !blank(value.first())
        && !blank(value.last())
        && value.len() <= VALUE_BYTES_MAX;
    if !fine {
        let problem = "no header field can have this value, which is not shown";
        let expected = "1 to 4096 characters on one line, without spaces at its ends";
        let wrong = at.error(cx, problem).expected(expected);
        cx.report.push(wrong);
    }
    fine.then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use crate::{Overrides, parse};

    fn rule(key: &str) -> String {
        format!("upstreams: [{{name: u, host: h}}]\nrules: [{{upstream: u, apiKey: {key}}}]\n")
    }

    #[test]
    fn a_value_comes_from_the_file_or_from_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let written =
            [("plain", "open-sesame"), ("line", "open-sesame\n"), ("dos", "open-sesame\r\n")];
        for (name, text) in written {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let cases = ["value: open-sesame", "valueFile: plain", "valueFile: line", "valueFile: dos"];
        for given in cases {
            let text = rule(&format!("{{header: X-Api-Key, {given}}}"));
            let (config, found) = parse(&text, "f", dir.path(), &Overrides::default());
            let config = config.unwrap_or_else(|| panic!("{found}"));
            let key =
                config.snapshot.listeners[0].scopes[0].rules.rules[0].api_key.clone().unwrap();
            assert_eq!((&*key.header, &*key.value), ("x-api-key", &b"open-sesame"[..]), "{given}");
            assert_eq!(config.files.len(), usize::from(given.starts_with("valueFile")));
            assert!(!format!("{config:?}").contains("sesame"));
            let shown = crate::snapshot_json(&config.snapshot).to_string();
            assert!(shown.contains("x-api-key") && !shown.contains("sesame"), "{shown}");
            let dump = crate::nanoproxy_yaml(&config.snapshot);
            assert!(dump.contains("x-api-key") && !dump.contains("sesame"), "{dump}");
        }
    }

    #[test]
    fn no_diagnostic_shows_a_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("large"), "sesame".repeat(1_000)).unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        std::fs::write(dir.path().join("lines"), "sesame\nsesame\n").unwrap();
        let not_shown = "which is not shown";
        let cases = [
            ("header: X, value: ' sesame'", not_shown),
            ("header: X, value: \"sesame\\n\"", not_shown),
            ("header: X, valueFile: large", not_shown),
            ("header: X, valueFile: empty", not_shown),
            ("header: X, valueFile: lines", not_shown),
            ("header: X, valueFile: missing", "cannot read the API key from"),
            ("header: X, valueFile: /dev/zero", "not a regular file"),
            ("header: X, value: sesame, valueFile: lines", "both given"),
            ("header: X", "neither value nor valueFile"),
            ("header: X, value: ''", "value: missing"),
            ("value: sesame", "rules[0].apiKey.header: missing"),
            ("header: Content-Length, value: sesame", "not about the message"),
            ("header: 'X Y', value: sesame", "not about the message"),
            ("header: 'X: sesame'", "not about the message"),
            ("header: X, value: [sesame]", "a list is given here"),
        ];
        for (given, wanted) in cases {
            refuses(dir.path(), &format!("{{{given}}}"), wanted);
        }
        refuses(dir.path(), "sesame", "no mapping is given here");
        refuses(dir.path(), "[sesame]", "no mapping is given here");
        refuses(dir.path(), "", "nothing is given here");
    }

    fn refuses(dir: &std::path::Path, key: &str, wanted: &str) {
        let (config, found) = parse(&rule(key), "f", dir, &Overrides::default());
        assert!(config.is_none(), "{key}");
        let found = found.to_string();
        assert!(found.contains(wanted) && !found.contains("sesame"), "{key}: {found}");
    }
}
