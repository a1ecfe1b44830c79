//! A connection from another host, which asks for a pod of this one.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use net::at_once;
use net::dial::Stream;
use stream::pump;
use tls::{Mutual, MutualError, looks_like_tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Counted, Worker};
use crate::Millis;
use crate::ask::{NoPod, own_pod};
use crate::files::security::Mode;
use crate::framed::{Framed, Home};
use crate::peer::{Reply, Request, read_request};
use crate::pods::Place;
use crate::sealed::{is_sealed, sealed};
use crate::search::{NotReached, Searcher, stand_in};
use crate::security::{Counts, Direction, Secured};
use crate::shared::{Resting, Shared, State};
use crate::stats::{Open, PEER_RESULTS};

/// How long a connection is kept that nobody asks anything of.
const RESTS: Duration = Duration::from_secs(15);

/// Serves one peer to its end. Dropped, it closes all that belongs to it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    from: SocketAddr,
    _counted: Counted,
) {
    let mut state = worker.shared.state();
    let secured = state.secured.clone();
    // What is heard and answered needs far more memory than what follows.
    let mut asked = Box::pin(first_request(&worker, &state, stream, from)).await;
    loop {
        let answered = match asked {
            Ok(asked) => Box::pin(answer(&worker, &state, asked)).await,
            Err(result) => Err(Unanswered { cluster_port: 0, result, kept: None }),
        };
        let Some((stream, seen)) = carry(&worker, state, from, answered).await else { return };
        let Some((stream, seen)) = rest(&worker, stream, seen).await else { return };
        state = worker.shared.state();
        // What was found out when it connected.
        if !state.secured.is(&secured) || !may_ask(&state, from) {
            return;
        }
        let within = state.settings.times.peer_request;
        asked = Box::pin(within_time(within, request(stream, seen))).await;
    }
}

/// Counts what was answered, and carries the tunnel if it is one. The connection if it is kept, with what has come on
/// it since.
async fn carry(
    worker: &Worker,
    state: Arc<State>,
    from: SocketAddr,
    answered: Result<Tunnel, Unanswered>,
) -> Option<Kept> {
    let (cluster_port, result) = match &answered {
        Ok(tunnel) => (tunnel.cluster_port, "ok"),
        Err(no) => (no.cluster_port, no.result),
    };
    let cells = worker.peer_cells(cluster_port);
    cells.result(&PEER_RESULTS, result);
    let idle = state.settings.times.idle;
    let Tunnel { peer, pod, place, back, .. } = match answered {
        Ok(tunnel) => tunnel,
        Err(no) => return Some((no.kept?, Vec::new())),
    };
    drop(state);
    let open = Open::count(&cells);
    let end = pump(peer, pod, None, Vec::new(), idle, cells.as_ref()).await;
    tracing::trace!(cluster_port, %from, end = end.as_str(), "ended");
    drop((place, open));
    back.take()
}

/// Waits for the next request on a connection that is kept, if nothing of it is `seen`; `None` where it had better be
/// closed.
async fn rest(worker: &Worker, mut stream: Stream, mut seen: Vec<u8>) -> Option<Kept> {
    if !seen.is_empty() {
        return Some((stream, seen));
    }
    let _resting = Resting::begin(&worker.shared)?;
    let mut closing = worker.closing.clone();
    seen.reserve(AT_ONCE_BYTES);
    let count = tokio::select! {
        _ = closing.wait_for(|closing| *closing) => return None,
        read = tokio::time::timeout(RESTS, stream.read_buf(&mut seen)) => read.ok()?.ok()?,
    };
    (count > 0).then_some((stream, seen))
}

fn may_ask(state: &State, from: SocketAddr) -> bool {
    state.settings.peers.contain(from.ip(), &state.addresses)
}

/// What a peer gets.
struct Tunnel {
    cluster_port: u16,
    peer: Stream,
    pod: Stream,
    /// Held while the connection lives; none where something else stands in for a pod.
    place: Option<Place>,
    /// Where the connection is when it can be used again.
    back: Back,
}

/// Where a peer's connection is found again that has carried its tunnel to the end, and what has come behind that.
#[derive(Debug, Clone, Default)]
struct Back(Arc<Mutex<Option<Kept>>>);

/// A connection, and what has come on it for the next request.
type Kept = (Stream, Vec<u8>);

