//! The command line: what can be asked for, with which flags. Parsed, nothing resolved.
//!
//! Must not read the environment; that is [`crate::env`]'s.

mod duration;
mod tunnel;
pub(crate) mod tunnel_file;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use tunnel::{
    Address, AgentArgs, AgentClusterArgs, CommonAbsent, ForwardArgs, SERVER, ServerArgs,
    ServerClusterArgs, TunnelCommand,
};

/// One cluster proxy, from L3 to L7.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP and HTTPS from a YAML file, or from a Kubernetes cluster
    Gateway(GatewayArgs),
    /// Translate a Kubernetes cluster's objects for a gateway beside, or show what they come to
    Controller(ControllerArgs),
    /// Serve cluster ports: a port number for a service, on every host of a cluster
    Mesh(MeshArgs),
    /// Reach into networks that let nobody in: Konnectivity's server and agent
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// Serve a test upstream that answers with what it received
    Echo(EchoArgs),
    /// Print everything that is wrong with a file, or what it would serve
    Check(CheckArgs),
    /// Say which listener, rule, upstream and endpoint a request takes, and why not the others
    Explain(ExplainArgs),
    /// Show what a running gateway is doing
    Status(StatusArgs),
    /// Print a shell's completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags win over environment variables, those over the file.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Where the admin port listens, or `off` [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<String>,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Wait for the file to appear and be valid instead of refusing to start
    #[arg(long)]
    pub(crate) wait_for_config: bool,
    /// Serve what the objects of a Kubernetes cluster say; the file is optional then, for listeners and settings
    #[arg(long)]
    pub(crate) kubernetes: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Keep the last known objects in this file (it holds private keys), and start from it if there is no API server
    #[arg(long, value_name = "FILE", help_heading = KUBERNETES)]
    pub(crate) kubernetes_state: Option<PathBuf>,
    /// The port for HTTPS, if the file has no listeners [environment: HTTPS_PORT, SSL_PORT] [default: 8443; 443 for
    /// pods alone]
    #[arg(long, value_name = "PORT", help_heading = KUBERNETES)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) https_port: Option<u16>,
}

const KUBERNETES: &str = "Kubernetes";

/// Which cluster, and what of it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = KUBERNETES)]
pub(crate) struct ClusterArgs {
    /// How the cluster is reached [default: the pod's service account, else KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// What routes are made of; both with `ingress,pods` [default: ingress]
    #[arg(long, value_name = "SOURCES", value_enum, value_delimiter = ',')]
    pub(crate) kubernetes_sources: Vec<KubernetesSource>,
    /// Ingresses of classes of this controller are served; repeatable [default: cloverleaf/gateway and
    /// benc-uk/nanoproxy]
    #[arg(long, value_name = "NAME")]
    pub(crate) controller_name: Vec<String>,
    /// Look at this namespace alone; repeatable [default: all]. Endpoints of the zone that NODE_ZONE names, or that
    /// the node NODE_NAME is in, go first where a Service asks for that
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) watch_namespace: Vec<String>,
    /// The Secret with the certificate for hosts that have none
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) default_certificate: Option<String>,
}

impl ClusterArgs {
    /// Whether any of them is.
    pub(crate) fn is_given(&self) -> bool {
        self.kubeconfig.is_some()
            || !self.kubernetes_sources.is_empty()
            || !self.controller_name.is_empty()
            || !self.watch_namespace.is_empty()
            || self.default_certificate.is_some()
    }
}

/// What the objects of a cluster hear.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = KUBERNETES)]
pub(crate) struct ReportArgs {
    /// Give Ingresses the addresses of this Service as their own [default: HOST_IP, else POD_IP]
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "publish_address")]
    pub(crate) publish_service: Option<String>,
    /// Give Ingresses this address, an IP or a host name, as their own; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) publish_address: Vec<String>,
    /// The Lease by which replicas agree on who writes; one for each set of replicas [environment: POD_NAME and
    /// POD_NAMESPACE say who and where] [default: cloverleaf]
    #[arg(long, value_name = "NAME")]
    pub(crate) lease_name: Option<String>,
    /// Write nothing to the cluster: no status, no Events, no Lease
    #[arg(long)]
    pub(crate) read_only: bool,
}

impl ReportArgs {
    /// Whether any of them is.
    pub(crate) fn is_given(&self) -> bool {
        self.publish_service.is_some()
            || !self.publish_address.is_empty()
            || self.lease_name.is_some()
            || self.read_only
    }
}

/// What routes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KubernetesSource {
    /// Ingresses
    Ingress,
    /// Annotated Pods and Namespaces, as the 30x dispatcher has them
    Pods,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Write the gateway's file here, and again whenever it changes [environment: CONF_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) write: Option<PathBuf>,
    /// Print what would be served, from manifests or else from the cluster, and end
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Manifests (YAML, JSON) for --dry-run, or folders of them
    #[arg(value_name = "MANIFEST", requires = "dry_run")]
    pub(crate) manifests: Vec<PathBuf>,
    /// How --dry-run prints
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Where the admin port listens, or `off` [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<String>,
    /// Log more [environment: DEBUG]
    #[arg(long)]
    pub(crate) debug: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Where the configuration comes from, and what is said in its place.
#[derive(Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// The YAML file [environment: CONF_FILE; default: ./config.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The port of the file's only listener [environment: PORT]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Head, idle, connect and response timeout in seconds [environment: TIMEOUT]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<String>,
    /// A directory with cert.pem and key.pem: serve HTTPS [environment: CERT_PATH]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cert_path: Option<PathBuf>,
    /// Verify no upstream's certificate [environment: TLS_SKIP_VERIFY]
    #[arg(long)]
    pub(crate) tls_skip_verify: bool,
    /// Log more, and answer /.nanoproxy/config [environment: DEBUG]
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MeshArgs {
    /// The settings; the files of hosts and port mappings are named there
    #[arg(value_name = "PROXY_CONF", default_value = "./proxy.conf")]
    pub(crate) proxy_conf: PathBuf,
    /// Where the admin port listens, or `off` [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<String>,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Log more [environment: LOG_LEVEL, one of error, warn, info and debug]
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The files: of gateways, of tunnels, or the proxy.conf of a mesh, by its ending
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The request, as 'GET http://host:port/path'; the method may be left out
    #[arg(value_name = "REQUEST")]
    pub(crate) request: String,
    /// A header field of the request; Host in place of the URL's host
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The listener that it comes in at, if scheme and port of the URL do not tell
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Explain what a gateway with this flag would serve from the cluster as it is now
    #[arg(long)]
    pub(crate) kubernetes: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The admin port of the gateway
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9180")]
    pub(crate) admin_address: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For a person
    #[default]
    Text,
    /// For a program
    Json,
}

/// The arguments as clap takes them: `-config` is `NanoProxy`'s spelling of `--config`.
pub(crate) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    given
        .map(|argument| match argument.to_str() {
            Some("-config") => "--config".into(),
            Some(text) if text.starts_with("-config=") => format!("-{text}").into(),
            _ => argument,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_spelling_of_config_works() {
        for spelling in [
            &["-c", "x"][..],
            &["-config", "x"],
            &["--config", "x"],
            &["-config=x"],
            &["--config=x"],
        ] {
            let given = ["cloverleaf", "gateway"].iter().chain(spelling).map(OsString::from);
            let Command::Gateway(args) = Cli::parse_from(arguments(given)).command else {
                panic!()
            };
            assert_eq!(args.source.config, Some(PathBuf::from("x")), "{spelling:?}");
        }
    }
}
