//! The vocabulary of Cloverleaf: what every source of configuration produces and every data plane reads.
//!
//! A [`Snapshot`] is checked, immutable and swapped whole. This crate must not know IO, async, serde, Kubernetes
//! or any file format; it holds plain data and the few pure rules that all sources share (how a host pattern
//! matches, which bounds a limit has). Start at [`Snapshot`].

mod agent;
mod diagnostic;
mod host;
mod limits;
mod listener;
mod rule;
mod tunnel;
mod upstream;

pub use agent::{AgentPolicy, AgentRule, AgentWho, TextPattern};
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use host::{HostName, HostPattern, InvalidHost};
pub use limits::{Limits, Timeouts};
pub use listener::{
    Certificate, ClientVerification, HttpVersions, Listener, ListenerProtocol, PemSource, Scope,
    TlsTermination, TlsVersion, TrustedHops,
};
pub use rule::{
    Action, ApiKey, MatchOrder, PathMatch, PathRewrite, Redirect, Rule, RuleSet, Scheme,
    UpstreamRef,
};
pub use tunnel::{Tunnel, TunnelMode, TunnelServer, TunnelServers, TunnelTls, Tunnelled};
pub use upstream::{
    Algorithm, Endpoint, HealthCheck, HostHeader, PoolLimits, Probe, Target, Upstream, UpstreamId,
    UpstreamTls, Verification,
};

use std::sync::Arc;
use std::time::Duration;

/// A short name given by a user or made from an object's name: shared, cheap to clone, used as a metric label.
pub type Name = Arc<str>;

/// Everything the data plane may know: complete, checked, immutable. A change of any source makes a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Sockets to accept on, each with what it serves. Names are unique, and so are addresses.
    pub listeners: Vec<Listener>,
    /// Where traffic can go. Names are unique; rules refer to them by [`UpstreamId`], the index here. Arc: a source
    /// that changes one of thousands shares the others with the snapshot before.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What endpoints behind tunnels are reached through. Names are unique; targets refer to them by name.
    pub tunnels: Vec<Arc<Tunnel>>,
    /// Bounds on what a peer can make grow.
    pub limits: Limits,
    /// Bounds on waiting, used where a listener, rule or upstream sets none of its own.
    pub timeouts: Timeouts,
    /// What the traffic port answers and adds on the gateway's own behalf.
    pub manners: Manners,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Snapshot {
    /// The upstream of that index, if there is one.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<&Upstream> {
        self.upstreams.get(id.0).map(|upstream| &**upstream)
    }
}

/// What the gateway does on its own behalf on the traffic port, beside forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manners {
    /// Answer `/.nanoproxy/health` on every listener, for any host and method (`NanoProxy`'s probe path).
    pub health_path: bool,
    /// Answer `/.nanoproxy/config` with the running configuration (`NanoProxy`'s DEBUG).
    pub config_path: bool,
    /// Add `Server: cloverleaf` to responses that have no `Server` field of their own.
    pub server_header: bool,
    /// Add `X-Proxy` and `X-Proxy-Instance` to proxied responses, as `NanoProxy` does.
    pub proxy_headers: bool,
    /// Answer a path with `//`, `/./` or `/../` by a 307 to the cleaned path, as `NanoProxy` does. Otherwise it is
    /// forwarded as it came.
    pub redirect_unclean_paths: bool,
    /// A client of HTTP/1 that closes its side has gone: its request is given up, and the endpoint told so.
    /// Otherwise it still gets its answer. (A reset is the end in any case, and HTTP/2 has words for both.)
    pub abort_on_close: bool,
    /// One JSON line a request, and where it goes; `None` is off.
    pub access_log: Option<AccessLog>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            health_path: true,
            config_path: false,
            server_header: false,
            proxy_headers: true,
            redirect_unclean_paths: true,
            abort_on_close: true,
            access_log: None,
        }
    }
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// The process's standard output.
    Stdout,
    /// Appended to a file, opened anew on every reload (so that log rotation works with SIGHUP).
    File(std::path::PathBuf),
}

/// How the process ends on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Not ready any more, but still accepting: the time a load balancer needs to notice. SIGINT skips it.
    pub grace: Duration,
    /// After that, how long requests, streams and upgrades may take to end before they are cut.
    pub drain: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), drain: Duration::from_secs(30) }
    }
}
