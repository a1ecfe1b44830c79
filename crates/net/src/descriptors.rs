//! How many file descriptors the process may have. Must not know what they are used for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What counts where there is no limit.
const UNLIMITED: u64 = 1 << 20;

/// Raises the soft limit of open files to the hard one, as far as the kernel allows, and gives the limit then in force.
#[must_use]
pub fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_then() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard.unwrap_or(UNLIMITED));
    }
}
