//! `status.loadBalancer` of Ingresses: which addresses they should have, and which do not have them.
//!
//! Pure. Must not know how it is sent.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lease::LeaseOptions;
use crate::objects::{Ingress, Key, Text};
use crate::store::Store;

/// Addresses of one Ingress.
const ADDRESSES_MAX: usize = 64;
/// Of the API: the name of a field manager.
const WRITER_BYTES_MAX: usize = 128;
/// What every writer's name begins with.
const WRITER: &str = "cloverleaf";
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

/// As whom status is written: the API server remembers it with the fields (`metadata.managedFields`), so that
/// whoever leads later, in whatever process, knows what was ours. One name for all replicas of a Lease.
pub(super) fn writer(lease: Option<&LeaseOptions>) -> Text {
    let Some(LeaseOptions { namespace, name, .. }) = lease else { return WRITER.into() };
    let full = format!("{WRITER}/{namespace}/{name}");
    if full.len() <= WRITER_BYTES_MAX {
        return full.into();
    }
    let mut hasher = FxHasher::default();
    full.hash(&mut hasher);
    format!("{WRITER}/{:016x}", hasher.finish()).into()
}

/// A status to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) key: Key,
    /// None: what was ours goes, and what somebody else has written meanwhile stays.
    pub(super) addresses: Vec<Text>,
}

impl Wanted {
    /// What is applied: the addresses and nothing else.
    pub(super) fn applied(&self) -> Value {
        let entry = |address: &Text| match address.parse::<IpAddr>() {
            Ok(ip) => json!({ "ip": ip.to_string() }),
            Err(_) => json!({ "hostname": &**address }),
        };
        let entries: Vec<Value> = self.addresses.iter().map(entry).collect();
        let balancer = match entries.is_empty() {
            true => json!({}),
            false => json!({ "loadBalancer": { "ingress": entries } }),
        };
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": { "name": &*self.key.name, "namespace": &*self.key.namespace },
            "status": balancer,
        })
    }
}

/// What was written of late, by Ingress.
#[derive(Debug, Default)]
pub(super) struct Written(FxHashMap<Key, (Vec<Text>, Instant)>);

impl Written {
    /// What is to be written now: for ours that have not what they should, and for those that are not ours and
    /// still have what we wrote, in whatever process that was.
    pub(super) fn due(
        &mut self,
        store: &Store,
        ours: &[Key],
        (publish, me): (&Publish, &str),
        now: Instant,
    ) -> Vec<Wanted> {
        self.0.retain(|_, (_, at)| now.duration_since(*at) < ECHO_WITHIN);
        if *publish == Publish::Nothing {
            return Vec::new();
        }
        let addresses = publish.addresses(store);
        let ours: FxHashSet<&Key> = ours.iter().collect();
        let mut due = Vec::new();
        for (key, Ingress { status, .. }) in store.ingresses.iter().map(|(k, i)| (k, &**i)) {
            let is_mine = status.writers.iter().any(|writer| **writer == *me);
            let (wanted, differs) = match ours.contains(key) {
                // While there is no address, nothing is known to be wrong.
                true => {
                    (addresses, !(addresses.is_empty() || is_mine && status.addresses == addresses))
                }
                false => (&[][..], is_mine && !status.addresses.is_empty()),
            };
            if differs && self.0.get(key).is_none_or(|(written, _)| written != wanted) {
                due.push(Wanted { key: key.clone(), addresses: wanted.to_vec() });
            }
        }
        due.sort_by(|a, b| a.key.cmp(&b.key));
        due
    }

