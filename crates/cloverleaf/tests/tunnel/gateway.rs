//! A gateway whose endpoints are behind tunnels: `via: {tunnel: …}`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use testkit::certs::Wanted;
use testkit::command::run;
use testkit::{Authority, Cloverleaf, Gateway, Step, Upstream, wait_until};

use crate::support::{Agent, Tunnel, WITHIN, pattern, target};

const BINARY: &str = env!("CARGO_BIN_EXE_cloverleaf");

/// A server, and an agent in each of these clusters.
fn clusters(mode: &str, names: &[&str]) -> (Tunnel, Vec<Agent>) {
    let tunnel = Tunnel::server(mode, &["--proxy-strategies=destHost"]);
    let agents = names.iter().map(|name| in_cluster(&tunnel, name)).collect();
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == names.len() as f64));
    (tunnel, agents)
}

fn in_cluster(tunnel: &Tunnel, name: &str) -> Agent {
    tunnel.agent(&[&format!("--agent-identifiers=host={name}")])
}

/// How many connections an agent was asked for.
fn dials(agent: &Agent) -> f64 {
    agent.metric("konnectivity_network_proxy_agent_dial_duration_seconds_count")
}

/// An upstream with one endpoint in each of these clusters.
fn yaml(tunnel: &Tunnel, mode: &str, clusters: &[(&str, SocketAddr)], more: &str) -> String {
    let mode = if mode == "grpc" { "grpc" } else { "httpConnect" };
    let mut text = format!(
        "workers: 1\ntunnels: [{{name: hub, server: \"{}\", mode: {mode}}}]\n\
         rules: [{{upstream: web, path: /}}]\nshutdown: {{grace: 0s}}\n\
         upstreams:\n  - name: web\n{more}    endpoints:\n",
        tunnel.grpc_address()
    );
    for (cluster, address) in clusters {
        let via = format!("{{tunnel: hub, cluster: {cluster}}}");
        let _ = writeln!(text, "      - {{address: \"{address}\", via: {via}}}");
    }
    text
}

/// Answers each request with a text, and closes then.
fn says(text: &'static str) -> SocketAddr {
    target(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !stream.read(&mut byte).is_ok_and(|count| count == 1) {
                return;
            }
            head.push(byte[0]);
        }
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        );
        let _ = stream.write_all(answer.as_bytes());
    })
}

fn answers(gateway: &Cloverleaf, count: usize) -> Vec<(u16, String)> {
    let ask = |_| {
        let answer = gateway.get("web.test", "/");
        (answer.status, answer.text())
    };
    (0..count).map(ask).collect()
}

#[test]
fn requests_are_balanced_over_clusters_and_leave_one_that_is_cut_off() {
    for mode in ["grpc", "http-connect"] {
        let (tunnel, mut agents) = clusters(mode, &["one", "two"]);
        let places = [("one", says("one")), ("two", says("two"))];
        let check = "    healthCheck: {interval: 100ms, timeout: 100ms, rise: 1, fall: 1}\n";
        let check = check.replace("timeout: 100ms", "timeout: 90ms");
        let gateway = Cloverleaf::gateway(BINARY, &yaml(&tunnel, mode, &places, &check));
        let both = || {
            let seen = answers(&gateway, 10);
            let of = |who: &str| seen.iter().filter(|(_, text)| text == who).count();
            (of("one"), of("two")) == (5, 5)
        };
        assert!(wait_until(WITHIN, both), "{mode}: {:?}", answers(&gateway, 10));
        assert!(dials(&agents[0]) >= 5.0 && dials(&agents[1]) >= 5.0);
        // One cluster is cut off: nobody notices, then nobody tries.
        drop(agents.remove(0));
        for (status, text) in answers(&gateway, 20) {
            assert_eq!((status, text.as_str()), (200, "two"), "{mode}");
        }
        let down = "cloverleaf_endpoint_up";
        let is_down = |line: &str| {
            line.starts_with(down) && line.contains("tunnel:hub/one/") && line.ends_with(" 0")
        };
        let seen_down = || gateway.admin_get("/metrics").1.lines().any(is_down);
        assert!(wait_until(WITHIN, seen_down), "{}", gateway.admin_get("/metrics").1);
        // And is there again.
        let _back = in_cluster(&tunnel, "one");
        assert!(wait_until(WITHIN, both), "{mode}");
        let page = gateway.admin_get("/metrics").1;
        let failed =
            "cloverleaf_tunnel_client_dial_failures_total{tunnel=\"hub\",reason=\"no_agent\"}";
        let count = page.lines().find_map(|line| line.strip_prefix(failed)).map(str::trim);
        assert!(count.is_some_and(|count| count != "0"), "{page}");
    }
}

