//! `listeners`: where clients connect.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use model::{
    Certificate, ClientVerification, HttpVersions, Listener, ListenerProtocol, PemSource, Place,
    TlsTermination, TlsVersion, TrustedHops,
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
        if let Some(listeners) = cx.elsewhere {
            let with_hops = |l: &Listener| Listener { trusted_hops: hops.clone(), ..l.clone() };
            return (listeners.iter().map(with_hops).collect(), known);
        }
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
    let protocols = protocols(cx, map);
    let own_hops = trusted_hops(cx, map);
    let (name, address) = identity?;
    let listener = Listener {
        name: name.into(),
        address,
        protocol: protocol?,
        protocols,
        scopes: Vec::new(),
        trusted_hops: own_hops.unwrap_or_else(|| hops.clone()),
        place: map.place(cx),
    };
    (cx.report.errors() == errors_before).then_some(listener)
}

/// Which versions of HTTP: all where none are named.
fn protocols(cx: &mut Context<'_>, map: Map<'_, '_>) -> HttpVersions {
    let errors_before = cx.report.errors();
    let words = map.list(cx, "protocols", |cx, _, item| item.choice(cx, keys::HTTP_VERSIONS));
    let Some(words) = words else { return HttpVersions::All };
    match (words.contains(&"http/1.1"), words.contains(&"h2")) {
        (true, false) => HttpVersions::Http1,
        (false, true) => HttpVersions::Http2,
        (true, true) => HttpVersions::All,
        (false, false) => {
            if let Some(list) = map.get("protocols").filter(|_| cx.report.errors() == errors_before)
            {
                let none = list.error(cx, "an empty list").expected("http/1.1, h2 or both");
                cx.report.push(none);
            }
            HttpVersions::All
        }
    }
}

/// What holds without `listeners`.
fn default_listener(place: Place, hops: TrustedHops) -> Listener {
    Listener {
        name: DEFAULT_NAME.into(),
        address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), DEFAULT_PORT),
        protocol: ListenerProtocol::Http,
        protocols: HttpVersions::default(),
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
        // The certificates come with the routes.
        (Some("https"), None) if cx.elsewhere.is_some() => {
            Some(ListenerProtocol::Https(Arc::new(TlsTermination {
                certificates: Vec::new(),
                first_is_default: false,
                min_version: TlsVersion::V1_2,
            })))
        }
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
    let first_is_default = map.choice(cx, "defaultCertificate") != Some("none");
    let errors_before = cx.report.errors();
    let certificates = map.list(cx, "certificates", certificate);
    // Without a default an empty list refuses every handshake, which may be what somebody wants.
    let may_be_empty = certificates.is_some() && !first_is_default;
    let certificates = certificates.unwrap_or_default();
    if cx.report.errors() > errors_before {
        return None;
    }
    if certificates.is_empty() && !may_be_empty {
        map.missing(cx, "certificates");
        return None;
    }
    Some(TlsTermination { certificates, first_is_default, min_version })
}

fn certificate(cx: &mut Context<'_>, _: usize, item: Value<'_, '_>) -> Option<Certificate> {
    let map = item.map(cx, &keys::CERTIFICATE)?;
    let (chain, key) = (map.required(cx, "certificate"), map.required(cx, "key"));
    let hosts = map.list(cx, "hosts", |cx, _, item| {
        let text = item.text(cx, keys::Kind::HostPattern)?;
        let pattern = super::rules::pattern(text);
        if pattern.is_none() {
            item.wrong(cx, keys::Kind::HostPattern);
        }
        pattern
    });
    let client_verification = match map.lock(cx, "clientCertificates") {
        Some(value) => Some(Arc::new(client_verification(cx, value)?)),
        None => None,
    };
    let (chain, key) = (cx.base_dir.join(chain?), cx.base_dir.join(key?));
    cx.files.extend([chain.clone(), key.clone()]);
    Some(Certificate {
        chain: PemSource::File(chain),
        key: PemSource::File(key),
        hosts: hosts.unwrap_or_default(),
        client_verification,
        place: map.place(cx),
    })
}

fn client_verification(cx: &mut Context<'_>, value: Value<'_, '_>) -> Option<ClientVerification> {
    let map = value.map(cx, &keys::CLIENT_CERTIFICATES)?;
    let optional = map.boolean(cx, "optional").unwrap_or(false);
    let authorities = cx.base_dir.join(map.required(cx, "authorities")?);
    cx.files.insert(authorities.clone());
    Some(ClientVerification { authorities: PemSource::File(authorities), optional })
}

/// `cert.pem` and `key.pem` of a directory: `NanoProxy`'s CERT_PATH.
pub(crate) fn certificate_in_directory(
    cx: &mut Context<'_>,
    directory: &Path,
    place: Place,
) -> TlsTermination {
    let (chain, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    cx.files.extend([chain.clone(), key.clone()]);
    let certificate = Certificate {
        chain: PemSource::File(chain),
        key: PemSource::File(key),
        hosts: Vec::new(),
        client_verification: None,
        place,
    };
    TlsTermination {
        certificates: vec![certificate],
        first_is_default: true,
        min_version: TlsVersion::V1_2,
    }
}
