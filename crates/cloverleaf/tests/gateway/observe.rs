//! What can be seen of a running gateway: metrics, access log, state, dashboard; and what must never be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use testkit::client::{Tls, fetch, get};
use testkit::{Authority, Client, Cloverleaf, Gateway, Port, Response, Step, Upstream};

use crate::running::{
    PROGRAM, SOON, answer, eventually, everything_to, named, reloads, start, state,
};

const DOCUMENTED: &str = include_str!("../../../../docs/metrics.md");

/// A family as `docs/metrics.md` has it: type and labels.
type Family = (String, BTreeSet<String>);

fn documented() -> BTreeMap<String, Family> {
    let families = testkit::metrics::documented(DOCUMENTED).into_iter();
    families.map(|family| (family.name, (family.kind, family.labels))).collect()
}

/// The metrics page: families with their types, and the samples with their labels.
struct Page {
    types: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Page {
    fn of(gateway: &Cloverleaf) -> Self {
        let (status, text) = gateway.admin_get("/metrics");
        assert_eq!(status, 200);
        let mut page = Self { types: BTreeMap::new(), samples: Vec::new() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                page.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels.strip_suffix('}').expect("labels").split("\",");
                let label = |text: &str| {
                    let (name, value) = text.split_once("=\"")?;
                    Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
                };
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                page.samples.push((name.to_owned(), labels.filter_map(label).collect(), value));
            }
        }
        page
    }

    /// The value of the sample that has exactly these labels, written `name=value`.
    fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let wanted: BTreeMap<String, String> = labels
            .iter()
            .filter_map(|label| label.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.samples
            .iter()
            .find(|(n, labels, _)| n == name && *labels == wanted)
            .map(|(_, _, v)| *v)
    }
}

/// A gateway that has seen every kind of traffic, and what it needs to go on.
struct Busy {
    gateway: Cloverleaf,
    upgraded: Client,
    _kept: Vec<Client>,
    _upstreams: [Upstream; 2],
    _authority: Authority,
}

/// Brings about something for every family.
fn busy() -> Busy {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let upgrade = Upstream::start([
        Step::ReadHead,
        Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        Step::Echo,
    ]);
    let good = named("good");
    let (plain, secure, refused) = (Port::reserve(), Port::reserve(), Port::reserve());
    let yaml = format!(
        r#"workers: 1
listeners:
  - {{name: web, address: "{}"}}
  - {{name: secure, address: "{}", tls: {{certificates: [{{certificate: {}, key: {}}}]}}}}
accessLog: {{path: access.log}}
upstreams:
  - {{name: shaky, endpoints: [{{address: "{}"}}, {{address: "{}"}}]}}
  - {{name: sockets, host: 127.0.0.1, port: {}}}
  - {{name: checked, host: 127.0.0.1, port: {}, healthCheck: {{interval: 1s}}}}
rules:
  - {{name: ws, upstream: sockets, path: /ws}}
  - {{name: gone, upstream: nobody, path: /gone}}
  - {{name: all, upstream: shaky, path: /x}}
"#,
        plain.address(),
        secure.address(),
        issued.chain_file.display(),
        issued.key_file.display(),
        refused.address(),
        good.address(),
        upgrade.address().port(),
        good.address().port(),
    );
    let gateway = start(&yaml);
    let checks = || gateway.admin_get("/metrics").1.contains("\ncloverleaf_health_checks_total{");
    eventually("a health check", checks);
    let request = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut kept = Client::connect(plain.address());
    for _ in 0..7 {
        assert_eq!(kept.request(request).expect("an answer").status, 200);
    }
    let mut tls = Client::connect_tls(secure.address(), Tls::trusting(authority.pem(), "a.test"));
    assert_eq!(tls.request(request).expect("an answer").status, 200);
    assert_eq!(get(plain.address(), "x", "/gone").status, 503);
    assert_eq!(get(plain.address(), "x", "/.nanoproxy/health").status, 200);
    assert_eq!(get(plain.address(), "x", "//").status, 307);
    assert_eq!(fetch(plain.address(), "GET / HTTP/1.1\r\n\r\n").status, 400);
    let mut upgraded = Client::connect(plain.address());
    upgraded.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(upgraded.read_response().expect("an answer").status, 101);
    gateway.hang_up();
    eventually("a reload", || reloads(&gateway).0 == 1);
    gateway.rewrite_in_place("rules: 7\n");
    eventually("a refusal", || reloads(&gateway).1 == 1);
    Busy {
        gateway,
        upgraded,
        _kept: vec![kept, tls],
        _upstreams: [good, upgrade],
        _authority: authority,
    }
}