#[test]
fn a_server_that_is_killed_costs_no_request_where_there_is_another() {
    for mode in ["grpc", "http-connect"] {
        let authority = Arc::new(Authority::new());
        let server =
            |id| Tunnel::server_of(authority.clone(), mode, &[&format!("--server-id={id}")]);
        let (mut one, two) = (server("one"), server("two"));
        let agents = [one.agent_port.address(), two.agent_port.address()];
        let hosts = format!("--proxy-server-host={},{}", agents[0], agents[1]);
        let _agent = one.agent(&[&hosts, "--agent-identifiers=host=one"]);
        [&one, &two].into_iter().for_each(Tunnel::wait_ready);
        let both = format!("{},{}", one.grpc_address(), two.grpc_address());
        let text = yaml(&one, mode, &[("one", says("one"))], "");
        let gateway = Cloverleaf::gateway(BINARY, &text.replace(&one.grpc_address(), &both));
        let all_answered = || {
            for (status, text) in answers(&gateway, 10) {
                assert_eq!((status, text.as_str()), (200, "one"), "{mode}");
            }
        };
        all_answered();
        one.server.signal("KILL");
        one.server.wait_exit();
        all_answered();
    }
}

#[test]
fn a_cluster_that_is_cut_off_is_a_tunnel_that_is_down() {
    let (tunnel, _agents) = clusters("grpc", &["one"]);
    let web = says("web");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (cluster, address, said) in
        [("nowhere", web, "502: the tunnel"), ("one", nobody, "502: the upstream refuses")]
    {
        let text = yaml(&tunnel, "grpc", &[(cluster, address)], "");
        let gateway = Cloverleaf::gateway(BINARY, &text);
        let answer = gateway.get("web.test", "/");
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains(said), "{}", answer.text());
    }
}

#[test]
fn long_bodies_and_kept_connections_go_through() {
    for mode in ["grpc", "http-connect"] {
        let (tunnel, agents) = clusters(mode, &["one"]);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec();
        let steps =
            [Step::ReadRequest, Step::Send([answer, pattern(3_000_000)].concat()), Step::Repeat];
        let web = Upstream::start(steps);
        let text = yaml(&tunnel, mode, &[("one", web.address())], "");
        let gateway = Cloverleaf::gateway(BINARY, &text);
        let mut client = gateway.connect();
        for _ in 0..5 {
            let body = pattern(1_000_000);
            let head = "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 1000000\r\n\r\n";
            let request = [head.as_bytes(), &body].concat();
            let answer = client.request(request).expect("an answer");
            assert_eq!(answer.status, 200);
            assert!(answer.body == pattern(3_000_000), "{mode}: {} bytes", answer.body.len());
        }
        assert!(web.received(0).ends_with(&pattern(1_000_000)), "{mode}");
        assert_eq!(dials(&agents[0]), 1.0, "{mode}");
    }
}