impl Back {
    fn take(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Home for Back {
    fn take_back(&mut self, stream: Stream, behind: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream, behind));
    }
}

/// A peer does not get what it asks for.
struct Unanswered {
    /// 0 where it is not known.
    cluster_port: u16,
    /// Why, in a word of [`PEER_RESULTS`].
    result: &'static str,
    /// The connection, if something else can be asked over it.
    kept: Option<Stream>,
}

/// Hears what a peer wants that has just connected, if it may ask; or says in a word of [`PEER_RESULTS`] why not.
async fn first_request(
    worker: &Worker,
    state: &State,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<Asked, &'static str> {
    if !may_ask(state, from) {
        tracing::debug!(%from, "asked by somebody who is no host of the cluster");
        return Err("denied");
    }
    let hears = hear(&worker.shared, &state.secured, stream, from);
    within_time(state.settings.times.peer_request, hears).await
}

async fn within_time(
    within: Duration,
    hears: impl Future<Output = Result<Asked, &'static str>>,
) -> Result<Asked, &'static str> {
    tokio::time::timeout(within, hears).await.unwrap_or(Err("timeout"))
}

/// Connects to a pod and answers.
async fn answer(worker: &Worker, state: &State, asked: Asked) -> Result<Tunnel, Unanswered> {
    let Asked { mut peer, request: Request { cluster_port, keeps }, more } = asked;
    let keeps = keeps && state.settings.keeps;
    let pod_time = u64::try_from(state.settings.times.pod.as_millis()).unwrap_or(u64::MAX);
    let deadline = worker.shared.now().saturating_add(pod_time);
    let (mut pod, place) = match pod(worker, state, cluster_port, deadline).await {
        Ok(reached) => reached,
        Err(result) => {
            let kept = say_no(peer, result, keeps && more.is_empty()).await;
            // What was asked for is not counted by its name where it is not known here: anybody could ask for anything.
            let cluster_port = if result == "none" { 0 } else { cluster_port };
            return Err(Unanswered { cluster_port, result, kept });
        }
    };
    let wants_header = place.as_ref().is_some_and(|place| place.mapping().wants_header);
    let reply = Reply::Tunnel { wants_header, framed: keeps };
    let back = Back::default();
    let sent = async {
        // What came behind the request is little, and fits into the pod's empty socket.
        if !keeps && !more.is_empty() {
            at_once::write_all(&mut pod, &more).await?;
        }
        at_once::write_all(&mut peer, reply.encode()).await
    };
    if sent.await.is_err() {
        return Err(Unanswered { cluster_port, result: "unreachable", kept: None });
    }
    worker.shared.security.tunnel(Direction::In, is_sealed(&peer));
    if keeps {
        peer = Stream::Way(Box::new(Framed::new(peer, more, back.clone())));
    }
    Ok(Tunnel { cluster_port, peer, pod, place, back })
}

/// Tells a peer that there is no pod, for one of the reasons in [`PEER_RESULTS`]. The connection, where it `keeps`.
async fn say_no(mut peer: Stream, result: &str, keeps: bool) -> Option<Stream> {
    let (word, keeps) = match (result, keeps) {
        ("busy", _) => (Some(Reply::Busy), false),
        (_, true) => (Some(Reply::None), true),
        // No word is the protocol's word for it; the end of a secured connection says that it is meant so.
        (_, false) => (None, false),
    };
    if let Some(word) = word {
        // A peer that is gone already hears nothing.
        at_once::write_all(&mut peer, word.encode()).await.ok();
    }
    if keeps {
        return Some(peer);
    }
    let _ = peer.shutdown().await;
    None
}

/// A connection to a pod of this host, or to what stands in for one; or a word of [`PEER_RESULTS`] why there is none.
async fn pod(
    worker: &Worker,
    state: &State,
    cluster_port: u16,
    deadline: Millis,
) -> Result<(Stream, Option<Place>), &'static str> {
    let mut rng = worker.rng();
    let own = own_pod((&worker.shared, state), cluster_port, deadline, &mut rng).await;
    let reason = match own {
        Ok((pod, place)) => return Ok((Stream::Tcp(pod), Some(place))),
        Err(reason) => reason,
    };
    let searcher = Searcher { port: cluster_port, client: None, is_inner: true };
    match (stand_in(&worker.shared, searcher, deadline).await, reason) {
        (Some(Ok(pod)), _) => Ok((pod, None)),
        (Some(Err(NotReached::Busy)), _) | (_, NoPod::Busy) => Err("busy"),
        (Some(Err(_)), _) | (None, NoPod::Unreachable) => Err("unreachable"),
        (None, NoPod::None) => Err("none"),
    }
}

