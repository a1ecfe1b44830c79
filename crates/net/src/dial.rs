//! The way out: a connection to a target, within a bound.
//!
//! Every role connects through here; what a target may be is `model::Target`. Must not know TLS or HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use model::Target;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::resolve::{ResolveError, Resolver};

/// Connects to targets. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    resolver: Resolver,
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("connecting to {target}")]
    Resolve {
        /// Where to.
        target: String,
        /// Why not.
        #[source]
        source: ResolveError,
    },
    /// The kernel or the other side said no.
    #[error("connecting to {target}")]
    Connect {
        /// Where to.
        target: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nobody answered in time.
    #[error("connecting to {target}: no answer within {} ms", waited.as_millis())]
    Timeout {
        /// Where to.
        target: String,
        /// How long was waited.
        waited: Duration,
    },
}

impl DialError {
    /// A short word for metrics: `resolve`, `refused`, `unreachable`, `timeout`, `other`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        use std::io::ErrorKind;
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Timeout { .. } => "timeout",
            Self::Connect { source, .. } => match source.kind() {
                ErrorKind::ConnectionRefused => "refused",
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
                ErrorKind::TimedOut => "timeout",
                _ => "other",
            },
        }
    }
}

impl Dialer {
    /// Connects within `timeout`, name resolution included. Of several addresses of a name each is tried in turn,
    /// with an equal share of what is left of the time. Nagle's algorithm is off. Dropped, it closes the socket.
    ///
    /// # Errors
    /// [`DialError`]; of several addresses that of the last.
    pub async fn connect(
        &self,
        target: &Target,
        timeout: Duration,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + timeout;
        let (name, port) = match target {
            Target::Address(address) => return connect_one(target, *address, timeout).await,
            Target::Named(name, port) => (name, *port),
        };
        let resolved = tokio::time::timeout_at(deadline, self.resolver.resolve(name.as_str()));
        let addresses = resolved
            .await
            .map_err(|_| DialError::Timeout { target: target.to_string(), waited: timeout })?
            .map_err(|source| DialError::Resolve { target: target.to_string(), source })?;
        let mut last = None;
        for (tried, ip) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match connect_one(target, SocketAddr::new(*ip, port), share).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(DialError::Timeout { target: target.to_string(), waited: timeout }))
    }
}

async fn connect_one(
    target: &Target,
    address: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { target: target.to_string(), source };
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(failed)?;
            Ok(stream)
        }
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(DialError::Timeout { target: target.to_string(), waited: timeout }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostName;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_name_with_a_listener_on_one_of_its_addresses_connects() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::Named(HostName::parse("localhost").unwrap(), port);
        Dialer::default().connect(&target, SECOND).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_refused() {
        let address = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let error = Dialer::default().connect(&Target::Address(address), SECOND).await.unwrap_err();
        assert_eq!(error.as_str(), "refused");
        assert!(error.to_string().contains(&address.to_string()));
    }
}