#[test]
fn a_reload_cuts_nothing_and_brings_certificates_and_tunnels() {
    let tunnel = Tunnel::over_tls("grpc", &[]);
    let _agent = tunnel.agent(&[]);
    tunnel.wait_ready();
    let (server, authority) = (tunnel.grpc_address(), tunnel.clients());
    let gate = testkit::upstream::Gate::new();
    let slow = Upstream::start([
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"),
        Step::Wait(gate.clone()),
        Step::send("later"),
    ]);
    let quick = says("quick");
    let inline = |certificate: &str, to: SocketAddr| {
        let tls = format!("{{authorities: ca.pem, certificate: {certificate}, key: client.key}}");
        let through = format!("{{server: \"{server}\", tls: {tls}}}");
        format!(
            "workers: 1\nrules: [{{upstream: web, path: /}}]\nupstreams: [{{name: web, \
             endpoints: [{{address: \"{to}\", via: {{tunnel: {through}}}}}]}}]\n"
        )
    };
    let gateway = Gateway::new(BINARY, &inline("client.pem", slow.address()));
    let own = authority.issue(&Wanted::client("gateway"));
    let write = |name: &str, text: &str| std::fs::write(gateway.dir().join(name), text).unwrap();
    write("ca.pem", tunnel.authority.pem());
    write("client.pem", &own.chain_pem);
    write("client.key", &own.key_pem);
    let gateway = gateway.start();
    let mut waiting = gateway.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    assert!(wait_until(WITHIN, || slow.connections() == 1));
    // Another target, and a certificate that the server does not accept.
    gateway.rewrite_by_rename(&inline("client.pem", quick));
    gateway.expect_stderr("\"generation\":2", WITHIN);
    let quick_answers = |gateway: &Cloverleaf| {
        let answer = gateway.get("web.test", "/");
        (answer.status, answer.text() == "quick")
    };
    assert!(wait_until(WITHIN, || quick_answers(&gateway) == (200, true)));
    let other = Authority::new().issue(&Wanted::client("stranger"));
    std::fs::write(gateway.dir().join("client.key"), &other.key_pem).unwrap();
    std::fs::write(gateway.dir().join("client.pem"), &other.chain_pem).unwrap();
    assert!(wait_until(WITHIN, || quick_answers(&gateway).0 == 502));
    // A certificate that is none changes nothing, and the right one is right again.
    gateway.rewrite_by_rename(&inline("nothing.pem", quick));
    gateway.expect_stderr("nothing.pem", WITHIN);
    std::fs::write(gateway.dir().join("client.key"), &own.key_pem).unwrap();
    std::fs::write(gateway.dir().join("client.pem"), &own.chain_pem).unwrap();
    gateway.rewrite_by_rename(&inline("client.pem", quick));
    assert!(wait_until(WITHIN, || quick_answers(&gateway) == (200, true)));
    gate.open();
    let answer = waiting.read_response().expect("the rest of the answer");
    assert_eq!(answer.text(), "firstlater");
}

#[test]
fn the_tools_know_tunnels() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\
tunnels: [{name: hub, server: \"hub.test:8090\", tls: {authorities: ca.pem}}]
upstreams:
  - name: web
    endpoints:
      - {address: \"web.default:80\", via: {tunnel: hub, cluster: one}}
      - {address: \"web.default:80\", via: {tunnel: {server: \"unix:/run/s.sock\"}}}
rules: [{upstream: web, path: /}]
";
    std::fs::write(dir.path().join("g.yaml"), text).unwrap();
    let tool = |arguments: &[&str]| run(BINARY, arguments, dir.path(), &[]);
    let checked = tool(&["check", "g.yaml"]);
    assert_eq!(checked.code, Some(2));
    assert!(checked.stdout.contains("ca.pem"), "{}", checked.stdout);
    std::fs::write(dir.path().join("ca.pem"), Authority::new().pem()).unwrap();
    let checked = tool(&["check", "g.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let explained = tool(&["explain", "-c", "g.yaml", "http://web.test/"]);
    for part in [
        "endpoint tunnel:hub/one/web.default:80 weight 1",
        "web.default:80 from an agent of cluster one",
        "through hub.test:8090, mode grpc",
        "web.default:80 from an agent that the server chooses",
        "through unix:/run/s.sock, mode grpc",
    ] {
        assert!(explained.stdout.contains(part), "lacks {part}: {}", explained.stdout);
    }
    let explained = tool(&["explain", "-c", "g.yaml", "--output", "json", "http://web.test/"]);
    assert!(explained.stdout.contains("\"cluster\": \"one\""), "{}", explained.stdout);
}
