//! A snapshot made ready to serve: matchers compiled, certificates loaded. Shared by all workers, swapped whole.
//!
//! Must not know where the snapshot came from, nor hold anything that a request changes.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Diagnostics, ListenerProtocol, Name, Snapshot};
use rustc_hash::FxHashMap;

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
    by_address: FxHashMap<SocketAddr, usize>,
    upstream_tls: Vec<Option<Arc<tls::ClientTls>>>,
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
    pub(crate) router: Router,
    pub(crate) termination: Option<Arc<tls::Termination>>,
    pub(crate) scheme: &'static str,
}

impl Program {
    /// Compiles a snapshot: reads its certificate files, builds its matchers. Gives warnings beside the program.
    ///
    /// # Errors
    /// All that is wrong with certificates, keys and authorities; then nothing may be applied.
    pub fn compile(
        generation: u64,
        snapshot: Snapshot,
        config_dump: Option<Arc<str>>,
        instance: &str,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut found = Diagnostics::default();
        let terminations: Vec<_> =
            snapshot.listeners.iter().map(|l| load_termination(&l.protocol, &mut found)).collect();
        let upstream_tls = snapshot
            .upstreams
            .iter()
            .map(|u| u.tls.as_ref().and_then(|tls| load_client(tls, u, &mut found)))
            .collect();
        if found.has_errors() {
            return Err(found);
        }
        let mut compiled = RulesCache::default();
        let listeners = snapshot
            .listeners
            .iter()
            .zip(terminations)
            .map(|(listener, termination)| ProgramListener {
                router: Router::compile_with(listener, &mut compiled),
                termination,
                scheme: listener.protocol.scheme(),
            })
            .collect();
        let by_address =
            snapshot.listeners.iter().enumerate().map(|(i, l)| (l.address, i)).collect();
        let identity = snapshot.manners.proxy_headers.then(|| {
            let proxy = concat!("Cloverleaf/", env!("CARGO_PKG_VERSION")).into();
            Arc::new(Identity { proxy, instance: instance.into() })
        });
        let none = "-".into();
        let program = Self {
            generation,
            snapshot,
            config_dump,
            listeners,
            by_address,
            upstream_tls,
            none,
            identity,
        };
        Ok((program, found))
    }

    pub(crate) fn listener_at(&self, address: SocketAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn listener(&self, index: usize) -> Option<(&model::Listener, &ProgramListener)> {
        Some((self.snapshot.listeners.get(index)?, self.listeners.get(index)?))
    }

    pub(crate) fn client_tls(&self, id: model::UpstreamId) -> Option<&Arc<tls::ClientTls>> {
        self.upstream_tls.get(id.0)?.as_ref()
    }

    pub(crate) fn none(&self) -> &Name {
        &self.none
    }

    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// How many rules there are, over all listeners.
    pub(crate) fn rules(&self) -> usize {
        let scopes = self.snapshot.listeners.iter().flat_map(|l| &l.scopes);
        scopes.map(|scope| scope.rules.rules.len()).sum()
    }

    /// The router of a listener, for `explain`.
    #[must_use]
    pub fn router(&self, listener: usize) -> Option<&Router> {
        self.listeners.get(listener).map(|l| &l.router)
    }
}

fn load_termination(
    protocol: &ListenerProtocol,
    found: &mut Diagnostics,
) -> Option<Arc<tls::Termination>> {
    let ListenerProtocol::Https(tls) = protocol else { return None };
    match tls::Termination::load(tls) {
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

fn load_client(
    tls: &model::UpstreamTls,
    upstream: &model::Upstream,
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
