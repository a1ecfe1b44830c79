//! The way to an upstream for whoever dials in this process and does not speak HTTP: one of its endpoints, by its
//! balancing, health and TLS, and another one where that is not reached.
//!
//! All threads choose together here, under a lock that is held for no longer than a choice. Must not know what is
//! carried. Start at [`Upstreams`].

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use balance::{Balancer, InFlight, Member, Request, Rng, Tried};
use model::{Name, Target};
use net::dial::{Connecting, DialError, Dialer, Duplex, Refusal, Stream, Way};
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::io::Io;
use crate::program::{Program, ProgramUpstream};
use crate::shared::Shared;
use crate::stats::{Cells, EndpointCells, UpstreamCells};

/// Counts like a worker beyond the last one: cells have one writer, and here that is whoever has the lock.
const WORKER: usize = 256;
/// Upstreams whose state is kept; beyond it those that are gone are forgotten.
const KEPT_MAX: usize = 256;

/// The way to upstreams. Give it to a [`net::dial::Dialer`].
#[derive(Debug)]
pub struct Upstreams {
    shared: Arc<Shared>,
    known: Mutex<FxHashMap<Name, Arc<Group>>>,
    rng: Mutex<Rng>,
}

/// An upstream as all threads choose from it.
#[derive(Debug)]
struct Group {
    source: Arc<ProgramUpstream>,
    balancer: Mutex<Balancer<balance::Shared>>,
    cells: Arc<UpstreamCells>,
    endpoints: Vec<Arc<EndpointCells>>,
}

/// An endpoint that was chosen; it counts as busy until this is dropped.
#[derive(Debug)]
struct Chosen {
    group: Arc<Group>,
    index: usize,
    _in_flight: InFlight<balance::Shared>,
}

impl Upstreams {
    /// To the upstreams of the program that is served. `seed` should differ between processes.
    #[must_use]
    pub fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self { shared, known: Mutex::default(), rng: Mutex::new(Rng::new(seed)) }
    }

    /// Tries endpoints until one is reached or time is over.
    async fn open(
        &self,
        name: &Name,
        client: Option<SocketAddr>,
        within: Duration,
    ) -> Result<Stream, DialError> {
        let deadline = Instant::now() + within;
        let program = self.shared.program();
        let refused = |reason| DialError::refused(&Target::Upstream(name.clone()), reason);
        let source = program.upstream_named(name, 0).ok_or_else(|| refused(Refusal::NoWay))?;
        let group = self.group(&program, source);
        let usual = program.snapshot.timeouts.connect;
        let each = group.source.model.connect_timeout.unwrap_or(usual);
        drop(program);
        let ip = client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.ip());
        let mut tried = Tried::none();
        let mut last = None;
        while Instant::now() < deadline {
            let Some(chosen) = self.choose(&group, ip, &tried) else { break };
            let until = deadline.min(Instant::now() + each);
            let opened = chosen.connect(&self.shared.dialer, client, until).await;
            chosen.note(opened.as_ref().map_or_else(|error| error.as_str(), |_| "ok"));
            match opened {
                Ok(io) => return Ok(Stream::Way(Box::new(ToEndpoint { io, chosen }))),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "not reached");
                    tried.add(chosen.index);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| refused(Refusal::Nobody)))
    }

    /// The state of an upstream, carried over from the last program where there was one.
    fn group(&self, program: &Program, source: &Arc<ProgramUpstream>) -> Arc<Group> {
        let mut known = lock(&self.known);
        let name = &source.model.name;
        let before = known.get(name);
        if let Some(group) = before.filter(|g| Arc::ptr_eq(&g.source, source) && g.is_counted()) {
            return group.clone();
        }
        let group = Arc::new(Group::new(source, before, &self.shared, program));
        if known.len() >= KEPT_MAX {
            known.retain(|name, _| program.has_upstream(name));
        }
        known.insert(name.clone(), group.clone());
        group
    }

    fn choose(&self, group: &Arc<Group>, client: IpAddr, tried: &Tried) -> Option<Chosen> {
        let mut balancer = lock(&group.balancer);
        let mut rng = lock(&self.rng);
        let request = Request { client, tried };
        let index = balancer.pick(&mut rng, request, |index| group.is_up(index))?;
        // What failed already would fail again.
        if tried.contains(index) {
            return None;
        }
        let in_flight = balancer.started(index)?;
        if let Some(cells) = group.endpoints.get(index) {
            cells.requests.add(1);
            cells.in_flight.add(1);
        }
        Some(Chosen { group: group.clone(), index, _in_flight: in_flight })
    }
}

