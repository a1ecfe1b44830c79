//! The handshake with a client, and the ways in which it fails.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::UnixTime;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, UnbufferedServerConnection};
use rustls::{
    AlertDescription, CommonState, Error, HandshakeKind, PeerIncompatible, ProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain::ClientDomain;
use crate::stream::{ServerStream, Session};
use crate::termination::{Served, Termination};

/// Read at once of a client's first bytes.
const HELLO_READ_BYTES: usize = 4 * 1024;

/// Why a client got no connection; a metric label by [`Self::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AcceptErrorKind {
    /// The client spoke HTTP without TLS. Nothing was answered yet: [`Refused::io`] takes a plain answer.
    PlainHttp,
    /// The client's first bytes are neither TLS nor HTTP.
    NotTls,
    /// The client's hello, or a later message of its handshake, breaks the protocol.
    BadClientHello,
    /// No common TLS version: the client is too old, or wants less than the listener's lowest.
    NoSharedVersion,
    /// No common cipher suite, key exchange or signature scheme.
    NoSharedCipher,
    /// The client's ALPN names are all foreign.
    NoSharedProtocol,
    /// No certificate is for the name that the client asks for, or it asks for none.
    UnrecognizedName,
    /// The client shows no certificate where it must.
    NoClientCertificate,
    /// The client's certificate is not acceptable: another issuer, expired, or not its own.
    BadClientCertificate,
    /// The client does not accept our certificate.
    CertificateRefused,
    /// The client ended the handshake with another alert.
    Alert,
    /// The client closed the connection before the handshake was complete.
    Eof,
    /// The connection failed.
    Io,
    /// Anything else, as the cryptography failing.
    Internal,
}

impl AcceptErrorKind {
    /// Every kind, for metrics that begin at 0.
    pub const ALL: [Self; 14] = [
        Self::PlainHttp,
        Self::NotTls,
        Self::BadClientHello,
        Self::NoSharedVersion,
        Self::NoSharedCipher,
        Self::NoSharedProtocol,
        Self::UnrecognizedName,
        Self::NoClientCertificate,
        Self::BadClientCertificate,
        Self::CertificateRefused,
        Self::Alert,
        Self::Eof,
        Self::Io,
        Self::Internal,
    ];

    /// As a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::BadClientHello => "bad_client_hello",
            Self::NoSharedVersion => "no_shared_version",
            Self::NoSharedCipher => "no_shared_cipher",
            Self::NoSharedProtocol => "no_shared_protocol",
            Self::UnrecognizedName => "unrecognized_name",
            Self::NoClientCertificate => "no_client_certificate",
            Self::BadClientCertificate => "bad_client_certificate",
            Self::CertificateRefused => "certificate_refused",
            Self::Alert => "alert",
            Self::Eof => "eof",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::PlainHttp => "the client spoke plain HTTP on a TLS port",
            Self::NotTls => "the client's first bytes are not TLS",
            Self::BadClientHello => "the client's handshake breaks the protocol",
            Self::NoSharedVersion => "the client has no TLS version that is allowed here",
            Self::NoSharedCipher => "the client has no cipher suite in common with us",
            Self::NoSharedProtocol => "the client's ALPN names no protocol that is spoken here",
            Self::UnrecognizedName => "no certificate is for the name that the client asks for",
            Self::NoClientCertificate => "the client shows no certificate",
            Self::BadClientCertificate => "the client's certificate is not acceptable",
            Self::CertificateRefused => "the client does not accept our certificate",
            Self::Alert => "the client ended the handshake with an alert",
            Self::Eof => "the client closed the connection during the handshake",
            Self::Io => "the connection failed during the handshake",
            Self::Internal => "the handshake failed on our side",
        }
    }
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", kind.sentence())]
pub struct AcceptError {
    kind: AcceptErrorKind,
    #[source]
    source: Option<io::Error>,
}

impl AcceptError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> AcceptErrorKind {
        self.kind
    }

    /// The kind as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.kind.as_str()
    }
}

impl From<io::Error> for AcceptError {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let kind = match tls {
            Some(tls) => kind_of(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => AcceptErrorKind::Eof,
            None => AcceptErrorKind::Io,
        };
        Self { kind, source: Some(error) }
    }
}

