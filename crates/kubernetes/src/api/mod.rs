//! The API server: how it is reached, what its errors come to, how long one waits for it.
//!
//! [`watch`] follows one kind, [`backoff`] says how soon one asks again. Must not know what the objects mean.

pub(crate) mod backoff;
pub(crate) mod kinds;
pub(crate) mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// How long a connection to the API server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take, watches apart.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Of a node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What went wrong between here and the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that was named cannot be used.
    #[error("reading the kubeconfig {}", path.display())]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Not in a pod, and no kubeconfig.
    #[error(
        "no cluster: not in a pod with a service account, and no kubeconfig by flag --kubeconfig, KUBECONFIG or \
         ~/.kube/config"
    )]
    NoCluster {
        /// What was wrong with the kubeconfig.
        source: Box<kube::config::KubeconfigError>,
    },
    /// What the configuration says cannot be done.
    #[error("preparing the connection to the API server")]
    Client {
        /// Why.
        source: Box<kube::Error>,
    },
    /// A request failed.
    #[error("{what}: {reason}")]
    Request {
        /// What was asked for.
        what: String,
        /// What came of it, without anything secret.
        reason: String,
    },
}

/// A cluster's API server, and who one is there. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Cluster {
    /// By the file given; else by the pod's service account; else by `KUBECONFIG` or `~/.kube/config`. Nothing is
    /// sent yet. May run a credential plugin that the kubeconfig names. Dropped, nothing has happened.
    ///
    /// # Errors
    /// Where none of them can be used.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        let options = KubeConfigOptions::default();
        let mut config = if let Some(path) = kubeconfig {
            let failed = |source| Error::Kubeconfig { path: path.into(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        } else if let Ok(config) = Config::incluster_env() {
            config
        } else {
            let failed = |source| Error::NoCluster { source: Box::new(source) };
            Config::from_kubeconfig(&options).await.map_err(failed)?
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| Error::Client { source: Box::new(e) })?;
        Ok(Self { client, server })
    }

    /// The API server's address, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The namespace that one is in: the pod's own, or the kubeconfig's.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The zone of a node, if it has one and one may know: reading nodes is a right that not everybody grants.
    /// Dropped, nothing has happened.
    pub async fn zone_of_node(&self, node: &str) -> Option<String> {
        let api: Api<Node> = Api::all(self.client());
        match bounded("a node", api.get_metadata(node)).await {
            Ok(found) => found.metadata.labels?.remove(ZONE_LABEL),
            Err(failure) => {
                tracing::info!(node, reason = failure.reason, "its zone is not known");
                None
            }
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }
}

/// A request under the usual bound. Dropped, it may or may not have been carried out.
pub(crate) async fn bounded<T>(
    what: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::of(&error)),
        Err(_) => Err(Failure::slow(what)),
    }
}

/// Why a request came to nothing, in words that may be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) reason: String,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// 401 and 403: somebody has to grant something.
    Forbidden,
    /// 404
    NotFound,
    /// 409: somebody else was faster.
    Conflict,
    /// 410, or 504 with the reason Expired: the version asked for is too old, list again.
    Gone,
    /// Any other answer, or none.
    Other,
}

impl Failure {
    pub(crate) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            // The text of what could not be read may be a Secret's.
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::other("its answer is not understood")
            }
            other => Self::other(&chain(other)),
        }
    }

    pub(crate) fn of_status(status: &kube::core::Status) -> Self {
        let kind = match (status.code, status.reason.as_str()) {
            // Not a matter of rights: nothing new may come into a namespace that is being deleted.
            (403, _) if status.message.contains("being terminated") => FailureKind::NotFound,
            (401 | 403, _) => FailureKind::Forbidden,
            (404, _) => FailureKind::NotFound,
            (409, _) => FailureKind::Conflict,
            (410, _) | (_, "Expired" | "Gone") => FailureKind::Gone,
            _ => FailureKind::Other,
        };
        let reason = format!("{} {}", status.code, cut(&status.message));
        Self { kind, reason }
    }

    pub(crate) fn slow(what: &str) -> Self {
        Self::other(&format!("{what}: no answer in {} s", REQUEST_TIMEOUT.as_secs()))
    }

    pub(crate) fn other(reason: &str) -> Self {
        Self { kind: FailureKind::Other, reason: cut(reason).to_owned() }
    }
}

/// An error with its causes. Each is said once: libraries tend to repeat theirs.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let one = error.to_string();
        if !text.contains(&one) {
            text.push_str(": ");
            text.push_str(&one);
        }
        cause = error.source();
    }
    text
}

/// No more of a message than belongs into a line.
pub(crate) fn cut(text: &str) -> &str {
    const MESSAGE_CHARS_MAX: usize = 300;
    text.char_indices().nth(MESSAGE_CHARS_MAX).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        for (code, reason, kind) in [
            (401, "Unauthorized", FailureKind::Forbidden),
            (403, "Forbidden", FailureKind::Forbidden),
            (404, "NotFound", FailureKind::NotFound),
            (409, "Conflict", FailureKind::Conflict),
            (410, "Expired", FailureKind::Gone),
            (504, "Expired", FailureKind::Gone),
            (500, "InternalError", FailureKind::Other),
        ] {
            let status = kube::core::Status {
                code,
                reason: reason.to_owned(),
                message: "m".repeat(1000),
                ..kube::core::Status::success()
            };
            let failure = Failure::of(&kube::Error::Api(status.boxed()));
            assert_eq!(failure.kind, kind, "{code} {reason}");
            assert!(failure.reason.len() < 320, "{}", failure.reason.len());
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_shown() {
        let error = serde_json::from_str::<u8>("\"secret\"").unwrap_err();
        let failure = Failure::of(&kube::Error::SerdeError(error));
        assert!(!failure.reason.contains("secret"), "{}", failure.reason);
    }
}
