//! A connection to an endpoint: opened, used for one request after another, kept.
//!
//! HTTP/1.1 today; another protocol gets its own kind here and the rest does not notice. Must not know rules.

use std::cell::Cell;
use std::time::Duration;

use model::Target;
use net::dial::{DialError, Dialer};
use tls::ClientTls;

use crate::h1::buffer::Buffer;
use crate::h1::wire::Wire;
use crate::head::ResponseHead;
use crate::io::Io;

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

/// How a connection is secured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Security<'t> {
    /// Not at all.
    Plain,
    /// By TLS.
    Tls(&'t ClientTls),
    /// TLS was asked for and is not set up.
    Missing,
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
    /// The endpoint left meanwhile.
    #[error("connecting to {target}: it has left")]
    Left { target: String },
}

impl ConnectError {
    /// The metric label, one of `stats::CONNECT_RESULTS`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.as_str(),
            Self::Tls { .. } | Self::NoTls { .. } => "tls",
            Self::TlsTimeout { .. } => "timeout",
            Self::Left { .. } => "abandoned",
        }
    }

    pub(crate) fn is_timeout(&self) -> bool {
        self.as_str() == "timeout"
    }
}

impl Connection {
    /// Connects to an endpoint, TLS included, within the time; `reached` is set between the two. Dropped, it closes the
    /// socket.
    pub(crate) async fn open(
        dialer: &Dialer,
        target: &Target,
        security: Security<'_>,
        timeout: Duration,
        reached: &Cell<bool>,
    ) -> Result<Box<Self>, ConnectError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let client = match security {
            Security::Plain => None,
            Security::Tls(client) => Some(client),
            Security::Missing => return Err(ConnectError::NoTls { target: target.to_string() }),
        };
        // Of no client: the next request on it may be another's.
        let stream = dialer.connect(target, None, timeout).await?;
        reached.set(true);
        let Some(client) = client else {
            return Ok(Self::new(Io::Plain(stream)));
        };
        let host = target.host();
        let stream = tokio::time::timeout_at(deadline, client.connect(stream, &host))
            .await
            .map_err(|_| ConnectError::TlsTimeout { target: target.to_string(), waited: timeout })?
            .map_err(|source| ConnectError::Tls { target: target.to_string(), source })?;
        Ok(Self::new(Io::Connected(Box::new(stream))))
    }

    fn new(io: Io) -> Box<Self> {
        Box::new(Self {
            wire: Wire::new(io),
            input: Buffer::default(),
            output: Vec::new(),
            response: ResponseHead::default(),
            reused: false,
        })
    }

    /// Whether it may carry another request: nothing has come since the last answer, not even an end, and it goes
    /// where a new one would go.
    pub(crate) fn is_usable(&self) -> bool {
        self.input.is_empty() && self.wire.is_current() && self.wire.is_quiet()
    }

    /// Whether it may be kept without being used.
    pub(crate) fn may_rest(&self) -> bool {
        self.wire.may_rest()
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
