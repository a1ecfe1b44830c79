//! The examples of the 30x dispatcher (`examples/dispatcher`) with traffic: each is applied as it stands, but
//! for namespace and image, and answers what its page says. Start with [`Example`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;
use testkit::certs::Wanted;
use testkit::client::{Client, Failure, Response, Tls};
use testkit::kubernetes::{Access, CLOVERLEAF_IMAGE, Namespace};
use testkit::{Authority, Issued, wait_until};

use crate::support::{PODS_WITHIN, SERVED_WITHIN, Stage, Use, nodes, read};

/// The key of the examples, as their pages write it.
const KEY: &str = "X-ROUTING-API-KEY: c3VwZXJzZWNyZXQ=\r\n";
/// Requests whose share is measured.
const SHARED: u32 = 400;

/// An example in a namespace of its own, which ends with it.
struct Example<'a> {
    stage: &'a Stage,
    namespace: Namespace,
}

impl<'a> Example<'a> {
    /// Applies the example's own manifest.
    fn apply(stage: &'a Stage, name: &str) -> Self {
        let namespace = stage.cluster.namespace(name).unwrap();
        let example = Self { stage, namespace };
        let file = format!("examples/dispatcher/{name}/manifests.yaml");
        example.apply_file(&file, name);
        example
    }

    /// Applies a file, with the name of this example's namespace in the place of a name.
    fn apply_file(&self, file: &str, name: &str) {
        let manifest = renamed(&read(file), name, self.namespace.name());
        self.stage.access().apply(&manifest).unwrap();
    }

    /// The address of its only Pod.
    fn pod_address(&self) -> String {
        let pods = self.namespace.get(&["pods"]).unwrap();
        pods["items"][0]["status"]["podIP"].as_str().unwrap().to_owned()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.namespace.kubectl(arguments, None).unwrap()
    }

    fn rolled_out(&self, what: &str) {
        let timeout = format!("--timeout={}s", PODS_WITHIN.as_secs());
        let status = self.namespace.kubectl(&["rollout", "status", what, &timeout], None);
        status.unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.story(), self.stage.story()));
    }

    /// What became of its Pods.
    fn story(&self) -> String {
        let ask = |arguments: &[&str]| self.namespace.kubectl(arguments, None).unwrap_or_default();
        [ask(&["get", "pods", "-o", "wide"]), ask(&["get", "events"]), self.logs()].join("\n")
    }

    /// All that its Pods have logged.
    fn logs(&self) -> String {
        let pods = self.namespace.kubectl(&["get", "pods", "-o", "name"], None).unwrap_or_default();
        let logs = |pod: &str| {
            let arguments = ["logs", pod, "--all-containers", "--prefix", "--tail=-1"];
            self.namespace.kubectl(&arguments, None).unwrap_or_default()
        };
        pods.lines().map(logs).collect()
    }
}

/// A manifest of an example, for another namespace and with the image of the tests.
fn renamed(manifest: &str, name: &str, own: &str) -> String {
    let mut lines = manifest.lines().map(|line| match line.trim_start().split_once(": ") {
        Some(("image", _)) => {
            line.replace("image: cloverleaf", &format!("image: {CLOVERLEAF_IMAGE}"))
        }
        Some((key, value))
            if value == name && key.to_lowercase().ends_with("name") | (key == "namespace") =>
        {
            line.replace(name, own)
        }
        _ => line.to_owned(),
    });
    let renamed = lines.by_ref().collect::<Vec<_>>().join("\n");
    assert!(renamed.contains(own) && renamed.contains(CLOVERLEAF_IMAGE), "{renamed}");
    renamed
}

/// One request on a connection of its own; `fields` end each with CRLF.
fn ask(address: SocketAddr, host: &str, path: &str, fields: &str) -> Result<Response, Failure> {
    let mut client = Client::try_connect(address).map_err(Failure::Io)?;
    client.request(request(host, path, fields))
}

