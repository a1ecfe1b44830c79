//! Files that change, go, or are half written; signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{Network, wait_until};

use crate::support::*;

const ONE: &str = "61000:30000:1000:false\n";
const OTHER: &str = "61000:30001:1000:false\n";

fn pods(network: &Network) -> [Server; 2] {
    [Server::pod(network, 1, 30_000, "p0"), Server::pod(network, 1, 30_001, "p1")]
}

fn becomes(network: &Network, pod: &str) {
    let reached = wait_until(WITHIN, || greeting(network, 1).as_deref() == Some(pod));
    assert!(reached, "{pod} is not reached");
}

#[test]
fn a_new_file_is_served_and_open_connections_go_on() {
    let Some(network) = Network::new(1) else { return };
    let _pods = pods(&network);
    let mesh = Start::new(&network, 1, ONE).start();
    let mut old = client(&network, 1);
    assert_eq!(read(&mut old, 2), "p0");
    mesh.replace("portmappings.conf", OTHER);
    let ((), took) = timed(|| becomes(&network, "p1"));
    println!("served after {took:?}");
    // In place, too.
    std::fs::write(mesh.path("portmappings.conf"), ONE).unwrap();
    becomes(&network, "p0");
    send_all(&mut old, b"still here");
    assert_eq!(read_all(&mut old), "still here");
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_said() {
    let Some(network) = Network::new(1) else { return };
    let _pods = pods(&network);
    let mesh = Start::new(&network, 1, ONE).start();
    let hosts = hosts_conf(&network, [1]);
    for (file, text, said) in [
        (
            "portmappings.conf",
            "61000:30001:10",
            "portmappings.conf:1:1: error: the file breaks off",
        ),
        ("hosts.conf", "", "hosts.conf: error: is empty"),
        ("proxy.conf", "PORT none\n", "proxy.conf:1:6: error: PORT"),
    ] {
        let before = mesh.metric("cloverleaf_reloads_total{result=\"invalid\"}");
        mesh.replace(file, text);
        mesh.wait_metric("cloverleaf_reloads_total{result=\"invalid\"}", before + 1.0);
        assert!(mesh.wait_log(said), "{said}");
        assert!((mesh.metric("cloverleaf_config_valid")).abs() < 0.5);
        assert_eq!(greeting(&network, 1).as_deref(), Some("p0"));
        let good = match file {
            "portmappings.conf" => ONE.to_owned(),
            "hosts.conf" => hosts.clone(),
            _ => format!("HOST {}\n", network.address(1)),
        };
        mesh.replace(file, &good);
        mesh.wait_metric("cloverleaf_config_valid", 1.0);
    }
    std::fs::remove_file(mesh.path("portmappings.conf")).unwrap();
    mesh.wait_metric("cloverleaf_config_valid", 0.0);
    assert_eq!(greeting(&network, 1).as_deref(), Some("p0"));
    // Empty it is a host on which nothing runs.
    mesh.replace("portmappings.conf", "");
    assert!(wait_until(WITHIN, || greeting(&network, 1).is_none()));
}

#[test]
fn files_that_are_wrong_at_the_start_end_it_with_their_place() {
    let Some(network) = Network::new(1) else { return };
    for (settings, said) in [
        ("PORT 70000\n", "proxy.conf:1:6: error: PORT: a value that cannot be used"),
        ("CLUSTERPORTS 9-5\n", "no cluster port"),
    ] {
        let mut mesh = Start::new(&network, 1, "")
            .file("proxy.conf", settings)
            .settings(&format!("HOST {}", network.address(1)))
            .unready();
        assert_ne!(mesh.wait_exit(), Some(0));
        assert!(mesh.wait_log(said), "{}", mesh.log());
    }
    let start = Start::new(&network, 1, "");
    let mut mesh = start.file("proxy.conf", "").file("hosts.conf", "").unready();
    assert_eq!(mesh.wait_exit(), Some(2));
    assert!(mesh.wait_log("nowhere to listen"), "{}", mesh.log());
}

#[test]
fn a_host_without_a_host_setting_is_the_first_line_of_hosts() {
    let Some(network) = Network::new(1) else { return };
    let _pods = pods(&network);
    let _mesh = Start::new(&network, 1, ONE).file("proxy.conf", "PODHOST \"\"\n").start();
    becomes(&network, "p0");
}

#[test]
fn hang_up_reloads_and_terminate_drains() {
    let Some(network) = Network::new(1) else { return };
    let _pods = pods(&network);
    let mut mesh = Start::new(&network, 1, ONE).start();
    mesh.signal("HUP");
    let reloads = "cloverleaf_reloads_total{result=\"ok\"}";
    mesh.wait_metric(reloads, 1.0);
    let mut open = client(&network, 1);
    assert_eq!(read(&mut open, 2), "p0");
    mesh.signal("TERM");
    let to = (network.address(1), 61_000);
    assert!(wait_until(WITHIN, || try_connect(&network, 1, to).is_err()), "still accepting");
    assert!(mesh.try_exit().is_none());
    send_all(&mut open, b"the rest");
    assert_eq!(read_all(&mut open), "the rest");
    assert_eq!(mesh.wait_exit(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_connections() {
    let Some(network) = Network::new(1) else { return };
    let _pods = pods(&network);
    let mut mesh = Start::new(&network, 1, ONE).start();
    let mut open = client(&network, 1);
    assert_eq!(read(&mut open, 2), "p0");
    mesh.signal("TERM");
    assert!(mesh.wait_log("stopping"));
    mesh.signal("INT");
    assert_eq!(mesh.wait_exit(), Some(0));
    assert_eq!(read_all(&mut open), "");
}

#[test]
fn connections_come_and_go_while_files_change_all_the_time() {
    const CLIENTS: usize = 4;
    let Some(network) = Network::new(2) else { return };
    let _pods = pods(&network);
    let _far = Server::pod(&network, 2, 30_000, "p2");
    let mesh = Start::new(&network, 1, ONE).start();
    let _other = Start::new(&network, 2, "61000:30000:1000:false\n").start();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client_number in 0..CLIENTS {
            let (network, stop, served) = (&network, stop.clone(), &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = client(network, 1);
                    let payload = format!("client {client_number}");
                    send_all(&mut stream, payload.as_bytes());
                    let got = read_all(&mut stream);
                    assert!(got.starts_with('p') && got.ends_with(&payload), "{got:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..60 {
            let text = [ONE, OTHER, "", "61000:30001:1:fal"][round % 4];
            mesh.replace("portmappings.conf", text);
            if round % 7 == 0 {
                mesh.signal("HUP");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 50, "{served:?}");
}
