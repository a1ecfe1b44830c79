//! Values by name in a hash table made for one thing: to find one of a hundred thousand names in one miss
//! of the processor's cache. A name and its value lie in one cache line, unless the name is long.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

/// The longest name that lies beside its value, in bytes. With the value of a rule bucket this fills 64
/// bytes.
const INLINE_BYTES: usize = 43;

/// The longest name there is, in bytes; longer ones are left out (the model has none).
const NAME_BYTES_MAX: usize = u8::MAX as usize;

/// Values by name; built once. Open addressing, linear probing, at most three quarters full. The hash is
/// not proof against chosen keys, but keys come from the configuration alone.
#[derive(Debug)]
pub(super) struct Names<V> {
    /// A power of two of them, or none.
    slots: Box<[Slot<V>]>,
    /// The long names, one after the other.
    long: Box<[u8]>,
    /// Bytes of the longest name: what is longer needs no look, so that a host of many labels costs little.
    longest: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot<V> {
    value: V,
    /// Where a long name begins.
    start: u32,
    /// Of the name; 0 where the slot is empty.
    len: u8,
    inline: [u8; INLINE_BYTES],
}

impl<V: Copy + Default> Names<V> {
    /// From different names, none of them empty.
    pub(super) fn new<'n>(names: impl ExactSizeIterator<Item = (&'n str, V)>) -> Self {
        let count = names.len();
        let size = if count == 0 { 0 } else { (count * 4).div_ceil(3).next_power_of_two() };
        let empty = Slot { value: V::default(), start: 0, len: 0, inline: [0; INLINE_BYTES] };
        let mut slots = vec![empty; size].into_boxed_slice();
        let mut long = Vec::new();
        let mut longest = 0;
        for (name, value) in names.filter(|(name, _)| name.len() <= NAME_BYTES_MAX) {
            let mut slot = Slot { value, len: name.len() as u8, ..empty };
            if let Some(inline) = slot.inline.get_mut(..name.len()) {
                inline.copy_from_slice(name.as_bytes());
            } else {
                slot.start = super::rules::as_u32(long.len());
                long.extend_from_slice(name.as_bytes());
            }
            longest = longest.max(name.len());
            let mut at = first_place(name, size);
            while slots[at].len != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = slot;
        }
        Self { slots, long: long.into(), longest }
    }
}

impl<V> Names<V> {
    /// The value of a name.
    #[inline]
    pub(super) fn get(&self, name: &str) -> Option<&V> {
        if name.is_empty() || name.len() > self.longest {
            return None;
        }
        let mut at = first_place(name, self.slots.len());
        loop {
            let slot = &self.slots[at];
            if slot.len == 0 {
                return None;
            }
            if self.name(slot) == name.as_bytes() {
                return Some(&slot.value);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.longest == 0
    }

    #[inline]
    fn name<'s>(&'s self, slot: &'s Slot<V>) -> &'s [u8] {
        let len = usize::from(slot.len);
        let start = slot.start as usize;
        slot.inline.get(..len).unwrap_or_else(|| &self.long[start..start + len])
    }
}

/// Where the search for a name begins. `size` is a power of two.
#[inline]
fn first_place(name: &str, size: usize) -> usize {
    FxBuildHasher.hash_one(name.as_bytes()) as usize & (size - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 4, 100, 5_000] {
            let long = "x".repeat(INLINE_BYTES);
            let name =
                |n: usize| if n.is_multiple_of(3) { format!("{long}{n}") } else { format!("n{n}") };
            let all: Vec<String> = (0..count).map(name).collect();
            let names = Names::new(all.iter().enumerate().map(|(n, name)| (name.as_str(), n)));
            assert_eq!(names.is_empty(), count == 0);
            for (n, name) in all.iter().enumerate() {
                assert_eq!(names.get(name), Some(&n));
                assert_eq!(names.get(&format!("{name}x")), None);
            }
            for other in ["", "n", &name(count), &name(count + 1), &long] {
                assert_eq!(names.get(other), None, "{other}");
            }
        }
    }

    #[test]
    fn lengths_around_the_inline_bound_are_kept_apart() {
        let all: Vec<String> = (1..=NAME_BYTES_MAX).map(|n| "a".repeat(n)).collect();
        let names = Names::new(all.iter().map(|name| (name.as_str(), name.len())));
        for name in &all {
            assert_eq!(names.get(name), Some(&name.len()));
        }
        assert_eq!(names.get(&"a".repeat(NAME_BYTES_MAX + 1)), None);
    }
}
