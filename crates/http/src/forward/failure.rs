//! What can go wrong with a request after its head was read: one status and one word for each.
//!
//! Must not know how an answer is sent.

use super::connection::ConnectError;
use crate::stream::BodyError;

/// The status recorded (never sent) where the client went away first.
pub(crate) const CLIENT_CLOSED: u16 = 499;

/// The status recorded (never sent) where a rule closes the connection without an answer.
pub(crate) const CLOSED_BY_RULE: u16 = 444;

/// Why a request did not get its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no rule matches")]
    NoRule,
    /// The connection's client was verified for other hosts.
    #[error("the connection is not for this host")]
    Misdirected,
    #[error("no valid API key")]
    Forbidden,
    #[error("the request body is too large")]
    BodyTooLarge,
    #[error("the rule's upstream does not exist")]
    MissingUpstream,
    #[error("the upstream has no endpoint")]
    NoEndpoint,
    /// By its health checks.
    #[error("every endpoint of the upstream is down")]
    AllDown,
    #[error("CONNECT is not served")]
    ConnectNotServed,
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("no connection to the endpoint")]
    Dial(#[source] ConnectError),
    /// The endpoint closed or reset before its answer began.
    #[error("the endpoint closed the connection")]
    Closed(#[source] std::io::Error),
    /// What it sent is not HTTP, or could be read in two ways.
    #[error("the endpoint's answer is malformed")]
    Garbage,
    #[error("the endpoint did not answer in time")]
    ResponseTimeout,
    /// The answer had begun: the client's connection is broken so that it can tell.
    #[error("the endpoint's answer was cut off")]
    Cut(#[source] BodyError),
    #[error("nothing moved for too long")]
    Stalled,
    /// The client's body is malformed.
    #[error("the request body is malformed")]
    BadBody,
    #[error("the client went away")]
    ClientGone(#[source] BodyError),
}

impl Failure {
    /// The status that answers it; `None` where nothing can be answered.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::BadRequest(_) | Self::BadBody => Some(400),
            Self::Forbidden => Some(403),
            Self::NoRule | Self::ConnectNotServed => Some(404),
            Self::BodyTooLarge => Some(413),
            Self::Misdirected => Some(421),
            Self::Dial(error) if error.as_str() == "busy" => Some(503),
            Self::Dial(error) if !error.is_timeout() => Some(502),
            Self::Closed(_) | Self::Garbage => Some(502),
            Self::MissingUpstream | Self::NoEndpoint | Self::AllDown => Some(503),
            Self::Dial(_) | Self::ResponseTimeout => Some(504),
            Self::Stalled => Some(408),
            Self::Cut(_) | Self::ClientGone(_) => None,
        }
    }

    /// One word, in the answer, the access log and the debug log.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Misdirected => "misdirected",
            Self::Forbidden => "forbidden",
            Self::BodyTooLarge => "body_too_large",
            Self::MissingUpstream => "missing_upstream",
            Self::NoEndpoint => "no_endpoint",
            Self::AllDown => "endpoints_down",
            Self::ConnectNotServed => "connect_not_served",
            Self::BadRequest(_) => "bad_request",
            Self::Dial(error) => match error.as_str() {
                "refused" => "upstream_refused",
                "resolve" => "upstream_unresolved",
                "tls" => "upstream_tls",
                "busy" => "upstream_busy",
                "nobody" => "upstream_nobody",
                "tunnel" => "upstream_tunnel",
                "timeout" => "upstream_connect_timeout",
                _ => "upstream_unreachable",
            },
            Self::Closed(_) => "upstream_closed",
            Self::Garbage => "upstream_malformed",
            Self::ResponseTimeout => "upstream_timeout",
            Self::Cut(_) => "upstream_cut",
            Self::Stalled => "stalled",
            Self::BadBody => "bad_body",
            Self::ClientGone(_) => "client_gone",
        }
    }

    /// A sentence for the client; nothing of the inside is in it.
    pub(crate) fn message(&self) -> &'static str {
        match self {
            // NanoProxy's words.
            Self::NoRule => "No matching rule for host & path",
            Self::Misdirected => {
                "421: this connection is not for this host; a new one with its name is needed"
            }
            Self::Forbidden => "403: this needs a valid API key",
            Self::BodyTooLarge => "413: the request body is larger than is allowed here",
            Self::MissingUpstream => {
                "503: the rule for this request names an upstream that does not exist"
            }
            Self::NoEndpoint => "503: the upstream has no endpoint to serve this request",
            Self::AllDown => "503: no endpoint of the upstream is healthy",
            Self::ConnectNotServed => "404: CONNECT is not served here",
            Self::BadRequest(what) => what,
            Self::Dial(error) => match error.as_str() {
                "refused" => "502: the upstream refuses connections",
                "resolve" => "502: the upstream's name does not resolve",
                "tls" => "502: no trusted TLS connection to the upstream",
                "busy" => "503: the upstream has as many connections as it may",
                "nobody" => "502: no host of the cluster has the upstream",
                "tunnel" => "502: the tunnel that leads to the upstream is down",
                "timeout" => "504: the upstream cannot be reached in time",
                _ => "502: the upstream cannot be reached",
            },
            Self::Closed(_) => "502: the upstream closed the connection without an answer",
            Self::Garbage => "502: the upstream's answer is malformed",
            Self::ResponseTimeout => "504: the upstream did not answer in time",
            Self::Stalled => "408: nothing moved for too long",
            Self::BadBody => "400: the request body is malformed",
            Self::Cut(_) | Self::ClientGone(_) => "",
        }
    }
}
