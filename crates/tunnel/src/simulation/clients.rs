//! Clients, each of one mind: all is sent and read, or read slowly, or not at all, or given up at any moment.

mod speak;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::targets::pattern;
use super::{DIAL_BOUND, World};
use speak::{Client, Dialled, Input, Output};

/// More than a dial may take at the server and the agent, with the way there and back.
const ANSWER_MAX: Duration = Duration::from_secs(12);
const BYTES_MAX: u64 = 400 * 1024;
/// More than every buffer on the way.
const DEAF_BYTES: usize = 64 * 1024 * 1024;
const PIECE_BYTES_MAX: u64 = 40 * 1024;

/// One client's life: a few connections one after the other.
pub(super) async fn live(world: Rc<World>) {
    let client = Client::new(&world).await;
    for _ in 0..=world.below(3) {
        world.wait(Duration::from_secs(3)).await;
        let bytes = world.below(BYTES_MAX) as usize;
        match world.below(10) {
            0 | 1 => echo(&world, &client, bytes).await,
            2 | 3 => source(&world, &client, bytes, Duration::ZERO).await,
            4 => source(&world, &client, bytes, Duration::from_millis(60)).await,
            5 => half_close(&world, &client, bytes).await,
            6 => deaf(&world, &client).await,
            7 => deaf_target(&world, &client).await,
            8 => give_up(&world, &client).await,
            _ => refused(&world, &client).await,
        }
    }
}

/// A connection that must come about, unless the agent's wire breaks meanwhile.
async fn connected(world: &World, client: &Client, address: &str) -> Option<(Output, Input)> {
    let start = Instant::now();
    let dialled = timeout(ANSWER_MAX, client.dial(world, address)).await;
    let dialled = dialled.unwrap_or_else(|_| panic!("no answer after {:?}", start.elapsed()));
    match dialled {
        Dialled::Connected(output, input) => Some((output, input)),
        Dialled::Failed(error) => {
            assert!(world.broke_since(start), "{address}: {error}");
            None
        }
    }
}

/// So many bytes of the pattern, and the end after them where it is told; all of them unless a wire broke.
async fn read_all(world: &World, input: &mut Input, bytes: usize, pause: Duration, to_end: bool) {
    let start = Instant::now();
    let mut at = 0;
    while at < bytes || to_end {
        sleep(pause).await;
        let Some(piece) = input.next().await else { break };
        assert!(at + piece.len() <= bytes, "{} bytes more", at + piece.len() - bytes);
        let same = piece == pattern(at, piece.len());
        assert!(same, "other bytes at {at}");
        at += piece.len();
    }
    assert!(at == bytes || world.broke_since(start), "{at} bytes of {bytes}");
}

async fn echo(world: &Rc<World>, client: &Client, bytes: usize) {
    let Some((mut output, mut input)) = connected(world, client, "echo:1").await else { return };
    let writer = world.clone();
    let writing = net::task::spawn_local("writer", async move {
        let mut at = 0;
        while at < bytes {
            let count = (bytes - at).min(1 + writer.below(PIECE_BYTES_MAX) as usize);
            if !output.send(pattern(at, count)).await {
                break;
            }
            at += count;
        }
        output
    });
    read_all(world, &mut input, bytes, Duration::ZERO, false).await;
    let output = writing.await.unwrap();
    output.close();
    // The end is told, or the wire is broken.
    while input.next().await.is_some() {}
}

async fn source(world: &World, client: &Client, bytes: usize, pause: Duration) {
    let address = format!("source-{bytes}:1");
    if let Some((_output, mut input)) = connected(world, client, &address).await {
        read_all(world, &mut input, bytes, pause, true).await;
    }
}

/// Only HTTP CONNECT between ends of ours knows half a connection.
async fn half_close(world: &World, client: &Client, bytes: usize) {
    let address = format!("replies-{bytes}:1");
    if let Some((mut output, mut input)) = connected(world, client, &address).await {
        output.send(pattern(0, 1000)).await;
        output.finish().await;
        if world.ours && output.has_half_close() {
            read_all(world, &mut input, bytes, Duration::ZERO, true).await;
        } else {
            while input.next().await.is_some() {}
        }
    }
}

async fn deaf(world: &World, client: &Client) {
    world.deaf.set(world.deaf.get() + 1);
    let address = format!("source-{DEAF_BYTES}:1");
    if let Some((_output, _input)) = connected(world, client, &address).await {
        world.wait(Duration::from_secs(20)).await;
    }
}

async fn deaf_target(world: &World, client: &Client) {
    world.deaf.set(world.deaf.get() + 1);
    if let Some((mut output, _input)) = connected(world, client, "deaf:1").await {
        let start = Instant::now();
        let write = async {
            let mut at = 0;
            while at < DEAF_BYTES && output.send(pattern(at, 65_536)).await {
                at += 65_536;
            }
        };
        let full = timeout(Duration::from_secs(15), write).await;
        // On the original's wire it is closed instead.
        assert!(full.is_err() || !world.ours || world.broke_since(start), "who takes all that?");
    }
}

/// Leaves at any moment of a dial or a connection.
async fn give_up(world: &World, client: &Client) {
    let addresses = ["silent:1", "echo:1", "source-1000000:1", "refuses:1"];
    let address = addresses[world.below(addresses.len() as u64) as usize];
    let life = async {
        if let Dialled::Connected(mut output, mut input) = client.dial(world, address).await {
            output.send(pattern(0, 100)).await;
            while input.next().await.is_some() {}
        }
    };
    let _ = timeout(Duration::from_millis(world.below(200)), life).await;
}

async fn refused(world: &World, client: &Client) {
    for (address, text, within) in [
        ("refuses:1", "connection refused", Duration::from_secs(2)),
        ("silent:1", "timeout", DIAL_BOUND + Duration::from_secs(2)),
    ] {
        let start = Instant::now();
        let answer = timeout(world.patience() + within, client.dial(world, address)).await;
        let Ok(Dialled::Failed(error)) = answer else { panic!("{address} was not refused") };
        assert!(error.contains(text) || world.broke_since(start), "{address}: {error}");
    }
}

/// One byte there and back on a client's connection of its own.
pub(super) async fn round_trip(world: &World) -> bool {
    let client = Client::new(world).await;
    let Dialled::Connected(mut output, mut input) = client.dial(world, "echo:1").await else {
        return false;
    };
    output.send(&[7]).await && input.next().await.is_some_and(|bytes| bytes == [7][..])
}
