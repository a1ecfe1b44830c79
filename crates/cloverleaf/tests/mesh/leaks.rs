//! Nothing is left behind: sockets, memory, counts.

use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{Network, wait_until};

use crate::support::*;

/// One connection, ended in one of several ways.
fn one(network: &Network, number: usize) {
    let mut stream = client(network, 1);
    match number % 4 {
        0 => {
            send_all(&mut stream, b"x");
            read_all(&mut stream);
        }
        1 => {
            read(&mut stream, 2);
        }
        2 => drop(stream),
        _ => {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Tells the kernel how a host does TCP.
fn set(network: &Network, host: u8, name: &str, value: &str) {
    let write = format!("echo {value} > /proc/sys/net/ipv4/{name}");
    assert!(network.command(host, "sh").args(["-c", &write]).status().unwrap().success());
}

/// What 30 s at 1,000 a second are, as fast as the clients get them: a slow machine takes longer and does the same.
#[test]
fn thousands_of_connections_leave_nothing_behind() {
    const THREADS: usize = 8;
    const CONNECTIONS: usize = 30_000;
    let Some(network) = Network::new(2) else { return };
    // More than there are ports to come from, each of which the kernel otherwise keeps for a minute.
    for host in [1, 2] {
        set(&network, host, "tcp_tw_reuse", "1");
    }
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let meshes = [
        Start::new(&network, 1, "").start(),
        Start::new(&network, 2, "61000:30000:1000:false\n").start(),
    ];
    (0..200).for_each(|number| one(&network, number));
    let open = "cloverleaf_mesh_pod_connections_open{cluster_port=\"61000\",host_port=\"30000\"}";
    meshes[1].wait_metric(open, 0.0);
    let settled = |mesh: &Mesh| {
        let before = mesh.descriptors();
        std::thread::sleep(Duration::from_millis(200));
        before.min(mesh.descriptors())
    };
    let before = meshes.each_ref().map(|mesh| (settled(mesh), mesh.memory_kib()));
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    if number >= CONNECTIONS {
                        break;
                    }
                    one(&network, number);
                }
            });
        }
    });
    meshes[1].wait_metric(open, 0.0);
    for (mesh, (fds, memory)) in meshes.iter().zip(before) {
        let same = wait_until(WITHIN, || mesh.descriptors() <= fds + 2);
        assert!(same, "{} descriptors, {fds} before", mesh.descriptors());
        let now = mesh.memory_kib();
        println!("{memory} KiB before, {now} KiB after");
        assert!(now < memory + 8 * 1024, "{memory} KiB before, {now} KiB after");
    }
}

#[test]
fn a_host_without_free_ports_says_so() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let there = Start::new(&network, 2, "61000:30000:1000:false\n").start();
    let here = Start::new(&network, 1, "").start();
    set(&network, 1, "ip_local_port_range", "40000 40010");
    let address = (network.address(1), 61_000);
    let many: Vec<_> = (0..12).map(|_| connect(&network, 2, address)).collect();
    assert!(here.wait_log("no local port is free for connections to a host"));
    drop((many, there));
}

#[test]
fn idle_connections_cost_little() {
    const CONNECTIONS: usize = 500;
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, "61000:30000:10000:false\n").start();
    let open = |count: usize| -> Vec<_> {
        let open = |_| {
            let mut stream = client(&network, 1);
            read(&mut stream, 2);
            stream
        };
        (0..count).map(open).collect()
    };
    let some = open(50);
    let before = mesh.memory_kib();
    let more = open(CONNECTIONS);
    let now = mesh.memory_kib();
    let each = now.saturating_sub(before) * 1024 / CONNECTIONS as u64;
    println!("{each} bytes a connection");
    assert!(each < 10 * 1024, "{each} bytes a connection");
    drop((some, more));
}

#[test]
fn silent_hosts_leave_no_sockets_behind() {
    let Some(network) = Network::new(2) else { return };
    let _silent = Original::new(&network, 2, b"", Then::Silence);
    let hosts = hosts_conf(&network, (1..=2).chain(50..55));
    let settings = "HOSTTIMEOUT 300\nNEXTHOST 50\nTOTALTIMEOUT 1000";
    let mesh = Start::new(&network, 1, "").settings(settings).file("hosts.conf", &hosts).start();
    let before = mesh.descriptors();
    let streams: Vec<_> = (0..20).map(|_| client(&network, 1)).collect();
    for mut stream in streams {
        assert_eq!(read_all(&mut stream), "");
    }
    assert!(wait_until(WITHIN, || mesh.descriptors() <= before), "{}", mesh.descriptors());
}
