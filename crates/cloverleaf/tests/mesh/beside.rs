//! A gateway whose upstreams are cluster ports: `via: mesh`.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::certs::{Authority, Wanted};
use testkit::client::{Client, Response};
use testkit::load::{Load, Target, Work};
use testkit::upstream::{Step, Upstream};
use testkit::{Network, wait_until};

use crate::support::*;

const GATEWAY: &str = "
mesh: {config: proxy.conf}
listeners: [{name: web, address: '@:8080'}]
upstreams: [{name: shop, via: mesh, port: 61000}]
rules: [{upstream: shop, path: /}]
shutdown: {grace: 0s}
";
const OWN: &str = "61000:30000:100:false\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\nAccept: application/json\r\n\r\n";

fn connect_http(network: &Network, host: u8) -> Client {
    let address = (network.address(host), 8080).into();
    network.on(host, || Client::connect(address).timeout(WITHIN))
}

/// A request to the gateway of a host, from there, on a new connection.
fn ask(network: &Network, host: u8) -> Response {
    connect_http(network, host).request(GET).expect("an answer")
}

/// Answers each request on a connection with its name, until the end. To `/slow` the second half of it comes after a
/// while, and after an upgrade it sends back what it gets.
fn http(mut stream: TcpStream, name: &str) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !stream.read(&mut byte).is_ok_and(|count| count == 1) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.to_ascii_lowercase().contains("\r\nupgrade: ") {
            let answer = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
            return echo(stream, "");
        }
        let (first, second) = name.split_at(name.len() / 2);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{first}", name.len());
        let _ = stream.write_all(answer.as_bytes());
        if head.starts_with("GET /slow ") {
            std::thread::sleep(Duration::from_millis(700));
        }
        if stream.write_all(second.as_bytes()).is_err() {
            return;
        }
    }
}

/// A pod that speaks HTTP, and how many connections it has had.
fn pod(network: &Network, host: u8, port: u16, name: &'static str) -> (Server, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let server = Server::new(network, host, port, move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        http(stream, name);
    });
    (server, connections)
}

/// An original proxy on a host that answers so, and whose pod then speaks HTTP.
fn original(network: &Network, host: u8, answer: &'static str, name: &'static str) -> Server {
    Server::new(network, host, PEER_PORT, move |mut stream| {
        let mut request = vec![0; REQUEST.len()];
        if stream.read_exact(&mut request).is_err() || request != REQUEST {
            return;
        }
        if stream.write_all(answer.as_bytes()).is_ok() && answer.starts_with("SENDPROXY") {
            http(stream, name);
        }
    })
}

/// Waits until a new request is answered by this pod.
fn becomes(network: &Network, name: &str) {
    let mut last = String::new();
    let reached = wait_until(WITHIN, || {
        last = ask(network, 1).text();
        last == name
    });
    assert!(reached, "{name} is not reached, but {last}");
}

#[test]
fn a_request_goes_to_a_pod_of_this_host_or_in_the_originals_words_to_another() {
    let Some(network) = Network::new(2) else { return };
    let _pod = original(&network, 2, "SENDPROXY=false\r\n", "other");
    let (_own, connections) = pod(&network, 1, 30_000, "own");
    let gateway = Start::new(&network, 1, "").gateway(GATEWAY).start();
    assert_eq!(ask(&network, 1).text(), "other");
    assert_eq!(ask(&network, 1).text(), "other");
    // The connection is used again, but not where a pod of this host has come.
    let other = "cloverleaf_mesh_connections_total{cluster_port=\"61000\",host=\"10.98.0.2:32767\",result=\"ok\"}";
    let connected = gateway.metric(other);
    assert!(connected >= 1.0);
    gateway.replace("portmappings.conf", OWN);
    becomes(&network, "own");
    let answers: Vec<String> = (0..10).map(|_| ask(&network, 1).text()).collect();
    assert!(answers.iter().all(|answer| answer == "own"), "{answers:?}");
    // A request under way is not disturbed where the pod is taken out of the file.
    let mut slow = connect_http(&network, 1);
    slow.send(SLOW);
    assert!(wait_until(WITHIN, || connections.load(Ordering::Relaxed) > 0));
    gateway.replace("portmappings.conf", "");
    becomes(&network, "other");
    let answers: Vec<String> = (0..10).map(|_| ask(&network, 1).text()).collect();
    assert!(answers.iter().all(|answer| answer == "other"), "{answers:?}");
    assert_eq!(slow.read_response().unwrap().text(), "own");
    assert!(gateway.get("/state").unwrap().contains("mesh:61000"));
}