fn kind_of(error: &Error) -> AcceptErrorKind {
    use PeerIncompatible as Peer;
    match error {
        Error::PeerIncompatible(
            Peer::Tls12NotOffered
            | Peer::Tls12NotOfferedOrEnabled
            | Peer::SupportedVersionsExtensionRequired
            | Peer::ServerDoesNotSupportTls12Or13
            | Peer::ServerTlsVersionIsDisabledByOurConfig
            // Older clients have none, and rustls looks for it before the version.
            | Peer::SignatureAlgorithmsExtensionRequired,
        ) => AcceptErrorKind::NoSharedVersion,
        Error::PeerIncompatible(_) => AcceptErrorKind::NoSharedCipher,
        Error::NoCertificatesPresented => AcceptErrorKind::NoClientCertificate,
        Error::InvalidCertificate(_) => AcceptErrorKind::BadClientCertificate,
        Error::NoApplicationProtocol => AcceptErrorKind::NoSharedProtocol,
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => AcceptErrorKind::CertificateRefused,
        Error::AlertReceived(_) => AcceptErrorKind::Alert,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => AcceptErrorKind::BadClientHello,
        _ => AcceptErrorKind::Internal,
    }
}

/// A handshake that failed, and the stream it failed on.
#[derive(Debug)]
pub struct Refused<S> {
    /// Why.
    pub error: AcceptError,
    /// The stream. With [`AcceptErrorKind::PlainHttp`] nothing was written to it, and the first bytes of the
    /// request, at most 4 KiB, have been read from it; otherwise it is only good for closing.
    pub io: S,
}

/// Whether a connection's first bytes, one or more, can be the beginning of plain HTTP: a method is in
/// capital letters (so is HTTP/2's preface), while a TLS record begins with a byte from 0x14 to 0x18.
#[must_use]
pub fn looks_like_http(first: &[u8]) -> bool {
    const METHOD_BYTES_MAX: usize = 16;
    let mut method = first.iter().take(METHOD_BYTES_MAX).take_while(|b| **b != b' ').peekable();
    method.peek().is_some() && method.all(|b| b.is_ascii_uppercase() || *b == b'-')
}

impl Termination {
    /// The handshake. The deadline is the caller's: dropping the future drops the stream, and with it the
    /// connection. A client that speaks plain HTTP is told from one that speaks TLS before anything is sent.
    ///
    /// # Errors
    /// [`Refused`] with the reason and the stream; an alert has been sent where the protocol has one.
    pub async fn accept<S>(&self, mut io: S) -> Result<ServerStream<S>, Refused<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = Hello::default();
        let served = match poll_fn(|cx| self.poll_served(&mut hello, &mut io, cx)).await {
            Ok(served) => served,
            Err(error) => return Err(Refused { error, io }),
        };
        let tls = match UnbufferedServerConnection::new(served.config.clone()) {
            Ok(tls) => tls,
            Err(error) => return Err(Refused { error: tls_failed(error), io }),
        };
        let mut session = Session::new(io, tls);
        let done: Result<(), AcceptError> = async {
            poll_fn(|cx| poll_handshake(&mut session, &mut hello.bytes, cx)).await?;
            verify_resumed(&session.tls, &served.domain)?;
            // TLS 1.3 leaves only tickets to be sent. Where the first request has come with the end of the
            // handshake they go out with its answer, which spares a call into the kernel. Otherwise they
            // must not wait: a client with Nagle's algorithm holds its request back until something
            // acknowledges its Finished, which without data from us takes 40 ms.
            let only_tickets = session.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            if !(only_tickets && session.has_plaintext()) {
                poll_fn(|cx| session.poll_flush(cx)).await?;
            }
            Ok(())
        }
        .await;
        match done {
            Ok(()) => Ok(ServerStream { session, domain: served.domain.clone() }),
            Err(error) => Err(Refused { error, io: session.io }),
        }
    }

    /// Reads as much as tells how a client is served: its first bytes, or the hello where the name in it decides.
    fn poll_served<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        hello: &mut Hello,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<&Served, AcceptError>> {
        loop {
            let from = hello.bytes.len();
            ready!(hello.poll_read(io, cx))?;
            if let Some(served) = self.uniform() {
                return Poll::Ready(Ok(served));
            }
            let accepted = match hello.parse(from) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => continue,
                Err((error, alert)) => {
                    send_at_once(io, cx, &alert);
                    return Poll::Ready(Err(error));
                }
            };
            let served = self.served(accepted.client_hello().server_name());
            return Poll::Ready(served.ok_or_else(|| {
                send_at_once(io, cx, &UNRECOGNIZED_NAME);
                AcceptError { kind: AcceptErrorKind::UnrecognizedName, source: None }
            }));
        }
    }
}

