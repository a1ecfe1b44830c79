//! A snapshot made ready to serve: matchers compiled, certificates loaded. Shared by all workers, swapped whole.
//!
//! What did not change is taken over from the program before, down to the pointer: then everybody who keeps something
//! for it (workers, health checks, counters) can tell with one comparison that it is still the same, and a change of
//! one upstream's endpoints costs nothing for all the others. [`Shape`] is that for everything that requests are
//! counted by. Must not know where the snapshot came from, nor hold anything that a request changes.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Diagnostics, Listener, ListenerProtocol, Name, PemSource, Snapshot, Upstream};
use model::{TlsTermination, UpstreamTls, Verification};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::health::{self, UpstreamHealth};
use crate::routing::{Router, RulesCache};

/// A snapshot made ready to serve.
#[derive(Debug)]
pub struct Program {
    /// Counts the programs of a process, from 1.
    pub generation: u64,
    /// What it was made from.
    pub snapshot: Snapshot,
    /// What `/.nanoproxy/config` answers, if it does.
    pub config_dump: Option<Arc<str>>,
    listeners: Vec<ProgramListener>,
    upstreams: Vec<Arc<ProgramUpstream>>,
    shape: Arc<Shape>,
    /// The name for requests that no rule and no upstream had.
    none: Name,
    /// `X-Proxy` and `X-Proxy-Instance`.
    identity: Option<Arc<Identity>>,
}

/// What `X-Proxy` and `X-Proxy-Instance` say.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) proxy: Box<str>,
    pub(crate) instance: Box<str>,
}

/// A listener of a program; at the same index as in its snapshot.
#[derive(Debug)]
pub(crate) struct ProgramListener {
    pub(crate) router: Arc<Router>,
    pub(crate) termination: Option<Arc<tls::Termination>>,
    pub(crate) scheme: &'static str,
}

/// An upstream of a program; at the same index as in its snapshot. The same pointer in two programs: it was the same
/// in every program between them.
#[derive(Debug)]
pub(crate) struct ProgramUpstream {
    pub(crate) model: Arc<Upstream>,
    pub(crate) tls: Option<Arc<tls::ClientTls>>,
    pub(crate) health: Option<UpstreamHealth>,
    /// Wakes whoever waits for a change of its endpoints or of their health; the same in all programs that have an
    /// upstream of this name.
    pub(crate) changes: Arc<Notify>,
}

/// Names and places of listeners, rules and upstreams, as far as anything is kept under their indices. The same
/// pointer in two programs: indices mean the same in both and in every program between them.
#[derive(Debug)]
pub(crate) struct Shape {
    listeners: FxHashMap<SocketAddr, usize>,
    upstreams: FxHashMap<Name, usize>,
    /// How many rules there are, over all listeners.
    rules: usize,
}

impl Program {
    /// Compiles a snapshot: reads its certificate files, builds its matchers. Gives warnings beside the program.
    ///
    /// `before` is the program that this one will take the place of, and no older one: what is equal is taken over
    /// from it, except what was read from files, which is read again. The cost is then that of what changed, beside
    /// a comparison of pointers for each upstream and scope, where the snapshot shares those that are the same.
    ///
    /// # Errors
    /// All that is wrong with certificates, keys and authorities; then nothing may be applied.
    pub fn compile(
        generation: u64,
        mut snapshot: Snapshot,
        config_dump: Option<Arc<str>>,
        instance: &str,
        before: Option<&Self>,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut found = Diagnostics::default();
        if let Some(before) = before {
            share(&mut snapshot, before);
        }
        let terminations: Vec<_> =
            snapshot.listeners.iter().map(|l| termination(l, before, &mut found)).collect();
        let upstreams: Vec<_> = snapshot
            .upstreams
            .iter()
            .enumerate()
            .map(|(index, model)| upstream(index, model, before, &mut found))
            .collect();
        if found.has_errors() {
            return Err(found);
        }
        let mut rules = None;
        let listeners: Vec<_> = snapshot
            .listeners
            .iter()
            .zip(terminations)
            .map(|(listener, termination)| ProgramListener {
                router: router(listener, before, &mut rules),
                termination,
                scheme: listener.protocol.scheme(),
            })
            .collect();
        let identity = snapshot.manners.proxy_headers.then(|| {
            let proxy = concat!("Cloverleaf/", env!("CARGO_PKG_VERSION")).into();
            Arc::new(Identity { proxy, instance: instance.into() })
        });
        let program = Self {
            generation,
            shape: shape(&snapshot, &listeners, before),
            snapshot,
            config_dump,
            listeners,
            upstreams,
            none: "-".into(),
            identity,
        };
        Ok((program, found))
    }