fn request(host: &str, path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")
}

/// What the echo saw.
fn seen(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{response:?}"))
}

/// Closed without an answer, as for every host that nobody named.
fn is_nobodys(address: SocketAddr, host: &str) {
    let answer = ask(address, host, "/", "");
    assert!(matches!(answer, Err(Failure::Closed)), "{host}: {answer:?}");
}

/// Asks with these fields until the answer has this status.
fn expect(stage: &Stage, at: SocketAddr, url: (&str, &str), fields: &str, status: u16) -> Response {
    let (host, path) = url;
    let mut last = None;
    let came = wait_until(SERVED_WITHIN, || {
        last = ask(at, host, path, fields).ok();
        last.as_ref().is_some_and(|response| response.status == status)
    });
    match last {
        Some(response) if came => response,
        last => panic!("{host}{path}: {last:?} instead of {status}\n{}", stage.story()),
    }
}

#[test]
fn the_examples_of_one_router_serve_what_their_pages_say() {
    let Some(mut stage) = Stage::set("dispatcher", Use::shared) else { return };
    stage.install(
        "sources: { ingress: false, pods: true }\nreplicaCount: 1\n\
         pods: { env: { NGINX_ENABLE_HEALTH_CHECKS: 'true' } }",
    );
    // All are there together: each is a tenant beside the others.
    let [one, several, paths, tls] = ["one-pod", "several-pods", "paths-and-hosts", "tls"]
        .map(|name| Example::apply(&stage, name));
    one_pod(&one);
    several_pods(&several);
    paths_and_hosts(&paths);
    tls_before_its_secret(&tls);
    tls_with_its_secret(&tls);
    one_pod(&one);
    assert!(!stage.logs().contains("orbidden"), "{}", stage.logs());
}

fn one_pod(example: &Example) {
    let (stage, at) = (example.stage, example.stage.address());
    let answer = stage.expect(at, "test.k8s.local", "/nodejs/a?b=c", 200);
    assert_eq!(seen(&answer)["path"], "/nodejs/a");
    assert_eq!(stage.expect(at, "test.k8s.local", "/elsewhere", 404).status, 404);
    is_nobodys(at, "other.test");
    let status = stage.expect(at, "other.test", "/dispatcher/status", 200);
    assert_eq!(status.status, 200);
}

/// How many of [`SHARED`] requests each Deployment's Pods got, by one connection or by one each.
fn shares(at: SocketAddr, one_connection: bool) -> (BTreeMap<String, u32>, String) {
    let mut counts = BTreeMap::new();
    let mut order = String::new();
    let mut kept = Client::connect(at);
    for _ in 0..SHARED {
        let answer = if one_connection {
            kept.request("GET / HTTP/1.1\r\nHost: shop.k8s.local\r\n\r\n").unwrap()
        } else {
            ask(at, "shop.k8s.local", "/", "").unwrap()
        };
        let instance = seen(&answer)["instance"].as_str().unwrap().to_owned();
        let name = instance.split('-').next().unwrap().to_owned();
        order.push(if name == "stable" { 'A' } else { 'B' });
        *counts.entry(name).or_default() += 1;
    }
    (counts, order)
}

/// Within four standard deviations of a fair draw, which no honest balancer leaves in a hundred years of CI;
/// this one should be far inside.
fn is_share(count: u32, share: f64, of: &BTreeMap<String, u32>) {
    let expected = f64::from(SHARED) * share;
    let bound = 4.0 * (expected * (1.0 - share)).sqrt();
    assert!((f64::from(count) - expected).abs() <= bound, "{of:?}: {expected} ± {bound}");
}