#[test]
fn upgrades_http2_and_large_bodies_pass() {
    let Some(network) = Network::new(2) else { return };
    let (_pod, _) = pod(&network, 2, 30_000, "pod");
    let _mesh = Start::new(&network, 2, OWN).start();
    let gateway = GATEWAY.replace("grace: 0s}", "grace: 0s, drain: 500ms}");
    let mut gateway = Start::new(&network, 1, "").gateway(&gateway).start();
    let mut socket = connect_http(&network, 1);
    let upgrade = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    assert_eq!(socket.request(upgrade).unwrap().status, 101);
    let url = format!("http://{}:8080/", network.address(1));
    let curl = ["-s", "--http2-prior-knowledge", "-w", " %{http_version}", &url];
    let output = network.command(1, "curl").args(curl).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "pod 2");
    // Over the reload of all files the upgraded connection goes on, byte by byte.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    for part in bytes.chunks(100_000) {
        gateway.replace("hosts.conf", &hosts_conf(&network, [1]));
        gateway.signal("HUP");
        socket.send(part);
        assert_eq!(socket.read_exactly(part.len()).unwrap(), part);
        gateway.replace("hosts.conf", &hosts_conf(&network, [1, 2]));
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit(), Some(0));
}

#[test]
fn what_the_mesh_says_is_the_answer_with_its_reason() {
    let Some(network) = Network::new(3) else { return };
    let yaml = GATEWAY.replace("port: 61000}", "port: 61000, connectTimeout: 700ms}");
    let yaml = format!("{yaml}accessLog: {{path: access.log}}\n");
    for (answers, status, word) in
        [(["BUSY\r\n", ""], 503, "upstream_busy"), (["", "nonsense\r\n"], 502, "upstream_nobody")]
    {
        let _peers = [2, 3].map(|host| original(&network, host, answers[host as usize - 2], ""));
        let gateway = Start::new(&network, 1, "").gateway(&yaml).start();
        let answer = ask(&network, 1);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(&format!("\"error\":\"{word}\"")), "{}", answer.text());
        let logged = || std::fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
        let line = format!("\"error\":\"{word}\"");
        assert!(wait_until(WITHIN, || logged().contains(&line)), "{}", logged());
        assert!(logged().contains("\"endpoint\":\"mesh:61000\""), "{}", logged());
        let result = word.trim_start_matches("upstream_");
        let name = "cloverleaf_upstream_connections_total{upstream=\"shop\",result=";
        gateway.wait_metric(&format!("{name}\"{result}\"}}"), 1.0);
    }
    // Hosts that are silent: the deadline of the upstream holds.
    let gateway = Start::new(&network, 1, "").gateway(&yaml).start();
    network.cut(2);
    network.cut(3);
    let (answer, took) = timed(|| ask(&network, 1));
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("upstream_connect_timeout"), "{}", answer.text());
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(5), "{took:?}");
    // And that connections of pods that are full are not asked for is no matter for a file without a mesh.
    gateway.replace("gateway.yaml", &yaml.replace("mesh: {config: proxy.conf}", ""));
    assert!(wait_until(WITHIN, || gateway
        .log()
        .contains("via mesh, and this file has no section mesh")));
    assert_eq!(ask(&network, 1).status, 504);
}

