//! The corpus of the fuzz target `config`, and texts cut and joined from it.
//!
//! Seeded, so that every run tries the same texts; a failure names its file or seed.

mod property;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

const MUTATIONS: u64 = 2_000;

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

fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/config");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        // The target takes text alone.
        .filter_map(|(name, bytes)| Some((name, String::from_utf8(bytes).ok()?)))
        .collect();
    files.sort();
    assert!(files.len() > 5);
    files
}

/// The beginning of one text before the end of another, cut at lines or anywhere, perhaps with a byte
/// changed.
fn join(random: &mut Random, corpus: &[(String, String)]) -> String {
    let mut part = |from_start: bool| {
        let text = &corpus[random.below(corpus.len())].1;
        let mut at = random.below(text.len() + 1);
        let whole_lines = random.below(3) > 0;
        while !text.is_char_boundary(at) || at > 0 && whole_lines && !text[..at].ends_with('\n') {
            at -= 1;
        }
        if from_start { text[..at].to_owned() } else { text[at..].to_owned() }
    };
    let mut text = part(true) + &part(false);
    let at = random.below(text.len() + 1);
    if random.below(2) == 0 && text.is_char_boundary(at) {
        text.insert(at, char::from(random.below(128) as u8));
    }
    text
}

#[test]
fn the_corpus_and_what_is_joined_from_it_does_no_harm() {
    let corpus = corpus();
    for (name, text) in &corpus {
        assert!(catch_unwind(|| property::holds(text)).is_ok(), "{name} fails, see above");
    }
    for seed in 1..=MUTATIONS {
        let text = join(&mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)), &corpus);
        assert!(catch_unwind(|| property::holds(&text)).is_ok(), "seed {seed} fails, see above");
    }
}
