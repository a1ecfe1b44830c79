//! The agent: streams to as many servers as there are behind one address, and the connections that they ask for.
//!
//! `servers` knows which servers there are streams to, `pace` decides when to connect to one again, `session` is one
//! stream, `dial` one connection. Must not know
//! flags or files. Start at [`Agent`].

pub(crate) mod dial;
mod pace;
mod servers;
pub(crate) mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use balance::Rng;
use model::Target;
use net::dial::Dialer;
use tls::ClientTls;
use tokio::sync::watch;

use crate::grpc::StreamError;
use crate::identifiers::Identifiers;
use crate::stats::{
    Counter, Durations, Gauge, NO_PACKET, Named, Packets, StreamErrors, TargetDials,
};
use pace::Pace;
use servers::Servers;
use session::{Aim, Attempt};

/// Where the token is read from at each connection, if there is one.
pub type Token = Box<dyn Fn() -> Result<Option<String>, std::io::Error> + Send + Sync>;

/// Who says how many servers there are.
#[derive(Debug, Clone)]
pub enum CountSource {
    /// The servers themselves: the last one that there was a stream to.
    Servers,
    /// Somebody who counts them.
    Counted(watch::Receiver<usize>),
    /// Whichever of the two says more.
    Larger(watch::Receiver<usize>),
}

/// Where servers are: one, or a load balancer in front of several.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where to connect.
    pub target: Target,
    /// The name in their certificates.
    pub name: String,
}

/// What an agent is told when it starts.
pub struct Settings {
    /// Where the servers are, at least one: an attempt to connect takes the next.
    pub servers: Vec<Address>,
    /// What the agent calls itself.
    pub agent_id: String,
    /// What it is for.
    pub identifiers: Identifiers,
    /// Its own certificate and the servers' authorities; changed while streams go on.
    pub tls: Arc<ArcSwap<ClientTls>>,
    /// Asked for at each connection.
    pub token: Token,
    /// Between two connections to servers.
    pub sync_interval: Duration,
    /// What that grows to while they fail.
    pub sync_interval_cap: Duration,
    /// Go on connecting when there is a stream to every server: for servers whose count is not told.
    pub sync_forever: bool,
    /// Who says how many servers there are.
    pub count: CountSource,
    /// A number that no other agent has: all carriers of this one say it.
    pub process: u64,
    /// How often a silent server is asked whether it lives.
    pub keepalive: Duration,
    /// Whether to say that this end is ours. Without it the wire is as an original's.
    pub extensions: bool,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is no text for logs.
        let names = (&self.servers, &self.agent_id);
        f.debug_tuple("Settings").field(&names).finish_non_exhaustive()
    }
}

/// What an agent counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connecting to targets.
    pub dial_duration: Durations<TargetDials>,
    /// Targets that did not answer in time.
    pub dial_timeouts: Counter,
    /// Targets that could not be connected to for another reason.
    pub dial_failures: Counter,
    /// Connections to targets now.
    pub open_endpoints: Gauge,
    /// Datagrams of targets for which there was no room.
    pub datagrams_dropped: Counter,
    /// Streams to servers that could not be had, by reason.
    pub connect_failures: Named<1>,
    /// Streams to servers that failed, by direction.
    pub server_failures: Named<1>,
    /// The same in detail.
    pub stream_errors: StreamErrors,
    /// Packets by direction.
    pub from_server: Packets,
    /// Packets by direction.
    pub to_server: Packets,
}

impl Stats {
    fn stream_failed(&self, direction: &'static str, segment: &'static str, error: &StreamError) {
        self.server_failures.add([direction]);
        self.stream_errors.add([segment, error.code(), NO_PACKET]);
    }
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    dialer: Dialer,
    servers: Mutex<Servers>,
    /// A stream to a server has come or gone.
    changed: watch::Sender<()>,
    draining: watch::Sender<bool>,
    /// What is counted.
    pub stats: Stats,
}

impl CountSource {
    fn receiver(&self) -> Option<watch::Receiver<usize>> {
        match self {
            Self::Servers => None,
            Self::Counted(count) | Self::Larger(count) => Some(count.clone()),
        }
    }
}

/// Ready when another number of servers has been counted; never where nobody counts any more.
async fn changed(counted: &mut Option<watch::Receiver<usize>>) {
    if let Some(receiver) = counted
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *counted = None;
    std::future::pending().await
}

