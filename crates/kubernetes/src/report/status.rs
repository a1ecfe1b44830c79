//! `status.loadBalancer` of Ingresses: which addresses they should have, and which do not have them.
//!
//! Pure. Must not know how it is sent.

use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

use crate::objects::{Key, Text};
use crate::store::Store;

/// Addresses of one Ingress.
const ADDRESSES_MAX: usize = 64;
/// After a write, what the API server said before it is not taken for somebody else's.
const ECHO_WITHIN: Duration = Duration::from_secs(10);

/// Which addresses Ingresses are given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Publish {
    /// None: their status is left alone.
    #[default]
    Nothing,
    /// Those of a Service of type `LoadBalancer`, or its external ones; while it has none, nothing is written.
    Service(Key),
    /// These: IP addresses or host names.
    Addresses(Vec<Text>),
}

impl Publish {
    fn addresses<'a>(&'a self, store: &'a Store) -> &'a [Text] {
        let all = match self {
            Self::Nothing => &[],
            Self::Addresses(addresses) => &addresses[..],
            Self::Service(key) => {
                store.services.get(key).map(|service| &service.addresses[..]).unwrap_or_default()
            }
        };
        &all[..all.len().min(ADDRESSES_MAX)]
    }
}

/// A status to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) addresses: Vec<Text>,
}

impl Wanted {
    /// Replaces the addresses and nothing else.
    pub(super) fn patch(&self) -> Value {
        let entry = |address: &Text| match address.parse::<IpAddr>() {
            Ok(ip) => json!({ "ip": ip.to_string() }),
            Err(_) => json!({ "hostname": &**address }),
        };
        let entries: Vec<Value> = self.addresses.iter().map(entry).collect();
        let entries = if entries.is_empty() { Value::Null } else { Value::Array(entries) };
        json!({ "status": { "loadBalancer": { "ingress": entries } } })
    }
}

/// What was written, by Ingress.
#[derive(Debug, Default)]
pub(super) struct Written(FxHashMap<Key, (Vec<Text>, Instant)>);

impl Written {
    /// What is to be written now: for ours that have not what they should, and for those that were ours and still
    /// have what was written.
    pub(super) fn due(
        &mut self,
        store: &Store,
        ours: &[Key],
        publish: &Publish,
        now: Instant,
    ) -> Vec<Wanted> {
        let addresses = publish.addresses(store);
        let mut due = Vec::new();
        if !addresses.is_empty() {
            for key in ours {
                let Some(ingress) = store.ingresses.get(key) else { continue };
                let recently = self.0.get(key).is_some_and(|(written, at)| {
                    written == addresses && now.duration_since(*at) < ECHO_WITHIN
                });
                if ingress.status != addresses && !recently {
                    due.push(Wanted { key: key.clone(), addresses: addresses.to_vec() });
                }
            }
        }
        let ours: rustc_hash::FxHashSet<&Key> = ours.iter().collect();
        self.0.retain(|key, (written, _)| {
            if ours.contains(key) {
                return true;
            }
            let Some(ingress) = store.ingresses.get(key) else { return false };
            if ingress.status == *written && !written.is_empty() {
                due.push(Wanted { key: key.clone(), addresses: Vec::new() });
            }
            false
        });
        due
    }

    /// It has been written.
    pub(super) fn done(&mut self, wanted: Wanted, now: Instant) {
        if !wanted.addresses.is_empty() {
            self.0.insert(wanted.key, (wanted.addresses, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::objects::Ingress;

    fn key(name: &str) -> Key {
        Key { namespace: "a".into(), name: name.into() }
    }

    fn store(statuses: &[(&str, &[&str])]) -> Store {
        let mut store = Store::default();
        for (name, status) in statuses {
            let entries: Vec<Value> = status.iter().map(|ip| json!({ "ip": ip })).collect();
            let api = serde_json::from_value(json!({
                "metadata": { "namespace": "a", "name": name },
                "status": { "loadBalancer": { "ingress": entries } },
            }));
            store.ingresses.insert(key(name), Arc::new(Ingress::from_api(api.unwrap())));
        }
        store
    }

    #[test]
    fn only_differences_of_ours_are_written() {
        let now = Instant::now();
        let publish = Publish::Addresses(vec!["192.0.2.1".into(), "lb.test".into()]);
        let store_ = store(&[("x", &[]), ("y", &["192.0.2.9"]), ("other", &["192.0.2.9"])]);
        let mut written = Written::default();
        let ours = [key("x"), key("y"), key("gone")];
        let due = written.due(&store_, &ours, &publish, now);
        assert_eq!(due.iter().map(|w| &*w.key.name).collect::<Vec<_>>(), ["x", "y"]);
        let patch = due[0].patch();
        assert_eq!(
            patch.to_string(),
            r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"lb.test"}]}}}"#
        );
        for wanted in due {
            written.done(wanted, now);
        }
        assert_eq!(written.due(&store_, &ours, &publish, now), [], "not echoed yet");
        let later = now + ECHO_WITHIN;
        assert_eq!(written.due(&store_, &ours, &publish, later).len(), 2, "somebody else wrote");
    }

    #[test]
    fn what_is_ours_no_longer_is_cleaned() {
        let now = Instant::now();
        let publish = Publish::Addresses(vec!["192.0.2.1".into()]);
        let mut written = Written::default();
        let ours = [key("x"), key("y")];
        for wanted in written.due(&store(&[("x", &[]), ("y", &[])]), &ours, &publish, now) {
            written.done(wanted, now);
        }
        // One was taken over by another controller, which has written its own address.
        let after = store(&[("x", &["192.0.2.1"]), ("y", &["198.51.100.1"])]);
        let due = written.due(&after, &[], &publish, now);
        assert_eq!(due, [Wanted { key: key("x"), addresses: Vec::new() }]);
        assert_eq!(due[0].patch()["status"]["loadBalancer"]["ingress"], Value::Null);
        assert_eq!(written.due(&after, &[], &publish, now), []);
    }

    #[test]
    fn a_service_without_addresses_changes_nothing() {
        let publish = Publish::Service(key("lb"));
        let mut written = Written::default();
        let due =
            written.due(&store(&[("x", &["192.0.2.1"])]), &[key("x")], &publish, Instant::now());
        assert_eq!(due, []);
    }
}
