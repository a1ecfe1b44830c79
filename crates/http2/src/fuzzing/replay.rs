//! The corpus in `fuzz/corpus`, and mutations of it, in ordinary tests: what fuzzing has found stays found, on stable
//! and in seconds. Seeded, so that every run tries the same; a failure names its file or seed.

use balance::Rng;
use testkit::corpus::{self, File};

use crate::frame::{PREFACE, flag, kind, put};

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

/// A frame of any kind, mostly of one that there is.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let payload: Vec<u8> = (0..below(rng, 12)).map(|_| rng.next_u64() as u8).collect();
    let mut out = Vec::new();
    let flags = [0, flag::END_STREAM, flag::END_HEADERS, flag::PADDED][below(rng, 4)];
    let kind = below(rng, usize::from(kind::CONTINUATION) + 2) as u8;
    put(&mut out, kind, flags, below(rng, 8) as u32, &payload);
    out
}

fn mutate(seed: u64, corpus: &[File]) -> Vec<u8> {
    let rng = &mut Rng::new(seed);
    let mut bytes = corpus[below(rng, corpus.len())].1.clone();
    for _ in 0..=below(rng, 6) {
        let at = below(rng, bytes.len() + 1);
        let end = (at + below(rng, 12)).min(bytes.len());
        match below(rng, 6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end.min(at + 1), [below(rng, 256) as u8])),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let other = &corpus[below(rng, corpus.len())].1;
                bytes.splice(at..at, other.iter().copied());
            }
            4 => {
                let some: Vec<u8> = (0..below(rng, 64)).map(|_| rng.next_u64() as u8).collect();
                bytes.splice(at..at, some);
            }
            _ => drop(bytes.splice(at..at, frame(rng))),
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
fn frames() {
    corpus::replay("http2_frames", 2_000, mutate, super::frames);
}

#[test]
fn actions() {
    corpus::replay("http2_actions", 3_000, mutate, super::actions);
}

#[test]
fn actions_by_chance() {
    corpus::try_seeds("by chance", 600, by_chance, super::actions);
}

/// No bytes before the preface's end do anything.
#[test]
fn a_preface_is_taken_whole() {
    for cut in 0..PREFACE.len() {
        let mut core: super::Fuzzed = crate::Core::new(super::LIMITS);
        core.receive(&PREFACE[..cut]);
        assert!(core.error().is_none() && !core.is_open() && core.urgency().is_none());
    }
}
