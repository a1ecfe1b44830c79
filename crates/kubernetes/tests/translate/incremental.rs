//! However a store came about, its translation is the same; and what did not change is the same memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cloverleaf_kubernetes::objects::{
    Backend, Container, EndpointSlice, Family, Hints, Ingress, IngressClass, IngressPath,
    IngressStatus, IngressTls, Key, Kind, Meta, Namespace, PathType, Pod, PortRef, Secret, Service,
    ServicePort, SliceEndpoint, Text,
};
use cloverleaf_kubernetes::store::{Object, Store};
use cloverleaf_kubernetes::translate::{Changed, Options, PodOptions, Translator};

use crate::world::{options, sound};

/// Numbers by chance, the same for the same seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % bound
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn maybe(&mut self) -> bool {
        self.below(2) == 0
    }
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["x", "y", "z"];
const HOSTS: [&str; 6] = ["", "a.test", "b.test", "*.test", "A.test", "b\u{7}d"];
const PATHS: [&str; 6] = ["/", "/a", "/a/", "/a/b", "a", ""];

fn meta(chance: &mut Chance, name: &str, cluster_wide: bool) -> Meta {
    let namespace = if cluster_wide { "" } else { chance.one(&NAMESPACES) };
    Meta {
        key: Key { namespace: namespace.into(), name: name.into() },
        uid: Text::default(),
        created: i64::try_from(chance.below(3)).unwrap(),
        deleting: false,
    }
}

fn backend(chance: &mut Chance) -> Backend {
    match chance.below(8) {
        0 => Backend::Unusable { why: "it names nothing".into() },
        1 => Backend::Service { name: (*chance.one(&NAMES)).into(), port: None },
        2 => Backend::Service {
            name: (*chance.one(&NAMES)).into(),
            port: Some(PortRef::Name("http".into())),
        },
        _ => {
            Backend::Service { name: (*chance.one(&NAMES)).into(), port: Some(PortRef::Number(80)) }
        }
    }
}

fn ingress(chance: &mut Chance) -> Ingress {
    let name = *chance.one(&NAMES);
    let mut annotations: BTreeMap<Text, Text> = BTreeMap::new();
    if chance.below(4) == 0 {
        let (name, value) = *chance.one(&[
            ("cloverleaf/backend-protocol", "https"),
            ("nanoproxy/strip-path", "true"),
            ("cloverleaf/balance", "none"),
            ("cloverleaf/backend-ca", "x"),
        ]);
        annotations.insert(name.into(), value.into());
        annotations.insert("cloverleaf/backend-protocol".into(), "https".into());
    }
    let paths = (0..chance.below(4)).map(|index| IngressPath {
        at: (index, 0),
        host: (*chance.one(&HOSTS)).into(),
        path: (*chance.one(&PATHS)).into(),
        path_type: chance
            .one(&[PathType::Exact, PathType::Prefix, PathType::Unknown("x".into())])
            .clone(),
        backend: backend(chance),
    });
    Ingress {
        paths: paths.collect(),
        meta: meta(chance, name, false),
        class: chance.one(&[Some("ours"), Some("ours"), Some("other"), None]).map(Text::from),
        annotations,
        default_backend: chance.maybe().then(|| backend(chance)),
        bare_hosts: Vec::new(),
        tls: (0..chance.below(2))
            .map(|_| IngressTls {
                hosts: vec![(*chance.one(&HOSTS)).into()],
                secret: Some((*chance.one(&NAMES)).into()),
            })
            .collect(),
        status: if chance.maybe() { written() } else { IngressStatus::default() },
        flaws: Vec::new(),
    }
}

fn slice(chance: &mut Chance) -> EndpointSlice {
    let name = *chance.one(&NAMES);
    let addresses: [IpAddr; 4] =
        ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"].map(|a| a.parse().unwrap());
    let endpoints = (0..chance.below(4)).map(|_| SliceEndpoint {
        address: *chance.one(&addresses),
        ready: chance.maybe(),
        serving: chance.maybe(),
        terminating: chance.maybe(),
        hints: chance.maybe().then(|| {
            Arc::new(Hints { zones: vec![(*chance.one(&NAMES)).into()], nodes: Vec::new() })
        }),
    });
    EndpointSlice {
        endpoints: endpoints.collect(),
        meta: meta(chance, name, false),
        service: (*chance.one(&NAMES)).into(),
        ports: vec![("http".into(), 8080)],
        flaws: if chance.below(8) == 0 { vec!["odd".into()] } else { Vec::new() },
    }
}

