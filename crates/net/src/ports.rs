//! Sets of ports. Pure.

use std::fmt;

const WORDS: usize = 65_536 / 64;

/// A set of ports, one bit each.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl PortSet {
    /// Whether a port is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 64)] & bit(port) != 0
    }

    /// Puts a port in.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= bit(port);
    }

    /// Takes a port out.
    pub fn remove(&mut self, port: u16) {
        self.0[usize::from(port / 64)] &= !bit(port);
    }

    /// How many ports are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those in it, rising.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }

    /// Those in it, as ranges that do not touch, rising.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if port.checked_sub(1) == Some(*last) => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }

    /// A bit for each port: that of port `p` is bit `p % 8` of byte `p / 8`.
    pub(crate) fn bitmap(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::default();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }
}

/// As in `1024-29999,32768-65535`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_go_in_and_out() {
        let mut set: PortSet = [80, 81, 0, 65_535, 443].into_iter().collect();
        assert_eq!(set.to_string(), "0,80-81,443,65535");
        assert_eq!((set.len(), set.is_empty(), set.contains(443)), (5, false, true));
        assert_eq!(set.bitmap()[10], 0b11);
        set.remove(80);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 81, 443, 65_535]);
        assert!(PortSet::default().is_empty());
    }
}
