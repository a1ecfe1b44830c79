//! From the tree to the model: one small function for each section, none of which stops at the first mistake.
//!
//! Knows what keys mean and how they belong together; does not know flags or the environment (see
//! [`crate::overrides`]) and opens no file but that of an API key. Start at [`file()`].

mod api_key;
mod health;
mod listeners;
mod mesh;
mod rules;
mod settings;
mod tunnels;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Diagnostic, Place, Snapshot};

use crate::context::Context;
use crate::keys;
use crate::report::KeyPath;
use crate::tree::Node;
use crate::value::{Map, Value};
use crate::{AdminAddress, MeshConfig};

pub(crate) use listeners::certificate_in_directory;
pub(crate) use tunnels::Known as KnownTunnel;

/// What a file says, before flags and environment have their word.
pub(crate) struct Decoded {
    pub(crate) snapshot: Snapshot,
    /// The admin port's address and where it is given, if it is.
    pub(crate) admin: Option<(AdminAddress, Place)>,
    pub(crate) mesh: Option<MeshConfig>,
    pub(crate) echo: Option<(SocketAddr, Place)>,
    pub(crate) workers: Option<usize>,
}

/// Decodes a whole file. What it returns may be served only if the report has no errors.
pub(crate) fn file(cx: &mut Context<'_>, root: Option<&Node<'_>>) -> Option<Decoded> {
    let Some(root) = root.filter(|node| !node.is_null()) else {
        let place = cx.report.whole();
        let problem = "the file is empty";
        let expected = "at least `upstreams` and `rules`; `rules: []` if nothing is to be served";
        cx.report.push(Diagnostic::error(place, "", problem).expected(expected));
        return None;
    };
    let value = Value { node: root, path: KeyPath::Root };
    let top = value.map(cx, &keys::TOP)?;
    refuse_routes(cx, top);
    cx.has_mesh = top.get("mesh").is_some();
    tunnels::decode(cx, top);
    let (upstreams, known_upstreams) = upstreams::decode(cx, top);
    let mesh = mesh::decode(cx, top, &known_upstreams);
    let (mut listeners, known_listeners) = listeners::decode(cx, top);
    let rules = rules::decode(cx, top, &known_upstreams, &known_listeners);
    rules::distribute(cx, rules, &mut listeners);
    let snapshot = Snapshot {
        listeners,
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        tunnels: tunnels::all(cx),
        limits: settings::limits(cx, top),
        timeouts: settings::timeouts(cx, top),
        manners: settings::manners(cx, top),
        shutdown: settings::shutdown(cx, top),
    };
    Some(Decoded {
        snapshot,
        admin: settings::admin(cx, top),
        mesh,
        echo: settings::echo(cx, top),
        workers: settings::workers(cx, top),
    })
}

