//! The corpus in `fuzz/corpus`, and mutations of it, in ordinary tests: what fuzzing has found stays found, on stable
//! and in seconds. Seeded, so that every run tries the same; a failure names its file or seed.

use balance::Rng;
use testkit::corpus::{self, File};

/// What messages break on: heads, tags, numbers cut or too long, groups.
const PIECES: [&[u8]; 16] = [
    b"\0\0\0\0\x04\x08\x06\x42\x00",
    b"\0\0\0\0\x0b\x08\x04\x22\x07\x08\x01\x1a\x03abc",
    b"\0\0\0\0",
    b"\x08\x04\x22",
    b"\x1a\x03abc",
    b"\x08\x01",
    b"\x18\x05",
    b"\x0a\x03tcp",
    b"\x12\x02\xc3\xa9",
    b"\xff",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x13\x14",
    b"\x1b\x0b\x0c\x1c",
    b"\x09abcdefgh",
    b"\x0dabcd",
];

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

fn mutate(seed: u64, corpus: &[File]) -> Vec<u8> {
    let rng = &mut Rng::new(seed);
    let mut bytes = corpus[below(rng, corpus.len())].1.clone();
    for _ in 0..=below(rng, 6) {
        let at = below(rng, bytes.len() + 1);
        let end = (at + below(rng, 12)).min(bytes.len());
        match below(rng, 7) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..end.min(at + 1), [below(rng, 256) as u8])),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = &corpus[below(rng, corpus.len())].1;
                let from = below(rng, other.len() + 1);
                let to = (from + below(rng, 80)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            5 => {
                let some: Vec<u8> = (0..below(rng, 64)).map(|_| rng.next_u64() as u8).collect();
                bytes.splice(at..at, some);
            }
            _ => drop(bytes.splice(at..at, PIECES[below(rng, PIECES.len())].iter().copied())),
        }
    }
    bytes
}

fn by_chance(seed: u64) -> Vec<u8> {
    const ACTIONS_BYTES_MAX: usize = 4096;
    let mut rng = Rng::new(seed);
    let length = below(&mut rng, ACTIONS_BYTES_MAX);
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn packets() {
    corpus::replay("tunnel_packets", 20_000, mutate, super::packets);
}

#[test]
fn links() {
    corpus::replay("tunnel_link", 3_000, mutate, super::link);
}

#[test]
fn links_by_chance() {
    corpus::try_seeds("by chance", 600, by_chance, super::link);
}
