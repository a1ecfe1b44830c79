//! Connections between hosts that are secured: with whom, while it is brought in, and while certificates change.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::certs::Wanted;
use testkit::{Authority, Network, wait_until};

use crate::support::*;

/// Each pod is on one host alone, so that the cluster port says which host is meant.
fn mappings(host: u8) -> String {
    format!("{}:30000:1000:false\n", 61_000 + u16::from(host))
}

fn pods(network: &Network) -> Vec<Server> {
    let greetings = ["", "p1", "p2", "p3"];
    (1..=3.min(network.hosts()))
        .map(|host| Server::pod(network, host, 30_000, greetings[usize::from(host)]))
        .collect()
}

fn wanted(network: &Network, host: u8) -> Wanted {
    Wanted::peer(&[&network.address(host).to_string()])
}

/// A host with a certificate for its address.
fn start<'n>(network: &'n Network, host: u8, authority: &Authority, mode: &str) -> Mesh<'n> {
    Start::new(network, host, &mappings(host))
        .certified(authority, &wanted(network, host))
        .settings(&format!("SECURITY {mode}"))
        .start()
}

/// What comes back of a connection from a host to the pod of another.
fn reach(network: &Network, from: u8, to: u8) -> std::io::Result<String> {
    let port = 61_000 + u16::from(to);
    let mut stream = try_connect(network, from, (network.address(from), port))?;
    let mut got = [0; 7];
    stream.read_exact(&mut got[..2])?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut got[2..])?;
    Ok(String::from_utf8_lossy(&got).into_owned())
}

fn tunnels(mesh: &Mesh, direction: &str, security: &str) -> f64 {
    let labels = format!("{{direction=\"{direction}\",security=\"{security}\"}}");
    mesh.metric(&format!("cloverleaf_mesh_tunnels_total{labels}"))
}

fn wait_secured(mesh: &Mesh, network: &Network, host: u8, secured: bool) {
    let host = network.address(host);
    let name = format!("cloverleaf_mesh_host_secured{{host=\"{host}:{PEER_PORT}\"}}");
    mesh.wait_metric(&name, f64::from(u8::from(secured)));
}

#[test]
fn all_pairs_of_secured_plain_and_original_hosts_work_together() {
    let Some(network) = Network::new(4) else { return };
    let _pods = pods(&network);
    let authority = Authority::new();
    let original =
        Original::where_pods_are(&network, 4, b" 61004\r\n", b"SENDPROXY=false\r\np4", Then::Echo);
    let secured = [1, 2].map(|host| start(&network, host, &authority, "offered"));
    let plain = Start::new(&network, 3, &mappings(3)).start();
    for mesh in &secured {
        let other = if mesh.get("/config").unwrap().contains("10.98.0.1:") { 1 } else { 2 };
        wait_secured(mesh, &network, other, true);
        wait_secured(mesh, &network, 3, false);
        wait_secured(mesh, &network, 4, false);
    }
    // A probe that the original takes for nothing it knows.
    let probes = original.asked();
    assert!(probes >= 2, "{probes}");
    assert!(original.requests.lock().unwrap().iter().all(|first| first == &[0x16]));
    for from in 1..=3 {
        for to in 1..=4 {
            assert_eq!(reach(&network, from, to).unwrap(), format!("p{to}hello"), "{from} to {to}");
        }
    }
    for mesh in &secured {
        // To the other one; and to the plain and the original host.
        assert_eq!((tunnels(mesh, "out", "tls"), tunnels(mesh, "out", "plain")), (1.0, 2.0));
        assert_eq!((tunnels(mesh, "in", "tls"), tunnels(mesh, "in", "plain")), (1.0, 1.0));
        let state = mesh.get("/state").unwrap();
        assert!(state.contains("\"security\": \"tls\""), "{state}");
        assert!(state.contains("\"security\": \"plain: closed\""), "{state}");
    }
    let status = network.command(1, env!("CARGO_BIN_EXE_cloverleaf")).arg("status").output();
    let status = String::from_utf8(status.unwrap().stdout).unwrap();
    for words in ["SECURITY", "plain: closed", "tls"] {
        assert!(status.contains(words), "{words}: {status}");
    }
    assert_eq!((tunnels(&plain, "out", "plain"), tunnels(&plain, "in", "plain")), (3.0, 2.0));
    let asked = original.requests.lock().unwrap().clone();
    let request = b"PROXY TCP4 1.2.3.4 1.2.3.4 124 61004\r\n";
    assert_eq!(asked.iter().filter(|asked| *asked == request).count(), 3, "{asked:?}");
}

