//! The rights of the release: it needs no more than it is given, and is given no more than it needs.

use testkit::kubernetes::Access;

use crate::support::{NAME, SERVED_WITHIN, Stage, Use};

/// What the service account may do, as `kubectl auth can-i` has it, in a namespace or (`None`) everywhere.
fn may(account: &Access, question: &[&str], namespace: Option<&str>) -> bool {
    let whereat = namespace.map_or(vec!["-A"], |namespace| vec!["-n", namespace]);
    let answer = account.kubectl(&[&["auth", "can-i"], question, &whereat].concat(), None);
    // It fails where the answer is no.
    answer.is_ok_and(|text| text.trim() == "yes")
}

/// Nothing that was asked for was refused.
fn nothing_was_refused(stage: &Stage) {
    let logs = stage.logs();
    for word in ["forbidden", "Forbidden", "RBAC"] {
        assert!(!logs.contains(word), "{logs}");
    }
}

#[test]
fn the_whole_cluster_is_read_and_only_status_and_events_are_written() {
    let Some(mut stage) = Stage::set("rights", Use::shared) else { return };
    stage.echo("hello", 1, "");
    stage.install("replicaCount: 2");
    stage.ingress("hello.test");
    stage.expect(stage.address(), "hello.test", "/", 200);
    // What is wrong with it is said on it, by one of the two.
    let class = format!("--class={}", stage.class());
    let broken = ["create", "ingress", "broken", &class, "--rule=broken.test/*=nobody:80"];
    stage.namespace.kubectl(&broken, None).unwrap();
    stage.expect(stage.address(), "broken.test", "/", 503);
    let event = |stage: &Stage| {
        let about = ["events", "--field-selector", "involvedObject.name=broken"];
        let events = stage.namespace.get(&about).unwrap();
        events["items"].as_array().unwrap().first().cloned()
    };
    let said = testkit::wait_until(SERVED_WITHIN, || event(&stage).is_some());
    assert!(said, "{}", stage.story());
    assert!(event(&stage).unwrap()["message"].as_str().unwrap().contains("nobody"));

    // The load balancer of a real cluster writes this. Helm would wait for it.
    let balanced = r#"{"spec":{"type":"LoadBalancer"}}"#;
    stage.namespace.kubectl(&["patch", "service", NAME, "-p", balanced], None).unwrap();
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}"#;
    let patch = ["patch", "service", NAME, "--subresource=status", "--type=merge", "-p", status];
    stage.namespace.kubectl(&patch, None).unwrap();
    let published = "jsonpath={.status.loadBalancer.ingress[0].ip}=192.0.2.7";
    if let Err(error) = stage.namespace.wait(published, &["ingress/hello"], SERVED_WITHIN) {
        panic!("{error}\n{}", stage.story());
    }
    let lease = stage.namespace.get(&["lease", NAME]).unwrap();
    assert!(lease["spec"]["holderIdentity"].as_str().unwrap().starts_with(NAME), "{lease}");
    nothing_was_refused(&stage);

    let account = stage.access().as_service_account(stage.namespace.name(), NAME).unwrap();
    let own = Some(stage.namespace.name());
    for (question, namespace) in [
        (&["list", "secrets"][..], None),
        (&["watch", "endpointslices.discovery.k8s.io"], None),
        (&["patch", "ingresses.networking.k8s.io", "--subresource=status"], None),
        (&["update", "lease/cloverleaf"], own),
    ] {
        assert!(may(&account, question, namespace), "{question:?}");
    }
    for (question, namespace) in [
        (&["get", "secrets"][..], own),
        (&["create", "secrets"], own),
        (&["patch", "ingresses.networking.k8s.io"], own),
        (&["delete", "ingresses.networking.k8s.io"], own),
        (&["list", "pods"], own),
        (&["list", "configmaps"], own),
        (&["create", "pods"], own),
        (&["list", "nodes"], None),
        (&["update", "lease/other"], own),
        (&["create", "leases.coordination.k8s.io"], Some("default")),
        (&["impersonate", "users"], None),
    ] {
        assert!(!may(&account, question, namespace), "{question:?}");
    }
}

#[test]
fn named_namespaces_are_all_that_is_read() {
    let Some(mut stage) = Stage::set("narrow", Use::shared) else { return };
    let other = stage.cluster.namespace("narrow-other").unwrap();
    stage.echo("hello", 1, "");
    stage.ingress("hello.test");
    // The same in a namespace that is not looked at.
    let class = format!("--class={}", stage.class());
    let outside = ["create", "ingress", "outside", &class, "--rule=outside.test/*=hello:80"];
    other.kubectl(&outside, None).unwrap();
    stage.install(&format!("replicaCount: 1\nwatchNamespaces: [{}]", stage.namespace.name()));
    stage.expect(stage.address(), "hello.test", "/", 200);
    stage.expect(stage.address(), "outside.test", "/", 404);
    nothing_was_refused(&stage);
    let account = stage.access().as_service_account(stage.namespace.name(), NAME).unwrap();
    assert!(may(&account, &["list", "secrets"], Some(stage.namespace.name())));
    assert!(!may(&account, &["list", "secrets"], Some(other.name())));
    assert!(!may(&account, &["list", "ingresses.networking.k8s.io"], Some(other.name())));
    assert!(!may(&account, &["create", "events.events.k8s.io"], Some(other.name())));
}