#[test]
fn metrics_are_those_that_are_documented() {
    let busy = busy();
    let page = Page::of(&busy.gateway);
    let documented = documented();
    assert!(documented.len() > 20, "the tables of docs/metrics.md are not understood");
    for (name, (kind, labels)) in &documented {
        // Those of clusters, of the mesh and of tunnels are compared where there is one: tests/kubernetes, tests/mesh,
        // tests/tunnel.
        let elsewhere =
            ["cloverleaf_kubernetes_", "cloverleaf_mesh_", "cloverleaf_tunnel_", "konnectivity_"];
        if name == "process_max_fds" || elsewhere.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        assert_eq!(page.types.get(name), Some(kind), "{name}");
        let own = |sample: &str| {
            let plain =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
            sample == name || (kind == "histogram" && plain == Some(name))
        };
        let mut count = 0;
        for (_, found, _) in page.samples.iter().filter(|(sample, _, _)| own(sample)) {
            count += 1;
            let found: BTreeSet<_> = found.keys().filter(|k| *k != "le").cloned().collect();
            assert_eq!(&found, labels, "{name}");
        }
        assert!(count > 0, "{name} has no sample");
    }
    for name in page.types.keys() {
        assert!(documented.contains_key(name), "{name} is not documented");
    }
}

#[test]
fn what_happened_is_counted() {
    let mut busy = busy();
    let page = Page::of(&busy.gateway);
    for (name, labels, expected) in [
        ("requests_total", &["listener=web", "rule=all", "upstream=shaky", "class=2xx"][..], 7.0),
        ("requests_total", &["listener=secure", "rule=all", "upstream=shaky", "class=2xx"], 1.0),
        ("requests_total", &["listener=web", "rule=gone", "upstream=-", "class=5xx"], 1.0),
        ("requests_total", &["listener=web", "rule=-", "upstream=-", "class=2xx"], 1.0),
        ("requests_total", &["listener=web", "rule=-", "upstream=-", "class=3xx"], 1.0),
        ("request_duration_seconds_count", &["listener=web", "rule=all", "upstream=shaky"], 7.0),
        ("refused_requests_total", &["listener=web", "reason=bad_request"], 1.0),
        ("tls_handshakes_total", &["listener=secure", "result=ok"], 1.0),
        ("upgrades_open", &["listener=web"], 1.0),
        ("upgrades_open", &["listener=secure"], 0.0),
        ("connections_total", &["listener=web"], 6.0),
        ("endpoints", &["upstream=shaky"], 2.0),
        ("config_valid", &[], 0.0),
        ("task_panics_total", &[], 0.0),
        ("access_log_dropped_total", &[], 0.0),
    ] {
        assert_eq!(
            page.value(&format!("cloverleaf_{name}"), labels),
            Some(expected),
            "{name} {labels:?}"
        );
    }
    // Every connection that was made is kept.
    let made =
        page.value("cloverleaf_upstream_connections_total", &["upstream=shaky", "result=ok"]);
    let idle = page.value("cloverleaf_upstream_connections_idle", &["upstream=shaky"]);
    assert!(made >= Some(1.0) && made == idle, "{made:?} {idle:?}");
    // Every refused connection was one retry.
    let refused =
        page.value("cloverleaf_upstream_connections_total", &["upstream=shaky", "result=refused"]);
    let retries = page.value("cloverleaf_retries_total", &["upstream=shaky", "reason=connect"]);
    assert!(refused >= Some(1.0) && refused == retries, "{refused:?} {retries:?}");
    for (name, least) in [("received_bytes_total", 7.0 * 30.0), ("sent_bytes_total", 7.0 * 40.0)] {
        let value = page.value(&format!("cloverleaf_{name}"), &["listener=web"]);
        assert!(value.is_some_and(|v| v >= least && v < 100_000.0), "{name}: {value:?}");
    }
    // What is open now goes down again.
    busy.upgraded.finish();
    eventually("the upgrade is over", || {
        Page::of(&busy.gateway).value("cloverleaf_upgrades_open", &["listener=web"]) == Some(0.0)
    });
    // A WebSocket is a request with class 1xx, once it is over.
    let page = Page::of(&busy.gateway);
    let labels = ["listener=web", "rule=ws", "upstream=sockets", "class=1xx"];
    assert_eq!(page.value("cloverleaf_requests_total", &labels), Some(1.0));
}