/// Connections from every host to every pod, one after the other, until told to stop: how many, and what failed.
struct Load<'s> {
    stop: Stop,
    done: Arc<AtomicUsize>,
    threads: Vec<std::thread::ScopedJoinHandle<'s, Vec<String>>>,
}

/// Tells threads to stop, at the latest when it is dropped: else a failed test would wait for them.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'s> Load<'s> {
    fn start<'e: 's>(
        scope: &'s std::thread::Scope<'s, 'e>,
        network: &'e Network,
        pairs: &[(u8, u8)],
    ) -> Self {
        let (stop, done): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let threads = pairs
            .iter()
            .map(|&(from, to)| {
                let (stop, done) = (stop.clone(), done.clone());
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match reach(network, from, to) {
                            Ok(got) if got == format!("p{to}hello") => {}
                            other => failed.push(format!("{from} to {to}: {other:?}")),
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    failed
                })
            })
            .collect();
        Self { stop: Stop(stop), done, threads }
    }

    /// Lets some more connections be made.
    fn go_on(&self) {
        const CONNECTIONS: usize = 60;
        let until = self.done.load(Ordering::Relaxed) + CONNECTIONS;
        assert!(wait_until(WITHIN, || self.done.load(Ordering::Relaxed) >= until), "no progress");
    }

    fn finish(self) -> usize {
        drop(self.stop);
        for thread in self.threads {
            let failed = thread.join().unwrap();
            assert!(failed.is_empty(), "{} failed, as {}", failed.len(), failed[0]);
        }
        self.done.load(Ordering::Relaxed)
    }
}