/// Two truths about routes would be one too many.
fn refuse_routes(cx: &mut Context<'_>, top: Map<'_, '_>) {
    if cx.elsewhere.is_none() {
        return;
    }
    for name in ["upstreams", "rules"] {
        if let Some(value) = top.get(name) {
            let problem = "routes come from the cluster, not from this file";
            let diagnostic = value.error(cx, problem);
            cx.report.push(diagnostic.expected("listeners and settings only, beside --kubernetes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use model::{Action, HostPattern, ListenerProtocol, PathMatch, Verification};

    use crate::keys::{Kind, SECTIONS};
    use crate::value::asked;
    use crate::{AdminAddress, Config, Overrides, parse};

    /// What the examples of rules refer to.
    const SHOP: &str =
        "upstreams:\n  - {name: shop, host: a.internal}\n  - {name: shop-next, host: b.internal}\n";

    fn config(text: &str, overrides: &Overrides) -> Config {
        let (config, diagnostics) = parse(text, "f", Path::new("/etc/x"), overrides);
        assert_eq!(diagnostics.to_string(), "");
        config.unwrap()
    }

    fn errors(text: &str, overrides: &Overrides) -> String {
        let (config, diagnostics) = parse(text, "f", Path::new("/etc/x"), overrides);
        assert!(config.is_none(), "{diagnostics}");
        diagnostics.to_string()
    }

    /// Every example of the reference is right, and together they make the decoder ask for exactly the keys
    /// that the tables declare.
    #[test]
    fn the_decoder_and_the_tables_agree() {
        let mut declared = BTreeSet::new();
        for section in SECTIONS {
            for key in section.keys {
                declared.insert(format!("{}.{}", section.path, key.name));
                let mut text = key.example.to_owned();
                if text.contains("upstream: shop")
                    && !text.contains("\nupstreams:")
                    && !text.starts_with("upstreams:")
                {
                    text.push_str(SHOP);
                }
                let base_dir = Path::new("tests/fixtures");
                let (config, diagnostics) = parse(&text, "f", base_dir, &Overrides::default());
                let whole = format!("{}.{}", section.path, key.name);
                assert!(
                    config.is_some() && diagnostics.0.is_empty(),
                    "{whole}: {diagnostics}\n{text}"
                );
            }
        }
        assert_eq!(asked::all(), declared);
    }

    /// Every key takes `null` for absent and says what it expects where it is given something impossible.
    #[test]
    fn every_key_rejects_what_is_not_for_it() {
        for section in SECTIONS {
            for key in section.keys {
                if matches!(key.kind, Kind::LenientChoice(_)) {
                    continue;
                }
                let wrong =
                    if matches!(key.kind, Kind::List(_) | Kind::Object(_)) { "7" } else { "[{}]" };
                let mut text = format!("{}: {wrong}", key.name);
                for step in section.path.rsplit('.').filter(|step| !step.is_empty()) {
                    text = match step.strip_suffix("[]") {
                        Some(name) => format!("{name}: [{{{text}}}]"),
                        None => format!("{step}: {{{text}}}"),
                    };
                }
                let errors = errors(&text, &Overrides::default());
                let path = format!("{}.{}", section.path.replace("[]", "[0]"), key.name);
                let path = path.trim_start_matches('.');
                let line = errors.lines().find(|line| line.contains(&format!("error: {path}: ")));
                let line = line.unwrap_or_else(|| panic!("{text}\n{errors}"));
                assert!(line.contains("expected "), "{line}");
            }
        }
    }

    #[test]
    fn routes_from_elsewhere_leave_listeners_and_settings_to_the_file() {
        let listener = |name: &str, port| {
            let text = format!("listeners: [{{name: {name}, address: '127.0.0.1:{port}'}}]");
            config(&text, &Overrides::default()).snapshot.listeners.remove(0)
        };
        let overrides = Overrides {
            routes_elsewhere: Some(vec![listener("a", 1), listener("b", 2)]),
            port: Some(1),
            ..Overrides::default()
        };
        let addresses = |text: &str, overrides: &Overrides| -> Vec<String> {
            let listeners = config(text, overrides).snapshot.listeners;
            listeners.iter().map(|l| l.address.to_string()).collect()
        };
        let settings = "timeouts: {connect: 1s}";
        assert_eq!(addresses(settings, &overrides), ["127.0.0.1:1", "127.0.0.1:2"]);
        let own = "listeners: [{name: s, address: '127.0.0.1:3', protocol: https}]";
        assert_eq!(addresses(own, &Overrides { port: None, ..overrides.clone() }), ["127.0.0.1:3"]);
        let routes = "rules: []\nupstreams: []";
        assert_eq!(errors(routes, &overrides).matches("routes come from the cluster").count(), 2);
    }

    #[test]
    fn a_cluster_port_is_given_by_its_port_alone_and_needs_a_mesh() {
        let mesh = "mesh: {config: m/proxy.conf}\n";
        let text = "\
upstreams:
  - {name: a, via: mesh, port: 61000}
  - {name: b, via: mesh, endpoints: [{port: 61001, weight: 2}, {via: direct, address: 'h:3'}]}
  - {name: c, endpoints: [{via: mesh, port: 61002}, {host: h, port: 4}]}
";
        let config = config(&format!("{mesh}{text}"), &Overrides::default());
        let mesh_config = config.mesh.unwrap();
        assert_eq!(mesh_config.proxy_conf, Path::new("/etc/x/m/proxy.conf"));
        assert!(!mesh_config.serve && mesh_config.ports.is_empty());
        let upstreams = config.snapshot.upstreams.iter();
        let targets: Vec<_> =
            upstreams.flat_map(|u| &u.endpoints).map(|e| e.target.to_string()).collect();
        assert_eq!(targets, ["mesh:61000", "mesh:61001", "h:3", "mesh:61002", "h:4"]);
        for (upstream, wrong) in [
            ("{name: a, via: mesh}", "upstreams[0]: via mesh without a port"),
            ("{name: a, via: mesh, host: h, port: 1}", "host: host is given, and via is mesh"),
            (
                "{name: a, via: mesh, endpoints: [{address: 'h:1'}]}",
                "endpoints[0].address: address is given",
            ),
        ] {
            let text = format!("{mesh}upstreams: [{upstream}]");
            let errors = errors(&text, &Overrides::default());
            assert!(errors.contains(wrong), "{errors}");
        }
        let errors = errors(text, &Overrides::default());
        assert_eq!(errors.matches("via mesh, and this file has no section mesh").count(), 3);
    }

    #[test]
    fn a_cluster_port_has_one_upstream_which_is_there() {
        let upstreams = "upstreams: [{name: a, host: h}, {name: b, host: h}]\n";
        let mesh = |rest: &str| format!("{upstreams}mesh: {{config: p.conf, {rest}}}\n");
        let good = mesh("serve: true, ports: [{port: 1, upstream: b}, {port: 2, upstream: b}]");
        let ports = config(&good, &Overrides::default()).mesh.unwrap().ports;
        assert_eq!(ports, [(1, model::UpstreamId(1)), (2, model::UpstreamId(1))]);
        for (rest, wrong) in [
            ("ports: [{port: 1, upstream: a}]", "mesh.ports: ports without serve"),
            ("serve: true, ports: [{port: 1, upstream: c}]", "upstream: no upstream of this name"),
            ("serve: true, ports: [{upstream: a}]", "mesh.ports[0].port: missing"),
            ("serve: true, ports: [{port: 1}]", "mesh.ports[0].upstream: missing"),
            (
                "serve: true, ports: [{port: 1, upstream: a}, {port: 1, upstream: b}]",
                "mesh.ports[1]: this port stands here twice",
            ),
        ] {
            let errors = errors(&mesh(rest), &Overrides::default());
            assert!(errors.contains(wrong), "{errors}");
        }
    }

    #[test]
    fn the_default_listener_and_the_shared_rules() {
        let text = "rules: [{upstream: u, path: /}]\nupstreams: [{name: u, host: 1.2.3.4}]";
        let config = config(text, &Overrides::default());
        let listener = &config.snapshot.listeners[0];
        assert_eq!(
            (&*listener.name, listener.address.to_string().as_str()),
            ("default", "[::]:8080")
        );
        let rule = &listener.scopes[0].rules.rules[0];
        assert_eq!(&*rule.name, "rules[0]");
        assert_eq!(rule.path, PathMatch::Prefix("/".into()));
        assert_eq!(rule.hosts, HostPattern::Any);
        assert!(matches!(&rule.action, Action::Forward(to) if to.len() == 1));
        assert_eq!(config.admin, AdminAddress::default());
    }

    #[test]
    fn flags_and_environment_win() {
        let text =
            "upstreams: [{name: u, host: h, scheme: https, connectTimeout: 1s}]\nworkers: 3\n";
        let overrides = Overrides {
            port: Some(9000),
            timeout: Some(std::time::Duration::from_secs(7)),
            cert_path: Some("/certs".into()),
            tls_skip_verify: true,
            debug: true,
            admin: Some(AdminAddress::Off),
            workers: Some(2),
            routes_elsewhere: None,
        };
        let config = config(text, &overrides);
        let snapshot = &config.snapshot;
        assert_eq!(snapshot.listeners[0].address.to_string(), "[::]:9000");
        assert!(matches!(snapshot.listeners[0].protocol, ListenerProtocol::Https(_)));
        assert_eq!(config.files, [Path::new("/certs/cert.pem"), Path::new("/certs/key.pem")]);
        assert_eq!(snapshot.timeouts.response.as_secs(), 7);
        assert_eq!(snapshot.timeouts.stream_idle.as_secs(), 300);
        assert_eq!(snapshot.upstreams[0].connect_timeout.map(|d| d.as_secs()), Some(1));
        assert_eq!(snapshot.upstreams[0].tls.as_ref().unwrap().verification, Verification::Skip);
        assert!(snapshot.manners.config_path);
        assert_eq!((config.admin, config.workers), (AdminAddress::Off, Some(2)));
    }

    #[test]
    fn a_flag_for_one_of_several_listeners_is_refused() {
        let text = "listeners: [{name: a, address: 1}, {name: b, address: 2}]";
        let overrides =
            Overrides { port: Some(9000), cert_path: Some("/c".into()), ..Overrides::default() };
        let errors = errors(text, &overrides);
        assert!(
            errors.contains("CERT_PATH: error: listeners:")
                && errors.contains("PORT: error: listeners:")
        );
    }

    #[test]
    fn rules_for_some_listeners_make_sets_that_the_others_share() {
        let text = "\
listeners: [{name: a, address: 1}, {name: b, address: 2}, {name: c, address: 3}]
upstreams: [{name: u, host: h}]
rules: [{upstream: u}, {upstream: u, listeners: [b, b]}, {upstream: u, listeners: []}]
";
        let config = config(text, &Overrides::default());
        let sets: Vec<_> = config.snapshot.listeners.iter().map(|l| &l.scopes[0].rules).collect();
        assert_eq!([sets[0].rules.len(), sets[1].rules.len(), sets[2].rules.len()], [1, 2, 1]);
        assert!(std::sync::Arc::ptr_eq(sets[0], sets[2]));
    }
}
