//! The whole of it in one thread and without a clock: a server, agents, clients of both kinds and targets, over wires
//! that delay what they carry, each by its own chance, and that may break. All but TLS and sockets is what serves.
//!
//! Held for each seed: no byte is lost or swapped; every dial is answered or fails within its bound; nobody waits for a
//! connection that nobody reads, or on the original's wire for a bounded time; the books of every link are right; and
//! in the end nothing is left. `select!` has a chance of its own, so that a seed need not fail each time. Start at
//! [`run`].

mod clients;
mod targets;
mod wire;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use balance::Rng;
use model::{Place, Target, UpstreamTls, Verification};
use net::dial::Dialer;
use tls::ClientTls;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::agent::session::{self, Aim, Attempt};
use crate::agent::{Address, Agent, CountSource, Settings as AgentSettings};
use crate::identifiers::Identifiers;
use crate::link::STALL_MAX;
use crate::server::admission::{Admission, Peer};
use crate::server::listen::{Port, connection};
use crate::server::{Hub, Mode, Settings, Strategy};
use crate::splice::STUCK_MAX;
use targets::Simulated;
use wire::Wire;

/// Nothing takes longer: who does is stuck.
const RUN_MAX: Duration = Duration::from_secs(QUIET_MAX.as_secs() + 900);
/// After the last client, until nothing is left: a server cannot tell one that has gone from one that waits.
const QUIET_MAX: Duration = Duration::from_secs(2 * STUCK_MAX.as_secs() + 600);
/// The longest wait of a wire, each way, and of a server for its agent's answer.
const DELAY_MAX: Duration = Duration::from_millis(20);
const DIAL_BOUND: Duration = Duration::from_secs(8);
const CLIENTS: usize = 24;

/// What all in a run know.
struct World {
    hub: Arc<Hub>,
    mode: Mode,
    /// Whether both ends of the streams of agents are ours, and so have credit and half-close.
    ours: bool,
    rng: RefCell<Rng>,
    /// When a wire of an agent was last broken.
    broken: Cell<Option<Instant>>,
    /// Connections that nobody reads, so far.
    deaf: Cell<u32>,
}

