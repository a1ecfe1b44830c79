//! The pages that this process's memory comes in. Must not know what it is used for.

use rustix::thread::disable_transparent_huge_pages;

/// Takes memory in small pages from now on, for a program that needs little: the allocator asks for pages of 2 MiB, and
/// every one that it begins counts whole.
pub fn keep_small() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory comes in large pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_small_then() {
        keep_small();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
