//! Where the clients of a server meet its agents: dials go out here, and what became of them comes back.
//!
//! Must not know how clients speak. Start at [`Hub::dial`].

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use balance::Rng;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::registry::{Registry, Strategy};
use super::{Admission, Settings, Stats};
use crate::CLUSTER_MARK;
use crate::carrier::{Carrier, Tunnelled};
use crate::identifiers::Identifiers;
use crate::link::LinkError;
use crate::packet::Packet;

/// The longest address that is dialled: a host name has at most 253 bytes.
const ADDRESS_BYTES_MAX: usize = 512;
/// Agents that are asked one after the other where each goes instead of answering.
const AGENTS_ASKED_MAX: usize = 3;

/// Why a client got no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    /// There is no agent for it. The text is the original's.
    #[error("No agent available")]
    NoAgent,
    /// There is no agent in the cluster that was asked for.
    #[error("No agent available in cluster {0}")]
    NoCluster(String),
    /// The agent could not connect; its own words.
    #[error("{0}")]
    Refused(String),
    /// The agent has gone before it answered.
    #[error("the agent disconnected before it answered")]
    AgentGone,
    /// The agent does not answer.
    #[error("timeout: the agent has not answered within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The address is none.
    #[error("the address has {0} bytes, more than {ADDRESS_BYTES_MAX}")]
    Address(usize),
}

type Answer = Result<Tunnelled, DialError>;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// As the agent gets it.
    pub(crate) protocol: String,
    /// `host:port`, as the agent gets it.
    pub(crate) address: String,
    /// Agents that have this identifier alone, whatever the strategies; only clients of ours say it.
    pub(crate) cluster: Option<String>,
}

impl Wish {
    /// Of a request to dial, whose protocol may name the cluster.
    pub(crate) fn of_request(protocol: String, address: String) -> Self {
        match protocol.split_once(CLUSTER_MARK) {
            None => Self { protocol, address, cluster: None },
            Some((protocol, cluster)) => {
                let (protocol, cluster) = (protocol.to_owned(), Some(cluster.to_owned()));
                Self { protocol, address, cluster }
            }
        }
    }
}

/// An agent's stream, and the dials that wait for it.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) carrier: Arc<Carrier>,
    dials: Mutex<Dials>,
    pub(super) since: Instant,
    /// Whose carrier it is, where that agent may have several.
    process: Option<u64>,
    /// Where its packets are sent and received.
    thread: ThreadId,
}

#[derive(Debug, Default)]
struct Dials {
    waiting: FxHashMap<i64, oneshot::Sender<Answer>>,
    last: i64,
    closed: bool,
}

impl Backend {
    /// A new stream's, on the thread that serves it.
    pub(super) fn new(carrier: Arc<Carrier>, process: Option<u64>) -> Arc<Self> {
        let thread = std::thread::current().id();
        let since = Instant::now();
        Arc::new(Self { carrier, dials: Mutex::default(), since, process, thread })
    }

    /// How little it is liked for a connection of this thread: another thread has to be woken for each packet.
    fn distance(&self) -> (bool, usize) {
        let foreign = self.thread != std::thread::current().id();
        (foreign, self.carrier.connections())
    }

    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many dials wait.
    pub(super) fn pending(&self) -> usize {
        self.dials().waiting.len()
    }

    /// Asks the agent to connect.
    fn dial(self: &Arc<Self>, protocol: String, address: String) -> Result<Pending, DialError> {
        let (answer, answered) = oneshot::channel();
        let dial = {
            let mut dials = self.dials();
            if dials.closed {
                return Err(DialError::AgentGone);
            }
            // Our own number: clients choose theirs without knowing of each other.
            dials.last += 1;
            let dial = dials.last;
            dials.waiting.insert(dial, answer);
            dial
        };
        let pending = Pending { backend: self.clone(), dial, answered };
        let request = Packet::DialRequest { protocol, address, dial };
        self.carrier.send(request).map_err(|_| DialError::AgentGone)?;
        Ok(pending)
    }

    /// What the agent says of a dial; whether anybody had asked.
    pub(super) fn answer(
        &self,
        dial: i64,
        connection: i64,
        error: String,
    ) -> Result<bool, LinkError> {
        let waiting = self.dials().waiting.remove(&dial);
        if !error.is_empty() {
            let Some(waiting) = waiting else { return Ok(false) };
            let _ = waiting.send(Err(DialError::Refused(error)));
            return Ok(true);
        }
        if connection <= 0 {
            let Some(waiting) = waiting else { return Ok(false) };
            let _ = waiting.send(Err(DialError::Refused("the agent gave no connection".into())));
            return Ok(true);
        }
        // Before anything else is read: its payload may follow at once. Dropped, it is closed.
        let tunnelled = self.carrier.open(connection)?;
        Ok(waiting.is_some_and(|waiting| waiting.send(Ok(tunnelled)).is_ok()))
    }

    /// The agent ends a dial itself.
    pub(super) fn give_up(&self, dial: i64) {
        if let Some(waiting) = self.dials().waiting.remove(&dial) {
            let _ = waiting.send(Err(DialError::Refused("the agent closed the dial".to_owned())));
        }
    }

    /// The stream is over: nobody waits for it any more.
    pub(super) fn end(&self, reason: &str) {
        let waiting = {
            let mut dials = self.dials();
            dials.closed = true;
            std::mem::take(&mut dials.waiting)
        };
        // Who waits sees that nobody will answer.
        drop(waiting);
        self.carrier.end(reason);
    }
}

