//! The command line of tunnels: the flags of Konnectivity's proxy-server and proxy-agent under their names.
//!
//! Parsed, nothing resolved. What concerns a cluster's API server is in `cluster`; what changes nothing but stands in
//! manifests is here and in `klog`. Flags of what is not there are known by name, and only what leaves them off is
//! accepted.

mod cluster;
mod klog;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
pub(crate) use cluster::{AgentClusterArgs, ServerClusterArgs};
use klog::KlogArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// Serve clients on one port and agents on another (in place of Konnectivity's proxy-server)
    Server(Box<ServerArgs>),
    /// Connect to servers, and from here to what their clients want (in place of Konnectivity's proxy-agent)
    Agent(Box<AgentArgs>),
    /// Open local ports that lead through a server and its agents, for programs that speak no Konnectivity
    Forward(Box<ForwardArgs>),
}

/// Of a flag that is given twice the last counts, as with the originals.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct ServerArgs {
    /// The certificate shown to clients
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) server_cert: String,
    /// Its private key
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) server_key: String,
    /// The authorities of clients' certificates
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) server_ca_cert: String,
    /// The certificate shown to agents
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) cluster_cert: String,
    /// Its private key
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) cluster_key: String,
    /// The authorities of agents' certificates; without them agents show none
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) cluster_ca_cert: String,
    /// How clients speak: grpc or http-connect
    #[arg(long, value_name = "MODE", default_value = "grpc")]
    pub(crate) mode: String,
    /// Listen for clients on this Unix socket, without TLS; --server-port must be 0
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) uds_name: String,
    /// Remove a file of that name first
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) delete_existing_uds_file: bool,
    /// Where clients connect; 0 for a Unix socket
    #[arg(long, value_name = "PORT", default_value_t = 8090)]
    pub(crate) server_port: u16,
    /// On which address [default: all]
    #[arg(long, value_name = "IP", value_parser = address, default_value = "", hide_default_value = true)]
    pub(crate) server_bind_address: Address,
    /// Where agents connect
    #[arg(long, value_name = "PORT", default_value_t = 8091)]
    pub(crate) agent_port: u16,
    /// On which address [default: all]
    #[arg(long, value_name = "IP", value_parser = address, default_value = "", hide_default_value = true)]
    pub(crate) agent_bind_address: Address,
    /// Where metrics are shown
    #[arg(long, value_name = "PORT", default_value_t = 8095)]
    pub(crate) admin_port: u16,
    /// Where health, readiness and metrics are shown
    #[arg(long, value_name = "PORT", default_value_t = 8092)]
    pub(crate) health_port: u16,
    /// On which address [default: all]
    #[arg(long, value_name = "IP", value_parser = address, default_value = "", hide_default_value = true)]
    pub(crate) health_bind_address: Address,
    /// After which silence a client is asked whether it lives; for agents it is --keepalive-time
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "1h")]
    pub(crate) frontend_keepalive_time: Duration,
    /// What this server is called among several [environment: PROXY_SERVER_ID] [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) server_id: Option<String>,
    /// How many servers there are
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) server_count: u32,
    /// How an agent is chosen: default, destHost, defaultRoute, several between commas
    #[arg(long, value_name = "STRATEGIES", default_value = "default")]
    pub(crate) proxy_strategies: String,
    /// How long an agent may take to answer; 0: as long as the client waits
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "0s")]
    pub(crate) backend_dial_timeout: Duration,
    /// How long connections may go on after SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "0s")]
    pub(crate) graceful_shutdown_timeout: Duration,
    /// The lowest version of TLS: VersionTLS12 or VersionTLS13
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    pub(crate) tls_min_version: String,
    /// Cipher suites of TLS 1.2, by Go's names, between commas [default: all]
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub(crate) cipher_suites: String,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    #[command(flatten)]
    pub(crate) cluster: ServerClusterArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// As [`ServerArgs`].
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct AgentArgs {
    /// The certificate shown to servers
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) agent_cert: String,
    /// Its private key
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) agent_key: String,
    /// The authorities of the servers' certificates [default: the machine's]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) ca_cert: String,
    /// Where the servers are: a load balancer, or each of them, between commas, also with a port
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', default_value = "127.0.0.1")]
    pub(crate) proxy_server_host: Vec<String>,
    /// Their port for agents
    #[arg(long, value_name = "PORT", default_value_t = 8091)]
    pub(crate) proxy_server_port: u16,
    /// Protocols offered by ALPN ahead of h2, between commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) alpn_proto: Vec<String>,
    /// What this agent is called [environment: PROXY_AGENT_ID] [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) agent_id: Option<String>,
    /// What it is for: ipv4, ipv6, host, cidr, default-route, as host=a&host=b
    #[arg(long, value_name = "QUERY", default_value = "", hide_default_value = true)]
    pub(crate) agent_identifiers: String,
    /// A file with a token that is sent to the servers
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) service_account_token_path: String,
    /// Between two attempts to reach another server
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "1s")]
    pub(crate) sync_interval: Duration,
    /// What that grows to
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "10s")]
    pub(crate) sync_interval_cap: Duration,
    /// Look for further servers also when there is a stream to as many as there are
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) sync_forever: bool,
    /// How often streams are looked after; here they tell themselves when they end
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "1s")]
    pub(crate) probe_interval: Duration,
    /// Where health, readiness and metrics are shown: on which address [default: all]
    #[arg(long, value_name = "IP", value_parser = address, default_value = "", hide_default_value = true)]
    pub(crate) health_server_host: Address,
    /// On which port
    #[arg(long, value_name = "PORT", default_value_t = 8093)]
    pub(crate) health_server_port: u16,
    /// Where the way to the metrics is shown
    #[arg(long, value_name = "PORT", default_value_t = 8094)]
    pub(crate) admin_server_port: u16,
    /// How many connections to hold to each server of ours
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) carriers: u16,
    /// Speak the original's wire alone, also with a server of ours
    #[arg(long)]
    pub(crate) no_extensions: bool,
    #[command(flatten)]
    pub(crate) cluster: AgentClusterArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Flags that both ends have.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// A YAML file with flags as keys in camelCase; what stands here goes before it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the admin port listens: on which address
    #[arg(long, value_name = "IP", value_parser = address, default_value = "127.0.0.1")]
    pub(crate) admin_bind_address: Address,
    /// After which silence the other side is asked whether it lives
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "1h")]
    pub(crate) keepalive_time: Duration,
    /// How much is logged: from 4 on, more
    #[arg(short, long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub(crate) verbosity: i32,
    #[command(flatten)]
    pub(crate) absent: CommonAbsent,
    #[command(flatten)]
    pub(crate) idle: IdleArgs,
}

