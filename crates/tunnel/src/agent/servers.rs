//! Which servers an agent has streams to, and whether it wants another one. No IO.
//!
//! An agent may have several connections to each server of ours: the first carrier connects to every server, a further
//! one to those that the first has reached and that say they are ours.

use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug)]
pub(super) struct Servers {
    connected: BTreeMap<String, Connected>,
    /// How many there are, as they last said.
    said: usize,
}

#[derive(Debug)]
struct Connected {
    ours: bool,
    carriers: BTreeSet<usize>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { connected: BTreeMap::new(), said: 1 }
    }
}

impl Servers {
    /// How many there are streams to.
    pub(super) fn connected(&self) -> usize {
        self.connected.len()
    }

    /// How many there are, as they last said.
    pub(super) fn said(&self) -> usize {
        self.said
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.connected.keys()
    }

    /// Whether a carrier lacks a stream, where there are so many servers.
    pub(super) fn wants_more(&self, carrier: usize, known: usize) -> bool {
        let has = |server: &&Connected| server.carriers.contains(&carrier);
        if carrier == 0 {
            return self.connected.values().filter(has).count() < known;
        }
        self.connected.values().any(|server| server.ours && !has(&server))
    }

    /// Notes a stream of a carrier to a server, which says how many there are; whether it is wanted.
    pub(super) fn enter(&mut self, server: &str, count: usize, ours: bool, carrier: usize) -> bool {
        self.said = count.max(1);
        if carrier > 0 && !ours {
            return false;
        }
        let connected = self
            .connected
            .entry(server.to_owned())
            .or_insert_with(|| Connected { ours, carriers: BTreeSet::new() });
        connected.ours = ours;
        connected.carriers.insert(carrier)
    }

    /// The stream has ended.
    pub(super) fn leave(&mut self, server: &str, carrier: usize) {
        if let Some(connected) = self.connected.get_mut(server) {
            connected.carriers.remove(&carrier);
            if connected.carriers.is_empty() {
                self.connected.remove(server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_carrier_looks_for_every_server_and_the_others_follow_to_ours() {
        let mut servers = Servers::default();
        assert!(servers.wants_more(0, 2) && !servers.wants_more(1, 2));
        assert!(servers.enter("a", 2, true, 0));
        assert!(servers.wants_more(0, 2) && servers.wants_more(1, 2));
        // The balancer leads to the same again, and a further carrier to an original.
        assert!(!servers.enter("a", 2, true, 0));
        assert!(!servers.enter("b", 2, false, 1));
        assert!(servers.enter("a", 2, true, 1));
        assert!(servers.enter("b", 2, false, 0));
        assert!(!servers.wants_more(0, 2) && !servers.wants_more(1, 2));
        assert_eq!((servers.connected(), servers.said()), (2, 2));
        assert_eq!(servers.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_server_is_there_as_long_as_any_carrier_has_a_stream() {
        let mut servers = Servers::default();
        servers.enter("a", 1, true, 0);
        servers.enter("a", 1, true, 1);
        servers.leave("a", 0);
        assert_eq!(servers.connected(), 1);
        assert!(servers.wants_more(0, 1) && !servers.wants_more(1, 1));
        servers.leave("a", 1);
        assert_eq!(servers.connected(), 0);
        assert!(!servers.wants_more(1, 1));
    }
}