/// A dial under way. Dropped, it is not waited for any more: should there be a connection, it is closed.
#[derive(Debug)]
pub(super) struct Pending {
    backend: Arc<Backend>,
    dial: i64,
    answered: oneshot::Receiver<Answer>,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = ready!(Pin::new(&mut self.answered).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(DialError::AgentGone)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.backend.dials().waiting.remove(&self.dial);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    pub(super) settings: Settings,
    pub(super) admission: Admission,
    registry: Mutex<Registry<Arc<Backend>>>,
    rng: Mutex<Rng>,
    /// What is counted.
    pub stats: Stats,
}

impl Hub {
    /// Without any agent yet. `seed` decides what chance decides.
    #[must_use]
    pub fn new(settings: Settings, admission: Admission, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            settings,
            admission,
            registry: Mutex::default(),
            rng: Mutex::new(Rng::new(seed)),
            stats: Stats::default(),
        })
    }

    fn registry(&self) -> MutexGuard<'_, Registry<Arc<Backend>>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks through the books of all agents' streams.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.registry().all().for_each(|(_, _, _, backend)| backend.carrier.check());
    }

    /// How many streams of agents each of the strategies can choose from.
    #[must_use]
    pub fn ready(&self) -> Vec<(Strategy, usize)> {
        let registry = self.registry();
        self.settings
            .strategies
            .iter()
            .map(|strategy| (*strategy, registry.count(*strategy)))
            .collect()
    }

    /// How many agents' streams are not read on now, because of a connection whose payload nobody takes.
    #[must_use]
    pub fn held_up(&self) -> usize {
        self.registry().all().filter(|(_, _, _, backend)| backend.carrier.is_held_up()).count()
    }

    /// Whether there is an agent for the first strategy.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready().first().is_some_and(|(_, count)| *count > 0)
    }

    /// The agents as they are now.
    #[must_use]
    pub fn agents(&self) -> Vec<Agent> {
        let registry = self.registry();
        let agent =
            |(id, identifiers, draining, backend): (&str, &Identifiers, bool, &Arc<Backend>)| {
                Agent {
                    id: id.to_owned(),
                    identifiers: identifiers.to_string(),
                    draining,
                    connected: backend.since.elapsed(),
                    connections: backend.carrier.connections(),
                    pending_dials: backend.pending(),
                }
            };
        registry.all().map(agent).collect()
    }

    pub(super) fn add(
        &self,
        agent: String,
        identifiers: Identifiers,
        backend: Arc<Backend>,
    ) -> u64 {
        self.registry().add(agent, identifiers, backend)
    }

    pub(super) fn remove(&self, number: u64) {
        self.registry().remove(number);
    }

    pub(super) fn drain(&self, number: u64) {
        self.registry().drain(number);
    }

    /// Has an agent connect to an address. Dropped while waiting, the connection is closed should there be one.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn dial(&self, wish: Wish) -> Answer {
        let start = Instant::now();
        let answer = self.dial_uncounted(wish).await;
        self.stats.dial_duration.observe(start.elapsed());
        if let Err(error) = &answer {
            self.stats.dial_failed(error);
        }
        answer
    }

    async fn dial_uncounted(&self, wish: Wish) -> Answer {
        if wish.address.len() > ADDRESS_BYTES_MAX {
            return Err(DialError::Address(wish.address.len()));
        }
        match self.settings.backend_dial_timeout {
            None => self.ask_agents(&wish).await,
            Some(most) => {
                let answer = tokio::time::timeout(most, self.ask_agents(&wish)).await;
                answer.unwrap_or(Err(DialError::Timeout(most)))
            }
        }
    }

    /// Where an agent goes instead of answering, as one does that finds itself at a server for the second time, another
    /// is asked: no payload has been sent yet.
    async fn ask_agents(&self, wish: &Wish) -> Answer {
        let mut backend = self.pick(wish)?;
        for _ in 1..AGENTS_ASKED_MAX {
            match self.ask(&backend, wish).await {
                Err(DialError::AgentGone) => {}
                answer => return answer,
            }
            backend = self.pick(wish).map_err(|_| DialError::AgentGone)?;
        }
        self.ask(&backend, wish).await
    }

    fn pick(&self, Wish { address, cluster, .. }: &Wish) -> Result<Arc<Backend>, DialError> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = self.registry();
        let picked = match cluster {
            None => registry.pick(&self.settings.strategies, address, &mut rng),
            Some(cluster) => registry.pick_in(cluster, &mut rng),
        };
        let picked = picked.map(|picked| nearest_carrier(&registry, picked));
        picked.ok_or_else(|| match cluster {
            None => DialError::NoAgent,
            Some(cluster) => DialError::NoCluster(cluster.clone()),
        })
    }

    async fn ask(&self, backend: &Arc<Backend>, wish: &Wish) -> Answer {
        let pending = backend.dial(wish.protocol.clone(), wish.address.clone())?;
        let _waiting = self.stats.pending_dials.count();
        pending.await
    }
}

/// Of all carriers of the agent that was picked the nearest that is not about to go.
fn nearest_carrier(registry: &Registry<Arc<Backend>>, picked: &Arc<Backend>) -> Arc<Backend> {
    if picked.process.is_none() {
        return picked.clone();
    }
    let lively = registry.all().filter(|(.., draining, _)| !draining).map(|(.., backend)| backend);
    let nearest = lively
        .filter(|backend| backend.process == picked.process)
        .min_by_key(|backend| backend.distance());
    nearest.unwrap_or(picked).clone()
}

/// An agent's stream, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// What it calls itself.
    pub id: String,
    /// What it says it is for.
    pub identifiers: String,
    /// It is about to go.
    pub draining: bool,
    /// For how long it is there.
    pub connected: Duration,
    /// Connections through it.
    pub connections: usize,
    /// Dials that it has not answered.
    pub pending_dials: usize,
}