impl Agent {
    /// One that has no stream yet: [`Self::run`] makes them.
    #[must_use]
    pub fn new(settings: Settings, dialer: Dialer) -> Arc<Self> {
        let (draining, _) = watch::channel(false);
        let (changed, _) = watch::channel(());
        Arc::new(Self {
            settings,
            dialer,
            servers: Mutex::default(),
            changed,
            draining,
            stats: Stats::default(),
        })
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many servers there are streams to.
    #[must_use]
    pub fn open_servers(&self) -> usize {
        self.servers().connected()
    }

    /// How many servers there are, as far as is known.
    #[must_use]
    pub fn known_servers(&self) -> usize {
        let said = self.servers().said();
        match &self.settings.count {
            // One at each address, if nobody says more.
            CountSource::Servers => said.max(self.settings.servers.len()),
            CountSource::Counted(count) => *count.borrow(),
            CountSource::Larger(count) => said.max(*count.borrow()),
        }
    }

    /// The servers' names.
    #[must_use]
    pub fn server_ids(&self) -> Vec<String> {
        self.servers().names().cloned().collect()
    }

    /// Says on every stream that this agent is about to go, and connects to no server any more. Connections go on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Keeps one carrier's streams to the servers until dropped, on this worker thread; the first carrier is 0. `seed`
    /// is for the jitter of waits.
    pub async fn run(self: Arc<Self>, carrier: usize, seed: u64) {
        let mut draining = self.draining.subscribe();
        tokio::select! {
            () = self.clone().keep_connected(carrier, seed) => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
        // Streams are in tasks of their own.
        std::future::pending::<()>().await;
    }

    async fn keep_connected(self: Arc<Self>, carrier: usize, seed: u64) {
        let mut changes = self.changed.subscribe();
        let settings = &self.settings;
        let mut pace =
            Pace::new(settings.sync_interval, settings.sync_interval_cap, Rng::new(seed));
        let mut failures = BTreeMap::new();
        let mut counted = settings.count.receiver();
        let mut addresses = settings.servers.iter().cycle().skip(carrier);
        loop {
            if !self.wants_more(carrier) {
                tokio::select! {
                    // A stream has come or gone.
                    _ = changes.changed() => {}
                    () = changed(&mut counted) => {}
                }
                continue;
            }
            let Some(address) = addresses.next() else { return };
            let wait = match session::connect(&self, Aim { address, carrier }).await {
                Ok(Attempt::New(session)) => {
                    failures.clear();
                    let agent = self.clone();
                    drop(net::task::spawn_local("tunnel session", async move {
                        session.run(&agent, agent.dialer.clone()).await;
                    }));
                    pace.succeeded()
                }
                Ok(Attempt::Known(server)) => {
                    tracing::debug!(server, "connected to a server that there is a stream to");
                    pace.failed()
                }
                Err(error) => {
                    self.stats.connect_failures.add([error.reason()]);
                    complain(address, &error, &mut failures);
                    pace.failed()
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn wants_more(&self, carrier: usize) -> bool {
        let forever = self.settings.sync_forever && carrier == 0;
        let known = self.known_servers();
        forever || self.servers().wants_more(carrier, known)
    }

    /// Notes a server, which says how many there are; whether this carrier had no stream to it, and may have one.
    fn enter(&self, server: &str, count: usize, ours: bool, carrier: usize) -> bool {
        let entered = self.servers().enter(server, count, ours, carrier);
        if entered {
            self.changed.send_replace(());
        }
        entered
    }

    fn leave(&self, server: &str, carrier: usize) {
        self.servers().leave(server, carrier);
        self.changed.send_replace(());
    }
}

/// Once for each kind of failure until a connection comes about again: the rest is for those who debug.
fn complain(
    address: &Address,
    error: &session::ConnectError,
    failures: &mut BTreeMap<String, u64>,
) {
    let seen = failures.entry(error.to_string()).or_insert(0);
    *seen += 1;
    let error = error as &dyn std::error::Error;
    if *seen == 1 {
        tracing::warn!(error, server = %address.target, "no stream to a server");
    } else {
        tracing::debug!(error, times = *seen, "no stream to a server");
    }
}
