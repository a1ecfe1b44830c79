//! Upstreams of a gateway that stand in for pods of cluster ports: `mesh.ports`.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::certs::Authority;
use testkit::upstream::{Step, Upstream};
use testkit::{Network, wait_until};

use crate::beside::Running;
use crate::support::*;

/// A server with TLS and a protocol of its own on a host's loopback: greets, then sends back what it gets.
struct Secured<'n> {
    network: &'n Network,
    host: u8,
    upstream: Option<Upstream>,
}

impl<'n> Secured<'n> {
    fn new(network: &'n Network, host: u8, authority: &Authority, greeting: &'static str) -> Self {
        let certificate = authority.server(&["db.test"]);
        let upstream = network.on(host, || {
            let steps = move |_| vec![Step::send(greeting), Step::Echo];
            Upstream::scripted_tls(&certificate, &["db"], steps)
        });
        Self { network, host, upstream: Some(upstream) }
    }

    fn port(&self) -> u16 {
        self.upstream.as_ref().unwrap().address().port()
    }
}

impl Drop for Secured<'_> {
    fn drop(&mut self) {
        let upstream = self.upstream.take();
        self.network.on(self.host, || drop(upstream));
    }
}

fn yaml(ports: &str, upstreams: &str) -> String {
    format!(
        "
mesh: {{config: proxy.conf, serve: true, ports: [{ports}]}}
listeners: [{{name: web, address: '@:8080'}}]
upstreams: [{upstreams}]
rules: []
shutdown: {{grace: 0s, drain: 1s}}
"
    )
}

#[test]
fn an_upstream_with_tls_and_health_checks_serves_a_cluster_port_on_every_host() {
    let Some(network) = Network::new(2) else { return };
    let authority = Authority::new();
    let (one, two) =
        (Secured::new(&network, 1, &authority, "p1"), Secured::new(&network, 1, &authority, "p2"));
    let upstream = format!(
        "{{name: db, scheme: https, tls: {{authorities: {}, serverName: db.test}}, \
         healthCheck: {{interval: 100ms, fall: 1, rise: 1}}, \
         endpoints: [{{address: '127.0.0.1:{}'}}, {{address: '127.0.0.1:{}'}}]}}",
        authority.file().display(),
        one.port(),
        two.port()
    );
    let gateway = yaml("{port: 61000, upstream: db}", &upstream);
    let mut gateway = Start::new(&network, 1, "").gateway(&gateway).start();
    let mesh = Start::new(&network, 2, "").start();
    // In turn, from this host and from the other one.
    for host in [1, 2] {
        let mut both = [greeting(&network, host), greeting(&network, host)];
        both.sort();
        assert_eq!(both, [Some("p1".to_owned()), Some("p2".to_owned())], "host {host}");
    }
    let mut long = client(&network, 2);
    read(&mut long, 2);
    let bytes = "x".repeat(300_000);
    let mut sender = long.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(&mut sender, bytes.as_bytes()));
        assert_eq!(read_all(&mut long), bytes);
    });
    // One that is down gets none.
    let label = format!("upstream=\"db\",endpoint=\"127.0.0.1:{}\"", one.port());
    drop(one);
    gateway.wait_metric(&format!("cloverleaf_endpoint_up{{{label}}}"), 0.0);
    for host in [1, 2, 1, 2] {
        assert_eq!(greeting(&network, host).as_deref(), Some("p2"));
    }
    assert!(gateway.metric(&format!("cloverleaf_endpoint_requests_total{{{label}}}")) >= 2.0);
    let taken =
        "cloverleaf_mesh_connections_total{cluster_port=\"61000\",host=\"upstream\",result=\"ok\"}";
    assert!(gateway.metric(taken) >= 4.0);
    assert!(gateway.get("/state").unwrap().contains("upstream:db"));
    // None is left: no word, and the other host hears that there is none.
    drop(two);
    assert!(wait_until(WITHIN, || greeting(&network, 1).is_none()));
    assert_eq!(greeting(&network, 2), None);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit(), Some(0));
    drop(mesh);
}

