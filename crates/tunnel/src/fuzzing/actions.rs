//! What can happen to one end of a link, one thing after the other as the bytes say: arbitrary packets of a peer and
//! whatever the users of connections do. After each the link's books are right, memory is within its bounds, and what
//! goes in and comes out of a connection is in order.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::link::{Ends, Flow, Link, Read, Side};
use crate::packet::Packet;

/// Things that happen in one input.
const ACTIONS_MAX: usize = 4096;
/// Sizes that a byte stands for: around every bound of a link.
const SIZES: [usize; 16] = [
    0, 1, 2, 100, 2047, 2048, 4096, 16_384, 65_535, 65_536, 131_072, 262_144, 262_145, 524_288,
    1_048_576, 4_194_304,
];
/// Numbers of connections: few, so that they meet; the last is nobody's.
const NUMBERS: [i64; 6] = [1, 2, 3, 4, i64::MAX, -1];

#[derive(Debug, Default)]
struct Nobody;

impl Ends for Nobody {
    fn readable(&mut self) {}
    fn writable(&mut self) {}
}

/// How far each direction of a connection has come.
#[derive(Debug, Default, Clone, Copy)]
struct Places {
    pushed: usize,
    sent: usize,
    received: usize,
    read: usize,
    /// Its user has closed it, which is done once.
    closed: bool,
}

struct Run<'a> {
    input: &'a [u8],
    link: Link<Nobody>,
    places: BTreeMap<i64, Places>,
    now: Instant,
}

/// Payload that tells its place.
fn payload(from: usize, bytes: usize) -> Bytes {
    const PERIOD: usize = 251;
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD as u8).cycle().take(5 * 1024 * 1024).collect());
    Bytes::from_static(&PATTERN[from % PERIOD..][..bytes])
}

/// Does what the bytes say.
///
/// # Panics
/// Where the link breaks one of its promises: that is its purpose.
pub fn link(data: &[u8]) {
    let Some((first, input)) = data.split_first() else { return };
    let side = if first & 1 == 0 { Side::Server } else { Side::Agent };
    let flow = if first & 2 == 0 { Flow::Credit } else { Flow::Buffered };
    let link = Link::new(side, flow);
    let mut run = Run { input, link, places: BTreeMap::new(), now: Instant::now() };
    for _ in 0..ACTIONS_MAX {
        let Some(action) = run.byte() else { break };
        if !run.act(action) {
            run.link.end("the peer broke the protocol");
            run.link.check();
            break;
        }
        run.link.check();
    }
    run.finish();
}

impl Run<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*first)
    }

    fn size(&mut self) -> usize {
        SIZES[usize::from(self.byte().unwrap_or(0)) % SIZES.len()]
    }

    fn number(&mut self) -> i64 {
        NUMBERS[usize::from(self.byte().unwrap_or(0)) % NUMBERS.len()]
    }

    /// One thing; whether the stream goes on.
    fn act(&mut self, action: u8) -> bool {
        let number = self.number();
        match action % 16 {
            0 | 1 => {
                if self.link.open(number, Nobody).is_ok() {
                    self.places.insert(number, Places::default());
                }
            }
            2 | 3 => self.push(number),
            4 => self.link.finish(number),
            5 => self.close(number, "because"),
            6 if action > 200 => self.link.forget(number),
            6..=8 => {
                let most = self.size();
                self.read(number, most);
            }
            9 | 10 => {
                let most = self.size().max(1);
                self.next(most);
            }
            11..=13 => return self.receive(number),
            14 => {
                let millis = self.size() as u64;
                self.now += Duration::from_millis(millis.min(2000));
                self.link.close_stalled(self.now);
                match action {
                    201.. => _ = self.link.close_lingering(),
                    101.. => self.link.set_round_trip(Duration::from_millis(millis / 64)),
                    _ => {}
                }
            }
            _ => {
                if action == 255 {
                    self.link.end("gone");
                }
                return self.link.send(Packet::Drain).is_ok();
            }
        }
        true
    }

    fn close(&mut self, number: i64, reason: &str) {
        let place = self.places.entry(number).or_default();
        if !std::mem::replace(&mut place.closed, true) {
            self.link.close(number, reason.to_owned());
        }
    }

    fn push(&mut self, number: i64) {
        let size = self.size();
        let place = self.places.entry(number).or_default();
        // As those do who ask for room first.
        let Ok(room) = self.link.room(number) else { return };
        let size = size.min(room);
        if self.link.push(number, payload(place.pushed, size)).is_ok() {
            place.pushed += size;
        }
    }

    fn read(&mut self, number: i64, most: usize) {
        if let Read::Bytes(bytes) = self.link.read(number, most, self.now) {
            let place = self.places.entry(number).or_default();
            assert!(!bytes.is_empty() && bytes.len() <= most);
            assert!(bytes == payload(place.read, bytes.len()), "{number} read out of order");
            place.read += bytes.len();
            assert!(place.read <= place.received, "{number} read more than has come");
        }
    }

    fn next(&mut self, most: usize) -> bool {
        match self.link.next(most) {
            Some(Packet::Data { connection, bytes }) => {
                let place = self.places.entry(connection).or_default();
                assert!(!bytes.is_empty() && bytes.len() <= most);
                assert!(bytes == payload(place.sent, bytes.len()), "{connection} out of order");
                place.sent += bytes.len();
                assert!(place.sent <= place.pushed, "{connection} sent more than was given");
                true
            }
            other => other.is_some(),
        }
    }

    fn receive(&mut self, number: i64) -> bool {
        let kind = self.byte().unwrap_or(0);
        // As the carrier: what is held up is not read.
        if self.link.is_held_up() {
            return true;
        }
        let packet = match kind % 8 {
            0..=3 => {
                let size = self.size().max(1);
                let place = self.places.entry(number).or_default();
                let bytes = payload(place.received, size);
                place.received += size;
                Packet::Data { connection: number, bytes }
            }
            4 => {
                let bytes = if kind > 240 { u64::MAX } else { self.size() as u64 };
                Packet::Credit { connection: number, bytes }
            }
            5 => Packet::Finish { connection: number },
            6 => Packet::CloseRequest { connection: number },
            _ => Packet::CloseResponse { error: "theirs".to_owned(), connection: number },
        };
        self.link.receive(packet, self.now).is_ok()
    }

    /// Everybody reads, sends and closes, and the peer agrees to all: nothing is left.
    fn finish(&mut self) {
        for number in NUMBERS {
            self.close(number, "");
        }
        self.link.check();
        while self.next(SIZES[9]) {
            self.link.check();
        }
        for number in NUMBERS {
            // Payload that had no credit goes first, and the end of both directions after it.
            let give = Packet::Credit { connection: number, bytes: u64::MAX };
            let _ = self.link.receive(give, self.now);
            while self.next(SIZES[9]) {}
            for answer in [
                Packet::Finish { connection: number },
                Packet::CloseResponse { error: String::new(), connection: number },
                Packet::CloseRequest { connection: number },
            ] {
                let _ = self.link.receive(answer, self.now);
            }
            while self.next(SIZES[9]) {}
        }
        self.link.check();
        assert!(self.link.is_empty(), "{} connections are left", self.link.len());
        assert_eq!(self.link.buffered_bytes(), 0);
    }
}
