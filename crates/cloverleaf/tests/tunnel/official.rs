//! The official client library, as a process: what it does to a server in production.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use testkit::konnectivity::Outcome;
use testkit::{Konnectivity, wait_until};

use crate::support::{Agent, Tunnel, WITHIN, echo, source, target};

/// The library's own patience with a connection that nobody reads is 10 s; the original blocked as long.
const STALL: Duration = Duration::from_secs(8);

/// All is done at the second time of asking over one connection to the server.
const TUNNELS: [&str; 2] = ["-reuse=false", "-reuse=true"];

struct Client {
    program: Konnectivity,
    tunnel: Tunnel,
    agent: Agent,
}

impl Client {
    fn new(agent: &[&str]) -> Option<Self> {
        let program = Konnectivity::for_test()?;
        let (tunnel, agent) = Tunnel::with_agent("grpc", agent);
        Some(Self { program, tunnel, agent })
    }

    fn run(&self, command: &str, target: impl std::fmt::Display, more: &[&str]) -> Outcome {
        let proxy = format!("-proxy={}", self.tunnel.grpc_address());
        let target = format!("-target={target}");
        let arguments = [&[command, &proxy, &target], more].concat();
        self.program.run(&arguments)
    }

    fn all_good(&self, command: &str, target: impl std::fmt::Display, count: usize, more: &[&str]) {
        let n = format!("-n={count}");
        let outcome = self.run(command, target, &[&[n.as_str()], more].concat());
        assert_eq!((outcome.good, outcome.bad), (count, 0), "{more:?}: {}", outcome.last);
    }
}

#[test]
fn every_byte_there_and_back_at_any_size_of_write() {
    for agent in [&[][..], &["--no-extensions"]] {
        let Some(client) = Client::new(agent) else { return };
        let echo = echo();
        for reuse in TUNNELS {
            client.all_good("echo", echo, 4, &[reuse, "-size=3000000", "-at-once=2"]);
            // Beyond gRPC's own bound, which ends the stream of the original.
            client.all_good("echo", echo, 1, &[reuse, "-size=6000000", "-write=6000000"]);
        }
    }
}

#[test]
fn hundreds_of_connections_come_and_go() {
    let Some(client) = Client::new(&[]) else { return };
    let echo = echo();
    let rest = (client.tunnel.server.descriptors(), client.agent.process.descriptors());
    for reuse in TUNNELS {
        client.all_good("echo", echo, 400, &[reuse, "-at-once=16"]);
    }
    let quiet = || {
        let now = (client.tunnel.server.descriptors(), client.agent.process.descriptors());
        now.0 <= rest.0 + 2 && now.1 <= rest.1 + 2
    };
    assert!(wait_until(WITHIN, quiet), "{rest:?}");
}

#[test]
fn greetings_of_targets_that_speak_first_arrive() {
    let Some(client) = Client::new(&[]) else { return };
    let greets = target(|mut stream| {
        let _ = stream.write_all(&[7; 64]);
        let _ = stream.read(&mut [0]);
    });
    for reuse in TUNNELS {
        client.all_good("greeting", greets, 100, &[reuse, "-size=64"]);
    }
}

#[test]
fn connections_left_in_the_middle_hold_up_no_new_one() {
    let Some(client) = Client::new(&[]) else { return };
    let (echo, source) = (echo(), source());
    for reuse in TUNNELS {
        client.all_good("abandon", source, 8, &[reuse, "-size=1000000", "-at-once=4"]);
        let start = Instant::now();
        client.all_good("echo", echo, 1, &[reuse]);
        assert!(start.elapsed() < STALL, "{:?}", start.elapsed());
    }
}

#[test]
fn dials_given_up_at_any_moment_leave_nothing() {
    let Some(client) = Client::new(&[]) else { return };
    let echo = echo();
    for reuse in TUNNELS {
        client.all_good("cancel", echo, 200, &[reuse, "-at-once=8"]);
        client.all_good("echo", echo, 1, &[reuse]);
    }
    let left = || {
        client.tunnel.metric("konnectivity_network_proxy_server_established_connections")
            + client.tunnel.metric("konnectivity_network_proxy_server_pending_backend_dials")
            + client.agent.metric("konnectivity_network_proxy_agent_open_endpoint_connections")
    };
    assert!(wait_until(WITHIN, || left() == 0.0), "{}", left());
}