const PAIRS: [(u8, u8); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

fn set_mode(network: &Network, mesh: &Mesh, host: u8, mode: &str) {
    let text = format!("HOST {}\nSECURITY {mode}\n", network.address(host));
    mesh.replace("proxy.conf", &text);
    let shown = format!("\"mode\": \"{mode}\"");
    let served = wait_until(WITHIN, || mesh.get("/config").is_some_and(|c| c.contains(&shown)));
    assert!(served, "{mode} is not served: {}", mesh.get("/config").unwrap());
}

#[test]
fn security_is_brought_in_and_taken_back_host_by_host_under_load() {
    let Some(network) = Network::new(3) else { return };
    let _pods = pods(&network);
    let authority = Authority::new();
    let meshes = [1, 2, 3].map(|host| start(&network, host, &authority, "off"));
    let connections = std::thread::scope(|scope| {
        let load = Load::start(scope, &network, &PAIRS);
        load.go_on();
        for mode in ["offered", "required", "offered", "off"] {
            for (host, mesh) in (1..).zip(&meshes) {
                set_mode(&network, mesh, host, mode);
                load.go_on();
            }
            if mode == "required" {
                let plain = meshes.each_ref().map(|mesh| tunnels(mesh, "in", "plain"));
                load.go_on();
                let after = meshes.each_ref().map(|mesh| tunnels(mesh, "in", "plain"));
                assert_eq!(plain, after, "all are secured");
            }
        }
        load.finish()
    });
    for mesh in &meshes {
        assert!(tunnels(mesh, "out", "tls") > 0.0 && tunnels(mesh, "out", "plain") > 0.0);
    }
    println!("{connections} connections");
}

/// The helper of SPIFFE writes one file after the other, each by itself.
fn renew(mesh: &Mesh, authority: &Authority, wanted: &Wanted) {
    let issued = authority.issue(wanted);
    mesh.replace("svid.pem", &issued.chain_pem);
    std::thread::sleep(Duration::from_millis(50));
    mesh.replace("svid_key.pem", &issued.key_pem);
}

const EXPIRY: &str = "cloverleaf_mesh_certificate_expiry_timestamp_seconds";

#[test]
fn certificates_and_authorities_are_renewed_under_load() {
    let Some(network) = Network::new(3) else { return };
    let _pods = pods(&network);
    let (old, new) = (Authority::new(), Authority::new());
    let meshes = [1, 2, 3].map(|host| start(&network, host, &old, "required"));
    let both = format!("{}{}", old.pem(), new.pem());
    let renewed = |mesh: &Mesh, host: u8, authority: &Authority, life_days: u64| {
        let until = std::time::SystemTime::now() + Duration::from_secs(life_days * 86_400);
        let wanted = wanted(&network, host).valid(std::time::SystemTime::UNIX_EPOCH, until);
        renew(mesh, authority, &wanted);
        let until = until.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let near = |value: f64| (value - until.as_secs_f64()).abs() < 2.0;
        assert!(wait_until(WITHIN, || near(mesh.metric(EXPIRY))), "the new one is not served");
    };
    let before = meshes.each_ref().map(|mesh| mesh.descriptors());
    let connections = std::thread::scope(|scope| {
        let load = Load::start(scope, &network, &PAIRS);
        load.go_on();
        // Another certificate of the same authority, then another authority in three steps.
        for (host, mesh) in (1..).zip(&meshes) {
            renewed(mesh, host, &old, 30);
            load.go_on();
        }
        let reloads = "cloverleaf_reloads_total{result=\"ok\"}";
        for mesh in &meshes {
            let before = mesh.metric(reloads);
            mesh.replace("bundle.pem", &both);
            mesh.wait_metric(reloads, before + 1.0);
            load.go_on();
        }
        for (host, mesh) in (1..).zip(&meshes) {
            renewed(mesh, host, &new, 60);
            load.go_on();
        }
        for mesh in &meshes {
            let before = mesh.metric(reloads);
            mesh.replace("bundle.pem", new.pem());
            mesh.wait_metric(reloads, before + 1.0);
            load.go_on();
        }
        load.finish()
    });
    for mesh in &meshes {
        assert!(tunnels(mesh, "out", "plain") < 0.5 && tunnels(mesh, "in", "plain") < 0.5);
        let resumed = "cloverleaf_mesh_handshakes_total{direction=\"in\",result=\"resumed\"}";
        let full = "cloverleaf_mesh_handshakes_total{direction=\"in\",result=\"full\"}";
        assert!(mesh.metric(resumed) > mesh.metric(full), "tickets are used");
    }
    for (mesh, before) in meshes.iter().zip(before) {
        let closed = wait_until(WITHIN, || mesh.descriptors() <= before);
        assert!(closed, "{} descriptors, {before} before", mesh.descriptors());
    }
    println!("{connections} connections");
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_one_before() {
    let Some(network) = Network::new(2) else { return };
    let _pods = pods(&network);
    let authority = Authority::new();
    let meshes = [1, 2].map(|host| start(&network, host, &authority, "required"));
    let mut open = connect(&network, 1, (network.address(1), 61_002));
    assert_eq!(read(&mut open, 2), "p2");
    let good = std::fs::read_to_string(meshes[1].path("svid.pem")).unwrap();
    for (text, said) in [
        ("", "no certificate in"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "not well-formed PEM"),
        (authority.pem(), "does not belong to the certificate"),
    ] {
        meshes[1].replace("svid.pem", text);
        meshes[1].wait_metric("cloverleaf_config_valid", 0.0);
        assert!(meshes[1].wait_log(said), "{said}");
        assert!(meshes[1].wait_log("stay required, with the certificate of before"));
        assert_eq!(reach(&network, 1, 2).unwrap(), "p2hello");
        meshes[1].replace("svid.pem", &good);
        meshes[1].wait_metric("cloverleaf_config_valid", 1.0);
    }
    // A mode that cannot be had is not entered.
    std::fs::remove_file(meshes[1].path("bundle.pem")).unwrap();
    meshes[1].wait_metric("cloverleaf_config_valid", 0.0);
    assert_eq!(reach(&network, 1, 2).unwrap(), "p2hello");
    send_all(&mut open, b"still here");
    assert_eq!(read_all(&mut open), "still here");
}

#[test]
fn a_large_stream_arrives_whole_and_half_closes() {
    const BYTES: usize = 8 * 1024 * 1024;
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "");
    let authority = Authority::new();
    let _meshes = [1, 2].map(|host| start(&network, host, &authority, "required"));
    let mut stream = connect(&network, 1, (network.address(1), 61_002));
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let mut reads = stream.try_clone().unwrap();
    let got = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut got = Vec::new();
            reads.read_to_end(&mut got).map(|_| got)
        });
        send_all(&mut stream, &sent);
        reader.join().unwrap().unwrap()
    });
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}