#[test]
fn requests_count_for_what_a_pod_may_have_and_full_is_not_down() {
    let Some(network) = Network::new(1) else { return };
    let (_pod, connections) = pod(&network, 1, 30_000, "own");
    let yaml = GATEWAY.replace(
        "port: 61000}",
        "port: 61000, idleTimeout: 1s, healthCheck: {interval: 100ms, fall: 1, rise: 1}}",
    );
    let yaml = yaml.replace("config: proxy.conf", "config: proxy.conf, serve: true");
    let gateway = Start::new(&network, 1, "61000:30000:1:false\n").gateway(&yaml).start();
    let open = "cloverleaf_mesh_pod_connections_open{cluster_port=\"61000\",host_port=\"30000\"}";
    // A slow request has the only place, so a client of the cluster port hears nothing.
    let mut slow = connect_http(&network, 1);
    let mut last = String::new();
    assert!(
        wait_until(WITHIN, || {
            slow.send(SLOW);
            let begun = wait_until(Duration::from_millis(300), || gateway.metric(open) > 0.5);
            if !begun {
                last = slow.read_response().unwrap().text();
            }
            begun
        }),
        "{last}"
    );
    let mut refused = client(&network, 1);
    assert_eq!(read_all(&mut refused), "");
    let answer = ask(&network, 1);
    let up = "cloverleaf_endpoint_up{upstream=\"shop\",endpoint=\"mesh:61000\"}";
    assert!(answer.status == 503 && answer.text().contains("upstream_busy"), "{}", answer.text());
    assert!((gateway.metric(up) - 1.0).abs() < 0.5);
    assert_eq!(slow.read_response().unwrap().text(), "own");
    // It is not kept, so its place is free; and the health check, which needs one too, is well.
    gateway.wait_metric(open, 0.0);
    gateway.wait_metric(up, 1.0);
    assert_eq!(ask(&network, 1).text(), "own");
    assert!(connections.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_pod_never_has_more_connections_than_it_may_however_many_ask() {
    const MOST: usize = 3;
    const ANSWERS_EACH: usize = 2;
    let Some(network) = Network::new(1) else { return };
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, highest) = (now.clone(), most.clone());
    let _pod = Server::new(&network, 1, 30_000, move |stream| {
        counts.fetch_add(1, Ordering::SeqCst);
        // Another thread may be about to see that its client has closed. What is too much lasts longer.
        let _ = wait_until(Duration::from_millis(300), || counts.load(Ordering::SeqCst) <= MOST);
        highest.fetch_max(counts.load(Ordering::SeqCst), Ordering::SeqCst);
        http(stream, "own");
        counts.fetch_sub(1, Ordering::SeqCst);
    });
    let yaml = GATEWAY.replace("config: proxy.conf", "config: proxy.conf, serve: true");
    let mapping = format!("61000:30000:{MOST}:false\n");
    let gateway = Start::new(&network, 1, &mapping).gateway(&yaml).start();
    let busy = AtomicUsize::new(0);
    // `None` where it is full.
    let through_gateway = || {
        let answer = connect_http(&network, 1).request(SLOW).expect("an answer");
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
        (answer.status == 200).then(|| answer.text())
    };
    let through_port = || {
        let mut stream = crate::support::client(&network, 1);
        // A reset where it is full already.
        let _ = stream.write_all(SLOW.replace("Host", "Connection: close\r\nHost").as_bytes());
        let mut answer = String::new();
        while !answer.ends_with("own") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => answer.push(char::from(byte[0])),
                _ => return None,
            }
        }
        Some(answer)
    };
    std::thread::scope(|scope| {
        for client in 0..10 {
            let busy = &busy;
            scope.spawn(move || {
                for _ in 0..ANSWERS_EACH {
                    let answered = wait_until(WITHIN, || {
                        let answer =
                            if client % 2 == 0 { through_port() } else { through_gateway() };
                        busy.fetch_add(usize::from(answer.is_none()), Ordering::Relaxed);
                        answer.is_some()
                    });
                    assert!(answered, "client {client}");
                }
            });
        }
    });
    assert!(busy.into_inner() > 0);
    assert_eq!(most.load(Ordering::SeqCst), MOST);
    let open = "cloverleaf_mesh_pod_connections_open{cluster_port=\"61000\",host_port=\"30000\"}";
    assert!(gateway.metric(open) <= 3.5);
}

#[test]
fn listeners_within_the_range_of_cluster_ports_are_the_gateways_from_their_first_moment() {
    let Some(network) = Network::new(1) else { return };
    let (_own, _) = pod(&network, 1, 30_000, "own");
    let yaml = GATEWAY
        .replace("config: proxy.conf", "config: proxy.conf, serve: true")
        .replace('@', &network.address(1).to_string());
    let gateway = Start::new(&network, 1, OWN).gateway(&yaml).start();
    let reloads = "cloverleaf_reloads_total{result=\"ok\"}";
    for round in 0..3_u16 {
        let more = format!(", {{name: more, address: '10.98.0.1:{}'}}]", 9000 + round);
        gateway.replace("gateway.yaml", &yaml.replace("8080'}]", &format!("8080'}}{more}")));
        gateway.wait_metric(reloads, f64::from(round + 1));
        let address = (network.address(1), 9000 + round).into();
        let mut client = network.on(1, || Client::connect(address).timeout(WITHIN));
        assert_eq!(client.request(GET).expect("an answer").text(), "own");
    }
}