impl World {
    fn rng(&self) -> Rng {
        Rng::new(self.rng.borrow_mut().next_u64())
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    /// A wait by chance.
    async fn wait(&self, most: Duration) {
        sleep(Duration::from_micros(self.below(most.as_micros() as u64 + 1))).await;
    }

    /// A wire to the server's port for these.
    fn connect(&self, port: Port) -> (tokio::io::DuplexStream, Vec<AbortHandle>) {
        let Wire { near, far, relays } = wire::wire(&self.rng(), DELAY_MAX);
        drop(net::task::spawn_local(
            "server",
            connection(far, self.hub.clone(), port, Peer::default()),
        ));
        (near, relays)
    }

    /// Whether an agent may have gone since then: it takes a moment until it is back.
    fn broke_since(&self, start: Instant) -> bool {
        self.broken.get().is_some_and(|at| at + Duration::from_secs(1) >= start)
    }

    /// How long a round trip beside everything else may take.
    fn patience(&self) -> Duration {
        let still = Duration::from_secs(3);
        if self.ours { still } else { still + 2 * STALL_MAX * (1 + self.deaf.get()) }
    }
}

fn hub(mode: Mode, rng: &mut Rng) -> Arc<Hub> {
    let settings = Settings {
        mode,
        server_id: "simulated".to_owned(),
        server_count: 1,
        strategies: vec![Strategy::Default],
        backend_dial_timeout: Some(DIAL_BOUND),
        keepalive: Duration::from_secs(30),
        frontend_keepalive: Duration::from_secs(30),
    };
    Hub::new(settings, Admission::default(), rng.next_u64())
}

/// Where nothing is: streams are handed over.
fn nowhere() -> Address {
    let target = Target::Address(([127, 0, 0, 1], 1).into());
    Address { target, name: "127.0.0.1".to_owned() }
}

fn agent(name: usize, ours: bool) -> Arc<Agent> {
    let unused = UpstreamTls { verification: Verification::Skip, server_name: None };
    let tls = ClientTls::load(&unused, &Place::whole("nowhere")).unwrap();
    let settings = AgentSettings {
        servers: vec![nowhere()],
        agent_id: format!("agent{name}"),
        identifiers: Identifiers::default(),
        tls: Arc::new(ArcSwap::from_pointee(tls)),
        token: Box::new(|| Ok(None)),
        sync_interval: Duration::from_secs(1),
        sync_interval_cap: Duration::from_secs(1),
        sync_forever: false,
        count: CountSource::Servers,
        keepalive: Duration::from_secs(30),
        process: 1,
        extensions: ours,
    };
    Agent::new(settings, Dialer::default())
}

/// An agent's streams, one after the other; the wires break now and then where `breaks` says so.
async fn keep_connected(world: Rc<World>, agent: Arc<Agent>, breaks: bool) {
    loop {
        let (near, relays) = world.connect(Port::Agents);
        let broken = world.clone();
        let breaking = net::task::spawn_local("break", async move {
            if breaks {
                broken.wait(Duration::from_secs(20)).await;
                broken.broken.set(Some(Instant::now()));
                relays.iter().for_each(AbortHandle::abort);
            }
        });
        match session::begin(&agent, near, Aim { address: &nowhere(), carrier: 0 }).await {
            Ok(Attempt::New(session)) => session.run(&agent, Simulated::new(world.rng())).await,
            Ok(Attempt::Known(_)) | Err(_) => {}
        }
        breaking.abort();
        world.wait(Duration::from_millis(200)).await;
    }
}

/// Looks through the books of all agents' streams for ever.
async fn audit(world: Rc<World>) {
    loop {
        world.hub.check();
        sleep(Duration::from_millis(50)).await;
    }
}

/// One byte there and back again and again, on connections of its own: the others do not hold it up.
async fn canary(world: Rc<World>) {
    loop {
        let start = Instant::now();
        let trip = timeout(world.patience(), clients::round_trip(&world)).await;
        let late = start.elapsed() > world.patience();
        let done = !late && trip.is_ok_and(|done| done);
        assert!(done || world.broke_since(start), "after {:?}", start.elapsed());
        world.wait(Duration::from_millis(500)).await;
    }
}

/// What there still is of connections, dials and calls, by name.
fn left(world: &World, agents: &[Arc<Agent>]) -> Vec<(&'static str, u64)> {
    let stats = &world.hub.stats;
    let links = world.hub.agents().iter().map(|a| a.connections + a.pending_dials).sum::<usize>();
    let mut all = vec![
        ("established", stats.established.get()),
        ("pending dials", stats.pending_dials.get()),
        ("clients' calls", stats.proxy_streams.get()),
        ("CONNECT", stats.http_connections.get()),
        ("connections at the server", links as u64),
        ("targets", agents.iter().map(|agent| agent.stats.open_endpoints.get()).sum()),
    ];
    all.retain(|(_, count)| *count > 0);
    all
}

async fn everything(seed: u64) {
    let mut rng = Rng::new(seed);
    let mode = if rng.below(2) == 0 { Mode::Grpc } else { Mode::HttpConnect };
    let ours = rng.below(3) > 0;
    let breaks = rng.below(3) == 0;
    let hub = hub(mode, &mut rng);
    let (rng, broken, deaf) = (RefCell::new(rng), Cell::new(None), Cell::new(0));
    let world = Rc::new(World { hub, mode, ours, rng, broken, deaf });
    let agents: Vec<_> = (0..=world.below(2) as usize).map(|name| agent(name, ours)).collect();
    let keep = |agent: &Arc<Agent>| keep_connected(world.clone(), agent.clone(), breaks);
    let running: Vec<_> =
        agents.iter().map(|agent| net::task::spawn_local("agent", keep(agent))).collect();
    while world.hub.agents().len() < agents.len() {
        sleep(Duration::from_millis(10)).await;
    }
    let audit = net::task::spawn_local("audit", audit(world.clone()));
    let canary = net::task::spawn_local("canary", canary(world.clone()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| net::task::spawn_local("client", clients::live(world.clone())))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(!canary.is_finished() && !audit.is_finished(), "see above");
    canary.abort();
    audit.abort();
    let start = Instant::now();
    while !left(&world, &agents).is_empty() {
        let left = left(&world, &agents);
        assert!(start.elapsed() < QUIET_MAX, "{left:?} are left");
        sleep(Duration::from_secs(5)).await;
    }
    world.hub.check();
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

/// One run, all of whose chance comes from the seed.
fn run(seed: u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let panics = net::task::panics();
    let local = LocalSet::new();
    let ended = local.block_on(&runtime, async { timeout(RUN_MAX, everything(seed)).await });
    assert!(ended.is_ok(), "stuck");
    assert_eq!(net::task::panics(), panics, "a task panicked, see above");
}

#[test]
fn whatever_happens_no_byte_is_lost_and_nobody_waits_for_ever() {
    for seed in 0..12 {
        let ended = std::panic::catch_unwind(|| run(seed));
        assert!(ended.is_ok(), "seed {seed} fails, see above");
    }
}
