//! Hosts of a benchmark that are network namespaces: made so that many short connections fit, with a link as slow as
//! wanted, and asked whether a program on one is ready. Must not know what runs there.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::Network;

use crate::sh;

/// What short connections need: ports that nothing listens on, and free again a second after their connection.
const SYSCTLS: [(&str, &str); 2] = [("ip_local_port_range", "33000 60999"), ("tcp_tw_reuse", "1")];
/// For an answer about readiness.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// So many hosts at a switch.
pub(crate) fn open(hosts: u8) -> Result<Network> {
    let network = Network::new(hosts).context("network namespaces need root")?;
    for host in 1..=hosts {
        network.on(host, || {
            SYSCTLS.iter().try_for_each(|(name, value)| {
                fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
            })
        })?;
    }
    Ok(network)
}

/// What a host sends goes out at so many Mbit/s from now on, after a queue of 50 ms.
pub(crate) fn slow(network: &Network, host: u8, megabits_a_second: u32) -> Result<()> {
    let mut command = network.command(host, "tc");
    command
        .args(["qdisc", "add", "dev", "eth0", "root", "tbf", "burst", "256kb", "latency", "50ms"]);
    command.args(["rate", &format!("{megabits_a_second}mbit")]);
    sh::capture(&mut command).map(drop)
}

/// Whether a program says that it is ready, asked by a thread of its host.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    ask().is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
}
