//! Mutated files: whatever the text, there is no panic, a configuration only without errors, and a dump
//! that reads back.
//!
//! Seeded, so that every run tries the same texts; a failure prints its seed.

mod property;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

const ROUNDS: u64 = 4_000;

/// What breaks YAML, and what our keys take.
const PIECES: &[&str] = &[
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "<<: *a",
    "!",
    "!!str ",
    "? ",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "~",
    "null",
    "0",
    "-1",
    "65536",
    "1e999",
    "999999999999999999999",
    "true",
    "off",
    "0s",
    "5ms",
    "*.x",
    "**.",
    "[::1]:80",
    "::",
    "/",
    "\u{0}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "é",
    "\u{1f340}",
    "\u{fffe}",
    "\\x00",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "rules",
    "upstreams: ",
    "listeners: [a]",
    "name: a",
    "weight: 0",
    "path: ",
    "host: ",
    "matchMode: segments",
    "respond: 404",
    "close: true",
    "redirect: {scheme: https, status: 308}",
    "setPath: /",
    "fallback: yes",
    "replacePath: /é b",
    "maxRequestBody: 10MiB",
    "apiKey: {header: a, value: b}",
    "healthCheck: {}",
    "statuses: 200-399",
    "balance: clientAddress",
    "protocols: [h2]",
    "hosts: [\"*\"]",
    "defaultCertificate: none",
    "99999999TiB",
];

struct Random(u64);

impl Random {
    /// xorshift64*
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }
}

fn seeds() -> Vec<Vec<char>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for directory in [
        "tests/fixtures/valid",
        "tests/fixtures/invalid",
        "../../examples/quickstart",
        "../../examples/nanoproxy",
        "../../examples/gateway",
    ] {
        let mut files: Vec<_> =
            fs::read_dir(root.join(directory)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
            texts.push(fs::read_to_string(file).unwrap().chars().collect());
        }
    }
    texts
}

fn mutate(random: &mut Random, seeds: &[Vec<char>]) -> String {
    let mut text = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(text.len() + 1);
        let end = (at + random.below(40)).min(text.len());
        match random.below(6) {
            0 => drop(text.drain(at..end)),
            1 => text.truncate(at),
            2 => {
                let copy = text[at..end].to_vec();
                let to = random.below(text.len() + 1);
                text.splice(to..to, copy);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(200)).min(other.len());
                text.splice(at..at, other[from..to].iter().copied());
            }
            4 => {
                let character = char::from_u32(u32::try_from(random.below(0x300)).unwrap_or(0));
                text.splice(at..end.min(at + 1), character);
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                text.splice(at..at, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_does_harm() {
    let seeds = seeds();
    let mut served = 0;
    for seed in 1..=ROUNDS {
        let text = mutate(&mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)), &seeds);
        let held = catch_unwind(|| property::holds(&text));
        served += u64::from(held.unwrap_or_else(|_| panic!("seed {seed} fails, see above")));
    }
    assert!(served > ROUNDS / 20, "only {served} of {ROUNDS} texts were served");
}