fn service(chance: &mut Chance) -> Service {
    let name = *chance.one(&NAMES);
    Service {
        meta: meta(chance, name, false),
        external_name: (chance.below(6) == 0).then(|| "example.com".into()),
        ports: vec![ServicePort { name: "http".into(), port: 80, app_protocol: None }],
        client_affinity: chance.maybe(),
        family: *chance.one(&[None, Some(Family::V4), Some(Family::V6)]),
        addresses: Vec::new(),
        flaws: Vec::new(),
    }
}

fn secret(chance: &mut Chance) -> Secret {
    let name = *chance.one(&NAMES);
    let says = *chance.one(&["good", "expired", "mismatched"]);
    let chain = format!("-----BEGIN CERTIFICATE----- {says}").into_bytes();
    let mut data: BTreeMap<Text, Arc<[u8]>> = BTreeMap::new();
    data.insert("tls.crt".into(), chain.into());
    data.insert("tls.key".into(), b"-----BEGIN PRIVATE KEY-----".as_slice().into());
    Secret { meta: meta(chance, name, false), data }
}

fn namespace(chance: &mut Chance) -> Namespace {
    let name = *chance.one(&NAMESPACES);
    let tls = |key: &str| {
        let field = |key: &str| format!(r#"{{"valueFrom":{{"secretKeyRef":{{"key":"{key}"}}}}}}"#);
        let (chain, key) = (field("tls.crt"), field(key));
        format!(
            r#"{{"b.test":{{"ssl":{{"certificate":{chain},"certificateKey":{key}}}}},"c.test":{{}}}}"#
        )
    };
    let hosts = match chance.below(4) {
        0 => r#"{"a.test":{},"c.test":{}}"#.to_owned(),
        1 => tls("tls.key"),
        2 => tls("none"),
        _ => "[]".to_owned(),
    };
    Namespace {
        meta: meta(chance, name, true),
        hosts: chance.maybe().then(|| hosts.into()),
        labels: BTreeMap::new(),
    }
}

fn pod(chance: &mut Chance) -> Pod {
    let name = *chance.one(&NAMES);
    let path = *chance.one(&["/", "/a", "a", ""]);
    let target = *chance.one(&["", r#","targetPath":"/t""#]);
    let entry = format!(r#"{{"basePath":"{path}","containerPort":"3000"{target}}}"#);
    let address = *chance.one(&["10.2.0.1", "10.2.0.2"]);
    Pod {
        meta: meta(chance, name, false),
        paths: chance
            .one(&[Some(format!("[{entry}]")), Some("{".to_owned()), None])
            .clone()
            .map(Text::from),
        labels: BTreeMap::new(),
        address: Some(address.parse().unwrap()),
        running: true,
        ready: chance.maybe(),
        containers: vec![Container { ports: vec![(Text::default(), 3000)], probe: None }],
    }
}

fn object(chance: &mut Chance) -> Object {
    match chance.below(16) {
        12 | 13 => namespace(chance).into(),
        14 | 15 => pod(chance).into(),
        0 | 1 => ingress(chance).into(),
        2 => service(chance).into(),
        3 => secret(chance).into(),
        4 => {
            let name = *chance.one(&["ours", "other"]);
            let controller = *chance.one(&["cloverleaf/gateway", "another"]);
            IngressClass {
                meta: meta(chance, name, true),
                controller: controller.into(),
                is_default: chance.maybe(),
            }
            .into()
        }
        _ => slice(chance).into(),
    }
}

/// A change by chance: an object comes, changes or goes.
fn change(chance: &mut Chance, store: &mut Store, changed: &mut Changed) {
    let object = object(chance);
    if chance.below(4) == 0 {
        store.remove(object.kind(), &object.meta().key, changed);
    } else {
        store.apply(object, changed);
    }
}

/// Both sources, in a zone, with `routing` Secrets by the names that there are.
fn here() -> Options {
    let pods = PodOptions { tls: true, secret_name: "x".into(), ..PodOptions::default() };
    Options { zone: Some("x".into()), pods: Some(pods), ..options() }
}

#[test]
fn any_sequence_of_changes_comes_to_what_its_end_comes_to() {
    let mut tls_differed = 0;
    for seed in 1..=16 {
        let mut chance = Chance(seed * 0x9e37_79b9);
        let mut store = Store::default();
        let mut translator = Translator::new(here());
        for step in 0..120 {
            let mut changed = Changed::default();
            for _ in 0..=chance.below(3) {
                change(&mut chance, &mut store, &mut changed);
            }
            let step_by_step = translator.translate(&store, changed);
            let at_once = Translator::new(here()).translate(&store, Changed::everything());
            assert_eq!(step_by_step, at_once, "seed {seed}, step {step}");
            sound(&at_once);
            tls_differed += usize::from(at_once.rules != at_once.tls_rules);
        }
    }
    assert!(tls_differed > 100, "the chances hardly ever make a host with TLS: {tls_differed}");
}

#[test]
fn a_store_written_object_by_object_is_the_same() {
    let mut chance = Chance(7);
    let mut store = Store::default();
    for _ in 0..300 {
        change(&mut chance, &mut store, &mut Changed::default());
    }
    let mut again = Store::default();
    for object in store.objects() {
        again.apply(object, &mut Changed::default());
    }
    assert_eq!(store.len(), again.len());
    let translate = |store| Translator::new(here()).translate(store, Changed::everything());
    assert_eq!(translate(&store), translate(&again));
    for object in again.objects().collect::<Vec<_>>() {
        again.remove(object.kind(), &object.meta().key, &mut Changed::default());
    }
    assert_eq!(again, Store::default());
}

fn two_services() -> Store {
    use crate::world::{one_rule, service};
    let rules = format!(
        "rules: [{}, {}], tls: [{{hosts: [a.test], secretName: cert}}]",
        one_rule("a.test", "Prefix", "/", "one"),
        one_rule("b.test", "Prefix", "/", "two")
    );
    let manifests = service("one")
        + &service("two")
        + &crate::world::secret("cert", "good")
        + &crate::world::ingress("a", 1, "", &rules);
    crate::world::store(&manifests)
}

#[test]
fn what_did_not_change_is_the_same_memory() {
    let mut store = two_services();
    let mut translator = Translator::new(options());
    let before = translator.translate(&store, Changed::everything());
    let again = translator.translate(&store, Changed::everything());
    let same = |a: &cloverleaf_kubernetes::translate::Translation,
                b: &cloverleaf_kubernetes::translate::Translation| {
        assert!(Arc::ptr_eq(&a.rules, &b.rules) && Arc::ptr_eq(&a.tls_rules, &b.tls_rules));
        assert!(Arc::ptr_eq(&a.certificates, &b.certificates));
        assert!(Arc::ptr_eq(&a.problems, &b.problems) && Arc::ptr_eq(&a.ours, &b.ours));
    };
    same(&before, &again);
    assert!(Arc::ptr_eq(&before.rules, &before.tls_rules));
    assert!(before.upstreams.iter().zip(&again.upstreams).all(|(a, b)| Arc::ptr_eq(a, b)));

    let mut changed = Changed::default();
    let slice = store.slices.values().flat_map(|slices| slices.values()).next().unwrap();
    let mut slice = (**slice).clone();
    slice.endpoints[0].address = "10.9.9.9".parse().unwrap();
    let service = slice.service.clone();
    assert!(store.apply(slice.into(), &mut changed));
    assert!(!changed.routes());
    let after = translator.translate(&store, changed);
    same(&before, &after);
    for (old, new) in before.upstreams.iter().zip(&after.upstreams) {
        let touched = new.name.starts_with(&format!("service/default/{service}/"));
        assert_eq!(Arc::ptr_eq(old, new), !touched, "{}", new.name);
    }
}

/// As this program writes it.
fn written() -> IngressStatus {
    IngressStatus { addresses: vec!["1.2.3.4".into()], writers: vec!["cloverleaf/a/b".into()] }
}

#[test]
fn what_changes_no_route_is_not_noted() {
    let mut store = two_services();
    let mut changed = Changed::default();
    for object in store.objects().collect::<Vec<_>>() {
        assert!(!store.apply(object, &mut changed), "the same object again");
    }
    assert!(changed.is_empty());
    let ingress = store.ingresses.values().next().unwrap();
    let status = Ingress { status: written(), ..(**ingress).clone() };
    assert!(store.apply(status.into(), &mut changed), "a status is kept");
    assert!(changed.is_empty(), "and changes no route");
    let key = Key { namespace: "default".into(), name: "one".into() };
    assert!(store.remove(Kind::Service, &key, &mut changed));
    assert!(changed.routes());
    assert!(!store.remove(Kind::Service, &key, &mut Changed::default()));
}