#[test]
fn tls_goes_through_the_mesh_and_a_full_cluster_port_is_followed_by_the_next_endpoint() {
    let Some(network) = Network::new(1) else { return };
    let authority = Authority::new();
    let certificate = authority.server(&["shop.test"]);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntls";
    let secured = network.on(1, || {
        let steps = move |_| vec![Step::ReadRequest, Step::send(answer), Step::Repeat];
        Upstream::scripted_tls(&certificate, &["http/1.1"], steps)
    });
    let yaml = GATEWAY.replace(
        "port: 61000}",
        &format!(
            "port: 61000, scheme: https, tls: {{authorities: {}, serverName: shop.test}}}}",
            authority.file().display()
        ),
    );
    let mapping = format!("61000:{}:9:false\n", secured.address().port());
    let start = Start::new(&network, 1, &mapping).settings("PODHOST 127.0.0.1");
    let gateway = start.gateway(&yaml).start();
    assert_eq!((ask(&network, 1).text(), ask(&network, 1).text()), ("tls".into(), "tls".into()));
    // Of two endpoints one is full: every request is answered by the other one.
    let (_direct, _) = pod(&network, 1, 30_001, "direct");
    let both = "endpoints: [{via: mesh, port: 61000}, {address: '@:30001'}]}";
    let yaml = GATEWAY.replace("via: mesh, port: 61000}", both);
    gateway.replace("portmappings.conf", "61000:30000:0:false\n");
    gateway.replace("gateway.yaml", &yaml.replace('@', &network.address(1).to_string()));
    becomes(&network, "direct");
    for _ in 0..8 {
        assert_eq!(ask(&network, 1).text(), "direct");
    }
    let retries = "cloverleaf_retries_total{upstream=\"shop\",reason=\"connect\"}";
    assert!(gateway.metric(retries) >= 1.0);
    network.on(1, || drop(secured));
}

#[test]
fn secured_hosts_are_asked_in_tls_for_a_gateway_too() {
    let Some(network) = Network::new(2) else { return };
    let authority = Authority::new();
    let (_pod, _) = pod(&network, 2, 30_000, "secured");
    let certified = |host: u8, mappings: &str| {
        let wanted = Wanted::peer(&[&network.address(host).to_string()]);
        let start = Start::new(&network, host, mappings).certified(&authority, &wanted);
        start.settings("SECURITY required")
    };
    let _mesh = certified(2, OWN).start();
    let gateway = certified(1, "").gateway(GATEWAY).start();
    for _ in 0..3 {
        assert_eq!(ask(&network, 1).text(), "secured");
    }
    let mut socket = connect_http(&network, 1);
    let upgrade = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    assert_eq!(socket.request(upgrade).unwrap().status, 101);
    let bytes = vec![b'x'; 50_000];
    socket.send(&bytes);
    assert_eq!(socket.read_exactly(bytes.len()).unwrap(), bytes);
    let tunnels = "cloverleaf_mesh_tunnels_total{direction=\"out\",security=\"tls\"}";
    assert!(gateway.metric(tunnels) >= 1.0);
}

#[test]
fn a_pod_that_wants_a_header_gets_the_gateways() {
    let Some(network) = Network::new(2) else { return };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let _pod = Server::new(&network, 1, 30_000, move |mut stream| {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            line.push(byte[0]);
        }
        noted.lock().unwrap().push(String::from_utf8(line).unwrap());
        http(stream, "own");
    });
    let _gateway = Start::new(&network, 1, "61000:30000:9:true\n").gateway(GATEWAY).start();
    assert_eq!(ask(&network, 1).text(), "own");
    let header = seen.lock().unwrap()[0].clone();
    let begins = "PROXY TCP4 10.98.0.1 10.98.0.1 ";
    assert!(header.starts_with(begins) && header.ends_with(" 61000\r\n"), "{header}");
}

#[test]
fn a_pod_behind_a_secured_host_is_reached_header_and_all() {
    let Some(network) = Network::new(2) else { return };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let _pod = Server::new(&network, 2, 30_000, move |mut stream| {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            line.push(byte[0]);
        }
        noted.lock().unwrap().push(String::from_utf8(line).unwrap());
        http(stream, "other");
    });
    let authority = Authority::new();
    let secured = |host: u8, mappings: &str| {
        let wanted = Wanted::peer(&[&network.address(host).to_string()]);
        let start = Start::new(&network, host, mappings).certified(&authority, &wanted);
        start.settings("SECURITY required")
    };
    let mesh = secured(2, "61000:30000:9:true\n").start();
    let gateway = secured(1, "").gateway(GATEWAY).start();
    assert_eq!(ask(&network, 1).text(), "other");
    let header = seen.lock().unwrap()[0].clone();
    let begins = "PROXY TCP4 10.98.0.1 10.98.0.1 ";
    assert!(header.starts_with(begins) && header.ends_with(" 61000\r\n"), "{header}");
    let tunnels = |direction| {
        format!("cloverleaf_mesh_tunnels_total{{direction=\"{direction}\",security=\"tls\"}}")
    };
    gateway.wait_metric(&tunnels("out"), 1.0);
    mesh.wait_metric(&tunnels("in"), 1.0);
}

