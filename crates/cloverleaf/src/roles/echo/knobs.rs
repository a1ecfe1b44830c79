//! What the query of a request can ask of the echo. Pure.
//!
//! `status=503`, `delay=200ms`, `size=1024`, `chunks=5&every=100ms`, `headers=Name:value` (any
//! number of times). All percent-decoded; other keys mean nothing here and are only reported.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// Longest `delay` and `every`.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Greatest `size`: 1 GiB.
const SIZE_BYTES_MAX: u64 = 1 << 30;
/// Most `chunks`.
const CHUNKS_MAX: u64 = 10_000;
/// `every` where only `chunks` is given.
const EVERY_DEFAULT: Duration = Duration::from_millis(100);
/// Headers that frame the message or belong to the connection: they are the server's.
const HEADERS_REFUSED: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Knobs {
    /// Instead of 200, and instead of upgrading.
    pub(super) status: Option<StatusCode>,
    /// Between the end of the request and the answer.
    pub(super) delay: Duration,
    /// The body.
    pub(super) reply: Reply,
    /// To be added to the answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// What was received.
    Report,
    /// So many bytes.
    Size(u64),
    /// Server-sent events: the first at once.
    Events {
        /// How many.
        count: u64,
        /// How long from one to the next.
        every: Duration,
    },
}

/// A value that cannot be followed, as one sentence without a full stop.
pub(super) type Problem = String;

impl Knobs {
    /// Reads a query. Of a knob given twice the last counts.
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let (mut status, mut delay, mut headers) = (None, Duration::ZERO, Vec::new());
        let (mut size, mut chunks, mut every) = (None, None, None);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match key {
                "status" => status = Some(parse_status(&value)?),
                "delay" => delay = parse_wait("delay", &value)?,
                "size" => size = Some(parse_number("size", &value, SIZE_BYTES_MAX)?),
                "chunks" => chunks = Some(parse_number("chunks", &value, CHUNKS_MAX)?),
                "every" => every = Some(parse_wait("every", &value)?),
                "headers" => headers.push(parse_header(&value)?),
                _ => {}
            }
        }
        let reply = match (size, chunks) {
            (Some(_), Some(_)) => return Err("size and chunks cannot both be given".to_owned()),
            (Some(bytes), None) => Reply::Size(bytes),
            (None, Some(count)) => Reply::Events { count, every: every.unwrap_or(EVERY_DEFAULT) },
            (None, None) => Reply::Report,
        };
        Ok(Self { status, delay, reply, headers })
    }
}

fn parse_status(value: &str) -> Result<StatusCode, Problem> {
    let code = value.parse().ok().filter(|code| (200..=599).contains(code));
    code.and_then(|code: u16| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("status is {value:?}, expected a number from 200 to 599"))
}

fn parse_number(key: &str, value: &str, max: u64) -> Result<u64, Problem> {
    let number = value.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| format!("{key} is {value:?}, expected a number up to {max}"))
}

fn parse_wait(key: &str, value: &str) -> Result<Duration, Problem> {
    let wait = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok().map(Duration::from_millis),
        (None, Some(number)) => number.parse().ok().map(Duration::from_secs),
        (None, None) => None,
    };
    wait.filter(|wait| *wait <= WAIT_MAX)
        .ok_or_else(|| format!("{key} is {value:?}, expected a time up to 60s, as 200ms or 2s"))
}

fn parse_header(value: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let expected = || format!("headers has {value:?}, expected Name:value");
    let (name, content) = value.split_once(':').ok_or_else(expected)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| expected())?;
    if HEADERS_REFUSED.contains(&name.as_str()) {
        return Err(format!("headers has {name}, which the server sets itself"));
    }
    let content = HeaderValue::try_from(content.trim()).map_err(|_| expected())?;
    Ok((name, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Knobs {
        Knobs { status: None, delay: Duration::ZERO, reply: Reply::Report, headers: Vec::new() }
    }

    #[test]
    fn every_knob_is_read() {
        let header = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let events = |count, ms| Reply::Events { count, every: Duration::from_millis(ms) };
        for (query, expected) in [
            ("", nothing()),
            ("a=1&b&=&status2=9", nothing()),
            ("status=503", Knobs { status: Some(StatusCode::SERVICE_UNAVAILABLE), ..nothing() }),
            ("status=500&status=201", Knobs { status: Some(StatusCode::CREATED), ..nothing() }),
            ("delay=200ms", Knobs { delay: Duration::from_millis(200), ..nothing() }),
            ("delay=60s", Knobs { delay: Duration::from_secs(60), ..nothing() }),
            ("size=1073741824", Knobs { reply: Reply::Size(1 << 30), ..nothing() }),
            ("chunks=5&every=7ms", Knobs { reply: events(5, 7), ..nothing() }),
            ("every=1s&chunks=0", Knobs { reply: events(0, 1000), ..nothing() }),
            ("chunks=10000", Knobs { reply: events(10_000, 100), ..nothing() }),
            (
                "headers=X-A:1&headers=x-b:%20two%20words",
                Knobs {
                    headers: vec![header("x-a", "1"), header("x-b", "two words")],
                    ..nothing()
                },
            ),
        ] {
            assert_eq!(Knobs::parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (query, part) in [
            ("status=199", "status is \"199\""),
            ("status=600", "200 to 599"),
            ("status=", "status is"),
            ("delay=61s", "up to 60s"),
            ("delay=60001ms", "up to 60s"),
            ("delay=5", "as 200ms or 2s"),
            ("delay=-5ms", "delay is"),
            ("delay=99999999999999999999s", "delay is"),
            ("size=1073741825", "up to 1073741824"),
            ("size=x", "size is"),
            ("chunks=10001", "up to 10000"),
            ("chunks=1&size=1", "both"),
            ("headers=X", "expected Name:value"),
            ("headers=a b:c", "expected Name:value"),
            ("headers=a:b%0d%0ac:d", "expected Name:value"),
            ("headers=Content-Length:5", "the server sets itself"),
        ] {
            let problem = Knobs::parse(query).unwrap_err();
            assert!(problem.contains(part), "{query}: {problem}");
        }
    }
}