    /// It has been written.
    pub(super) fn done(&mut self, wanted: Wanted, now: Instant) {
        self.0.insert(wanted.key, (wanted.addresses, now));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const ME: &str = "cloverleaf/ns/lease";

    fn key(name: &str) -> Key {
        Key { namespace: "a".into(), name: name.into() }
    }

    /// Ingresses by name, with the address that they have and who wrote it.
    fn store(statuses: &[(&str, &[&str], &str)]) -> Store {
        let mut store = Store::default();
        for (name, status, writer) in statuses {
            let entries: Vec<Value> = status.iter().map(|ip| json!({ "ip": ip })).collect();
            let fields = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
            let spec = json!({ "f:spec": { "f:rules": {} } });
            let api = serde_json::from_value(json!({
                "metadata": { "namespace": "a", "name": name, "managedFields": [
                    { "manager": "kubectl", "operation": "Update", "fieldsV1": spec },
                    { "manager": writer, "operation": "Apply", "subresource": "status", "fieldsV1": fields },
                ] },
                "status": { "loadBalancer": { "ingress": entries } },
            }));
            store.ingresses.insert(key(name), Arc::new(Ingress::from_api(api.unwrap())));
        }
        store
    }

    fn one(address: &str) -> Publish {
        Publish::Addresses(vec![address.into()])
    }

    #[test]
    fn only_differences_of_ours_are_written() {
        let now = Instant::now();
        let publish = Publish::Addresses(vec!["192.0.2.1".into(), "lb.test".into()]);
        let store_ =
            store(&[("x", &[], "-"), ("y", &["192.0.2.9"], ME), ("other", &["192.0.2.9"], "-")]);
        let mut written = Written::default();
        let ours = [key("x"), key("y"), key("gone")];
        let due = written.due(&store_, &ours, (&publish, ME), now);
        assert_eq!(due.iter().map(|w| &*w.key.name).collect::<Vec<_>>(), ["x", "y"]);
        let entries = json!([{ "ip": "192.0.2.1" }, { "hostname": "lb.test" }]);
        assert_eq!(due[0].applied()["status"], json!({ "loadBalancer": { "ingress": entries } }));
        for wanted in due {
            written.done(wanted, now);
        }
        assert_eq!(written.due(&store_, &ours, (&publish, ME), now), [], "not echoed yet");
        let later = now + ECHO_WITHIN;
        let due = written.due(&store_, &ours, (&publish, ME), later);
        assert_eq!(due.len(), 2, "somebody else wrote");
    }

    /// Otherwise nobody would take it away when the Ingress is not ours any more.
    #[test]
    fn the_right_address_that_somebody_else_wrote_is_written_as_ours() {
        let store = store(&[("x", &["192.0.2.1"], "kubectl"), ("y", &["192.0.2.1"], ME)]);
        let (ours, publish) = ([key("x"), key("y")], one("192.0.2.1"));
        let due = Written::default().due(&store, &ours, (&publish, ME), Instant::now());
        assert_eq!(due, [Wanted { key: key("x"), addresses: vec!["192.0.2.1".into()] }]);
    }

    #[test]
    fn what_is_ours_no_longer_is_cleaned_by_whoever_leads() {
        let now = Instant::now();
        let store = store(&[
            ("left", &["192.0.2.1"], ME),
            // With an address that was published by the process before.
            ("long-ago", &["192.0.2.8"], ME),
            // Taken over by another controller, which has written its own address.
            ("taken", &["198.51.100.1"], "other"),
            // The same address from another release of this program.
            ("neighbour", &["192.0.2.1"], "cloverleaf/ns/other"),
            ("empty", &[], ME),
        ]);
        let mut written = Written::default();
        let publish = one("192.0.2.1");
        let due = written.due(&store, &[], (&publish, ME), now);
        let nothing = |name| Wanted { key: key(name), addresses: Vec::new() };
        assert_eq!(due, [nothing("left"), nothing("long-ago")]);
        assert_eq!(due[0].applied()["status"], json!({}));
        due.into_iter().for_each(|wanted| written.done(wanted, now));
        assert_eq!(written.due(&store, &[], (&publish, ME), now), []);
        assert_eq!(written.due(&store, &[], (&Publish::Nothing, ME), now + ECHO_WITHIN), []);
    }

    #[test]
    fn a_service_without_addresses_changes_nothing() {
        let publish = Publish::Service(key("lb"));
        let mut written = Written::default();
        let store = store(&[("x", &["192.0.2.1"], ME)]);
        assert_eq!(written.due(&store, &[key("x")], (&publish, ME), Instant::now()), []);
    }

    #[test]
    fn a_writer_s_name_fits_into_the_api_and_is_the_lease_s() {
        let of = |namespace: &str, name: &str| {
            let identity = "pod".to_owned();
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            writer(Some(&LeaseOptions { namespace, name, identity }))
        };
        assert_eq!(&*of("ns", "lease"), ME);
        let long = "l".repeat(253);
        assert!(of("ns", &long).len() <= WRITER_BYTES_MAX);
        assert_ne!(of("ns", &long), of("other", &long));
        assert_eq!(&*writer(None), "cloverleaf");
    }
}
