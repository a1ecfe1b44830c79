//! `tunnels`: ways into networks that let nobody in, and `via` with one of them.

use std::sync::Arc;

use model::{
    Certificate, Name, PemSource, Target, Tunnel, TunnelMode, TunnelServers, TunnelTls, Tunnelled,
    Verification,
};

use crate::context::Context;
use crate::keys;
use crate::tree::Data;
use crate::value::{Map, Value};

/// A tunnel that `via` may name.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// `None`: it has errors, so that who names it gets no second complaint.
    tunnel: Option<Arc<Tunnel>>,
    name: Name,
    /// Where `via` says nothing else.
    cluster: Option<Name>,
    /// Declared where it is used; nobody else can mean it.
    inline: bool,
}

/// Which tunnel, and which of its agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Through {
    tunnel: Name,
    cluster: Option<Name>,
}

impl Through {
    /// What is reached through it.
    pub(super) fn to(&self, to: Target) -> Target {
        let (tunnel, cluster) = (self.tunnel.clone(), self.cluster.clone());
        Target::Tunnelled(Arc::new(Tunnelled { tunnel, cluster, to }))
    }
}

/// Those of the section. Comes before the upstreams, which name them.
pub(super) fn decode(cx: &mut Context<'_>, top: Map<'_, '_>) {
    top.list(cx, "tunnels", |cx, _, item| {
        let map = item.map(cx, &keys::TUNNEL)?;
        let name = map.required(cx, "name");
        let (tunnel, cluster) = tunnel(cx, map, name);
        let name: Name = name?.into();
        if cx.tunnels.iter().any(|known| known.name == name) {
            let twice = map.error(cx, "a second tunnel of this name").value(&*name);
            cx.report.push(twice.expected("each name once"));
            return None;
        }
        cx.tunnels.push(Known { tunnel, name, cluster, inline: false });
        Some(())
    });
}

/// All of them, with those that were declared where they are used.
pub(super) fn all(cx: &Context<'_>) -> Vec<Arc<Tunnel>> {
    cx.tunnels.iter().filter_map(|known| known.tunnel.clone()).collect()
}

/// `via` with a mapping.
pub(super) fn through(cx: &mut Context<'_>, via: Value<'_, '_>) -> Option<Through> {
    let map = via.map(cx, &keys::VIA)?;
    let cluster = cluster(cx, map);
    let Some(value) = map.get("tunnel") else {
        map.missing(cx, "tunnel");
        return None;
    };
    let known = match &value.node.data {
        Data::Map(_) => inline(cx, value)?,
        _ => {
            let name = map.text(cx, "tunnel")?;
            let found = cx.tunnels.iter().find(|known| !known.inline && *known.name == *name);
            let Some(known) = found.cloned() else {
                let unknown = value.error(cx, "no tunnel of this name").value(name);
                cx.report.push(unknown.expected("the name of one of `tunnels` of this file"));
                return None;
            };
            known
        }
    };
    Some(Through { tunnel: known.name, cluster: cluster.or(known.cluster) })
}

/// A tunnel that is declared where it is used; the same one again is the same.
fn inline(cx: &mut Context<'_>, value: Value<'_, '_>) -> Option<Known> {
    let map = value.map(cx, &keys::TUNNEL)?;
    let given = map.text(cx, "name");
    let (new, cluster) = tunnel(cx, map, given);
    let new = new?;
    let same = |known: &&Known| {
        let is_it = |tunnel: &Arc<Tunnel>| {
            (&tunnel.servers, tunnel.mode) == (&new.servers, new.mode) && same_tls(tunnel, &new)
        };
        known.inline && known.tunnel.as_ref().is_some_and(is_it)
    };
    if let Some(known) = cx.tunnels.iter().find(same).filter(|_| given.is_none()) {
        return Some(Known { cluster, ..known.clone() });
    }
    let mut name = new.name.clone();
    let mut more = 1;
    while cx.tunnels.iter().any(|known| known.name == name) {
        if given.is_some() {
            let twice = map.error(cx, "a second tunnel of this name").value(&*name);
            cx.report.push(twice.expected("each name once"));
            return None;
        }
        more += 1;
        name = format!("{}#{more}", new.name).into();
    }
    let tunnel = Some(Arc::new(Tunnel { name: name.clone(), ..Tunnel::clone(&new) }));
    let known = Known { tunnel, name, cluster, inline: true };
    cx.tunnels.push(known.clone());
    Some(known)
}

/// Whether certificates are the same, wherever they were declared.
fn same_tls(one: &Tunnel, other: &Tunnel) -> bool {
    let files = |tunnel: &Tunnel| {
        let own = tunnel.tls.certificate.as_ref();
        own.map(|own| (own.chain.clone(), own.key.clone()))
    };
    (&one.tls.verification, &one.tls.server_name)
        == (&other.tls.verification, &other.tls.server_name)
        && files(one) == files(other)
}

/// A tunnel, unless it has errors, and its usual cluster.
fn tunnel(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    name: Option<&str>,
) -> (Option<Arc<Tunnel>>, Option<Name>) {
    let errors_before = cx.report.errors();
    if map.get("server").is_none() {
        map.missing(cx, "server");
    }
    let base_dir = cx.base_dir;
    let servers = map.parsed(cx, "server", |text| {
        TunnelServers::parse(text).map(|servers| servers.from_directory(base_dir))
    });
    let mode = match map.choice(cx, "mode") {
        Some("httpConnect") => TunnelMode::HttpConnect,
        _ => TunnelMode::Grpc,
    };
    let cluster = cluster(cx, map);
    let has_tls = servers.as_ref().is_none_or(TunnelServers::have_tls);
    if let Some(tls) = map.get("tls").filter(|_| !has_tls) {
        let none = tls.error(cx, "tls, and the server is a Unix socket");
        cx.report.push(none.expected("no tls, or host:port as server"));
    }
    let tls = tls(cx, map).unwrap_or_default();
    let place = map.place(cx);
    if cx.report.errors() > errors_before {
        return (None, cluster);
    }
    let tunnel = servers.map(|servers| {
        let name = name.map_or_else(|| servers.to_string().into(), Name::from);
        Arc::new(Tunnel { name, servers, mode, tls, place })
    });
    (tunnel, cluster)
}

fn cluster(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<Name> {
    const CLUSTER_BYTES_MAX: usize = 253;
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    map.parsed(cx, "cluster", |text| {
        (text.len() <= CLUSTER_BYTES_MAX && text.bytes().all(fine)).then(|| Name::from(text))
    })
}

fn tls(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<TunnelTls> {
    let value = map.get("tls")?;
    let map = value.map(cx, &keys::TUNNEL_TLS)?;
    let authorities = map.file(cx, "authorities");
    let (chain, key) = (map.file(cx, "certificate"), map.file(cx, "key"));
    let server_name = map.host(cx, "serverName");
    cx.files.extend([&authorities, &chain, &key].into_iter().flatten().cloned());
    let certificate = match (chain, key) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some(Certificate {
            chain: PemSource::File(chain),
            key: PemSource::File(key),
            hosts: Vec::new(),
            client_verification: None,
            place: map.place(cx),
        }),
        _ => {
            let one = map.error(cx, "one of certificate and key is given");
            cx.report.push(one.expected("both, or neither"));
            None
        }
    };
    let verification = authorities
        .map_or(Verification::System, |path| Verification::Authorities(PemSource::File(path)));
    Some(TunnelTls { verification, server_name, certificate })
}
