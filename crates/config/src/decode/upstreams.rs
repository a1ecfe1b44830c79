//! `upstreams`: where traffic can go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{
    Algorithm, Endpoint, HostHeader, HostName, PemSource, PoolLimits, Target, Upstream, UpstreamId,
    UpstreamTls, Verification,
};

use super::tunnels::{self, Through};
use crate::context::Context;
use crate::keys;
use crate::scalar;
use crate::tree::Data;
use crate::value::{Map, Value};

/// Every upstream name in the file and its index; `None` if it has errors, so that a rule which names it
/// gets no second complaint.
pub(super) type Known<'n> = HashMap<&'n str, Option<UpstreamId>>;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// All of them. Of several with one name the last one counts, as in `NanoProxy`.
pub(super) fn decode<'n>(cx: &mut Context<'_>, top: Map<'n, '_>) -> (Vec<Upstream>, Known<'n>) {
    let mut named: Vec<Option<(&str, Option<Upstream>)>> = Vec::new();
    let mut indices: HashMap<&str, usize> = HashMap::new();
    top.list(cx, "upstreams", |cx, _, item| {
        let map = item.map(cx, &keys::UPSTREAM)?;
        let name = map.required(cx, "name");
        let upstream = upstream(cx, map, name);
        let name = name?;
        if let Some(earlier) = indices.insert(name, named.len()) {
            let line = match named[earlier].take() {
                Some((_, Some(upstream))) => {
                    format!(", and the one in line {} is ignored", upstream.place.line)
                }
                _ => String::new(),
            };
            let problem = format!("a second upstream of this name: the last one counts{line}");
            let warning = map.warning(cx, problem).value(name);
            cx.report.push(warning);
        }
        named.push(Some((name, upstream)));
        Some(())
    });
    let mut upstreams = Vec::with_capacity(named.len());
    let mut known = Known::with_capacity(named.len());
    for (name, upstream) in named.into_iter().flatten() {
        known.insert(name, upstream.is_some().then_some(UpstreamId(upstreams.len())));
        upstreams.extend(upstream);
    }
    (upstreams, known)
}

fn upstream(cx: &mut Context<'_>, map: Map<'_, '_>, name: Option<&str>) -> Option<Upstream> {
    let errors_before = cx.report.errors();
    let https = map.choice(cx, "scheme") == Some("https");
    let endpoints = endpoints(cx, map, if https { HTTPS_PORT } else { HTTP_PORT });
    let algorithm = match map.choice(cx, "balance") {
        Some("leastRequests") => Algorithm::LeastRequests,
        Some("clientAddress") => Algorithm::ClientAddress,
        _ => Algorithm::RoundRobin,
    };
    let no_host_rewrite = map.boolean(cx, "noHostRewrite").unwrap_or(false);
    let mut pool = PoolLimits::default();
    if let Some(n) = map.integer(cx, "idleConnections") {
        pool.idle_connections = usize::try_from(n).unwrap_or(usize::MAX);
    }
    pool.idle_timeout = map.duration(cx, "idleTimeout").unwrap_or(pool.idle_timeout);
    let tls = tls(cx, map, https).map(Arc::new);
    let health_check = super::health::decode(cx, map, https);
    let (connect_timeout, response_timeout) =
        (map.duration(cx, "connectTimeout"), map.duration(cx, "responseTimeout"));
    let upstream = Upstream {
        name: name?.into(),
        endpoints,
        algorithm,
        tls,
        host_header: if no_host_rewrite { HostHeader::Endpoint } else { HostHeader::Preserve },
        pool,
        health_check,
        connect_timeout,
        response_timeout,
        place: map.place(cx),
    };
    (cx.report.errors() == errors_before).then_some(upstream)
}

/// The one endpoint that `host` and `port` name, or those of `endpoints`.
fn endpoints(cx: &mut Context<'_>, map: Map<'_, '_>, default_port: u16) -> Vec<Endpoint> {
    let via = via(cx, map).unwrap_or(Via::Direct);
    let port = map.port(cx, "port", default_port);
    let host = map.get("host").filter(|host| !is_blank(host));
    let Some(list) = map.get("endpoints") else {
        if via == Via::Mesh {
            let target = cluster_port(cx, map, &[("host", host)]);
            return target.map(|target| Endpoint { target, weight: 1 }).into_iter().collect();
        }
        if host.is_none() {
            let missing =
                map.error(cx, "neither host nor endpoints are given").expected("one of them");
            cx.report.push(missing);
        }
        let host = map.host(cx, "host");
        return host
            .map(|host| Endpoint { target: via.to(target(host, port)), weight: 1 })
            .into_iter()
            .collect();
    };
    for (key, single) in [("host", host), ("port", map.get("port"))] {
        if let Some(single) = single {
            let problem = format!("{key} and endpoints are both given");
            let both = single.error(cx, problem).expected("host and port, or endpoints");
            cx.report.push(both);
        }
    }
    let endpoints = map
        .list(cx, "endpoints", |cx, _, item| endpoint(cx, item, (&via, default_port)))
        .unwrap_or_default();
    if matches!(&list.node.data, Data::List(items) if items.is_empty()) {
        let none = list.error(cx, "an empty list").expected("at least one endpoint");
        cx.report.push(none);
    }
    endpoints
}

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Via {
    Direct,
    Mesh,
    Tunnel(Through),
}

