//! What is in use, found by its content: equal texts in two snapshots, or on two listeners, become one thing.
//!
//! So a change of one certificate among thousands loads that one, and sessions resume after a reload. Nothing is kept
//! here: a thing goes, and with it the key in it, when the last snapshot that has it goes. For loading, never for the
//! request path. Must not know what the things are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Hash;

/// SHA-256 of a content. It tells nothing of a key that is in it: nobody can guess one.
pub(crate) type Digest = [u8; 32];

/// Entries that are never looked through for those that have gone.
const ENTRIES_FEW: usize = 64;

/// The things of one kind that are in use. There is one thing of a content at a time.
#[derive(Debug)]
pub(crate) struct InUse<T>(Mutex<Table<T>>);

#[derive(Debug)]
struct Table<T> {
    entries: BTreeMap<Digest, Weak<T>>,
    /// At so many those that have gone are forgotten: twice what was in use the last time.
    full: usize,
}

impl<T> InUse<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Table { entries: BTreeMap::new(), full: ENTRIES_FEW }))
    }

    /// The thing of that content: the one in use, else a new one.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get_or_make<E>(
        &self,
        content: Digest,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let table = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table().find(&content) {
            return Ok(known);
        }
        // Without the lock: it may take a while.
        let made = Arc::new(make()?);
        let mut table = table();
        if let Some(known) = table.find(&content) {
            return Ok(known);
        }
        table.add(content, &made);
        Ok(made)
    }
}

impl<T> Table<T> {
    fn find(&self, content: &Digest) -> Option<Arc<T>> {
        self.entries.get(content)?.upgrade()
    }

    fn add(&mut self, content: Digest, made: &Arc<T>) {
        self.entries.insert(content, Arc::downgrade(made));
        if self.entries.len() >= self.full {
            self.entries.retain(|_, thing| thing.strong_count() > 0);
            self.full = ENTRIES_FEW.max(self.entries.len() * 2);
        }
    }
}

/// The digest of several texts, in which it matters where one ends and the next begins.
pub(crate) fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is one of TLS 1.3");
    let hash: &dyn Hash = suite.common.hash_provider;
    let mut context = hash.start();
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_differ_where_the_parts_do() {
        let of = |parts: &[&'static [u8]]| digest(parts.iter().copied());
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        let all: [&[&'static [u8]]; 5] =
            [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[]];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| of(one) != of(other)), "{one:?}");
        }
    }

    #[test]
    fn one_of_a_content_lives_as_long_as_somebody_has_it() {
        let things: InUse<u32> = InUse::new();
        let get = |content: u8, value: u32| {
            things.get_or_make([content; 32], || Ok::<_, ()>(value)).unwrap()
        };
        let first = get(1, 10);
        assert!(Arc::ptr_eq(&first, &get(1, 11)));
        assert_eq!(*get(2, 12), 12);
        assert_eq!(*get(2, 13), 13, "nobody had it");
        drop(first);
        assert_eq!(*get(1, 14), 14);
        assert_eq!(things.get_or_make([3; 32], || Err("no")), Err("no"));
    }

    #[test]
    fn the_table_grows_with_what_is_in_use() {
        let things: InUse<usize> = InUse::new();
        let get = |number: usize| {
            let content = digest([number.to_be_bytes().as_slice()]);
            things.get_or_make(content, || Ok::<_, ()>(number)).unwrap()
        };
        let held: Vec<_> = (0..200).map(get).collect();
        (200..10_000).for_each(|number| drop(get(number)));
        assert!(things.0.lock().unwrap().entries.len() <= 400);
        assert!(held.iter().enumerate().all(|(number, one)| Arc::ptr_eq(one, &get(number))));
    }
}