fn several_pods(example: &Example) {
    let at = example.stage.address();
    example.rolled_out("deployment/stable");
    example.rolled_out("deployment/canary");
    let both = wait_until(SERVED_WITHIN, || shares(at, false).0.len() == 2);
    assert!(both, "{}", example.stage.story());
    let (counts, order) = shares(at, true);
    assert!(order.contains("AABAAABA"), "A A B A, again and again: {order}");
    assert_eq!(counts["canary"], SHARED / 4, "{order}");
    let (counts, order) = shares(at, false);
    is_share(counts["stable"], 3.0 / 4.0, &counts);
    eprintln!("3 to 1, on connections of their own: {counts:?} {order}");

    // The weight is each Pod's.
    example.kubectl(&["scale", "deployment/stable", "--replicas=2"]);
    example.rolled_out("deployment/stable");
    let mut last = BTreeMap::new();
    let six_of_seven = wait_until(SERVED_WITHIN, || {
        last = shares(at, true).0;
        last["canary"].abs_diff(SHARED / 7) <= 1
    });
    assert!(six_of_seven, "{last:?}\n{}", example.stage.story());
    let (counts, _) = shares(at, false);
    is_share(counts["stable"], 6.0 / 7.0, &counts);
    eprintln!("6 to 1, on connections of their own: {counts:?}");
}

fn paths_and_hosts(example: &Example) {
    let (stage, at) = (example.stage, example.stage.address());
    example.rolled_out("deployment/web");
    for host in ["jeremy-test.example.net", "thoughtspark.example.org"] {
        for (path, port, arrives) in [
            ("/", 8080, "/"),
            ("/elsewhere", 8080, "/elsewhere"),
            ("/nodejs/a%20b", 3000, "/nodejs/a%20b"),
            ("/v1/items", 3000, "/items"),
            ("/v1/items/7?all=1", 3000, "/items/7"),
        ] {
            let answer = expect(stage, at, (host, path), KEY, 200);
            let seen = seen(&answer);
            let local = seen["local_address"].as_str().unwrap();
            assert!(local.ends_with(&format!(":{port}")), "{host}{path}: {local}");
            assert_eq!(seen["path"], arrives, "{host}{path}");
            assert_eq!(seen["host"], host, "{host}{path}");
            // It goes on to the Pod.
            assert!(seen["headers"].to_string().contains("c3VwZXJzZWNyZXQ="), "{seen}");
        }
        for wrong in ["", "X-ROUTING-API-KEY: supersecret\r\n", "X-ROUTING-API-KEY: \r\n"] {
            let answer = ask(at, host, "/nodejs", wrong).unwrap();
            assert_eq!(answer.status, 403, "{host} with {wrong:?}");
        }
    }
    // The probe of the one container is asked from here as well, and the other has none.
    let checked = || {
        let state = admin(stage, "/state");
        let endpoints = state["upstreams"].as_array().unwrap().iter();
        let endpoints = endpoints.flat_map(|u| u["endpoints"].as_array().cloned().unwrap());
        let own = example.pod_address();
        let of = |port| format!("{own}:{port}");
        let up = |e: &Value, port| (e["target"] == of(port)).then(|| e["health"]["up"].clone());
        let all: Vec<Value> = endpoints.collect();
        let up = |port| all.iter().filter_map(|e| up(e, port)).collect::<Vec<_>>();
        (up(3000), up(8080))
    };
    let wanted = (vec![Value::Bool(true); 2], vec![Value::Null]);
    let came = wait_until(SERVED_WITHIN, || checked() == wanted);
    assert!(came, "{:?} {}", checked(), admin(stage, "/state"));
}

/// What the gateway's admin port shows.
fn admin(stage: &Stage, path: &str) -> Value {
    let pods = stage.namespace.get(&["pods", "-l", "app.kubernetes.io/name=cloverleaf"]).unwrap();
    let pod: IpAddr = pods["items"][0]["status"]["podIP"].as_str().unwrap().parse().unwrap();
    seen(&ask((pod, 9180).into(), &pod.to_string(), path, "").unwrap())
}

