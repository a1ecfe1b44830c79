//! Who an agent has proven to be. Plain data.

use std::fmt;
use std::net::SocketAddr;

use tls::ClientNames;

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where it is; `None` on a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// The names of its certificate, which has been verified; `None` where it showed none.
    pub(crate) names: Option<ClientNames>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("unix"),
        }
    }
}

/// A service account of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Where it is.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// All that an agent has proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// By its certificate.
    pub(crate) names: ClientNames,
    /// By its token.
    pub(crate) service_account: Option<ServiceAccount>,
}

impl Identity {
    pub(super) fn of(peer: &Peer) -> Self {
        Self { names: peer.names.clone().unwrap_or_default(), service_account: None }
    }
}

/// For logs.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = &self.names;
        let mut parts: Vec<String> = Vec::new();
        for (kind, all) in
            [("CN", &names.common_names), ("DNS", &names.dns_names), ("URI", &names.uris)]
        {
            parts.extend(all.iter().map(|name| format!("{kind}={name}")));
        }
        if let Some(account) = &self.service_account {
            parts.push(format!("serviceAccount={}/{}", account.namespace, account.name));
        }
        f.write_str(if parts.is_empty() { "nobody" } else { "" })?;
        f.write_str(&parts.join(" "))
    }
}
