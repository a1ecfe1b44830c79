//! A connection to an endpoint: opened, used for one request after another, kept.
//!
//! HTTP/1.1 today; another protocol gets its own kind here and the rest does not notice. Must not know rules.

use std::time::Duration;

use model::Upstream;
use net::dial::{DialError, Dialer};
use tls::ClientTls;

use super::upstream::Endpoint;
use crate::h1::buffer::Buffer;
use crate::h1::wire::{Io, Wire};
use crate::head::ResponseHead;

/// An HTTP/1.1 connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) input: Buffer,
    pub(crate) output: Vec<u8>,
    /// The head of the answer under way; its memory is used again.
    pub(crate) response: ResponseHead,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS on it.
    #[error("TLS with {target}")]
    Tls {
        target: String,
        #[source]
        source: tls::ConnectError,
    },
    /// TLS took too long.
    #[error("TLS with {target}: no answer within {} ms", waited.as_millis())]
    TlsTimeout { target: String, waited: Duration },
    /// TLS was asked for and is not set up: never plain instead.
    #[error("TLS with {target}: not configured")]
    NoTls { target: String },
}

impl ConnectError {
    /// The metric label, one of `stats::CONNECT_RESULTS`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.as_str(),
            Self::Tls { .. } | Self::NoTls { .. } => "tls",
            Self::TlsTimeout { .. } => "timeout",
        }
    }

    pub(crate) fn is_timeout(&self) -> bool {
        self.as_str() == "timeout"
    }
}

impl Connection {
    /// Connects to an endpoint, TLS included, within the time. Dropped, it closes the socket.
    pub(crate) async fn open(
        dialer: &Dialer,
        upstream: &Upstream,
        endpoint: &Endpoint,
        client_tls: Option<&ClientTls>,
        timeout: Duration,
    ) -> Result<Box<Self>, ConnectError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let stream = dialer.connect(&endpoint.target, timeout).await?;
        let target = || endpoint.target.to_string();
        let io = match (&upstream.tls, client_tls) {
            (None, _) => Io::Tcp(stream),
            (Some(_), None) => return Err(ConnectError::NoTls { target: target() }),
            (Some(model), Some(client)) => {
                let host = endpoint.target.host();
                let name = model.server_name.as_ref().map_or(host.as_str(), |n| n.as_str());
                let handshake = tokio::time::timeout_at(deadline, client.connect(stream, name));
                let stream = handshake
                    .await
                    .map_err(|_| ConnectError::TlsTimeout { target: target(), waited: timeout })?
                    .map_err(|source| ConnectError::Tls { target: target(), source })?;
                Io::Connected(Box::new(stream))
            }
        };
        Ok(Box::new(Self {
            wire: Wire::new(io),
            input: Buffer::default(),
            output: Vec::new(),
            response: ResponseHead::default(),
            reused: false,
        }))
    }

    /// Whether nothing has come since the last answer, not even an end.
    pub(crate) fn is_quiet(&self) -> bool {
        self.input.is_empty() && self.wire.is_quiet()
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        const OUTPUT_KEPT_BYTES: usize = 2048;
        self.reused = true;
        self.input.release();
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT_BYTES);
    }
}
