//! The bodies of answers: a text, a pattern of any length, timed events. Each is made as it is sent.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of one frame of a pattern.
const PIECE_BYTES: usize = 16 * 1024;
/// The lines a pattern is made of.
static PIECE: [u8; PIECE_BYTES] = pattern();

const fn pattern() -> [u8; PIECE_BYTES] {
    const LINE: &[u8; 64] = b"cloverleaf echo cloverleaf echo cloverleaf echo cloverleaf echo\n";
    let mut piece = [0; PIECE_BYTES];
    let mut i = 0;
    while i < PIECE_BYTES {
        piece[i] = LINE[i % LINE.len()];
        i += 1;
    }
    piece
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum EchoBody {
    /// What is left of a text, at once.
    Text(Bytes),
    /// So many bytes are still to come.
    Pattern(u64),
    /// Server-sent events.
    Events(Events),
}

/// Server-sent events with `id` and `data`, as many as asked for.
#[derive(Debug)]
pub(super) struct Events {
    sent: u64,
    count: u64,
    every: Duration,
    due: Pin<Box<Sleep>>,
}

impl EchoBody {
    pub(super) fn text(text: String) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn empty() -> Self {
        Self::Text(Bytes::new())
    }

    pub(super) fn pattern(bytes: u64) -> Self {
        Self::Pattern(bytes)
    }

    pub(super) fn events(count: u64, every: Duration) -> Self {
        let due = Box::pin(sleep_until(Instant::now()));
        Self::Events(Events { sent: 0, count, every, due })
    }
}

impl Events {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == self.count {
            return Poll::Ready(None);
        }
        ready!(self.due.as_mut().poll(cx));
        // From when it was due: a slow reader does not shift the ones after it.
        let next = self.due.deadline() + self.every;
        self.due.as_mut().reset(next);
        self.sent += 1;
        let event = format!("id: {0}\ndata: event {0} of {1}\n\n", self.sent, self.count);
        Poll::Ready(Some(event.into()))
    }
}

impl Body for EchoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => Some(std::mem::take(text)),
            Self::Pattern(0) => None,
            Self::Pattern(left) => {
                let piece = usize::try_from(*left).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
                *left -= piece as u64;
                Some(Bytes::from_static(&PIECE[..piece]))
            }
            Self::Events(events) => ready!(events.poll_next(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Pattern(left) => *left == 0,
            Self::Events(events) => events.sent == events.count,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Pattern(left) => SizeHint::with_exact(*left),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_pattern_has_its_length() {
        for length in [0, 1, 16_384, 16_385, 100_000] {
            let body = EchoBody::pattern(length);
            assert_eq!(body.size_hint().exact(), Some(length));
            let all = body.collect().await.unwrap().to_bytes();
            assert_eq!(all.len() as u64, length);
            assert!(all.iter().enumerate().all(|(i, b)| *b == PIECE[i % PIECE_BYTES]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_at_their_times() {
        let began = Instant::now();
        let mut body = EchoBody::events(3, Duration::from_secs(10));
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            seen.push((began.elapsed().as_secs(), String::from_utf8(data.to_vec()).unwrap()));
        }
        let event = |n: u64| (n * 10 - 10, format!("id: {n}\ndata: event {n} of 3\n\n"));
        assert_eq!(seen, [event(1), event(2), event(3)]);
    }
}
