//! A server on this crate and a client on `h2`, over a wire that cuts what it carries anywhere, each by its own chance:
//! many calls at once, windows of any size, resets and trailers. No byte is lost or swapped, nobody waits for ever, and
//! the books are right all the time. Start at [`run`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use balance::Rng;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::{Answer, Block, Body, Call, Connection, Limits, Reason};

/// Nothing takes longer, by the clock of the run.
const RUN_MAX: Duration = Duration::from_secs(600);
const CALLS: usize = 30;
const BYTES_MAX: u64 = 300_000;

pub(crate) const LIMITS: Limits = Limits {
    stream_window_bytes: 100_000,
    connection_window_bytes: 300_000,
    frame_bytes_max: 20_000,
    send_buffer_bytes: 50_000,
    streams_max: 100,
    header_bytes_max: 10_000,
    header_table_bytes: 0,
    reset_streams_max: 50,
};

/// Where chance comes from, and how many calls were given up on purpose.
type Chance = Rc<World>;

struct World {
    rng: RefCell<Rng>,
    given_up: Cell<usize>,
}

impl World {
    fn give_up(&self) {
        self.given_up.set(self.given_up.get() + 1);
    }
}

fn below(chance: &Chance, bound: u64) -> usize {
    chance.rng.borrow_mut().below(bound) as usize
}

/// Payload that tells its place and its stream.
fn pattern(of: usize, from: usize, count: usize) -> Bytes {
    (from..from + count).map(|at| ((at + of * 31) % 251) as u8).collect()
}

/// A field's value: nothing, or of any length, of letters that are common in it and of others.
fn text(chance: &Chance) -> String {
    let count = below(chance, 300) >> below(chance, 8);
    let letter = |_| match below(chance, 3) {
        0 => char::from(b'!' + below(chance, 94) as u8),
        _ => char::from(b'a' + below(chance, 26) as u8),
    };
    (0..count).map(letter).collect()
}

