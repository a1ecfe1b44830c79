//! The pages that the program's own code comes in. Must not know what it does.

#![allow(unsafe_code, reason = "no safe crate gives back pages")]

use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Gives back the pages of code that have been needed so far: most of them were for starting, and count as the process's
/// memory as long as they are mapped. What is needed again is mapped again from the file, which the kernel still has.
/// Where it cannot be done, nothing is lost.
pub fn give_back_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let inside = give_back_code as fn() as usize;
    let Some(code) = maps.lines().filter_map(code).find(|code| code.contains(&inside)) else {
        return;
    };
    // SAFETY: the mapping is the program's code: of a file, private and not writable, so that no page of it has changed
    // since it was read; reading it again gives the same. It is never unmapped.
    let given = unsafe { madvise(code.start as *mut _, code.len(), Advice::LinuxDontNeed) };
    if let Err(error) = given {
        tracing::debug!(%error, "code that was for starting stays in memory");
    }
}

/// Where a line of `/proc/self/maps` says that there is code of a file (proc_pid_maps(5)).
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp";
    let of_file = fields.nth(3)?.starts_with('/');
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_code && of_file).then_some(address(from)?..address(to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_alone_is_found() {
        let line = "55f6375e2000-55f638a04000 r-xp 007f2000 fe:00 11 /usr/bin/cloverleaf";
        assert_eq!(code(line), Some(0x55f6_375e_2000..0x55f6_38a0_4000));
        for other in [
            "55f638a04000-55f638ae4000 r--p 01c14000 fe:00 11 /usr/bin/cloverleaf",
            "55f638a04000-55f638ae4000 rwxp 01c14000 fe:00 11 /usr/bin/cloverleaf",
            "7fff1b5f2000-7fff1b5f4000 r-xp 00000000 00:00 0 [vdso]",
            "7fff1b5f2000-7fff1b5f4000 r-xp 00000000 00:00 0",
            "",
            "x",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_given_back_still_runs() {
        for _ in 0..3 {
            give_back_code();
        }
    }
}
