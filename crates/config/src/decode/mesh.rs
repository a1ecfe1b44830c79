//! `mesh`: the cluster that this host is part of.

use crate::MeshConfig;
use crate::context::Context;
use crate::keys;
use crate::value::Map;

/// Comes before the upstreams, some of which may be in it.
pub(super) fn decode(cx: &mut Context<'_>, top: Map<'_, '_>) -> Option<MeshConfig> {
    let value = top.get("mesh")?;
    // Where the section is wrong, that is said; nobody who refers to it gets a second complaint.
    cx.has_mesh = true;
    let map = value.map(cx, &keys::MESH)?;
    if map.get("config").is_none() {
        map.missing(cx, "config");
    }
    let serve = map.boolean(cx, "serve").unwrap_or(false);
    Some(MeshConfig { proxy_conf: map.file(cx, "config")?, serve })
}
