//! The endpoints that one request was already sent to, so that a retry goes elsewhere.

/// How many endpoints a [`Tried`] remembers. A request that failed at more of them may come back to the
/// first.
pub const TRIED_MAX: usize = 8;

/// A small set of endpoint indices, without allocation. A new one for each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    indices: [u32; TRIED_MAX],
    /// How many were added, also those forgotten since; the slots wrap.
    added: u32,
}

impl Tried {
    /// Nothing tried yet.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Remembers an endpoint; beyond [`TRIED_MAX`] different ones the oldest is forgotten.
    pub fn add(&mut self, index: usize) {
        if !self.contains(index) {
            self.indices[self.added as usize % TRIED_MAX] = stored(index);
            self.added = self.added.saturating_add(1);
        }
    }

    /// Whether an endpoint is among those remembered.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.indices[..self.len()].contains(&stored(index))
    }

    /// Those remembered.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.indices[..self.len()].iter().map(|index| *index as usize)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        TRIED_MAX.min(self.added as usize)
    }

    /// Whether this is the request's first attempt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added == 0
    }
}

/// Endpoint lists are far below 2^32; an index beyond is taken for the last.
fn stored(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_beyond_the_bound() {
        let mut tried = Tried::none();
        assert!(tried.is_empty() && !tried.contains(0));
        for index in 0..TRIED_MAX {
            tried.add(index);
            tried.add(index);
        }
        assert_eq!(tried.len(), TRIED_MAX);
        assert!(tried.indices().eq(0..TRIED_MAX));
        assert!((0..TRIED_MAX).all(|i| tried.contains(i)));
        tried.add(100);
        assert_eq!(tried.len(), TRIED_MAX);
        assert!(tried.contains(100) && tried.contains(1) && !tried.contains(0));
    }
}
