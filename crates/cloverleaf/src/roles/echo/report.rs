//! What a request was, as JSON.
//!
//! A body of any length is read to its end in bounded memory: its length and its beginning are told.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Peer;

/// How much of a body is told.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// How long a body may stand still.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is kept of a body.
#[derive(Debug, Default)]
pub(super) struct Seen {
    length: u64,
    beginning: Vec<u8>,
    trailers: HeaderMap,
}

impl Seen {
    fn take(&mut self, data: &[u8]) {
        self.length = self.length.saturating_add(data.len() as u64);
        let room = TEXT_BYTES_MAX - self.beginning.len();
        self.beginning.extend(data.iter().take(room));
    }

    fn is_cut(&self) -> bool {
        self.length > self.beginning.len() as u64
    }

    /// The beginning, without a character that the cut goes through.
    fn text(&self) -> String {
        let whole = match std::str::from_utf8(&self.beginning) {
            // No error length: the end came inside a character.
            Err(e) if self.is_cut() && e.error_len().is_none() => {
                &self.beginning[..e.valid_up_to()]
            }
            _ => &self.beginning,
        };
        String::from_utf8_lossy(whole).into_owned()
    }
}

/// Reads a body to its end. Dropping the future leaves the rest unread.
///
/// # Errors
/// A sentence, where the body breaks off, is malformed, or stands still for a minute.
pub(super) async fn read(mut body: Incoming) -> Result<Seen, String> {
    let mut seen = Seen::default();
    loop {
        let frame = match timeout(BODY_IDLE_TIMEOUT, body.frame()).await {
            Err(_) => return Err("the body stood still for too long".to_owned()),
            Ok(None) => return Ok(seen),
            Ok(Some(Err(error))) => return Err(format!("the body cannot be read: {error}")),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => seen.take(&data),
            Err(frame) => seen.trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
}

/// The report that an answer carries.
pub(super) fn report(head: &Parts, seen: &Seen, peer: &Peer) -> Value {
    let authority = head.uri.authority().map(|a| a.as_str().to_owned());
    let host = head.headers.get(header::HOST).map(|v| lossy(v.as_bytes()));
    json!({
        "instance": &*peer.instance,
        "local_address": peer.local.to_string(),
        "remote_address": peer.remote.to_string(),
        "version": format!("{:?}", head.version),
        "method": head.method.as_str(),
        "host": authority.or(host),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": pairs(&head.headers),
        "trailers": pairs(&seen.trailers),
        "body": { "length": seen.length, "text": seen.text(), "truncated": seen.is_cut() },
    })
}

/// Names in lower case, in the order in which each came first; the values of one name together.
fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    let pair = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        [name.as_str().to_owned(), lossy(value.as_bytes())]
    };
    headers.iter().map(pair).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_told_by_its_beginning() {
        let mut seen = Seen::default();
        seen.take(b"x");
        seen.take("é".repeat(3_000).as_bytes());
        assert_eq!((seen.length, seen.is_cut()), (6_001, true));
        assert_eq!(seen.text(), format!("x{}", "é".repeat(2_047)));
        assert_eq!(seen.beginning.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut seen = Seen::default();
        seen.take(b"a\xff\xc3");
        assert_eq!((seen.text().as_str(), seen.is_cut()), ("a\u{fffd}\u{fffd}", false));
    }
}