#[test]
fn an_endpoint_that_is_silent_or_refuses_is_followed_by_the_next() {
    let Some(network) = Network::new(1) else { return };
    let _server = Server::pod(&network, 1, 30_001, "p1");
    let upstream = "{name: db, connectTimeout: 300ms, endpoints: [{address: '10.98.0.9:1'}, \
                    {address: '@:30009'}, {address: '@:30001'}]}";
    let gateway = yaml("{port: 61000, upstream: db}", upstream);
    let gateway = Start::new(&network, 1, "").gateway(&gateway).start();
    for _ in 0..6 {
        let (found, took) = timed(|| greeting(&network, 1));
        assert_eq!(found.as_deref(), Some("p1"));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    for result in ["timeout", "refused"] {
        let name = "cloverleaf_upstream_connections_total{upstream=\"db\",result=";
        assert!(gateway.metric(&format!("{name}\"{result}\"}}")) >= 1.0, "{result}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_no_upstream() {
    let Some(network) = Network::new(1) else { return };
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Secured::new(&network, 1, &other, "p1");
    let upstream = format!(
        "{{name: db, scheme: https, tls: {{authorities: {}, serverName: db.test}}, \
         host: 127.0.0.1, port: {}}}",
        authority.file().display(),
        server.port()
    );
    let gateway = yaml("{port: 61000, upstream: db}", &upstream);
    let gateway = Start::new(&network, 1, "").gateway(&gateway).start();
    assert_eq!(greeting(&network, 1), None);
    let failed = "cloverleaf_upstream_connections_total{upstream=\"db\",result=\"tls\"}";
    gateway.wait_metric(failed, 1.0);
}

#[test]
fn pods_come_first_and_reloads_of_either_file_under_load_lose_no_connection() {
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p0");
    let _servers = [Server::pod(&network, 1, 30_001, "p1"), Server::pod(&network, 1, 30_002, "p2")];
    let upstream = |port: u16| format!("{{name: db, host: '@', port: {port}}}");
    let file = |port| {
        let address = network.address(1).to_string();
        yaml("{port: 61000, upstream: db}", &upstream(port)).replace('@', &address)
    };
    let gateway = Start::new(&network, 1, "").gateway(&file(30_001)).start();
    let mut long = client(&network, 1);
    assert_eq!(read(&mut long, 2), "p1");
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = Arc::new(std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = client(&network, 1);
                    let mut answer = [0; 6];
                    let went =
                        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut answer));
                    match went {
                        Ok(()) if answer.ends_with(b"ping") => done.fetch_add(1, Ordering::Relaxed),
                        _ => {
                            failures.lock().unwrap().push(format!("{went:?}: {answer:?}"));
                            0
                        }
                    };
                }
            });
        }
        for round in 0..12_u16 {
            gateway.replace("gateway.yaml", &file(30_001 + round % 2));
            let mappings = if round % 3 == 0 { "61000:30000:100:false\n" } else { "" };
            gateway.replace("portmappings.conf", mappings);
            std::thread::sleep(Duration::from_millis(150));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(done.load(Ordering::Relaxed) > 50);
    send_all(&mut long, b"still here");
    assert_eq!(read_all(&mut long), "still here");
    let seen = gateway.get("/metrics").unwrap();
    for host in ["own", "upstream"] {
        assert!(seen.contains(&format!("cluster_port=\"61000\",host=\"{host}\",result=\"ok\"")));
    }
    // Taken out of the file, nobody serves the port.
    let without = yaml("", &upstream(30_001)).replace('@', &network.address(1).to_string());
    gateway.replace("gateway.yaml", &without);
    assert!(wait_until(WITHIN, || greeting(&network, 1).is_none()));
}

#[test]
fn one_cluster_port_leads_to_another_and_never_round_in_a_circle() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let through = |port: u16| format!("{{name: u, via: mesh, port: {port}}}");
    // To a pod on the other host.
    let file = yaml("{port: 61000, upstream: u}", &through(61_001));
    let gateway = Start::new(&network, 1, "").gateway(&file).start();
    let mesh = Start::new(&network, 2, "61001:30000:10:false\n").start();
    assert_eq!(greeting(&network, 1).as_deref(), Some("p2"));
    // It is for the clients of that host alone.
    assert_eq!(greeting(&network, 2), None);
    drop(mesh);
    // Each host has the other's port: nobody is found, at once.
    let back = yaml("{port: 61001, upstream: u}", &through(61_000));
    let _other = Start::new(&network, 2, "").gateway(&back).start();
    let (found, took) = timed(|| greeting(&network, 1));
    assert_eq!(found, None);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // And a port that has itself, where there is no other host.
    gateway.replace("hosts.conf", &hosts_conf(&network, [1]));
    let itself = yaml("{port: 61000, upstream: u}", &through(61_000));
    let reloads = "cloverleaf_reloads_total{result=\"ok\"}";
    let before = gateway.metric(reloads);
    gateway.replace("gateway.yaml", &itself.replace('@', &network.address(1).to_string()));
    gateway.wait_metric(reloads, before + 1.0);
    let (found, took) = timed(|| greeting(&network, 1));
    assert_eq!(found, None);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // One for the client, one for the upstream's, and that one goes no further.
    let tried =
        "cloverleaf_mesh_connections_total{cluster_port=\"61000\",host=\"-\",result=\"none\"}";
    let before = gateway.metric(tried);
    assert_eq!(greeting(&network, 1), None);
    gateway.wait_metric(tried, before + 2.0);
}

/// The example for this machine's loopback, on the loopback of a host.
#[test]
fn the_example_of_a_gateway_answers_as_it_says() {
    let Some(network) = Network::new(1) else { return };
    let dir = tempfile::tempdir().unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/mesh/gateway");
    for file in std::fs::read_dir(example).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let mut command = network.command(1, env!("CARGO_BIN_EXE_cloverleaf"));
    command.args(["gateway", "--config"]).arg(dir.path().join("cloverleaf.yaml"));
    let _running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    let status = |port: u16| {
        let request =
            format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        let answer = network.on(1, || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(WITHIN))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        answer.ok().and_then(|answer| answer.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
    };
    assert!(wait_until(WITHIN, || status(8080) == 200));
    assert_eq!([status(61_000), status(61_001)], [200, 200]);
    std::fs::write(dir.path().join("portmappings.conf"), "").unwrap();
    assert!(wait_until(WITHIN, || status(8080) == 502));
    assert_eq!([status(61_000), status(61_001)], [0, 200]);
}