/// What a TLS client got: a status, or the word of the alert that ended its connection.
fn secured(stage: &Stage, tls: Tls<'_>, host: &str) -> Result<u16, String> {
    let https = SocketAddr::new(stage.address().ip(), 443);
    let words = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let mut client = Client::try_connect_tls(https, tls).map_err(|error| words(&error))?;
    let answer = client.request(request(host, "/", "")).map_err(|failure| words(&failure))?;
    Ok(answer.status)
}

fn tls_before_its_secret(example: &Example) {
    let (stage, at) = (example.stage, example.stage.address());
    stage.expect(at, "plain.dev", "/", 200);
    for host in ["secure.dev", "members.dev"] {
        is_nobodys(at, host);
        let tls = Tls { authority_pem: None, ..Tls::trusting("", host) };
        let refused = secured(stage, tls, host).unwrap_err();
        assert!(refused.contains("UnrecognisedName"), "{host}: {refused}");
    }
    // Events about what has no namespace are in the default one.
    let own = example.namespace.name();
    let about = [
        "events",
        "-n",
        "default",
        "--field-selector",
        &format!("involvedObject.kind=Namespace,involvedObject.name={own}"),
    ];
    let said = || {
        let events = stage.access().get(&about).unwrap();
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let missing = |host: &str| {
            let about = |e: &Value| e["message"].as_str().is_some_and(|m| m.contains(host));
            events.iter().any(|e| e["reason"] == "MissingSecret" && about(e))
        };
        missing("secure.dev") && missing("members.dev")
    };
    assert!(wait_until(SERVED_WITHIN, said), "{:?}\n{}", stage.access().get(&about), stage.story());
}

/// As the page of the example makes it: one certificate for both hosts, and the members' authority.
fn routing_secret(example: &Example, server: &Issued, members: &Authority) {
    let file = |field: &str, file: &Path| format!("--from-file={field}={}", file.display());
    let fields = [
        file("ssl.crt", &server.chain_file),
        file("ssl.key", &server.key_file),
        file("client.crt", &members.file()),
    ];
    let create = ["create", "secret", "generic", "routing", "--dry-run=client", "-o", "yaml"];
    let arguments: Vec<&str> =
        create.into_iter().chain(fields.iter().map(String::as_str)).collect();
    let manifest = example.kubectl(&arguments);
    example.namespace.apply(&manifest).unwrap();
}

