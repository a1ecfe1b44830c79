//! Ingresses beside annotated Pods: what the source of Pods says of hosts that nobody named is not said of
//! those that an Ingress names.

use cloverleaf_kubernetes::translate::{Options, PodOptions, Translation};

use crate::world::*;

const NAMESPACE: &str = "---
apiVersion: v1
kind: Namespace
metadata: {name: ns, annotations: {github.com/30x.dispatcher.hosts: '{\"pods.test\": {}, \"shared.test\": {}}'}}
";

fn both(ingresses: &str) -> Translation {
    let options = Options { pods: Some(PodOptions::default()), ..options() };
    translate_with(options, &(service("web") + ingresses + NAMESPACE))
}

#[test]
fn a_path_that_no_rule_of_a_named_host_has_is_404_and_not_a_closed_connection() {
    let rules = format!(
        "rules: [{}, {}, {}]",
        one_rule("web.test", "Prefix", "/a", "web"),
        one_rule("*.wild.test", "Prefix", "/a", "web"),
        one_rule("shared.test", "Prefix", "/a", "web"),
    );
    let translation = both(&ingress("a", 1, "", &rules));
    let not_found = "Respond { status: 404 }";
    for (host, path, expected) in [
        ("web.test", "/a/b", "service/default/web/80"),
        ("web.test", "/b", not_found),
        ("web.test", "/dispatcher/status", not_found),
        ("x.wild.test", "/b", not_found),
        ("other.test", "/", "Close"),
        ("other.test", "/dispatcher/status", "Respond { status: 200 }"),
        ("pods.test", "/", not_found),
        ("shared.test", "/a", "service/default/web/80"),
        ("shared.test", "/b", not_found),
    ] {
        assert_eq!(route(&translation, host, path), expected, "{host}{path}");
    }
    // A host of both is the Namespace's, with what it gives for paths that nobody claims.
    let shared = rule(&translation, "shared.test", "/b").unwrap();
    assert_eq!(&*shared.name, "pods/shared.test");
}

#[test]
fn a_default_backend_goes_before() {
    let own =
        one_path("web.test", "Prefix", "/a", "web") + ", " + "defaultBackend: " + &backend("web");
    let translation = both(&ingress("a", 1, "", &own));
    assert_eq!(route(&translation, "web.test", "/b"), "service/default/web/80");
    assert_eq!(route(&translation, "other.test", "/b"), "service/default/web/80");
}

#[test]
fn without_the_source_of_pods_nothing_is_added() {
    let rules = one_path("web.test", "Prefix", "/a", "web");
    let translation = translate(&(service("web") + &ingress("a", 1, "", &rules)));
    assert_eq!(translation.rules.rules.len(), 1);
}