#[test]
fn histograms_add_up() {
    let busy = busy();
    let page = Page::of(&busy.gateway);
    let labels = ["listener=web", "rule=all", "upstream=shaky"];
    let name = "cloverleaf_request_duration_seconds";
    let buckets: Vec<f64> = page
        .samples
        .iter()
        .filter(|(n, found, _)| {
            *n == format!("{name}_bucket") && found["listener"] == "web" && found["rule"] == "all"
        })
        .map(|(_, _, value)| *value)
        .collect();
    assert!(buckets.len() > 10 && buckets.is_sorted(), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&7.0));
    assert_eq!(page.value(&format!("{name}_count"), &labels), Some(7.0));
    let sum = page.value(&format!("{name}_sum"), &labels).expect("a sum");
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    // The state's figure, from which `status` makes its percentiles, is the same histogram.
    let told = state(&busy.gateway);
    let rule = told["rules"]
        .as_array()
        .and_then(|rules| rules.iter().find(|r| r["listener"] == "web" && r["name"] == "all"));
    let latency = &rule.expect("the rule")["latency"];
    assert_eq!(latency["count"], 7);
    let counted: u64 =
        latency["buckets"].as_array().expect("buckets").iter().filter_map(|b| b[1].as_u64()).sum();
    assert_eq!(counted, 7);
}