impl Way for Upstreams {
    fn connect<'w>(
        &'w self,
        target: &'w Target,
        client: Option<SocketAddr>,
        within: Duration,
    ) -> Connecting<'w> {
        Box::pin(async move {
            match target {
                Target::Upstream(name) => self.open(name, client, within).await,
                _ => Err(DialError::refused(target, Refusal::NoWay)),
            }
        })
    }
}

impl Group {
    fn new(
        source: &Arc<ProgramUpstream>,
        before: Option<&Arc<Self>>,
        shared: &Shared,
        program: &Program,
    ) -> Self {
        let model = &source.model;
        let labels = model.endpoints.iter().map(|endpoint| endpoint.target.to_string());
        let labels: Vec<Name> = labels.map(Name::from).collect();
        let weighted = model.endpoints.iter().zip(&labels);
        let members: Vec<Member> = weighted
            .map(|(e, label)| Member { weight: e.weight, identity: balance::identity(label) })
            .collect();
        let balancer = match before {
            None => Balancer::shared(model.algorithm, &members),
            Some(before) => {
                let old = &before.source.model.endpoints;
                let stood = |index: usize| {
                    let target = &model.endpoints.get(index)?.target;
                    old.iter().position(|endpoint| endpoint.target == *target)
                };
                lock(&before.balancer).changed(model.algorithm, &members, 0, stood)
            }
        };
        let is_served = || shared.serves(program);
        let endpoint = |label: &Name| {
            let key = (model.name.clone(), label.clone());
            shared.stats.endpoints.cells_while(&key, WORKER, is_served)
        };
        Self {
            source: source.clone(),
            balancer: Mutex::new(balancer),
            cells: shared.stats.upstreams.cells_while(&model.name, WORKER, is_served),
            endpoints: labels.iter().map(endpoint).collect(),
        }
    }

    /// Whether everything that it counts is read.
    fn is_counted(&self) -> bool {
        !self.cells.is_forgotten() && !self.endpoints.iter().any(|cells| cells.is_forgotten())
    }

    fn is_up(&self, index: usize) -> bool {
        let health = self.source.health.as_ref();
        health.and_then(|health| health.get(index)).is_none_or(|health| health.is_up())
    }
}

impl Chosen {
    /// Connects, TLS included. Dropped, it closes the socket.
    async fn connect(
        &self,
        dialer: &Dialer,
        client: Option<SocketAddr>,
        until: Instant,
    ) -> Result<Io, DialError> {
        let source = &self.group.source;
        let Some(endpoint) = source.model.endpoints.get(self.index) else {
            let target = Target::Upstream(source.model.name.clone());
            return Err(DialError::refused(&target, Refusal::Nobody));
        };
        let within = until.saturating_duration_since(Instant::now());
        let target = &endpoint.target;
        let stream = dialer.connect(target, client, within).await?;
        let tls = match (&source.model.tls, &source.tls) {
            (None, _) => return Ok(Io::Plain(stream)),
            (Some(_), tls) => tls.as_ref(),
        };
        let failed = |source| DialError::Tls { target: target.to_string(), source };
        // Never plain instead.
        let Some(tls) = tls else { return Err(failed("not configured".into())) };
        let host = target.host();
        match timeout_at(until, tls.connect_raw(stream, &host)).await {
            Ok(Ok(stream)) => Ok(Io::Connected(Box::new(stream))),
            Ok(Err(error)) => Err(failed(Box::new(error))),
            Err(_) => Err(DialError::Timeout { target: target.to_string(), waited: within }),
        }
    }

    /// Counts how an attempt ended.
    fn note(&self, result: &str) {
        let _one_at_a_time = lock(&self.group.balancer);
        self.group.cells.connects.add(result);
        if result != "ok"
            && let Some(cells) = self.group.endpoints.get(self.index)
        {
            cells.connect_failures.add(1);
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        let _one_at_a_time = lock(&self.group.balancer);
        if let Some(cells) = self.group.endpoints.get(self.index) {
            cells.in_flight.sub(1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to an endpoint, counted.
#[derive(Debug)]
struct ToEndpoint {
    io: Io,
    chosen: Chosen,
}

impl Duplex for ToEndpoint {
    fn is_current(&self) -> bool {
        self.io.is_current() && self.chosen.group.is_up(self.chosen.index)
    }

    fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

impl AsyncRead for ToEndpoint {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for ToEndpoint {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