/// What a client sends first.
#[derive(Default)]
struct Hello {
    /// All of it, for the handshake.
    bytes: Vec<u8>,
    /// Looks at it before there is one.
    acceptor: Option<Box<Acceptor>>,
}

impl Hello {
    /// Reads more, and refuses what does not begin as TLS does.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AcceptError>> {
        let mut place = [MaybeUninit::uninit(); HELLO_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut place);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        let new = read.filled();
        if self.bytes.is_empty() || new.is_empty() {
            is_tls(new)?;
        }
        self.bytes.extend_from_slice(new);
        Poll::Ready(Ok(()))
    }

    /// The hello, once it is whole. `from`: what was not looked at yet. With an error comes the alert for it.
    fn parse(&mut self, from: usize) -> Result<Option<Accepted>, (AcceptError, Vec<u8>)> {
        let acceptor = self.acceptor.get_or_insert_default();
        let mut new = self.bytes.get(from..).unwrap_or_default();
        while !new.is_empty() {
            acceptor.read_tls(&mut new).map_err(|error| (error.into(), Vec::new()))?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(accepted) => return Ok(accepted),
                Err((error, alert)) => return Err((tls_failed(error), bytes_of(alert))),
            }
        }
        Ok(None)
    }
}

/// The handshake, which begins with what has come.
fn poll_handshake<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S, UnbufferedServerConnection>,
    hello: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if !hello.is_empty() {
        session.feed(cx, &std::mem::take(hello))?;
    }
    session.poll_handshake(cx)
}

/// Whether what was read first can be TLS.
fn is_tls(first: &[u8]) -> Result<(), AcceptError> {
    /// Of a TLS record: change_cipher_spec to heartbeat (RFC 8446 section 5.1).
    const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x18;
    let kind = match first {
        [] => AcceptErrorKind::Eof,
        bytes if looks_like_http(bytes) => AcceptErrorKind::PlainHttp,
        [byte, ..] if CONTENT_TYPES.contains(byte) => return Ok(()),
        _ => AcceptErrorKind::NotTls,
    };
    Err(AcceptError { kind, source: None })
}

/// A fatal alert before any keys are agreed on (RFC 8446 sections 5.1 and 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

fn bytes_of(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes everything.
    let _ = alert.write_all(&mut bytes);
    bytes
}

/// Sends an alert as far as the stream takes it at once: nobody waits for it.
fn send_at_once<S: AsyncWrite + Unpin>(io: &mut S, cx: &mut Context<'_>, alert: &[u8]) {
    let _ = Pin::new(io).poll_write(cx, alert);
}

fn tls_failed(error: Error) -> AcceptError {
    io::Error::new(io::ErrorKind::InvalidData, error).into()
}

/// A resumed session vouches for a certificate that was good when the session began: it has to be still.
fn verify_resumed(tls: &CommonState, domain: &ClientDomain) -> Result<(), AcceptError> {
    let Some(domain) = domain.0.as_ref().filter(|_| is_resumed(tls)) else { return Ok(()) };
    match tls.peer_certificates() {
        Some([leaf, chain @ ..]) => {
            let now = UnixTime::now();
            domain.verifier.verify_client_cert(leaf, chain, now).map(|_| ()).map_err(tls_failed)
        }
        _ if domain.verifier.client_auth_mandatory() => {
            Err(tls_failed(Error::NoCertificatesPresented))
        }
        _ => Ok(()),
    }
}

fn is_resumed(tls: &CommonState) -> bool {
    tls.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_from_tls_by_its_first_bytes() {
        for http in ["G", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "POST", "M-SEARCH * HTTP/1.1"] {
            assert!(looks_like_http(http.as_bytes()), "{http}");
        }
        let hello = [0x16, 0x03, 0x01, 0x02, 0x00];
        for other in [&hello[..], b"", b" GET", b"get / HTTP/1.1", b"\r\n", &[0x80, 0x2e]] {
            assert!(!looks_like_http(other), "{other:?}");
        }
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::HashSet<_> =
            AcceptErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(labels.len(), AcceptErrorKind::ALL.len());
    }
}