/// Carries bytes one way in pieces of any size, with pauses.
async fn carry(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    chance: Chance,
) {
    let mut buffer = vec![0; 40_000];
    loop {
        let most = if below(&chance, 4) == 0 { 1 + below(&chance, 30) } else { buffer.len() };
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { break };
        if below(&chance, 3) == 0 {
            sleep(Duration::from_micros(below(&chance, 3000) as u64)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The two ends of a wire.
fn wire(chance: &Chance) -> (DuplexStream, DuplexStream) {
    let (near, here) = duplex(1 + below(chance, 70_000));
    let (far, there) = duplex(1 + below(chance, 70_000));
    let (from_here, to_here) = split(here);
    let (from_there, to_there) = split(there);
    drop(net::task::spawn_local("wire", carry(from_here, to_there, chance.clone())));
    drop(net::task::spawn_local("wire", carry(from_there, to_here, chance.clone())));
    (near, far)
}

/// Gives back what comes, and so many bytes more; says at the end how much that was.
async fn answer(call: Call<Bytes>, chance: Chance) {
    let Call { head, mut body, answer: mut out } = call;
    let number = |name| std::str::from_utf8(head.get(name).unwrap()).unwrap().parse().unwrap();
    let (of, more): (usize, usize) = (number("x-stream"), number("x-more"));
    if below(&chance, 20) == 0 {
        chance.give_up();
        return out.reset(Reason::CANCEL);
    }
    let said = head.get("x-said").unwrap();
    let name = format!("x-said-{}", of % 4);
    assert_eq!(head.get(&name), Some(said));
    let answer = Block::answer(200).field("x-heard", said).field(&name, said);
    if out.send_head(answer, false).is_err() {
        return;
    }
    if below(&chance, 2) == 0 {
        out.flush();
    }
    let mut at = 0;
    while let Some(bytes) = poll_fn(|cx| body.poll_data(cx)).await {
        let Ok(bytes) = bytes else { return };
        assert!(bytes == pattern(of, at, bytes.len()), "other bytes at {at}");
        at += bytes.len();
        if below(&chance, 8) == 0 {
            sleep(Duration::from_millis(below(&chance, 5) as u64)).await;
        }
        body.release(bytes.len());
        if !send(&mut out, bytes).await {
            return;
        }
    }
    let mut sent = 0;
    while sent < more {
        let count = (more - sent).min(1 + below(&chance, 30_000));
        if !send(&mut out, pattern(of, at + sent, count)).await {
            return;
        }
        sent += count;
    }
    let trailers = Block::trailers().field("x-all", (at + sent).to_string().as_bytes());
    if out.send_end(Some(trailers)).is_ok() {
        assert_eq!(check_trailers(&mut body, of), of % 3 == 0);
        poll_fn(|cx| out.poll_over(cx)).await;
    }
}

fn check_trailers(body: &mut Body<Bytes>, of: usize) -> bool {
    body.trailers().is_some_and(|head| {
        assert_eq!(head.get("x-end"), Some(of.to_string().as_bytes()));
        true
    })
}

async fn send(out: &mut Answer<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        let Ok(capacity) = poll_fn(|cx| out.poll_capacity(cx, 0)).await else { return false };
        let piece = bytes.split_to(capacity.min(bytes.len()));
        if out.send_data(piece).is_err() {
            return false;
        }
    }
    true
}

async fn serve(io: DuplexStream, chance: Chance, bounds: Limits) {
    let mut connection = Connection::new(io, bounds);
    if connection.ready().await.is_err() {
        return;
    }
    while let Some(call) = connection.accept().await {
        let call = call.expect("a client that keeps to the protocol");
        drop(net::task::spawn_local("call", answer(call, chance.clone())));
        connection.check();
    }
}

/// One call of the client; whether it was answered whole.
async fn ask(mut client: h2::client::SendRequest<Bytes>, of: usize, chance: Chance) -> bool {
    let bytes = below(&chance, BYTES_MAX) >> below(&chance, 12);
    let more = below(&chance, BYTES_MAX) >> below(&chance, 12);
    let said = text(&chance);
    let name = format!("x-said-{}", of % 4);
    let request = http::Request::post("http://localhost/echo")
        .header("x-said", &said)
        .header(&name, &said)
        .header("x-stream", of)
        .header("x-more", more)
        .body(())
        .unwrap();
    let Ok((answer, mut out)) = client.send_request(request, false) else { return false };
    let gives_up = below(&chance, 10) == 0;
    let writer = chance.clone();
    let writing = net::task::spawn_local("writer", async move {
        let mut at = 0;
        while at < bytes {
            let count = (bytes - at).min(1 + below(&writer, 20_000));
            out.reserve_capacity(count);
            match poll_fn(|cx| out.poll_capacity(cx)).await {
                Some(Ok(capacity)) => {
                    let piece = pattern(of, at, count.min(capacity));
                    at += piece.len();
                    if out.send_data(piece, false).is_err() {
                        return;
                    }
                }
                _ => return,
            }
            if gives_up && below(&writer, 3) == 0 {
                writer.give_up();
                return out.send_reset(h2::Reason::CANCEL);
            }
        }
        let _ = match of % 3 {
            0 => {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("x-end", of.into());
                out.send_trailers(trailers)
            }
            _ => out.send_data(Bytes::new(), true),
        };
    });
    let read = async {
        let answer = answer.await.ok()?;
        let (status, fields) = (answer.status(), answer.headers());
        assert!(status == 200 && fields["x-heard"] == said && fields[&name] == said);
        let mut body = answer.into_body();
        let mut at = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.ok()?;
            assert!(piece == pattern(of, at, piece.len()), "other bytes at {at}");
            at += piece.len();
            if below(&chance, 8) == 0 {
                sleep(Duration::from_millis(below(&chance, 10) as u64)).await;
            }
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        let trailers = body.trailers().await.ok()?.expect("trailers");
        assert!(at == bytes + more && trailers["x-all"] == at.to_string(), "{at} bytes");
        Some(())
    };
    let whole = read.await.is_some();
    let _ = writing.await;
    whole
}

async fn everything(seed: u64) {
    let rng = RefCell::new(Rng::new(seed));
    let chance = Rc::new(World { rng, given_up: Cell::new(0) });
    let (near, far) = wire(&chance);
    let limits = Limits { header_table_bytes: 2048 * below(&chance, 3) as u32, ..LIMITS };
    drop(net::task::spawn_local("server", serve(far, chance.clone(), limits)));
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1000 + below(&chance, 200_000) as u32)
        .initial_connection_window_size(65_535 + below(&chance, 200_000) as u32)
        .max_frame_size(16_384 + below(&chance, 100_000) as u32)
        .max_header_list_size(20_000);
    let (client, mut connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
    let window = 1000 + below(&chance, 100_000) as u32;
    let changing = below(&chance, 3) == 0;
    drop(net::task::spawn_local("client", async move {
        if changing {
            let _ = connection.set_initial_window_size(window);
        }
        let _ = connection.await;
    }));
    let calls: Vec<_> = (0..CALLS)
        .map(|of| {
            let (client, chance) = (client.clone(), chance.clone());
            net::task::spawn_local("asks", async move {
                sleep(Duration::from_millis(below(&chance, 40) as u64)).await;
                let client = client.ready().await.unwrap();
                ask(client, of, chance).await
            })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap());
    }
    let given_up = chance.given_up.get();
    assert!(answered + given_up >= CALLS, "{answered} answered, {given_up} given up");
}

/// All of whose chance comes from the seed.
fn run(seed: u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let panics = net::task::panics();
    let ended =
        LocalSet::new().block_on(&runtime, async { timeout(RUN_MAX, everything(seed)).await });
    assert!(ended.is_ok(), "stuck");
    assert_eq!(net::task::panics(), panics, "a task panicked, see above");
}

#[test]
fn whatever_happens_no_byte_is_lost_and_nobody_waits_for_ever() {
    for seed in 0..40 {
        let ended = std::panic::catch_unwind(|| run(seed));
        assert!(ended.is_ok(), "seed {seed} fails, see above");
    }
}