#[test]
fn a_mesh_can_come_with_a_reload_and_what_is_wrong_with_its_files_is_said() {
    let Some(network) = Network::new(1) else { return };
    let (_own, _) = pod(&network, 1, 30_000, "own");
    let without = GATEWAY
        .replace("mesh: {config: proxy.conf}", "")
        .replace("via: mesh, port: 61000", "host: '@', port: 30000");
    let gateway = Start::new(&network, 1, OWN).gateway(&without).start();
    assert_eq!(ask(&network, 1).text(), "own");
    let with = GATEWAY.replace('@', &network.address(1).to_string());
    gateway.replace("proxy.conf", "PORT none\n");
    gateway.replace("gateway.yaml", &with);
    assert!(gateway.wait_log("proxy.conf:1:6: error: PORT"));
    assert_eq!(ask(&network, 1).text(), "own");
    gateway.replace("proxy.conf", &format!("HOST {}\n", network.address(1)));
    gateway.signal("HUP");
    let through =
        "cloverleaf_mesh_connections_total{cluster_port=\"61000\",host=\"own\",result=\"ok\"}";
    assert!(wait_until(WITHIN, || {
        assert_eq!(ask(&network, 1).text(), "own");
        gateway.metric(through) > 0.5
    }));
    gateway.replace("portmappings.conf", "61000:300");
    gateway.wait_metric("cloverleaf_config_valid", 0.0);
    assert!(gateway.get("/state").unwrap().contains("the file breaks off"));
    assert_eq!(ask(&network, 1).text(), "own");
}

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo_pod(network: &Network, host: u8) -> Running {
    let mut command = network.command(host, env!("CARGO_BIN_EXE_cloverleaf"));
    let listen = format!("{}:30000", network.address(host));
    command.args(["echo", "--listen", &listen]).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn a_pod_moves_from_host_to_host_under_load_and_no_request_fails() {
    const MOVES: u8 = 3;
    /// A gateway begins nothing more on a connection to another host that is older than 5 s.
    const LEAVES: Duration = Duration::from_secs(6);
    let Some(network) = Network::new(3) else { return };
    let gateway = Start::new(&network, 1, "").gateway(GATEWAY).start();
    let mut pods: Vec<_> = [2, 3].map(|host| Some(echo_pod(&network, host))).into();
    let meshes = [2, 3].map(|host| Start::new(&network, host, OWN).start());
    let target = Target { address: (network.address(1), 8080).into(), host: "shop.test".into() };
    becomes_well(&network);
    let every = Duration::from_millis(5);
    let loads = network.on(1, || {
        [
            Load::start("gets", &target, 4, Work::Get(every)),
            Load::start("posts", &target, 2, Work::Post(every)),
            Load::start("connects", &target, 2, Work::Connect(every)),
            Load::start("websocket", &target, 1, Work::WebSocket(5)),
        ]
    });
    let reached = |host: &str| {
        let host = format!("host=\"{host}\",result=\"ok\"");
        gateway
            .metric(&format!("cloverleaf_mesh_connections_total{{cluster_port=\"61000\",{host}}}"))
    };
    for turn in 0..MOVES {
        // The pod that goes is taken out of the file of its host, and ends once nobody comes any more.
        let goes = usize::from(turn % 2);
        meshes[goes].replace("portmappings.conf", "");
        std::thread::sleep(LEAVES);
        stop_in_order(pods[goes].take().expect("it runs"));
        std::thread::sleep(Duration::from_millis(200));
        pods[goes] = Some(echo_pod(&network, if goes == 0 { 2 } else { 3 }));
        std::thread::sleep(Duration::from_millis(300));
        meshes[goes].replace("portmappings.conf", OWN);
        std::thread::sleep(Duration::from_millis(300));
    }
    for load in loads {
        let report = load.stop();
        println!("{report}");
        assert!(report.failed == 0 && report.done > 20, "{report}");
    }
    assert!(reached("10.98.0.2:32767") > 1.5 && reached("10.98.0.3:32767") > 1.5);
}

fn becomes_well(network: &Network) {
    assert!(wait_until(WITHIN, || ask(network, 1).status == 200));
}

/// As a pod is ended: told so, and waited for.
fn stop_in_order(mut pod: Running) {
    let pid = pod.0.id().to_string();
    assert!(
        std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success()
    );
    assert!(wait_until(WITHIN, || pod.0.try_wait().unwrap().is_some()), "the pod does not end");
}