/// What a peer wants.
struct Asked {
    /// A socket, or sealed.
    peer: Stream,
    request: Request,
    /// What followed the request.
    more: Vec<u8>,
}

const AT_A_TIME_BYTES: usize = 1024;
/// Of what is there already when the connection is accepted: more than a question.
const AT_ONCE_BYTES: usize = 128;

/// Hears what a peer wants, over a connection that is as secure as it has to be; or says in a word of [`PEER_RESULTS`]
/// why that cannot be, [`PROBE`] among them. Its first byte tells whether it speaks TLS.
async fn hear(
    shared: &Shared,
    secured: &Secured,
    mut stream: TcpStream,
    from: SocketAddr,
) -> Result<Asked, &'static str> {
    let mut seen = Vec::with_capacity(AT_A_TIME_BYTES);
    let mut room = [0; AT_ONCE_BYTES];
    // The question comes with the packet that completes the connection, where a host of our kind asks.
    match at_once::read(&stream, &mut room) {
        Some(bytes) => seen.extend_from_slice(bytes),
        None if stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) => {}
        None => return Err("malformed"),
    }
    let complain = |what: &'static str| {
        if shared.security.may_complain(shared.now()) {
            tracing::warn!(%from, "{what}");
        }
    };
    if !looks_like_tls(&seen) {
        if secured.mode() != Mode::Required {
            return request(Stream::Tcp(stream), seen).await;
        }
        complain("a host asks in plain where SECURITY is required");
        // One that is gone already hears nothing.
        let _ = stream.write_all(Reply::DemandsTls.encode()).await;
        return Err("insecure");
    }
    let Some(mutual) = secured.mutual() else {
        tracing::debug!(%from, "a host asks in TLS where SECURITY is off");
        return Err("tls");
    };
    // It needs much memory, which those that ask plain shall not pay for.
    Box::pin(hear_in_tls(shared, mutual, stream, seen, from)).await
}

/// The same in TLS, of which the beginning was seen.
async fn hear_in_tls(
    shared: &Shared,
    mutual: &Mutual,
    stream: TcpStream,
    seen: Vec<u8>,
    from: SocketAddr,
) -> Result<Asked, &'static str> {
    let handshake = Handshake::begin(&shared.security);
    match mutual.accept(stream, &seen).await {
        Ok(stream) => {
            handshake.complete(stream.resumed());
            request(sealed(stream), Vec::new()).await
        }
        Err(error) => {
            if shared.security.may_complain(shared.now()) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%from, error, "a secured connection of a host failed");
            }
            handshake.failed(&error);
            Err("handshake")
        }
    }
}

/// What a peer wants that closes a secured connection without a word: to know that it can have one.
const PROBE: &str = "probe";

/// The request, after what was seen already.
async fn request(mut peer: Stream, mut seen: Vec<u8>) -> Result<Asked, &'static str> {
    loop {
        match read_request(&seen) {
            Ok(Some((request, length))) => {
                return Ok(Asked { peer, request, more: seen.split_off(length) });
            }
            Ok(None) => {}
            Err(_) => return Err("malformed"),
        }
        seen.reserve(AT_A_TIME_BYTES);
        match peer.read_buf(&mut seen).await {
            Ok(0) if seen.is_empty() && is_sealed(&peer) => {
                let _ = peer.shutdown().await;
                return Err(PROBE);
            }
            Ok(0) | Err(_) => return Err("malformed"),
            Ok(_) => {}
        }
    }
}

/// A handshake under way. Dropped before its end, it was too slow.
struct Handshake<'c>(Option<&'c Counts>);

impl<'c> Handshake<'c> {
    fn begin(counts: &'c Counts) -> Self {
        Self(Some(counts))
    }

    fn complete(mut self, resumed: bool) {
        if let Some(counts) = self.0.take() {
            counts.complete(Direction::In, resumed);
        }
    }

    fn failed(mut self, error: &MutualError) {
        if let Some(counts) = self.0.take() {
            counts.failed(Direction::In, error);
        }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0.take() {
            counts.handshake(Direction::In, "timeout");
        }
    }
}