/// Flags of both originals for what is not there.
#[derive(Debug, Args)]
pub(crate) struct CommonAbsent {
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) enable_profiling: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) enable_contention_profiling: bool,
}

/// Of a flag that is given twice the last counts, as at the ends, but of those that are repeatable.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct ForwardArgs {
    /// A YAML file with flags as keys in camelCase; what stands here goes before it, or beside it where repeatable
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the server takes clients, host:port or unix:/path; several between commas: one that can be reached is used
    #[arg(long, value_name = SERVER, default_value = "", hide_default_value = true)]
    pub(crate) server: String,
    /// How it takes them: grpc or http-connect
    #[arg(long, value_name = "MODE", default_value = "grpc")]
    pub(crate) mode: String,
    /// The authorities of the server's certificate [default: the machine's]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) ca_cert: String,
    /// The certificate shown to the server
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) client_cert: String,
    /// Its private key
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) client_key: String,
    /// The name in the server's certificate [default: the host of --server]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) server_name: String,
    /// A local port that leads to the --to of the same place, ip:port or udp://ip:port; repeatable
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    pub(crate) listen: Vec<Listen>,
    /// Where it leads, as seen from the agent: host:port, or cluster/host:port for an agent of that cluster; repeatable
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Vec<String>,
    /// A local port for SOCKS5; names are resolved where the agent is; repeatable
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) socks5: Vec<SocketAddr>,
    /// A file with name:password, which SOCKS5 asks for then
    #[arg(long, value_name = "FILE", requires = "socks5")]
    pub(crate) socks5_credentials: Option<PathBuf>,
    /// A local port for HTTP CONNECT; repeatable
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http_connect: Vec<SocketAddr>,
    /// How long one who sends datagrams may send and get none before it is forgotten
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "60s")]
    pub(crate) udp_idle_timeout: Duration,
    /// Take agents of this cluster, which have it as their identifier `host`, where nothing else is said
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// Where health, readiness and metrics are shown; 0 for nowhere
    #[arg(long, value_name = "PORT", default_value_t = 8096)]
    pub(crate) health_port: u16,
    /// On which address
    #[arg(long, value_name = "IP", value_parser = address, default_value = "127.0.0.1")]
    pub(crate) health_bind_address: Address,
    /// How long connections may go on after SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, default_value = "30s")]
    pub(crate) graceful_shutdown_timeout: Duration,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Speak the original's wire alone, also with a server of ours
    #[arg(long)]
    pub(crate) no_extensions: bool,
    /// How much is logged: from 4 on, more
    #[arg(short, long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub(crate) verbosity: i32,
}

/// What a value is called that names a tunnel's servers.
pub(crate) const SERVER: &str = "SERVER";

/// Flags that change nothing here, but stand in many manifests.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// The original's channel between its threads; here connections have bounds of their own.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) xfr_channel_size: u32,
    /// Nothing here has the channel that it warns of.
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) warn_on_channel_limit: bool,
    #[command(flatten)]
    pub(crate) klog: KlogArgs,
}

/// A local port that leads to one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    /// For datagrams.
    pub(crate) udp: bool,
}

fn listen(text: &str) -> Result<Listen, String> {
    let (udp, address) = match text.strip_prefix("udp://") {
        Some(address) => (true, address),
        None => (false, text.strip_prefix("tcp://").unwrap_or(text)),
    };
    let address = address.parse().map_err(|_| "expected ip:port or udp://ip:port".to_owned())?;
    Ok(Listen { address, udp })
}

/// An address to listen on; `None` for every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) Option<IpAddr>);

fn address(text: &str) -> Result<Address, String> {
    if text.is_empty() {
        return Ok(Address(None));
    }
    let ip = text.parse().map_err(|_| "expected an IP address, or nothing for all".to_owned())?;
    Ok(Address(Some(ip)))
}

/// As Go reads them.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}