fn tls_with_its_secret(example: &Example) {
    let (stage, at) = (example.stage, example.stage.address());
    let (servers, members, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let server = servers.server(&["secure.dev", "members.dev"]);
    routing_secret(example, &server, &members);
    let trusting = |name| Tls::trusting(servers.pem(), name);
    let served = || secured(stage, trusting("secure.dev"), "secure.dev") == Ok(200);
    assert!(wait_until(SERVED_WITHIN, served), "{}", stage.story());

    let me = members.issue(&Wanted::client("me"));
    let late = members.issue(&Wanted::client("late").expired());
    let stranger = strangers.issue(&Wanted::client("me"));
    for (name, identity, host, wanted) in [
        ("members.dev", Some(&me), "members.dev", Ok(200)),
        ("members.dev", None, "members.dev", Err("CertificateRequired")),
        ("members.dev", Some(&stranger), "members.dev", Err("UnknownCA")),
        ("members.dev", Some(&late), "members.dev", Err("CertificateExpired")),
        // Who came in by the open door is not among the members.
        ("secure.dev", None, "members.dev", Ok(421)),
        ("secure.dev", Some(&me), "members.dev", Ok(421)),
        ("members.dev", Some(&me), "secure.dev", Ok(421)),
        // Served by http alone, and so has no certificate either.
        ("secure.dev", None, "plain.dev", Err("Closed")),
        ("plain.dev", None, "plain.dev", Err("UnrecognisedName")),
    ] {
        let case = format!("{name} for {host}, {}", identity.map_or("", |i| &i.chain_pem));
        let tls = Tls { identity, ..trusting(name) };
        match (secured(stage, tls, host), wanted) {
            (Ok(status), Ok(wanted)) => assert_eq!(status, wanted, "{case}"),
            (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{case}: {error}"),
            (got, wanted) => panic!("{case}: {got:?} instead of {wanted:?}"),
        }
    }
    // By http neither is there, and nobody else is disturbed.
    for host in ["secure.dev", "members.dev"] {
        is_nobodys(at, host);
    }
    stage.expect(at, "plain.dev", "/", 200);

    // Another certificate, as a renewal brings it: served without a restart, and only to who trusts it.
    let renewed = Authority::new();
    routing_secret(example, &renewed.server(&["secure.dev", "members.dev"]), &members);
    let served = || {
        let tls = Tls { identity: Some(&me), ..Tls::trusting(renewed.pem(), "members.dev") };
        secured(stage, tls, "members.dev") == Ok(200)
    };
    assert!(wait_until(SERVED_WITHIN, served), "{}", stage.story());
}

/// What the routers' manifest makes outside of namespaces; ends with the test.
struct ClusterWide<'a>(&'a Access, &'a str);

impl Drop for ClusterWide<'_> {
    fn drop(&mut self) {
        for kind in ["clusterrole", "clusterrolebinding"] {
            let delete = ["delete", kind, self.1, "--ignore-not-found", "--wait=false"];
            let _ = self.0.kubectl(&delete, None);
        }
    }
}

#[test]
fn a_public_and_a_private_router_know_nothing_of_each_other() {
    let Some(stage) = Stage::set("side", Use::shared) else { return };
    let example = Example::apply(&stage, "public-and-private");
    // The routers have a namespace of their own.
    let routers = Example { stage: &stage, namespace: stage.cluster.namespace("routers").unwrap() };
    let _cluster_wide = ClusterWide(stage.access(), routers.namespace.name());
    routers.apply_file("examples/dispatcher/public-and-private/routers.yaml", "dispatcher");
    routers.rolled_out(&format!("daemonset/{}", routers.namespace.name()));
    example.rolled_out("deployment/nodejs-k8s-env");
    for node in nodes(stage.access()) {
        let [public, private] = [80, 81].map(|port| SocketAddr::new(node, port));
        let answer = expect(&stage, public, ("test.k8s.com", "/public/a"), KEY, 200);
        assert_eq!(seen(&answer)["path"], "/public/a");
        let answer = expect(&stage, private, ("test.k8s.local", "/internal/a"), "", 200);
        assert_eq!(seen(&answer)["path"], "/internal/a");
        // Its own paths and its own key, and the other's neither.
        for (at, host, path, fields, status) in [
            (public, "test.k8s.com", "/public", "", 403),
            (public, "test.k8s.com", "/internal", KEY, 404),
            (private, "test.k8s.local", "/public", "", 404),
            (private, "test.k8s.local", "/internal", KEY, 200),
        ] {
            let answer = ask(at, host, path, fields).unwrap();
            assert_eq!(answer.status, status, "{at} {host}{path}");
        }
        is_nobodys(public, "test.k8s.local");
        is_nobodys(private, "test.k8s.com");
    }
    assert!(!routers.logs().contains("orbidden"), "{}", routers.logs());
    // What a tenant takes back for the one router goes on at the other.
    let off = "github.com/30x.dispatcher.hosts.public-";
    stage
        .access()
        .kubectl(&["annotate", "namespace", example.namespace.name(), off], None)
        .unwrap();
    let node = nodes(stage.access())[0];
    let gone =
        || matches!(ask((node, 80).into(), "test.k8s.com", "/public", KEY), Err(Failure::Closed));
    assert!(wait_until(SERVED_WITHIN, gone), "{}", stage.story());
    let answer = ask((node, 81).into(), "test.k8s.local", "/internal", "").unwrap();
    assert_eq!(answer.status, 200);
}
