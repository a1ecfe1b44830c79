//! `mesh`: the cluster that this host is part of.

use std::collections::HashSet;

use model::UpstreamId;

use super::upstreams::Known;
use crate::MeshConfig;
use crate::context::Context;
use crate::keys;
use crate::value::Map;

/// Comes after the upstreams, which its ports name.
pub(super) fn decode(
    cx: &mut Context<'_>,
    top: Map<'_, '_>,
    known: &Known<'_>,
) -> Option<MeshConfig> {
    let value = top.get("mesh")?;
    let map = value.map(cx, &keys::MESH)?;
    if map.get("config").is_none() {
        map.missing(cx, "config");
    }
    let serve = map.boolean(cx, "serve").unwrap_or(false);
    if let Some(ports) = map.get("ports").filter(|_| !serve) {
        let problem = "ports without serve, so that nobody would listen on them";
        let diagnostic = ports.error(cx, problem);
        cx.report.push(diagnostic.expected("serve: true beside it"));
    }
    let mut seen = HashSet::new();
    let ports = map.list(cx, "ports", |cx, _, item| {
        let map = item.map(cx, &keys::MESH_PORT)?;
        let port = port(cx, map);
        if port.is_some_and(|port| !seen.insert(port)) {
            let twice = map.error(cx, "this port stands here twice");
            cx.report.push(twice.expected("each cluster port once"));
        }
        Some((port, upstream(cx, map, known)))
    });
    let ports = ports.unwrap_or_default().into_iter();
    let ports = ports.filter_map(|(port, upstream)| Some((port?, upstream?))).collect();
    Some(MeshConfig { proxy_conf: map.file(cx, "config")?, serve, ports })
}

fn port(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<u16> {
    if map.get("port").is_none() {
        map.missing(cx, "port");
    }
    map.integer(cx, "port").and_then(|port| u16::try_from(port).ok())
}

fn upstream(cx: &mut Context<'_>, map: Map<'_, '_>, known: &Known<'_>) -> Option<UpstreamId> {
    let name = map.required(cx, "upstream")?;
    if let Some(upstream) = known.get(name) {
        return *upstream;
    }
    let diagnostic = map.get("upstream")?.error(cx, "no upstream of this name").value(name);
    cx.report.push(diagnostic.expected("the name of an upstream of this file"));
    None
}
