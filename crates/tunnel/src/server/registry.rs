//! Which agents there are, and which of them gets a connection. Chance is an argument; no IO.
//!
//! Must not know streams or packets: an agent is whatever the caller keeps for one.

use balance::Rng;

use crate::identifiers::Identifiers;

/// How an agent is chosen; the next strategy of a list is asked only where one finds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Any agent, at random.
    Default,
    /// One whose identifiers have the host that is dialled.
    DestHost,
    /// One of those that take what nobody else is for, at random.
    DefaultRoute,
}

impl Strategy {
    /// Every one, by its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("default", Self::Default),
        ("destHost", Self::DestHost),
        ("defaultRoute", Self::DefaultRoute),
    ];

    /// By its name, as the original writes it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, strategy)| strategy)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, strategy)| *strategy == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug)]
struct Entry<B> {
    number: u64,
    agent: String,
    identifiers: Identifiers,
    draining: bool,
    backend: B,
}

impl<B> Entry<B> {
    fn serves(&self, strategy: Strategy, host: &str) -> bool {
        match strategy {
            Strategy::Default => true,
            Strategy::DestHost => self.identifiers.names(host),
            Strategy::DefaultRoute => self.identifiers.default_route,
        }
    }
}

/// The agents' streams, oldest first.
#[derive(Debug)]
pub(super) struct Registry<B> {
    entries: Vec<Entry<B>>,
    next: u64,
}

impl<B> Default for Registry<B> {
    fn default() -> Self {
        Self { entries: Vec::new(), next: 0 }
    }
}

impl<B> Registry<B> {
    /// Takes one in; the number it is removed by.
    pub(super) fn add(&mut self, agent: String, identifiers: Identifiers, backend: B) -> u64 {
        self.next += 1;
        let number = self.next;
        self.entries.push(Entry { number, agent, identifiers, draining: false, backend });
        number
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.entries.retain(|entry| entry.number != number);
    }

    /// It gets connections only where there is no other from now on.
    pub(super) fn drain(&mut self, number: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.number == number) {
            entry.draining = true;
        }
    }

    /// How many a strategy can choose from.
    pub(super) fn count(&self, strategy: Strategy) -> usize {
        let can = |entry: &&Entry<B>| match strategy {
            Strategy::Default => true,
            Strategy::DestHost => {
                let own = &entry.identifiers;
                !(own.host.is_empty() && own.ipv4.is_empty() && own.ipv6.is_empty())
            }
            Strategy::DefaultRoute => entry.identifiers.default_route,
        };
        self.entries.iter().filter(can).count()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Identifiers, bool, &B)> {
        self.entries.iter().map(|e| (e.agent.as_str(), &e.identifiers, e.draining, &e.backend))
    }

    /// The one for an address: of an agent with several streams the oldest that is not draining.
    pub(super) fn pick(&self, strategies: &[Strategy], address: &str, rng: &mut Rng) -> Option<&B> {
        let host = host_of(address);
        strategies.iter().find_map(|strategy| self.pick_by(*strategy, host, rng))
    }

    /// One of those that say they are in a cluster, at random.
    pub(super) fn pick_in(&self, cluster: &str, rng: &mut Rng) -> Option<&B> {
        let there = |entry: &&Entry<B>| entry.identifiers.names(cluster);
        Self::pick_agent(self.entries.iter().filter(there).collect(), rng)
    }

    fn pick_by(&self, strategy: Strategy, host: &str, rng: &mut Rng) -> Option<&B> {
        let found: Vec<&Entry<B>> =
            self.entries.iter().filter(|entry| entry.serves(strategy, host)).collect();
        if strategy == Strategy::DestHost {
            return lively(found).first().map(|entry| &entry.backend);
        }
        Self::pick_agent(found, rng)
    }

    /// One of the agents at random, and of its streams the oldest.
    fn pick_agent<'r>(found: Vec<&'r Entry<B>>, rng: &mut Rng) -> Option<&'r B> {
        let from = lively(found);
        let mut agents: Vec<&str> = from.iter().map(|entry| entry.agent.as_str()).collect();
        agents.sort_unstable();
        agents.dedup();
        let agent = agents.get(rng.below(agents.len() as u64) as usize)?;
        from.iter().find(|entry| entry.agent == *agent).map(|entry| &entry.backend)
    }
}

/// Those that are not about to go, or all where they all are.
fn lively<B>(found: Vec<&Entry<B>>) -> Vec<&Entry<B>> {
    let lively: Vec<&Entry<B>> = found.iter().copied().filter(|e| !e.draining).collect();
    if lively.is_empty() { found } else { lively }
}

/// The host of `host:port`, without the brackets of IPv6.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(agents: &[(&str, &str)]) -> Registry<usize> {
        let mut registry = Registry::default();
        for (index, (agent, identifiers)) in agents.iter().enumerate() {
            let identifiers = Identifiers::parse(identifiers).unwrap();
            registry.add((*agent).to_owned(), identifiers, index);
        }
        registry
    }

    fn picked(registry: &Registry<usize>, strategies: &[Strategy], address: &str) -> Vec<usize> {
        let mut rng = Rng::new(1);
        let pick = |_| registry.pick(strategies, address, &mut rng).copied();
        let mut all: Vec<usize> = (0..100).filter_map(pick).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn each_strategy_finds_its_own_and_the_next_is_asked_where_it_finds_none() {
        use Strategy::{Default, DefaultRoute, DestHost};
        let registry = registry(&[
            ("a", "host=one"),
            ("b", "host=two&ipv6=fd00::1"),
            ("c", "default-route=true"),
            ("d", "default-route=true&ipv4=10.0.0.1"),
            ("b", "host=two"),
        ]);
        for (strategies, address, expected) in [
            (&[DestHost][..], "one:443", &[0][..]),
            (&[DestHost], "two:443", &[1]),
            (&[DestHost], "[fd00::1]:443", &[1]),
            (&[DestHost], "10.0.0.1:443", &[3]),
            (&[DestHost], "three:443", &[]),
            (&[DestHost, DefaultRoute], "three:443", &[2, 3]),
            (&[DefaultRoute], "one:443", &[2, 3]),
            (&[Default], "one:443", &[0, 1, 2, 3]),
            (&[DestHost, Default], "one:443", &[0]),
        ] {
            assert_eq!(
                picked(&registry, strategies, address),
                expected,
                "{strategies:?} {address}"
            );
        }
        assert_eq!(registry.count(DestHost), 4);
        assert_eq!(registry.count(DefaultRoute), 2);
    }

    #[test]
    fn one_that_drains_comes_last_and_one_that_is_gone_never() {
        let mut registry = registry(&[("a", "host=h"), ("a", "host=h"), ("b", "host=h")]);
        registry.drain(1);
        assert_eq!(picked(&registry, &[Strategy::Default], "h:1"), [1, 2]);
        registry.drain(2);
        registry.drain(3);
        assert_eq!(picked(&registry, &[Strategy::DestHost], "h:1"), [0]);
        registry.remove(1);
        assert_eq!(picked(&registry, &[Strategy::Default], "h:1"), [1, 2]);
        registry.remove(2);
        registry.remove(3);
        assert_eq!(picked(&registry, &[Strategy::Default], "h:1"), [0_usize; 0]);
    }
}
