//! The corpus in `fuzz/corpus`, and mutations of it, in ordinary tests: what fuzzing has found stays
//! found, on stable and in seconds. Seeded, so that every run tries the same; a failure names its file or
//! seed.

use testkit::corpus::{self, File};

const MUTATIONS: u64 = 4_000;

/// What heads and bodies break on.
const PIECES: [&[u8]; 34] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\n ",
    b"\r\n\t",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"\x80",
    b":",
    b",",
    b";",
    b"0",
    b"0\r\n\r\n",
    b"1\r\nx\r\n",
    b";a=\"b\"",
    b"ffffffffffffffff",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"http://b",
    b"[::1]:80",
    b"?",
    b"#",
    b"@",
    b"chunked",
    b"Host: b\r\n",
    b"Content-Length: 1\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"GET /next HTTP/1.1\r\nHost: c\r\n\r\n",
];

struct Random(u64);

impl Random {
    /// xorshift64*
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or(0)
            % bound.max(1)
    }
}

fn mutate(seed: u64, corpus: &[File]) -> Vec<u8> {
    let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut bytes = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..end.min(at + 1), [random.below(256) as u8])),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = &corpus[random.below(corpus.len())].1;
                let from = random.below(other.len() + 1);
                let to = (from + random.below(80)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

fn replay(target: &str, check: fn(&[u8])) {
    corpus::replay(target, MUTATIONS, mutate, check);
}

#[test]
fn request_heads() {
    replay("request_head", super::request_head);
}

#[test]
fn connections() {
    replay("connection", super::connection);
}

#[test]
fn response_heads() {
    replay("response_head", super::response_head);
}

#[test]
fn chunked_bodies() {
    replay("chunked", super::chunked);
}

#[test]
fn routers() {
    replay("router", super::router);
}

#[test]
fn traceparents() {
    replay("traceparent", super::traceparent);
}
