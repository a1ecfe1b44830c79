//! hyper's HTTP/1 server and client on bytes in memory, without a runtime: the input ends where the bytes
//! end, what is written is dropped, and a task runs until it is done or waits for what cannot come.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::ReadBufCursor;

/// How long hyper takes a body to be, before it has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    /// In chunks or until the end.
    Unknown,
}

/// A message as hyper reads it. Fields are sorted, their names in lower case.
#[derive(Default)]
pub(super) struct Message {
    pub(super) status: u16,
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) authority: Vec<u8>,
    pub(super) length: Length,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body has come to its end.
    pub(super) complete: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, target, authority) =
            (self.method.escape_ascii(), self.target.escape_ascii(), self.authority.escape_ascii());
        writeln!(f, "{} {method} {target} of {authority}, {:?}", self.status, self.length)?;
        for (name, value) in self.fields.iter().chain(&self.trailers) {
            writeln!(f, "{}: {}", name.escape_ascii(), value.escape_ascii())?;
        }
        writeln!(f, "{} (complete: {})", self.body.escape_ascii(), self.complete)
    }
}

impl Default for Length {
    fn default() -> Self {
        Self::Known(0)
    }
}

/// The requests that hyper's server finds in what a client sends.
pub(super) fn serve(input: &[u8]) -> Vec<Message> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let at = seen.borrow().len();
            seen.borrow_mut().push(Message {
                method: head.method.as_str().into(),
                target: target(&head.uri),
                authority: authority(&head.uri, &head.headers),
                length: length(&body),
                fields: sorted(&head.headers),
                ..Message::default()
            });
            // Noted before the body is read: a body that never ends must not hide the request.
            let body = read(body).await;
            if let Some(message) = seen.borrow_mut().get_mut(at) {
                (message.body, message.trailers, message.complete) = body;
            }
            let mut response = Response::new(Nothing);
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // The end of the input comes before the answers are out.
    server.half_close(true);
    let _ = run(server.serve_connection(Io::new(input, false), service));
    seen.take()
}

/// The response that hyper's client finds in what a server sends; `None` where it refuses it.
pub(super) fn ask(head: bool, input: &[u8]) -> Option<Message> {
    let io = Io::new(input, true);
    let (mut sender, connection) =
        run(hyper::client::conn::http1::handshake::<_, Nothing>(io))?.ok()?;
    let mut request = Request::new(Nothing);
    *request.method_mut() = if head { http::Method::HEAD } else { http::Method::GET };
    run(async move {
        let mut connection = pin!(connection);
        let mut done = false;
        let answer = async move {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let mut message = Message {
                status: head.status.as_u16(),
                length: length(&body),
                fields: sorted(&head.headers),
                ..Message::default()
            };
            (message.body, message.trailers, message.complete) = read(body).await;
            Some(message)
        };
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if !done {
                done = connection.as_mut().poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await
    })?
}

/// Data, trailers, and whether the end came.
async fn read(mut body: Incoming) -> (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, bool) {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return (data, trailers, true),
            Some(Err(_)) => return (data, trailers, false),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = sorted(&frame.into_trailers().unwrap_or_default()),
            },
        }
    }
}

fn length(body: &Incoming) -> Length {
    body.size_hint().exact().map_or(Length::Unknown, Length::Known)
}

/// Path and query, as our heads have them.
fn target(uri: &Uri) -> Vec<u8> {
    let Some(target) = uri.path_and_query() else { return Vec::new() };
    let slash = if target.as_str().starts_with('?') { "/" } else { "" };
    format!("{slash}{}", target.as_str()).into_bytes()
}

/// The target's, or else the field's.
fn authority(uri: &Uri, headers: &HeaderMap) -> Vec<u8> {
    match uri.authority() {
        Some(authority) => authority.as_str().into(),
        None => headers.get(header::HOST).map(|host| host.as_bytes().to_vec()).unwrap_or_default(),
    }
}

fn sorted(headers: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()))
        .collect();
    all.sort();
    all
}

/// An empty body.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// The other side: it has sent all it will, and takes everything.
struct Io {
    input: Vec<u8>,
    at: usize,
    /// It says nothing before it has been asked; this is who waits for that.
    silent: bool,
    reader: Option<Waker>,
}

impl Io {
    fn new(input: &[u8], silent: bool) -> Self {
        Self { input: input.to_vec(), at: 0, silent, reader: None }
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.silent {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = self.input.len().min(self.at + buffer.remaining());
        buffer.put_slice(self.input.get(self.at..end).unwrap_or_default());
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.silent = false;
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether a task has more to do.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end; `None` where it waits for what nobody will do.
fn run<F: Future>(future: F) -> Option<F::Output> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    while woken.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}
