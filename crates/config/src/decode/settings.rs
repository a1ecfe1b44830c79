//! The small sections: `timeouts`, `limits`, manners, `shutdown`, `admin`, `echo`, `workers`.

use std::net::SocketAddr;

use model::{AccessLog, Limits, Manners, Place, Shutdown, Timeouts};

use crate::AdminAddress;
use crate::context::Context;
use crate::keys::{self, Section};
use crate::scalar;
use crate::value::Map;

/// Decodes the mapping under a key, if it is there and is one.
fn section<T>(
    cx: &mut Context<'_>,
    top: Map<'_, '_>,
    name: &'static str,
    section: &'static Section,
    decode: impl FnOnce(&mut Context<'_>, Map<'_, '_>) -> T,
) -> Option<T> {
    let value = top.get(name)?;
    let map = value.map(cx, section)?;
    Some(decode(cx, map))
}

pub(super) fn timeouts(cx: &mut Context<'_>, top: Map<'_, '_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    section(cx, top, "timeouts", &keys::TIMEOUTS, |cx, map| {
        for (name, place) in [
            ("head", &mut timeouts.head),
            ("idle", &mut timeouts.idle),
            ("connect", &mut timeouts.connect),
            ("response", &mut timeouts.response),
            ("streamIdle", &mut timeouts.stream_idle),
        ] {
            *place = map.duration(cx, name).unwrap_or(*place);
        }
    });
    timeouts
}

pub(super) fn limits(cx: &mut Context<'_>, top: Map<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    section(cx, top, "limits", &keys::LIMITS, |cx, map| {
        for (name, place) in [
            ("headBytes", &mut limits.head_bytes),
            ("headFields", &mut limits.head_fields),
            ("connections", &mut limits.connections),
        ] {
            *place = map.integer(cx, name).and_then(|n| usize::try_from(n).ok()).unwrap_or(*place);
        }
        for (name, place) in
            [("h2Streams", &mut limits.h2_streams), ("retries", &mut limits.retries)]
        {
            *place = map.integer(cx, name).and_then(|n| u32::try_from(n).ok()).unwrap_or(*place);
        }
        let requests = map.integer(cx, "requestsPerConnection");
        limits.requests_per_connection = requests.unwrap_or(limits.requests_per_connection);
        limits.request_body = map.parsed(cx, "requestBody", scalar::size);
    });
    limits
}

pub(super) fn manners(cx: &mut Context<'_>, top: Map<'_, '_>) -> Manners {
    let mut manners = Manners::default();
    for (name, place) in [
        ("healthPath", &mut manners.health_path),
        ("configPath", &mut manners.config_path),
        ("serverHeader", &mut manners.server_header),
        ("proxyHeaders", &mut manners.proxy_headers),
        ("redirectUncleanPaths", &mut manners.redirect_unclean_paths),
        ("abortOnClose", &mut manners.abort_on_close),
    ] {
        *place = top.boolean(cx, name).unwrap_or(*place);
    }
    let log = section(cx, top, "accessLog", &keys::ACCESS_LOG, |cx, map| {
        map.required(cx, "path").map(|path| match path {
            "stdout" => AccessLog::Stdout,
            path => AccessLog::File(cx.base_dir.join(path)),
        })
    });
    manners.access_log = log.flatten();
    manners
}

pub(super) fn shutdown(cx: &mut Context<'_>, top: Map<'_, '_>) -> Shutdown {
    let mut shutdown = Shutdown::default();
    section(cx, top, "shutdown", &keys::SHUTDOWN, |cx, map| {
        shutdown.grace = map.duration(cx, "grace").unwrap_or(shutdown.grace);
        shutdown.drain = map.duration(cx, "drain").unwrap_or(shutdown.drain);
    });
    shutdown
}

pub(super) fn admin(cx: &mut Context<'_>, top: Map<'_, '_>) -> Option<(AdminAddress, Place)> {
    section(cx, top, "admin", &keys::ADMIN, |cx, map| {
        let place = map.get("address")?.place(cx);
        Some((map.parsed(cx, "address", AdminAddress::parse)?, place))
    })
    .flatten()
}

pub(super) fn echo(cx: &mut Context<'_>, top: Map<'_, '_>) -> Option<(SocketAddr, Place)> {
    section(cx, top, "echo", &keys::ECHO, |cx, map| {
        let Some(value) = map.get("address") else {
            map.missing(cx, "address");
            return None;
        };
        let place = value.place(cx);
        Some((map.parsed(cx, "address", scalar::socket_address)?, place))
    })
    .flatten()
}

pub(super) fn workers(cx: &mut Context<'_>, top: Map<'_, '_>) -> Option<usize> {
    top.integer(cx, "workers").and_then(|n| usize::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults in the reference are those that hold.
    #[test]
    fn the_tables_tell_the_true_defaults() {
        let duration = |section: &Section, name: &str| {
            let text = section.key(name).unwrap().default.trim_matches('`');
            scalar::duration(text).unwrap()
        };
        let timeouts = Timeouts::default();
        for (name, value) in [
            ("head", timeouts.head),
            ("idle", timeouts.idle),
            ("connect", timeouts.connect),
            ("response", timeouts.response),
            ("streamIdle", timeouts.stream_idle),
        ] {
            assert_eq!(duration(&keys::TIMEOUTS, name), value, "{name}");
        }
        assert_eq!(duration(&keys::SHUTDOWN, "grace"), Shutdown::default().grace);
        assert_eq!(duration(&keys::SHUTDOWN, "drain"), Shutdown::default().drain);
        let pool = model::PoolLimits::default();
        assert_eq!(duration(&keys::UPSTREAM, "idleTimeout"), pool.idle_timeout);
        let limits = Limits::default();
        for (section, name, value) in [
            (&keys::LIMITS, "headBytes", limits.head_bytes as u64),
            (&keys::LIMITS, "headFields", limits.head_fields as u64),
            (&keys::LIMITS, "connections", limits.connections as u64),
            (&keys::LIMITS, "h2Streams", u64::from(limits.h2_streams)),
            (&keys::LIMITS, "requestsPerConnection", limits.requests_per_connection),
            (&keys::LIMITS, "retries", u64::from(limits.retries)),
            (&keys::UPSTREAM, "idleConnections", pool.idle_connections as u64),
        ] {
            assert_eq!(section.key(name).unwrap().default, value.to_string(), "{name}");
        }
        let manners = Manners::default();
        for (name, value) in [
            ("healthPath", manners.health_path),
            ("configPath", manners.config_path),
            ("serverHeader", manners.server_header),
            ("proxyHeaders", manners.proxy_headers),
            ("redirectUncleanPaths", manners.redirect_unclean_paths),
            ("abortOnClose", manners.abort_on_close),
        ] {
            assert_eq!(keys::TOP.key(name).unwrap().default, format!("`{value}`"), "{name}");
        }
    }
}