    pub(crate) fn listener_at(&self, address: SocketAddr) -> Option<usize> {
        self.shape.listeners.get(&address).copied()
    }

    pub(crate) fn listener(&self, index: usize) -> Option<(&Listener, &ProgramListener)> {
        Some((self.snapshot.listeners.get(index)?, self.listeners.get(index)?))
    }

    pub(crate) fn upstreams(&self) -> &[Arc<ProgramUpstream>] {
        &self.upstreams
    }

    pub(crate) fn upstream(&self, id: model::UpstreamId) -> Option<&Arc<ProgramUpstream>> {
        self.upstreams.get(id.0)
    }

    /// The upstream of that name; `index` is where it probably stands.
    pub(crate) fn upstream_named(
        &self,
        name: &Name,
        index: usize,
    ) -> Option<&Arc<ProgramUpstream>> {
        let at = |index: usize| self.upstreams.get(index).filter(|u| u.model.name == *name);
        at(index).or_else(|| at(*self.shape.upstreams.get(name)?))
    }

    pub(crate) fn upstream_id(&self, name: &Name) -> Option<model::UpstreamId> {
        self.shape.upstreams.get(name).copied().map(model::UpstreamId)
    }

    pub(crate) fn has_upstream(&self, name: &Name) -> bool {
        self.shape.upstreams.contains_key(name)
    }

    /// The health of an upstream's endpoints, in their order; `None` where they are not checked.
    #[must_use]
    pub fn health(&self, id: model::UpstreamId) -> Option<&UpstreamHealth> {
        self.upstream(id)?.health.as_ref()
    }

    /// Every upstream's name with its endpoints' health, in the order of the snapshot.
    pub(crate) fn upstream_healths(
        &self,
    ) -> impl Iterator<Item = (&Name, Option<&UpstreamHealth>)> {
        self.upstreams.iter().map(|u| (&u.model.name, u.health.as_ref()))
    }

    pub(crate) fn none(&self) -> &Name {
        &self.none
    }

    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    pub(crate) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    pub(crate) fn has_shape(&self, shape: &Arc<Shape>) -> bool {
        Arc::ptr_eq(&self.shape, shape)
    }

    /// How many rules there are, over all listeners.
    pub(crate) fn rules(&self) -> usize {
        self.shape.rules
    }

    /// How many endpoints there are, over all upstreams.
    pub(crate) fn endpoints(&self) -> usize {
        self.upstreams.iter().map(|upstream| upstream.model.endpoints.len()).sum()
    }

    /// The router of a listener, for `explain`.
    #[must_use]
    pub fn router(&self, listener: usize) -> Option<&Router> {
        self.listeners.get(listener).map(|l| &*l.router)
    }
}

/// Puts what is equal to the program's before in its place, so that from here on a pointer tells.
fn share(snapshot: &mut Snapshot, before: &Program) {
    for (index, upstream) in snapshot.upstreams.iter_mut().enumerate() {
        if let Some(known) = before.upstream_named(&upstream.name, index)
            && !Arc::ptr_eq(&known.model, upstream)
            && known.model == *upstream
        {
            *upstream = known.model.clone();
        }
    }
    for listener in &mut snapshot.listeners {
        let known = before.listener_at(listener.address).and_then(|index| before.listener(index));
        let Some((known, _)) = known else { continue };
        for (scope, known) in listener.scopes.iter_mut().zip(&known.scopes) {
            if !Arc::ptr_eq(&scope.rules, &known.rules) && scope.rules == known.rules {
                scope.rules = known.rules.clone();
            }
        }
    }
}

/// A listener's matcher; that of before where hosts and rules are the same.
/// `rules` is begun only when it is needed.
fn router(
    listener: &Listener,
    before: Option<&Program>,
    rules: &mut Option<RulesCache>,
) -> Arc<Router> {
    let known = before.and_then(|b| b.listener(b.listener_at(listener.address)?));
    if let Some((known, compiled)) = known
        && same_scopes(known, listener)
    {
        return compiled.router.clone();
    }
    let rules = rules.get_or_insert_with(|| {
        let mut rules = RulesCache::default();
        before.into_iter().flat_map(|b| &b.listeners).for_each(|l| rules.learn(&l.router));
        rules
    });
    Arc::new(Router::compile_with(listener, rules))
}

fn same_scopes(one: &Listener, other: &Listener) -> bool {
    let same = |(a, b): (&model::Scope, &model::Scope)| {
        Arc::ptr_eq(&a.rules, &b.rules) && a.hosts == b.hosts
    };
    one.scopes.len() == other.scopes.len() && one.scopes.iter().zip(&other.scopes).all(same)
}

