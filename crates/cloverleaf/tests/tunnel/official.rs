//! The official client library, as a process: what it does to a server in production.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use testkit::certs::Wanted;
use testkit::konnectivity::{Library, Outcome};
use testkit::{Authority, Issued, Konnectivity, wait_until};

use crate::support::{Agent, Tunnel, WITHIN, echo, source, target};

/// The library's own patience with a connection that nobody reads is 10 s; the original blocked as long.
const STALL: Duration = Duration::from_secs(8);

/// All is done at the second time of asking over one connection to the server.
const TUNNELS: [&str; 2] = ["-reuse=false", "-reuse=true"];

struct Client {
    program: Konnectivity,
    tunnel: Tunnel,
    agent: Agent,
    /// With which it connects.
    credentials: Vec<String>,
}

impl Client {
    fn new(agent: &[&str]) -> Option<Self> {
        Self::of(Library::NEWEST, agent)
    }

    fn of(library: Library, agent: &[&str]) -> Option<Self> {
        let program = Konnectivity::for_test(library)?;
        let (tunnel, agent) = Tunnel::with_agent("grpc", agent);
        Some(Self { program, tunnel, agent, credentials: Vec::new() })
    }

    /// One that speaks TLS.
    fn over_tls() -> Option<Self> {
        let program = Konnectivity::for_test(Library::NEWEST)?;
        let tunnel = Tunnel::over_tls("grpc", &[]);
        let agent = tunnel.agent(&[]);
        tunnel.wait_ready();
        let shown = tunnel.clients().issue(&Wanted::client("kube-apiserver"));
        let credentials = credentials(&tunnel, &shown);
        Some(Self { program, tunnel, agent, credentials })
    }

    fn run(&self, command: &str, target: impl std::fmt::Display, more: &[&str]) -> Outcome {
        let proxy = format!("-proxy={}", self.tunnel.grpc_address());
        let target = format!("-target={target}");
        let mut arguments = vec![command, &proxy, &target];
        arguments.extend(self.credentials.iter().map(String::as_str));
        arguments.extend(more);
        self.program.run(&arguments)
    }

    fn all_good(&self, command: &str, target: impl std::fmt::Display, count: usize, more: &[&str]) {
        let n = format!("-n={count}");
        let outcome = self.run(command, target, &[&[n.as_str()], more].concat());
        assert_eq!((outcome.good, outcome.bad), (count, 0), "{more:?}: {}", outcome.last);
    }
}

fn credentials(tunnel: &Tunnel, shown: &Issued) -> Vec<String> {
    let (cert, key) = (shown.chain_file.display(), shown.key_file.display());
    let ca = tunnel.authority.file();
    vec![format!("-ca={}", ca.display()), format!("-cert={cert}"), format!("-key={key}")]
}

#[test]
fn every_byte_there_and_back_at_any_size_of_write() {
    for agent in [&[][..], &["--no-extensions"]] {
        let Some(client) = Client::new(agent) else { return };
        let echo = echo();
        for reuse in TUNNELS {
            client.all_good("echo", echo, 4, &[reuse, "-size=3000000", "-at-once=2"]);
            client.all_good("echo", echo, 1, &[reuse, "-size=4194304", "-write=4194304"]);
            // Beyond gRPC's own bound, which ends the stream of the original.
            client.all_good("echo", echo, 1, &[reuse, "-size=6000000", "-write=6000000"]);
        }
    }
}

#[test]
fn a_thousand_connections_of_either_kind_leave_no_descriptor() {
    let Some(client) = Client::new(&[]) else { return };
    let echo = echo();
    let rest = (client.tunnel.server.descriptors(), client.agent.process.descriptors());
    for reuse in TUNNELS {
        client.all_good("echo", echo, 1000, &[reuse, "-at-once=16"]);
    }
    let quiet = || {
        let now = (client.tunnel.server.descriptors(), client.agent.process.descriptors());
        now.0 <= rest.0 + 2 && now.1 <= rest.1 + 2
    };
    assert!(wait_until(WITHIN, quiet), "{rest:?}");
}

#[test]
fn connections_that_say_nothing_keep_nothing_from_others_of_their_client() {
    let Some(client) = Client::new(&[]) else { return };
    for reuse in TUNNELS {
        client.all_good("together", echo(), 300, &[reuse, "-at-once=300"]);
    }
}

