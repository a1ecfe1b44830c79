//! The pages of the files that the program is made of. Must not know what it does.

#![allow(unsafe_code, reason = "no safe crate gives back pages")]

use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Gives back the pages of code, and of what belongs to it, that have been needed so far: most of them were for
/// starting, and count as the process's memory as long as they are mapped. What is needed again is mapped again from
/// the files, which the kernel still has. Where it cannot be done, nothing is lost.
pub fn give_back_code() {
    let said = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for mapping in unchanged(&said) {
        // SAFETY: the mapping is of a file, private and not writable, and no page of it is another than the file's: not
        // even the loader has changed one. So reading it again gives the same. Nobody unmaps what the loader maps.
        let given =
            unsafe { madvise(mapping.start as *mut _, mapping.len(), Advice::LinuxDontNeed) };
        if let Err(error) = given {
            tracing::debug!(%error, "code that was for starting stays in memory");
        }
    }
}

/// The mappings of files that nobody can write to or has written to, out of `/proc/self/smaps` (proc_pid_smaps(5)).
fn unchanged(said: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in said.lines() {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next(), fields.next()) {
            (Some("Anonymous:"), Some("0")) => found.extend(mapping.take()),
            (Some(range), Some(rights)) if !range.ends_with(':') => {
                let of_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
                mapping = addresses(range).filter(|_| of_file && matches!(rights, "r--p" | "r-xp"));
            }
            _ => {}
        }
    }
    found
}

fn addresses(range: &str) -> Option<Range<usize>> {
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (from, to) = range.split_once('-')?;
    Some(address(from)?..address(to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_in_its_file_is_found() {
        let said = "\
            1000-2000 r--p 00000000 fe:00 11 /usr/bin/cloverleaf\nRss: 4 kB\nAnonymous: 0 kB\n\
            2000-4000 r-xp 00001000 fe:00 11 /usr/bin/cloverleaf\nAnonymous: 0 kB\nVmFlags: rd ex\n\
            4000-5000 r--p 00003000 fe:00 11 /usr/bin/cloverleaf\nAnonymous: 4 kB\n\
            5000-6000 rw-p 00004000 fe:00 11 /usr/bin/cloverleaf\nAnonymous: 0 kB\n\
            6000-7000 r--s 00000000 fe:00 12 /tmp/shared\nAnonymous: 0 kB\n\
            7000-8000 r-xp 00000000 00:00 0 [vdso]\nAnonymous: 0 kB\n\
            8000-9000 r--p 00000000 00:00 0\nAnonymous: 0 kB\n\
            x-9 r--p 00000000 fe:00 11 /usr/bin/cloverleaf\nAnonymous: 0 kB\n";
        assert_eq!(unchanged(said), [0x1000..0x2000, 0x2000..0x4000]);
        assert_eq!(unchanged("Anonymous: 0 kB\n"), []);
    }

    #[test]
    fn what_was_given_back_still_runs() {
        let said = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let inside = give_back_code as fn() as usize;
        assert!(unchanged(&said).iter().any(|mapping| mapping.contains(&inside)));
        for _ in 0..3 {
            give_back_code();
        }
    }
}