fn shape(
    snapshot: &Snapshot,
    listeners: &[ProgramListener],
    before: Option<&Program>,
) -> Arc<Shape> {
    if let Some(before) = before.filter(|before| same_shape(snapshot, listeners, before)) {
        return before.shape.clone();
    }
    let scopes = snapshot.listeners.iter().flat_map(|l| &l.scopes);
    let upstreams = snapshot.upstreams.iter().enumerate();
    Arc::new(Shape {
        listeners: snapshot.listeners.iter().enumerate().map(|(i, l)| (l.address, i)).collect(),
        upstreams: upstreams.map(|(i, u)| (u.name.clone(), i)).collect(),
        rules: scopes.map(|scope| scope.rules.rules.len()).sum(),
    })
}

fn same_shape(snapshot: &Snapshot, listeners: &[ProgramListener], before: &Program) -> bool {
    let known = &before.snapshot;
    let same_listener = |(a, b): (&Listener, &Listener)| a.name == b.name && a.address == b.address;
    let same_router =
        |(a, b): (&ProgramListener, &ProgramListener)| Arc::ptr_eq(&a.router, &b.router);
    let same_upstream =
        |(a, b): (&Arc<Upstream>, &Arc<Upstream>)| Arc::ptr_eq(a, b) || a.name == b.name;
    snapshot.listeners.len() == known.listeners.len()
        && snapshot.upstreams.len() == known.upstreams.len()
        && snapshot.listeners.iter().zip(&known.listeners).all(same_listener)
        && listeners.iter().zip(&before.listeners).all(same_router)
        && snapshot.upstreams.iter().zip(&known.upstreams).all(same_upstream)
}

/// How TLS ends at a listener; that of before where it is equal and nothing of it was read from a file.
fn termination(
    listener: &Listener,
    before: Option<&Program>,
    found: &mut Diagnostics,
) -> Option<Arc<tls::Termination>> {
    let ListenerProtocol::Https(tls) = &listener.protocol else { return None };
    let known = before.and_then(|b| b.listener(b.listener_at(listener.address)?));
    if let Some((known, compiled)) = known
        && known.protocols == listener.protocols
        && let ListenerProtocol::Https(known) = &known.protocol
        && (Arc::ptr_eq(known, tls) || known == tls)
        && !reads_files(tls)
        && let Some(termination) = &compiled.termination
    {
        found.0.extend(termination.warnings().0.iter().cloned());
        return Some(termination.clone());
    }
    match tls::Termination::load(tls, listener.protocols) {
        Ok(termination) => {
            found.0.extend(termination.warnings().0.iter().cloned());
            Some(Arc::new(termination))
        }
        Err(errors) => {
            found.0.extend(errors.0);
            None
        }
    }
}

/// Whether something of it may have changed although it is equal.
fn reads_files(tls: &TlsTermination) -> bool {
    let is_file = |source: &PemSource| matches!(source, PemSource::File(_));
    tls.certificates.iter().any(|certificate| {
        let verification = &certificate.client_verification;
        is_file(&certificate.chain)
            || is_file(&certificate.key)
            || verification.as_ref().is_some_and(|v| is_file(&v.authorities))
    })
}

/// An upstream with what it needs: that of before where nothing changed, else with as much of it as did not.
fn upstream(
    index: usize,
    model: &Arc<Upstream>,
    before: Option<&Program>,
    found: &mut Diagnostics,
) -> Arc<ProgramUpstream> {
    let known = before.and_then(|before| before.upstream_named(&model.name, index));
    let rereads = model.tls.as_ref().is_some_and(|tls| {
        matches!(tls.verification, Verification::Authorities(PemSource::File(_)))
    });
    let same_tls = known.filter(|known| known.model.tls == model.tls && !rereads);
    let tls = match (&model.tls, same_tls.and_then(|known| known.tls.as_ref())) {
        (None, _) => None,
        (Some(_), Some(tls)) => {
            found.0.extend(tls.warnings().0.iter().cloned());
            Some(tls.clone())
        }
        (Some(tls), None) => load_client(tls, model, found),
    };
    if let Some(known) = known
        && Arc::ptr_eq(&known.model, model)
        && !rereads
    {
        return known.clone();
    }
    let changes = known.map(|known| known.changes.clone()).unwrap_or_default();
    let health = health::of(model, known.and_then(|known| known.health.as_ref()), &changes);
    Arc::new(ProgramUpstream { model: model.clone(), tls, health, changes })
}

fn load_client(
    tls: &UpstreamTls,
    upstream: &Upstream,
    found: &mut Diagnostics,
) -> Option<Arc<tls::ClientTls>> {
    match tls::ClientTls::load(tls, &upstream.place) {
        Ok(client) => {
            found.0.extend(client.warnings().0.iter().cloned());
            Some(Arc::new(client))
        }
        Err(errors) => {
            found.0.extend(errors.0);
            None
        }
    }
}
