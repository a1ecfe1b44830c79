//! Several servers behind one address, as a load balancer has it, and agents that have to find them all.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Agent, Tunnel, WITHIN, echo, get, round_trip};
use testkit::{Authority, wait_until};

const OPEN: &str = "konnectivity_network_proxy_agent_open_server_connections";
const KNOWN: &str = "konnectivity_network_proxy_agent_known_server_count";

/// A connection to a backend, and the bytes that it brought.
type Carried = (TcpStream, Arc<AtomicUsize>);

/// A load balancer for TCP: each connection goes to one of the backends, by a chance that does not know the others.
struct Balancer {
    address: SocketAddr,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    carried: Arc<Mutex<Vec<Carried>>>,
}

impl Balancer {
    fn new(backends: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let backends = Arc::new(Mutex::new(backends));
        let (behind, next) = (backends.clone(), AtomicUsize::new(0));
        let carried = Arc::new(Mutex::new(Vec::new()));
        let note = carried.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let all = behind.lock().unwrap().clone();
                // Numbers that repeat and skip, as chance does.
                let number = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761);
                let chosen = all[(number >> 13) % all.len()];
                let Ok(server) = TcpStream::connect(chosen) else { continue };
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = Arc::new(AtomicUsize::new(0));
                note.lock().unwrap().push((server.try_clone().unwrap(), counted.clone()));
                std::thread::spawn(move || carry(client, server, &AtomicUsize::new(0)));
                std::thread::spawn(move || carry(forth, back, &counted));
            }
        });
        Self { address, backends, carried }
    }

    /// How much each connection has brought so far.
    fn brought(&self) -> Vec<usize> {
        let all = self.carried.lock().unwrap();
        all.iter().map(|(_, bytes)| bytes.load(Ordering::Relaxed)).collect()
    }

    fn cut(&self, index: usize) {
        self.carried.lock().unwrap()[index].0.shutdown(Shutdown::Both).unwrap();
    }

    fn set(&self, backends: Vec<SocketAddr>) {
        *self.backends.lock().unwrap() = backends;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, counted: &AtomicUsize) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(count, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn server(authority: &Arc<Authority>, id: &str, count: usize) -> Tunnel {
    let flags = [format!("--server-id={id}"), format!("--server-count={count}")];
    Tunnel::server_of(authority.clone(), "http-connect", &[&flags[0], &flags[1]])
}

fn addresses(servers: &[&Tunnel]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.agent_port.address()).collect()
}

/// An agent that knows the balancer alone.
fn agent(of: &Tunnel, balancer: &Balancer) -> Agent {
    of.agent(&[&format!("--proxy-server-port={}", balancer.address.port())])
}

fn serves(server: &Tunnel) {
    server.wait_ready();
    round_trip(&mut server.connected(echo())).unwrap();
}

#[test]
fn an_agent_finds_every_server_behind_one_address() {
    let authority = Arc::new(Authority::new());
    for count in [2, 3] {
        let servers: Vec<_> =
            (0..count).map(|id| server(&authority, &format!("s{id}"), count)).collect();
        let balancer = Balancer::new(addresses(&servers.iter().collect::<Vec<_>>()));
        let agents = [agent(&servers[0], &balancer), agent(&servers[0], &balancer)];
        for agent in &agents {
            assert!(wait_until(WITHIN, || agent.metric(OPEN) == count as f64), "{count}");
            assert_eq!(agent.metric(KNOWN), count as f64);
        }
        servers.iter().for_each(serves);
        // Doubles are left again: each server has each agent once.
        let ready = "konnectivity_network_proxy_server_ready_backend_connections";
        for server in &servers {
            assert!(wait_until(WITHIN, || server.metric(ready) == agents.len() as f64));
            assert!(!server.server.log().contains("an agent's stream has ended"));
        }
    }
}

#[test]
fn an_agent_keeps_to_each_server_that_it_is_told_without_a_balancer() {
    let authority = Arc::new(Authority::new());
    // Neither knows of the other.
    let (one, mut two) = (server(&authority, "one", 1), server(&authority, "two", 1));
    let hosts = addresses(&[&one, &two]).iter().map(ToString::to_string).collect::<Vec<_>>();
    let agent = one.agent(&[&format!("--proxy-server-host={}", hosts.join(","))]);
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    serves(&one);
    serves(&two);
    two.server.signal("KILL");
    two.server.wait_exit();
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 1.0));
    serves(&one);
    two.restart();
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    serves(&two);
}

