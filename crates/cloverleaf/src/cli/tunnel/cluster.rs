//! Flags of a tunnel's ends that concern a cluster's API server: tokens of agents, Leases of servers.

use std::path::PathBuf;

use clap::Args;

use super::boolean;

#[derive(Debug, Args)]
pub(crate) struct ServerClusterArgs {
    /// Only agents with a token of a service account in this namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "", hide_default_value = true)]
    pub(crate) agent_namespace: String,
    /// Of which name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) agent_service_account: String,
    /// For which audience the token must be
    #[arg(long, value_name = "AUDIENCE", default_value = "", hide_default_value = true)]
    pub(crate) authentication_audience: String,
    /// Which agents may claim which names and identifiers [default: any agent anything]
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_policy: Option<PathBuf>,
    /// How the cluster is reached that checks tokens and has Leases [default: the pod's service account, else
    /// KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) kubeconfig: String,
    /// Requests a second to its API server at most; 0: 5
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub(crate) kubeconfig_qps: f64,
    /// And so many at once; 0: 10
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) kubeconfig_burst: u32,
    /// Keep a Lease in the cluster as long as this server is there
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) enable_lease_controller: bool,
    /// The Lease's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    pub(crate) lease_namespace: String,
    /// The Lease's label
    #[arg(long, value_name = "KEY=VALUE", default_value = "k8s-app=konnectivity-server")]
    pub(crate) lease_label: String,
}

#[derive(Debug, Args)]
pub(crate) struct AgentClusterArgs {
    /// Count the servers by their Leases in the cluster
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) count_server_leases: bool,
    /// What is believed of the number of servers: default (Leases where they are counted, else what servers say) or max
    /// (the larger of both)
    #[arg(long, value_name = "SOURCE", default_value = "default")]
    pub(crate) server_count_source: String,
    /// The Leases' namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    pub(crate) lease_namespace: String,
    /// The Leases' labels
    #[arg(long, value_name = "SELECTOR", default_value = "k8s-app=konnectivity-server")]
    pub(crate) lease_label_selector: String,
    /// How the cluster with the Leases is reached [default: the pod's service account, else KUBECONFIG, else
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(crate) kubeconfig: String,
    /// Of no use to an agent, which sends one request every other minute.
    #[arg(long, hide = true, default_value_t = 0.0)]
    pub(crate) kubeconfig_qps: f64,
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) kubeconfig_burst: u32,
}
