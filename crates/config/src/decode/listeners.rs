//! `listeners`: where clients connect.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use model::{
    Certificate, Listener, ListenerProtocol, PemSource, Place, TlsTermination, TlsVersion,
    TrustedHops,
};

use crate::context::Context;
use crate::keys;
use crate::scalar;
use crate::tree::Data;
use crate::value::{Map, Value};

/// Listeners of one file. Each is a socket for every worker thread.
const LISTENERS_MAX: usize = 1_024;
const DEFAULT_NAME: &str = "default";
const DEFAULT_PORT: u16 = 8080;

/// Every listener name in the file and its index; `None` if it has errors.
pub(super) type Known<'n> = HashMap<&'n str, Option<usize>>;

/// All of them, still without rules; the default one where the file has none.
pub(super) fn decode<'n>(cx: &mut Context<'_>, top: Map<'n, '_>) -> (Vec<Listener>, Known<'n>) {
    let hops = trusted_hops(cx, top).unwrap_or_default();
    let mut listeners: Vec<Listener> = Vec::new();
    let mut known = Known::new();
    let mut addresses: HashMap<SocketAddr, usize> = HashMap::new();
    let Some(list) = top.get("listeners") else {
        known.insert(DEFAULT_NAME, Some(0));
        return (vec![default_listener(cx.report.whole(), hops)], known);
    };
    if let Data::List(items) = &list.node.data {
        let problem = match items.len() {
            0 => Some("an empty list"),
            n if n > LISTENERS_MAX => Some("too many listeners"),
            _ => None,
        };
        if let Some(problem) = problem {
            let diagnostic =
                list.error(cx, problem).expected(format!("1 to {LISTENERS_MAX} listeners"));
            cx.report.push(diagnostic);
            return (listeners, known);
        }
    }
    top.list(cx, "listeners", |cx, _, item| {
        let map = item.map(cx, &keys::LISTENER)?;
        let name = map.required(cx, "name");
        let address = address(cx, map, &mut addresses);
        let listener = listener(cx, map, name.zip(address), &hops);
        let name = name?;
        if known.contains_key(name) {
            let twice = map.error(cx, "a second listener of this name").value(name);
            cx.report.push(twice.expected("a name that no other listener has"));
        }
        known.insert(name, listener.is_some().then_some(listeners.len()));
        listeners.extend(listener);
        Some(())
    });
    (listeners, known)
}

/// The address, which no other listener may have.
fn address(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    taken: &mut HashMap<SocketAddr, usize>,
) -> Option<SocketAddr> {
    let Some(value) = map.get("address") else {
        map.missing(cx, "address");
        return None;
    };
    let address = map.parsed(cx, "address", scalar::listen_address)?;
    let line = value.place(cx).line;
    if let Some(first) = taken.insert(address, line) {
        let problem = format!("the listener in line {first} has this address already");
        let twice = value.error(cx, problem).value(address.to_string());
        cx.report.push(twice.expected("an address that no other listener has"));
    }
    Some(address)
}

fn listener(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    identity: Option<(&str, SocketAddr)>,
    hops: &TrustedHops,
) -> Option<Listener> {
    let errors_before = cx.report.errors();
    let protocol = protocol(cx, map);
    let own_hops = trusted_hops(cx, map);
    let (name, address) = identity?;
    let listener = Listener {
        name: name.into(),
        address,
        protocol: protocol?,
        scopes: Vec::new(),
        trusted_hops: own_hops.unwrap_or_else(|| hops.clone()),
        place: map.place(cx),
    };
    (cx.report.errors() == errors_before).then_some(listener)
}

/// What holds without `listeners`.
fn default_listener(place: Place, hops: TrustedHops) -> Listener {
    Listener {
        name: DEFAULT_NAME.into(),
        address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), DEFAULT_PORT),
        protocol: ListenerProtocol::Http,
        scopes: Vec::new(),
        trusted_hops: hops,
        place,
    }
}

fn trusted_hops(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<TrustedHops> {
    let nets: Vec<IpNet> = map.list(cx, "trustedHops", |cx, _, item| {
        let text = item.text(cx, keys::Kind::Network)?;
        let net = scalar::network(text);
        if net.is_none() {
            item.wrong(cx, keys::Kind::Network);
        }
        net
    })?;
    Some(TrustedHops(nets))
}

/// `http`, or `https` with its certificates: never the one in place of the other.
fn protocol(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<ListenerProtocol> {
    let word = map.choice(cx, "protocol");
    match (word, map.get("tls")) {
        (Some("https"), None) => {
            let missing = map.error(cx, "protocol https without certificates");
            cx.report.push(missing.expected("tls with at least one certificate"));
            None
        }
        (Some("http"), Some(tls)) => {
            let both =
                tls.error(cx, "tls beside protocol http").expected("protocol: https, or no tls");
            cx.report.push(both);
            None
        }
        (_, Some(tls)) => termination(cx, tls).map(|tls| ListenerProtocol::Https(Arc::new(tls))),
        (_, None) => Some(ListenerProtocol::Http),
    }
}

fn termination(cx: &mut Context<'_>, tls: Value<'_, '_>) -> Option<TlsTermination> {
    let map = tls.map(cx, &keys::LISTENER_TLS)?;
    let min_version = match map.choice(cx, "minVersion") {
        Some("1.3") => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    };
    let errors_before = cx.report.errors();
    let certificates = map.list(cx, "certificates", certificate).unwrap_or_default();
    if certificates.is_empty() {
        if cx.report.errors() == errors_before {
            map.missing(cx, "certificates");
        }
        return None;
    }
    Some(TlsTermination { certificates, min_version })
}

fn certificate(cx: &mut Context<'_>, _: usize, item: Value<'_, '_>) -> Option<Certificate> {
    let map = item.map(cx, &keys::CERTIFICATE)?;
    let (chain, key) = (map.required(cx, "certificate"), map.required(cx, "key"));
    let (chain, key) = (cx.base_dir.join(chain?), cx.base_dir.join(key?));
    cx.files.extend([chain.clone(), key.clone()]);
    let place = map.place(cx);
    Some(Certificate { chain: PemSource::File(chain), key: PemSource::File(key), place })
}

/// `cert.pem` and `key.pem` of a directory: `NanoProxy`'s CERT_PATH.
pub(crate) fn certificate_in_directory(
    cx: &mut Context<'_>,
    directory: &Path,
    place: Place,
) -> TlsTermination {
    let (chain, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    cx.files.extend([chain.clone(), key.clone()]);
    let certificate =
        Certificate { chain: PemSource::File(chain), key: PemSource::File(key), place };
    TlsTermination { certificates: vec![certificate], min_version: TlsVersion::V1_2 }
}