#[test]
fn a_server_that_goes_is_missed_by_none_and_found_again() {
    let authority = Arc::new(Authority::new());
    let (one, mut two) = (server(&authority, "one", 2), server(&authority, "two", 2));
    let balancer = Balancer::new(addresses(&[&one, &two]));
    let agent = agent(&one, &balancer);
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    let mut kept = one.connected(echo());
    round_trip(&mut kept).unwrap();
    two.server.signal("KILL");
    two.server.wait_exit();
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 1.0));
    // Half of its attempts reach nobody meanwhile.
    round_trip(&mut kept).unwrap();
    serves(&one);
    assert_eq!(get(agent.health(), "/readyz").unwrap().0, 200);
    two.restart();
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    serves(&two);
    round_trip(&mut kept).unwrap();
}

#[test]
fn more_servers_are_found_when_one_of_them_says_so() {
    let authority = Arc::new(Authority::new());
    let mut one = server(&authority, "one", 1);
    let balancer = Balancer::new(addresses(&[&one]));
    let agent = agent(&one, &balancer);
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 1.0));
    // As a roll-out has it: the new one comes, then the old one restarts with the new count.
    let two = server(&authority, "two", 2);
    balancer.set(addresses(&[&one, &two]));
    one.server.signal("TERM");
    assert_eq!(one.server.wait_exit(), Some(0));
    one.restart_with(&["--server-count=2"]);
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    assert_eq!(agent.metric(KNOWN), 2.0);
    serves(&one);
    serves(&two);
}

#[test]
fn an_agent_that_drains_says_so_to_every_server() {
    let authority = Arc::new(Authority::new());
    let (one, two) = (server(&authority, "one", 2), server(&authority, "two", 2));
    let balancer = Balancer::new(addresses(&[&one, &two]));
    let (old, new) = (agent(&one, &balancer), agent(&one, &balancer));
    for agent in [&old, &new] {
        assert!(wait_until(WITHIN, || agent.metric(OPEN) == 2.0));
    }
    old.process.signal("TERM");
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    for server in [&one, &two] {
        assert!(server.server.wait_log("an agent is about to go"));
        let before = new.metric(open);
        let mut all: Vec<_> = (0..8).map(|_| server.connected(echo())).collect();
        all.iter_mut().for_each(|stream| round_trip(stream).unwrap());
        assert_eq!((new.metric(open), old.metric(open)), (before + 8.0, 0.0));
        drop(all);
        assert!(wait_until(WITHIN, || new.metric(open) == before));
    }
    // It connects to nobody any more, not even to a server that comes back.
    assert_eq!(old.metric(OPEN), 2.0);
}

#[test]
fn an_agent_with_several_carriers_uses_them_all_and_mends_one_that_breaks() {
    const CARRIERS: &str =
        "konnectivity_network_proxy_server_grpc_connections{service_method=\"Connect\"}";
    const BYTES: usize = 20_000;
    // One thread, so that no carrier is nearer than another.
    let server = Tunnel::server("http-connect", &["--workers=1"]);
    let balancer = Balancer::new(addresses(&[&server]));
    let port = format!("--proxy-server-port={}", balancer.address.port());
    let agent = server.agent(&[&port, "--carriers=3"]);
    assert!(wait_until(WITHIN, || server.metric(CARRIERS) == 3.0));
    assert_eq!((agent.metric(OPEN), agent.metric(KNOWN)), (1.0, 1.0));

    let before = balancer.brought();
    let mut open: Vec<_> = (0..6).map(|_| server.connected(echo())).collect();
    let payload = vec![7; BYTES];
    for stream in &mut open {
        stream.write_all(&payload).unwrap();
        let mut back = vec![0; BYTES];
        stream.read_exact(&mut back).unwrap();
    }
    // Two connections each.
    for (before, after) in before.iter().zip(balancer.brought()) {
        let each = after - before;
        assert!((2 * BYTES..3 * BYTES).contains(&each), "{each}");
    }

    balancer.cut(1);
    let alive =
        |open: &mut Vec<_>| open.iter_mut().filter_map(|stream| round_trip(stream).ok()).count();
    assert!(wait_until(WITHIN, || server.metric(CARRIERS) == 2.0 || balancer.brought().len() > 3));
    assert_eq!(alive(&mut open), 4);
    assert!(wait_until(WITHIN, || server.metric(CARRIERS) == 3.0));
    assert_eq!(agent.metric(OPEN), 1.0);
    serves(&server);
}

#[test]
fn an_agent_without_extensions_has_one_carrier() {
    let (server, agent) = Tunnel::with_agent("http-connect", &["--carriers=3", "--no-extensions"]);
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 1.0));
    let streams = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || server.metric(streams) == 1.0));
    // Further ones would be tried at once.
    let further = || server.metric(streams) > 1.0;
    assert!(!testkit::wait_until(Duration::from_secs(1), further));
}