impl Via {
    /// An address or a name, reached so.
    fn to(&self, target: Target) -> Target {
        match self {
            Self::Direct | Self::Mesh => target,
            Self::Tunnel(through) => through.to(target),
        }
    }
}

fn via(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<Via> {
    if let Some(value) = map.get("via").filter(|via| matches!(via.node.data, Data::Map(_))) {
        return tunnels::through(cx, value).map(Via::Tunnel);
    }
    match map.choice(cx, "via")? {
        "mesh" => {
            let value = map.get("via")?;
            if !cx.has_mesh {
                let problem = "via mesh, and this file has no section mesh";
                let diagnostic = value.error(cx, problem);
                cx.report.push(diagnostic.expected("mesh: {config: …/proxy.conf} in this file"));
            }
            Some(Via::Mesh)
        }
        _ => Some(Via::Direct),
    }
}

/// What `port` names, where nothing else may be given.
fn cluster_port(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    others: &[(&str, Option<Value<'_, '_>>)],
) -> Option<Target> {
    for (key, value) in others {
        if let Some(value) = value {
            let problem = format!("{key} is given, and via is mesh");
            let diagnostic = value.error(cx, problem);
            cx.report.push(diagnostic.expected("port alone: the cluster port"));
        }
    }
    let port = map.port(cx, "port", 0);
    if port == 0 {
        let missing = map.error(cx, "via mesh without a port");
        cx.report.push(missing.expected("port: the cluster port, from 1 to 65535"));
        return None;
    }
    Some(Target::ClusterPort(port))
}

fn endpoint(
    cx: &mut Context<'_>,
    item: Value<'_, '_>,
    (usual_via, default_port): (&Via, u16),
) -> Option<Endpoint> {
    let map = item.map(cx, &keys::ENDPOINT)?;
    let weight = map.integer(cx, "weight").and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let port = map.port(cx, "port", default_port);
    let host = map.get("host").filter(|host| !is_blank(host));
    let address = map.get("address").filter(|address| !is_blank(address));
    let via = via(cx, map).unwrap_or_else(|| usual_via.clone());
    if via == Via::Mesh {
        let target = cluster_port(cx, map, &[("host", host), ("address", address)])?;
        return Some(Endpoint { target, weight });
    }
    let target = match (address, host) {
        (Some(_), None) if map.get("port").is_none() => map.parsed(cx, "address", |text| {
            let (host, port) = scalar::host_and_port(text)?;
            Some(target(HostName::parse(host).ok()?, port))
        })?,
        (Some(address), _) => {
            let both = address
                .error(cx, "address is given beside host or port")
                .expected("host and port, or address");
            cx.report.push(both);
            return None;
        }
        (None, Some(_)) => target(map.host(cx, "host")?, port),
        (None, None) => {
            let missing =
                map.error(cx, "neither host nor address is given").expected("one of them");
            cx.report.push(missing);
            return None;
        }
    };
    Some(Endpoint { target: via.to(target), weight })
}

/// An address needs no resolving.
fn target(host: HostName, port: u16) -> Target {
    match host.as_str().parse::<IpAddr>() {
        Ok(ip) => Target::Address((ip, port).into()),
        Err(_) => Target::Named(host, port),
    }
}

fn is_blank(value: &Value<'_, '_>) -> bool {
    matches!(&value.node.data, Data::Scalar { text, .. } if text.is_empty())
}

fn tls(cx: &mut Context<'_>, upstream: Map<'_, '_>, https: bool) -> Option<UpstreamTls> {
    let Some(value) = upstream.get("tls") else { return https.then(UpstreamTls::default) };
    if !https {
        let plain = value.error(cx, "tls without scheme https").expected("scheme: https beside it");
        cx.report.push(plain);
    }
    let map = value.map(cx, &keys::UPSTREAM_TLS)?;
    let skip = map.boolean(cx, "skipVerify").unwrap_or(false);
    let authorities = map.file(cx, "authorities");
    let server_name = map.host(cx, "serverName");
    let verification = match (skip, authorities) {
        (true, None) => Verification::Skip,
        (false, None) => Verification::System,
        (false, Some(path)) => {
            cx.files.insert(path.clone());
            Verification::Authorities(PemSource::File(path))
        }
        (true, Some(_)) => {
            let both = map.error(cx, "skipVerify and authorities contradict each other");
            cx.report.push(both.expected("one of them"));
            Verification::System
        }
    };
    Some(UpstreamTls { verification, server_name })
}
