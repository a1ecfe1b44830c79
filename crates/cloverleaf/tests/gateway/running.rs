//! For the modules about running a gateway: its start, upstreams that are told apart, a look at its state.

use serde_json::Value;
use testkit::{Cloverleaf, Gateway, Port, Upstream, wait_until};

pub(crate) use crate::support::{BINARY as PROGRAM, SOON, ok as answer};

/// An upstream whose answers have its name as body.
pub(crate) fn named(name: &str) -> Upstream {
    Upstream::answering(answer(name))
}

/// A file with one rule that sends everything to one upstream.
pub(crate) fn everything_to(upstream: &Upstream) -> String {
    format!("{}rules:\n  - {{upstream: u, path: /}}\n", upstream_named("u", upstream))
}

/// A section `upstreams` with one.
pub(crate) fn upstream_named(name: &str, upstream: &Upstream) -> String {
    let port = upstream.address().port();
    format!("upstreams:\n  - {{name: {name}, host: 127.0.0.1, port: {port}}}\n")
}

/// A section `listeners` with plain ones of these names and ports.
pub(crate) fn listeners(named: &[(&str, &Port)]) -> String {
    let one = |(name, port): &(&str, &Port)| {
        format!("  - {{name: {name}, address: \"{}\"}}\n", port.address())
    };
    format!("listeners:\n{}", named.iter().map(one).collect::<String>())
}

/// A gateway whose file names its listeners, ready.
pub(crate) fn start(yaml: &str) -> Cloverleaf {
    Gateway::new(PROGRAM, yaml).without_port().start()
}

/// `/state` of the admin port.
pub(crate) fn state(gateway: &Cloverleaf) -> Value {
    let (status, body) = gateway.admin_get("/state");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Reloads so far: applied, refused.
pub(crate) fn reloads(gateway: &Cloverleaf) -> (u64, u64) {
    let count = |result: &str| {
        let name = format!("cloverleaf_reloads_total{{result=\"{result}\"}}");
        gateway.metric(&name).expect("the metric") as u64
    };
    (count("ok"), count("invalid"))
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_until(SOON, condition), "not within {SOON:?}: {what}");
}

/// Waits for a line of the program's stderr that begins so.
pub(crate) fn said(gateway: &Cloverleaf, beginning: &str) -> String {
    let find = || gateway.stderr().lines().find(|l| l.starts_with(beginning)).map(str::to_owned);
    let found = wait_until(SOON, || find().is_some()).then(find).flatten();
    found.unwrap_or_else(|| panic!("no line {beginning:?} within {SOON:?}"))
}