#[test]
fn greetings_of_targets_that_speak_first_arrive() {
    let Some(client) = Client::new(&[]) else { return };
    let greets = target(|mut stream| {
        let _ = stream.write_all(&[7; 64]);
        let _ = stream.read(&mut [0]);
    });
    for reuse in TUNNELS {
        client.all_good("greeting", greets, 300, &[reuse, "-size=64"]);
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

#[test]
fn connections_closed_at_any_moment_of_their_life_leave_nothing() {
    let Some(client) = Client::new(&[]) else { return };
    let (echo, deaf) = (echo(), target(|_stream| std::thread::sleep(WITHIN)));
    for reuse in TUNNELS {
        client.all_good("vanish", echo, 100, &[reuse, "-at-once=8", "-write=100000"]);
        // On a busy machine: the library waits 10 s for each close that is stuck behind what is not taken.
        let patient = [reuse, "-at-once=8", "-write=100000", "-within=60s"];
        client.all_good("vanish", deaf, 20, &patient);
        client.all_good("echo", echo, 1, &[reuse]);
    }
    let established = "konnectivity_network_proxy_server_established_connections";
    assert!(wait_until(WITHIN, || client.tunnel.metric(established) == 0.0));
}

#[test]
fn a_connection_that_its_program_does_not_read_holds_up_no_other() {
    let Some(client) = Client::new(&[]) else { return };
    let (echo, source) = (echo(), source());
    std::thread::scope(|scope| {
        scope.spawn(|| client.all_good("unread", source, 4, &["-at-once=4"]));
        let open = "konnectivity_network_proxy_server_established_connections";
        assert!(wait_until(WITHIN, || client.tunnel.metric(open) >= 4.0));
        let start = Instant::now();
        client.all_good("echo", echo, 20, &["-reuse=true", "-size=100000"]);
        assert!(start.elapsed() < STALL, "{:?}", start.elapsed());
    });
}

#[test]
fn over_mutual_tls_tunnels_of_either_kind_work() {
    let Some(client) = Client::over_tls() else { return };
    let echo = echo();
    for reuse in TUNNELS {
        client.all_good("echo", echo, 8, &[reuse, "-size=1000000", "-at-once=4"]);
        client.all_good("echo", echo, 100, &[reuse, "-at-once=8"]);
    }
}

#[test]
fn clients_with_certificates_of_no_use_are_refused_counted_and_logged() {
    let Some(mut client) = Client::over_tls() else { return };
    let (tunnel, stranger) = (&client.tunnel, Authority::new());
    // Go's library shows none that the server would not take, as of another authority.
    let refused = [
        ("no_client_certificate", stranger.issue(&Wanted::client("kube-apiserver"))),
        (
            "bad_client_certificate",
            tunnel.clients().issue(&Wanted::client("kube-apiserver").expired()),
        ),
        ("bad_client_certificate", tunnel.clients().issue(&Wanted::server(&["kube-apiserver"]))),
    ]
    .map(|(why, shown)| (why, credentials(tunnel, &shown)));
    let good = std::mem::take(&mut client.credentials);
    let echo = echo();
    for (why, credentials) in refused {
        let failed = format!(
            "cloverleaf_tunnel_failed_handshakes_total{{port=\"clients\",reason=\"{why}\"}}"
        );
        let before = client.tunnel.metric(&failed);
        client.credentials = credentials;
        let outcome = client.run("echo", echo, &["-within=2s"]);
        assert_eq!((outcome.good, outcome.bad), (0, 1), "{why}");
        assert!(client.tunnel.metric(&failed) > before, "{why}");
    }
    // Without any.
    client.credentials = vec![good[0].clone()];
    let outcome = client.run("echo", echo, &["-within=2s"]);
    assert_eq!((outcome.good, outcome.bad), (0, 1));
    client.credentials = good;
    client.all_good("echo", echo, 1, &[]);
    let log = client.tunnel.server.log();
    assert!(log.contains("no_client_certificate") && log.contains("127.0.0.1:"), "{log}");
}

#[test]
fn older_versions_of_the_library_are_served_as_well() {
    let (greets, echo) = (
        target(|mut stream| {
            let _ = stream.write_all(&[7; 64]);
            let _ = stream.read(&mut [0]);
        }),
        echo(),
    );
    for library in [Library::V0_28, Library::V0_0_14] {
        let Some(client) = Client::of(library, &[]) else { return };
        client.all_good("echo", echo, 50, &["-at-once=8"]);
        client.all_good("echo", echo, 2, &["-size=3000000", "-at-once=2"]);
        client.all_good("echo", echo, 1, &["-size=4194304", "-write=4194304"]);
        client.all_good("greeting", greets, 50, &["-size=64"]);
        client.all_good("cancel", echo, 50, &["-at-once=8"]);
        client.all_good("abandon", source(), 4, &["-size=1000000", "-at-once=4"]);
        client.all_good("echo", echo, 1, &[]);
    }
}
