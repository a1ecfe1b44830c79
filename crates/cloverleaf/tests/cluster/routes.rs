//! What the chart's ways to install serve: behind the Service with certificates, on ports of a node, on low
//! ports without rights for them, by a controller beside the gateway, and while pods are evicted.

use std::net::SocketAddr;

use testkit::client::{Client, Tls};
use testkit::kubernetes::Namespace;
use testkit::{Authority, Load, Work, wait_until};

use crate::support::{NAME, PODS_WITHIN, SERVED_WITHIN, Stage, Use, nodes};

/// A Secret of type kubernetes.io/tls for a name.
fn certificate(namespace: &Namespace, authority: &Authority, secret: &str, name: &str) {
    let issued = authority.server(&[name]);
    let [chain, key] = [("--cert", &issued.chain_file), ("--key", &issued.key_file)]
        .map(|(flag, file)| format!("{flag}={}", file.display()));
    namespace.kubectl(&["create", "secret", "tls", secret, &chain, &key], None).unwrap();
}

/// Whether a name is served with a certificate of this authority.
fn secured(address: SocketAddr, authority: &Authority, name: &str) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    wait_until(SERVED_WITHIN, || {
        let client = Client::try_connect_tls(address, Tls::trusting(authority.pem(), name));
        client.ok().and_then(|mut c| c.request(&request).ok()).is_some_and(|r| r.status == 200)
    })
}

#[test]
fn certificates_are_by_name_with_one_for_the_rest() {
    let Some(mut stage) = Stage::set("tls", Use::shared) else { return };
    let authority = Authority::new();
    certificate(&stage.namespace, &authority, "rest", "rest.test");
    certificate(&stage.namespace, &authority, "shop", "shop.test");
    stage.echo("shop", 1, "");
    stage.echo("rest", 1, "");
    let class = format!("--class={}", stage.class());
    let shop = ["create", "ingress", "shop", &class, "--rule=shop.test/*=shop:web,tls=shop"];
    stage.namespace.kubectl(&shop, None).unwrap();
    stage.ingress("rest.test");
    stage.install("replicaCount: 1\ntls: { enabled: true, secretName: rest }");
    let https = SocketAddr::new(stage.address().ip(), 443);
    for name in ["shop.test", "rest.test"] {
        assert!(secured(https, &authority, name), "{name}\n{}", stage.story());
    }
}

#[test]
fn a_daemon_set_is_on_every_node() {
    let Some(mut stage) = Stage::set("daemonset", Use::shared) else { return };
    stage.echo("hello", 1, "");
    stage.ingress("hello.test");
    stage.install(
        "kind: DaemonSet\nservice: { enabled: false }\nhostPorts: { http: 8081, https: 8444 }",
    );
    for node in nodes(stage.access()) {
        stage.expect((node, 8081).into(), "hello.test", "/", 200);
    }
    // The leader's node, for lack of a Service.
    let published = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    stage.namespace.wait(published, &["ingress/hello"], SERVED_WITHIN).unwrap();
}

#[test]
fn low_ports_need_root_only_on_the_network_of_a_node() {
    let Some(mut stage) = Stage::set("low", Use::shared) else { return };
    stage.echo("hello", 1, "");
    stage.ingress("hello.test");
    stage.install("replicaCount: 1\nports: { http: 80, https: 443, admin: 9180 }");
    stage.expect(stage.address(), "hello.test", "/", 200);
    stage.install(
        "kind: DaemonSet\nservice: { enabled: false }\nhostNetwork: true\n\
         ports: { http: 82, https: 445, admin: 9180 }",
    );
    let node = nodes(stage.access())[0];
    stage.expect((node, 82).into(), "hello.test", "/", 200);
}

