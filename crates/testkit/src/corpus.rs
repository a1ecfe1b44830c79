//! What fuzzing has found, in ordinary tests: the files of `fuzz/corpus`, and whatever a seed makes of them. Every run
//! tries the same, and a failure names its file or seed.

use std::panic::catch_unwind;
use std::path::Path;

/// A file's path and what is in it.
pub type File = (String, Vec<u8>);

/// The files of a fuzz target, in order of their names.
///
/// # Panics
/// Where there are hardly any, or one cannot be read.
#[must_use]
pub fn files(target: &str) -> Vec<File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file")))
        .collect();
    files.sort();
    assert!(files.len() > 5, "no corpus in {}", folder.display());
    files
}

/// Checks each file, and what each of so many seeds makes of them.
///
/// # Panics
/// Where a check does, with the name of the file or the seed.
pub fn replay(
    target: &str,
    seeds: u64,
    mutate: impl Fn(u64, &[File]) -> Vec<u8>,
    check: fn(&[u8]),
) {
    let files = files(target);
    for (name, bytes) in &files {
        assert!(passes(bytes, check), "{name} fails, see above");
    }
    try_seeds(target, seeds, |seed| mutate(seed, &files), check);
}

/// Checks what each of so many seeds makes.
///
/// # Panics
/// Where a check does, with the seed.
pub fn try_seeds(what: &str, seeds: u64, make: impl Fn(u64) -> Vec<u8>, check: fn(&[u8])) {
    for seed in 1..=seeds {
        assert!(passes(&make(seed), check), "{what}: seed {seed} fails, see above");
    }
}

fn passes(bytes: &[u8], check: fn(&[u8])) -> bool {
    catch_unwind(|| check(bytes)).is_ok()
}