/// The lines of an access log.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let a = named("a");
    let yaml = format!("accessLog: {{path: access.log}}\n{}", everything_to(&a));
    let gateway = Gateway::new(PROGRAM, &yaml).start();
    let file = gateway.dir().join("access.log");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = format!(
        "GET /p?q=1 HTTP/1.1\r\nHost: x.test:81\r\nUser-Agent: \"test\\\"\r\nX-Row: 1\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n"
    );
    let mut client = gateway.connect();
    let from = client.local_address();
    assert_eq!(client.request(request).expect("an answer").status, 200);
    eventually("a line", || lines(&file).len() == 1);
    let line = &lines(&file)[0];
    let upstream = a.address().to_string();
    for (key, value) in [
        ("client", Value::from(from.to_string())),
        ("listener", "default".into()),
        ("method", "GET".into()),
        ("host", "x.test:81".into()),
        ("target", "/p?q=1".into()),
        ("version", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("rule", "rules[0]".into()),
        ("upstream", "u".into()),
        ("endpoint", upstream.into()),
        ("body_bytes", 1.into()),
        ("retries", 0.into()),
        ("trace", trace.into()),
        ("user_agent", "\"test\\\"".into()),
        ("error", Value::Null),
    ] {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    assert!(line["time_unix_ms"].as_u64().is_some_and(|t| t > 1_600_000_000_000), "{line}");
    assert!(line["took_us"].as_u64().is_some_and(|t| t > 0 && t < 60_000_000), "{line}");
    // The trace goes on to the upstream; one that nobody began is begun.
    let passed = a.requests().pop().expect("a request");
    assert!(
        passed.contains(&format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n")),
        "{passed}"
    );
    assert_eq!(gateway.get("x", "/second").status, 200);
    eventually("a second line", || lines(&file).len() == 2);
    let begun = lines(&file)[1]["trace"].as_str().expect("a trace").to_owned();
    assert!(begun.len() == 32 && begun != trace, "{begun}");
    let marked =
        a.requests().into_iter().find(|r| r.contains("GET /second ")).expect("the request");
    assert!(marked.contains(&format!("traceparent: 00-{begun}-")), "{marked}");
}

#[test]
fn what_goes_wrong_is_in_the_access_log_by_its_word() {
    let refused = Port::reserve();
    let yaml = format!(
        "accessLog: {{path: stdout}}\nupstreams:\n  - {{name: u, host: 127.0.0.1, port: {refused}}}\n\
         rules:\n  - {{upstream: u, path: /u}}\n  - {{upstream: none, path: /gone}}\n"
    );
    let gateway = Gateway::new(PROGRAM, &yaml).start();
    for (path, status, error) in [
        ("/u", 502, Some("upstream_refused")),
        ("/gone", 503, Some("missing_upstream")),
        ("/other", 404, Some("no_rule")),
        ("/.nanoproxy/health", 200, None),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        );
        let answer = fetch(gateway.address(), request);
        assert_eq!(answer.status, status, "{path}");
        let find = || {
            let lines = gateway.stdout();
            let values = lines.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            values.into_iter().find(|l| l["target"] == path)
        };
        eventually("the line", || find().is_some());
        let line = find().expect("the line");
        assert_eq!(
            (line["status"].as_u64(), line["error"].as_str()),
            (Some(status.into()), error),
            "{line}"
        );
        // The client was told the same word.
        if let Some(error) = error {
            let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(
                (&told["error"], &told["status"]),
                (&error.into(), &status.into()),
                "{path}"
            );
        }
    }
}

#[test]
fn the_access_log_is_rotated_and_whole() {
    const REQUESTS: usize = 200;
    let a = named("a");
    let yaml =
        format!("accessLog: {{path: access.log}}\nshutdown: {{grace: 0s}}\n{}", everything_to(&a));
    let mut gateway = Gateway::new(PROGRAM, &yaml).start();
    let (file, old) = (gateway.dir().join("access.log"), gateway.dir().join("access.log.1"));
    let ask = |path: &str| gateway.get("x", path).status;
    assert_eq!(ask("/before"), 200);
    eventually("a line", || lines(&file).len() == 1);
    std::fs::rename(&file, &old).expect("a rename");
    assert_eq!(ask("/between"), 200);
    eventually("a line in the renamed file", || lines(&old).len() == 2);
    gateway.hang_up();
    eventually("a new file", || file.exists());
    eventually("lines in the new file", || ask("/after") == 200 && !lines(&file).is_empty());
    assert_eq!(lines(&old).iter().filter(|l| l["target"] != "/after").count(), 2);

    // The last lines are there when the program has ended.
    let before = lines(&file).len() + lines(&old).len();
    let mut client = gateway.connect();
    for _ in 0..REQUESTS {
        let answer = client.request("GET /last HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    drop(client);
    gateway.terminate();
    assert_eq!(gateway.wait_exit(SOON), Some(0));
    let last = lines(&file).iter().filter(|l| l["target"] == "/last").count();
    assert_eq!(last, REQUESTS, "lines are lost at the end (there were {before} before)");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_and_at_a_reload_a_warning() {
    let (a, b) = (named("a"), named("b"));
    let bad = "accessLog: {path: no/such/folder/access.log}\n";
    let mut gateway = Gateway::new(PROGRAM, &(bad.to_owned() + &everything_to(&a))).start_unready();
    assert_eq!(gateway.wait_exit(SOON), Some(1));
    assert!(gateway.stderr().contains("access log"), "{}", gateway.stderr());
    let gateway = Gateway::new(PROGRAM, &everything_to(&a)).start();
    gateway.rewrite_in_place(&(bad.to_owned() + &everything_to(&b)));
    eventually("b", || gateway.get("x", "/").text() == "b");
    gateway.expect_stderr("warning: accessLog: ", SOON);
}

fn assert_hidden(places: &[(&str, String)], hidden: &[String]) {
    for (place, text) in places {
        assert!(!text.is_empty() || *place == "stdout", "{place} is empty");
        for secret in hidden {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("{place} shows {secret:?}: {line}");
            }
        }
    }
}

#[test]
fn secrets_are_never_shown() {
    let authority = Authority::new();
    let (front, back) = (authority.server(&["a.test"]), authority.server(&["127.0.0.1"]));
    let secure = Upstream::scripted_tls(&back, &[], |_| {
        vec![Step::ReadRequest, Step::send(answer("a")), Step::Repeat]
    });
    let resets = Upstream::start([Step::ReadHead, Step::Reset]);
    let (port, refused) = (Port::reserve(), Port::reserve());
    let yaml = format!(
        "listeners:\n  - name: s\n    address: \"{}\"\n    \
         tls: {{certificates: [{{certificate: {}, key: {}}}]}}\n\
         accessLog: {{path: stdout}}\nupstreams:\n  \
         - {{name: secure, host: 127.0.0.1, port: {}, scheme: https, tls: {{authorities: {}}}}}\n  \
         - {{name: resets, host: 127.0.0.1, port: {}}}\n  \
         - {{name: refused, host: 127.0.0.1, port: {refused}}}\n\
         rules:\n  - {{upstream: resets, path: /resets}}\n  - {{upstream: refused, path: /refused}}\n  \
         - {{upstream: secure, path: /}}\n",
        port.address(),
        front.chain_file.display(),
        front.key_file.display(),
        secure.address().port(),
        authority.file().display(),
        resets.address().port(),
    );
    let gateway = Gateway::new(PROGRAM, &yaml)
        .without_port()
        .env("DEBUG", "1")
        .env("RUST_LOG", "trace")
        .start();
    let ask = |request: &str| -> Option<Response> {
        let mut client =
            Client::connect_tls(port.address(), Tls::trusting(authority.pem(), "a.test"));
        client.request(request).ok()
    };
    let secrets = "Authorization: Bearer s3cr3t-bearer\r\nCookie: session=s3cr3t-cookie\r\n\
                   Proxy-Authorization: Basic s3cr3t-proxy\r\nX-Api-Key: s3cr3t-key\r\n";
    for target in ["/", "/resets", "/refused", "//unclean", "/.nanoproxy/health"] {
        let answer = ask(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{secrets}\r\n"));
        assert!(answer.is_some(), "{target}");
    }
    // Malformed ones as well: their bytes are not for the log.
    let _ = ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n{secrets}\r\n"));
    let _ =
        ask(&format!("GET / HTTP/1.1\r\nHost: a.test\r\n{secrets} folded: s3cr3t-fold\r\n\r\n"));
    let dump = ask("GET /.nanoproxy/config HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("an answer");
    assert_eq!(dump.status, 200);
    gateway.hang_up();
    eventually("a reload", || reloads(&gateway).0 == 1);
    // And a key that is no key: what is found in its place is not repeated.
    std::fs::write(&front.key_file, back.key_pem.replace("PRIVATE KEY", "SECRET THING"))
        .expect("a file");
    eventually("a refusal", || reloads(&gateway).1 == 1);
    gateway.expect_stderr("error: ", SOON);
    let mut places =
        vec![("stderr", gateway.stderr()), ("stdout", gateway.stdout()), ("the dump", dump.text())];
    for path in ["/config", "/state", "/metrics", "/"] {
        places.push((path, gateway.admin_get(path).1));
    }
    let key_lines = |pem: &str| {
        pem.lines().filter(|l| !l.starts_with("--")).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut hidden = vec!["s3cr3t".to_owned(), "c2VjcmV0".to_owned()];
    hidden.extend(key_lines(&front.key_pem));
    hidden.extend(key_lines(&back.key_pem));
    assert_hidden(&places, &hidden);
}

#[test]
fn state_and_config_are_json_and_true() {
    let busy = busy();
    let told = state(&busy.gateway);
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["ready"], true);
    assert_eq!(told["generation"], 2);
    assert_eq!(told["config"]["valid"], false);
    assert_eq!(told["config"]["source"], busy.gateway.config_file().display().to_string());
    let listener = &told["listeners"][0];
    assert_eq!(
        (&listener["name"], &listener["protocol"], &listener["upgrades_open"]),
        (&"web".into(), &"http".into(), &1.into())
    );
    assert_eq!(listener["requests"]["2xx"], 8);
    assert_eq!(told["listeners"][1]["protocol"], "https");
    let upstreams = told["upstreams"].as_array().expect("upstreams");
    let shaky = upstreams.iter().find(|u| u["name"] == "shaky").expect("shaky");
    assert_eq!(shaky["endpoints"].as_array().map(Vec::len), Some(2));
    // Idle: nothing is under way but the upgraded connection.
    let in_flight = |u: &Value| {
        u["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e["in_flight"].as_u64())
            .sum::<u64>()
    };
    assert_eq!(upstreams.iter().map(in_flight).sum::<u64>(), 1);

    let (status, config) = busy.gateway.admin_get("/config");
    assert_eq!(status, 200);
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["listeners"][1]["name"], "secure");
    assert!(config.to_string().contains("shaky"));
}

#[test]
fn the_admin_port_shows_a_dashboard_and_refuses_the_rest() {
    let a = named("a");
    let gateway = Gateway::new(PROGRAM, &everything_to(&a)).start();
    let ask = |request: String| fetch(gateway.admin_address(), request);
    let host = gateway.admin_address();
    let page = ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|t| t.starts_with("text/html")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    // All that the page loads is here.
    for part in
        page.text().split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        let path = part.trim_start_matches('/');
        let file =
            ask(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(file.status, 200, "{path}");
    }
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n", 403),
        (
            "POST /state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            405,
        ),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    ] {
        assert_eq!(ask(request.to_owned()).status, status, "{request}");
    }
}
