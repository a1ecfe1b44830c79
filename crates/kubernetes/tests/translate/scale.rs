//! How long translation takes at the size of a large cluster. Prints; decides nothing.

use std::sync::Arc;
use std::time::Instant;

use cloverleaf_kubernetes::objects::{
    Backend, EndpointSlice, Ingress, IngressClass, IngressPath, IngressStatus, Key, Meta, PathType,
    PortRef, Service, ServicePort, SliceEndpoint, Text,
};
use cloverleaf_kubernetes::store::Store;
use cloverleaf_kubernetes::translate::{Changed, Translator};

use crate::world::{options, sound};

const INGRESSES: u32 = 5_000;
const ENDPOINTS_EACH: u32 = 10;

fn meta(namespace: &str, name: &str) -> Meta {
    let key = Key { namespace: namespace.into(), name: name.into() };
    Meta { key, uid: name.into(), created: 0, deleting: false }
}

fn slice(n: u32, first: u32) -> EndpointSlice {
    let endpoint = |index: u32| SliceEndpoint {
        address: std::net::Ipv4Addr::from(0x0a00_0000 + n * ENDPOINTS_EACH + first + index).into(),
        ready: true,
        serving: true,
        terminating: false,
        hints: None,
    };
    EndpointSlice {
        meta: meta(&format!("team-{}", n % 100), &format!("web-{n}-x")),
        service: format!("web-{n}").into(),
        ports: vec![("http".into(), 8080)],
        endpoints: (0..ENDPOINTS_EACH).map(endpoint).collect(),
        flaws: Vec::new(),
    }
}

fn large() -> Store {
    let mut store = Store::default();
    let mut changed = Changed::default();
    let class = IngressClass {
        meta: meta("", "ours"),
        controller: "cloverleaf/gateway".into(),
        is_default: true,
    };
    store.apply(class.into(), &mut changed);
    for n in 0..INGRESSES {
        let namespace = format!("team-{}", n % 100);
        let name = format!("web-{n}");
        let path = |index: usize, path: &str| IngressPath {
            at: (0, index),
            host: format!("app-{n}.example.com").into(),
            path: path.into(),
            path_type: PathType::Prefix,
            backend: Backend::Service {
                name: name.as_str().into(),
                port: Some(PortRef::Number(80)),
            },
        };
        let ingress = Ingress {
            meta: meta(&namespace, &name),
            class: Some("ours".into()),
            annotations: std::collections::BTreeMap::new(),
            default_backend: None,
            paths: vec![path(0, "/"), path(1, "/api")],
            bare_hosts: Vec::new(),
            tls: Vec::new(),
            status: IngressStatus::default(),
            flaws: Vec::new(),
        };
        let service = Service {
            meta: meta(&namespace, &name),
            external_name: None,
            ports: vec![ServicePort { name: "http".into(), port: 80, app_protocol: None }],
            client_affinity: false,
            family: None,
            addresses: Vec::new(),
            flaws: Vec::new(),
        };
        store.apply(ingress.into(), &mut changed);
        store.apply(service.into(), &mut changed);
        store.apply(slice(n, 0).into(), &mut changed);
    }
    store
}

#[test]
fn a_large_cluster() {
    let mut store = large();
    let mut translator = Translator::new(options());
    for round in ["first", "again"] {
        let start = Instant::now();
        let translation = translator.translate(&store, Changed::everything());
        println!("everything, {round}: {:?}", start.elapsed());
        assert_eq!(translation.upstreams.len(), 5_000);
        sound(&translation);
    }
    let mut total = std::time::Duration::ZERO;
    let mut before = translator.translate(&store, Changed::default());
    for n in 0..1_000 {
        let mut changed = Changed::default();
        store.apply(slice(n, 1_000_000).into(), &mut changed);
        let start = Instant::now();
        let translation = translator.translate(&store, changed);
        total += start.elapsed();
        assert!(Arc::ptr_eq(&before.rules, &translation.rules));
        before = translation;
    }
    println!("one Service's endpoints: {:?}", total / 1_000);
    let name: Text = "one-more".into();
    let one = store.services.values().next().map(|s| (**s).clone()).unwrap();
    let key = Key { namespace: one.meta.key.namespace.clone(), name };
    let mut changed = Changed::default();
    store.apply(Service { meta: Meta { key, ..one.meta }, ..one }.into(), &mut changed);
    let start = Instant::now();
    translator.translate(&store, changed);
    println!("one more Service: {:?}", start.elapsed());
}