#[test]
fn settings_are_live_without_a_restart() {
    let Some(mut stage) = Stage::set("settings", Use::shared) else { return };
    stage.echo("hello", 1, "");
    stage.ingress("hello.test");
    let settings =
        |bytes| format!("replicaCount: 1\nconfig: {{ limits: {{ requestBody: {bytes} }} }}");
    stage.install(&settings(8));
    stage.expect(stage.address(), "hello.test", "/", 200);
    let post = || {
        let head = "POST / HTTP/1.1\r\nHost: hello.test\r\nConnection: close\r\n";
        let request = format!("{head}Content-Length: 10\r\n\r\n0123456789");
        Client::connect(stage.address()).request(request).unwrap().status
    };
    assert_eq!(post(), 413);
    let pod =
        |stage: &Stage| stage.namespace.kubectl(&["get", "pods", "-o", "name"], None).unwrap();
    let before = pod(&stage);
    // As `helm upgrade` would, without waiting for the kubelet's next look at ConfigMaps, which is up to a
    // minute away: an annotation of the pod has it look now.
    let config = r#"{"data":{"cloverleaf.yaml":"limits: { requestBody: 20 }\n"}}"#;
    stage.namespace.kubectl(&["patch", "configmap", NAME, "-p", config], None).unwrap();
    let label = "app.kubernetes.io/name=cloverleaf";
    stage.namespace.kubectl(&["annotate", "pods", "-l", label, "look=now"], None).unwrap();
    assert!(wait_until(PODS_WITHIN, || post() == 200), "{}", stage.story());
    assert_eq!(pod(&stage), before);
}

#[test]
fn a_controller_beside_the_gateway_alone_asks_the_api_server() {
    let Some(mut stage) = Stage::set("beside", Use::shared) else { return };
    let authority = Authority::new();
    certificate(&stage.namespace, &authority, "hello", "hello.test");
    stage.echo("hello", 1, "");
    let class = format!("--class={}", stage.class());
    let hello = ["create", "ingress", "hello", &class, "--rule=hello.test/*=hello:web,tls=hello"];
    stage.namespace.kubectl(&hello, None).unwrap();
    stage.install("mode: sidecar\nreplicaCount: 1");
    stage.expect(stage.address(), "hello.test", "/", 200);
    let https = SocketAddr::new(stage.address().ip(), 443);
    assert!(secured(https, &authority, "hello.test"), "{}", stage.story());
    stage.ingress("late.test");
    stage.expect(stage.address(), "late.test", "/", 503);
    stage.echo("late", 1, "");
    stage.expect(stage.address(), "late.test", "/", 200);
    assert!(!stage.logs().contains("orbidden"), "{}", stage.logs());
    // The token is where the controller looks for it, and nowhere in the gateway.
    let pods = stage.namespace.get(&["pods", "-l", "app.kubernetes.io/name=cloverleaf"]).unwrap();
    let containers = pods["items"][0]["spec"]["containers"].as_array().unwrap();
    let holds = |name: &str| {
        let container = containers.iter().find(|container| container["name"] == name).unwrap();
        container["volumeMounts"].to_string().contains("serviceaccount")
    };
    assert!(holds("controller") && !holds("gateway"), "{containers:?}");
}

/// As when nodes are drained, all at the same time.
#[test]
fn evictions_take_one_replica_at_a_time_and_lose_nothing() {
    let Some(mut stage) = Stage::set("evicted", Use::shared) else { return };
    stage.echo("hello", 1, "");
    stage.ingress("hello.test");
    stage.install("replicaCount: 2\nconfig: { shutdown: { grace: 4s, drain: 10s } }");
    stage.expect(stage.address(), "hello.test", "/", 200);
    let allowed = "jsonpath={.status.disruptionsAllowed}=1";
    let budget = format!("pdb/{NAME}");
    stage.namespace.wait(allowed, &[&budget], PODS_WITHIN).unwrap();
    let every = std::time::Duration::from_millis(20);
    let load = Load::start("GET", &stage.target("hello.test"), 2, Work::Connect(every));
    let pods = stage.namespace.get(&["pods", "-l", "app.kubernetes.io/name=cloverleaf"]).unwrap();
    let pods = pods["items"].as_array().unwrap();
    let evict = |pod: &serde_json::Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let namespace = stage.namespace.name();
        let body = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
        stage.access().kubectl(&["create", "--raw", &path, "-f", "-"], Some(&body.to_string()))
    };
    evict(&pods[0]).unwrap();
    let refused = evict(&pods[1]).unwrap_err().to_string();
    assert!(refused.contains("disruption budget"), "{refused}");
    // When the first one's successor is ready.
    assert!(wait_until(PODS_WITHIN, || evict(&pods[1]).is_ok()), "{}", stage.story());
    stage.namespace.wait(allowed, &[&budget], PODS_WITHIN).unwrap();
    let report = load.stop();
    eprintln!("{report}");
    assert!(report.failed == 0 && report.done > 0, "{report}");
}
