//! TLS towards upstreams: verified connections, and words for why one failed.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use model::{Certificate, Diagnostic, Diagnostics, PemSource, Place, UpstreamTls, Verification};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{Protocol, Session, stream_over_session};
use crate::{certified, pem, provider, verify};

/// Server names whose sessions are kept for resumption, for each upstream.
const RESUMABLE_NAMES_MAX: usize = 256;

/// Makes TLS connections to the endpoints of one upstream. Cheap to clone, shared by all worker threads.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// In place of the endpoint's own host.
    server_name: Option<ServerName<'static>>,
    warnings: Arc<Diagnostics>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the authorities and checks them. Reads files, so not for a worker thread.
    ///
    /// # Errors
    /// All that is wrong, at the given place, and the warnings beside it.
    pub fn load(upstream: &UpstreamTls, place: &Place) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let verifier = match &upstream.verification {
            Verification::Skip => verify::nothing(),
            Verification::System => {
                let roots = provider::system_roots();
                if roots.store.is_empty() {
                    diagnostics.push(no_system_roots(place, &roots.problems));
                }
                verify::against(roots.store.clone(), Vec::new())
            }
            Verification::Authorities(source) => {
                let (store, given) = authorities(source, place, &mut diagnostics);
                verify::against(Arc::new(store), given)
            }
        };
        let server_name = upstream.server_name.as_ref().and_then(|name| {
            let parsed = ServerName::try_from(name.as_str().to_owned());
            if parsed.is_err() {
                diagnostics.push(
                    Diagnostic::error(place.clone(), "", "not a name that TLS can verify")
                        .value(name.as_str())
                        .expected("a DNS name or an IP address"),
                );
            }
            parsed.ok()
        });
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        let mut config = ClientConfig::builder_with_provider(provider::provider())
            .with_protocol_versions(provider::versions(model::TlsVersion::V1_2))
            .expect("aws-lc-rs has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(RESUMABLE_NAMES_MAX);
        Ok(Self { config: Arc::new(config), server_name, warnings: Arc::new(diagnostics) })
    }

    /// The same, showing this certificate to servers that ask for one. Reads files.
    ///
    /// # Errors
    /// What is wrong with it, at its place.
    pub fn with_certificate(mut self, certificate: &Certificate) -> Result<Self, Diagnostics> {
        let loaded =
            certified::load(&certificate.chain, &certificate.key).map_err(|complaints| {
                let mut diagnostics = Diagnostics::default();
                for complaint in complaints {
                    diagnostics.push(
                        Diagnostic::error(certificate.place.clone(), "", complaint.problem)
                            .value(complaint.found)
                            .expected(complaint.expected),
                    );
                }
                diagnostics
            })?;
        let config = Arc::make_mut(&mut self.config);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(loaded.key.clone()));
        // A session that began with another certificate must not be resumed with this one.
        config.resumption = Resumption::in_memory_sessions(RESUMABLE_NAMES_MAX);
        Ok(self)
    }

    /// The same, offering these protocols by ALPN, preferred first.
    #[must_use]
    pub fn with_protocols(mut self, protocols: Vec<Vec<u8>>) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = protocols;
        self
    }

    /// What [`Self::load`] found odd but usable: no authorities on this machine, a part of a bundle that is
    /// none.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The handshake over a stream that is connected to an endpoint. `host` is the endpoint's own host, a
    /// DNS name or an IP address without port and brackets; the upstream's own `server_name` goes before
    /// it. It is sent as SNI (unless it is an address) and looked for in the certificate.
    ///
    /// The deadline is the caller's: dropping the future drops the stream.
    ///
    /// # Errors
    /// Why there is no connection that can be trusted; the stream is dropped.
    pub async fn connect<S>(&self, io: S, host: &str) -> Result<ClientStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.handshake(io, host, UnbufferedClientConnection::new).await
    }

    /// As [`Self::connect`], for a protocol that is none of those with an ALPN name here.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_raw<S>(&self, io: S, host: &str) -> Result<ClientStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begin =
            |config, name| UnbufferedClientConnection::new_with_alpn(config, name, Vec::new());
        self.handshake(io, host, begin).await
    }

    async fn handshake<S>(
        &self,
        io: S,
        host: &str,
        begin: impl FnOnce(
            Arc<ClientConfig>,
            ServerName<'static>,
        ) -> Result<UnbufferedClientConnection, rustls::Error>,
    ) -> Result<ClientStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => match ServerName::try_from(host) {
                Ok(name) => name.to_owned(),
                Err(_) => {
                    let kind = ConnectErrorKind::BadName(host.to_owned());
                    return Err(ConnectError { kind, source: None });
                }
            },
        };
        let tls = begin(self.config.clone(), name).map_err(io::Error::other)?;
        let mut session = Session::new(io, tls);
        poll_fn(|cx| session.poll_handshake(cx)).await?;
        poll_fn(|cx| session.poll_flush(cx)).await?;
        Ok(ClientStream { session })
    }
}

fn no_system_roots(place: &Place, problems: &[String]) -> Diagnostic {
    let problem = "this machine has no certificate authorities, so that no connection to this \
                   upstream can be verified and all will fail";
    Diagnostic::warning(place.clone(), "", problem)
        .value(problems.first().map_or("", String::as_str))
        .expected("the package ca-certificates, or authorities given for the upstream")
}

/// The given authorities, also as they stand in the source. Parts that do not parse are warned of, as long
/// as one does.
fn authorities(
    source: &PemSource,
    place: &Place,
    diagnostics: &mut Diagnostics,
) -> (RootCertStore, Vec<CertificateDer<'static>>) {
    let mut store = RootCertStore::empty();
    let certificates = pem::certificates(source).unwrap_or_else(|complaint| {
        diagnostics.push(
            Diagnostic::error(place.clone(), "", complaint.problem)
                .value(complaint.found)
                .expected(complaint.expected),
        );
        Vec::new()
    });
    let (added, ignored) = store.add_parsable_certificates(certificates.iter().cloned());
    let file = pem::describe(source);
    if added == 0 && ignored > 0 {
        let problem = format!("no certificate in {file} can be an authority");
        diagnostics.push(
            Diagnostic::error(place.clone(), "", problem)
                .value(format!("{ignored} that do not parse"))
                .expected("X.509 certificates, version 3"),
        );
    } else if ignored > 0 {
        let problem = format!("{ignored} of the certificates in {file} do not parse");
        diagnostics.push(Diagnostic::warning(place.clone(), "", problem));
    }
    (store, certificates)
}

/// A connection to an upstream after the handshake. Closing for writing ([`AsyncWrite::poll_shutdown`]) sends
/// close_notify; dropping it does not.
#[derive(Debug)]
pub struct ClientStream<S> {
    pub(crate) session: Session<S, UnbufferedClientConnection>,
}

impl<S> ClientStream<S> {
    /// What is spoken inside.
    #[must_use]
    pub fn alpn(&self) -> Protocol {
        Protocol::from_alpn(self.session.tls.alpn_protocol())
    }

    /// Whether the handshake resumed an earlier session.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.session.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The stream below.
    #[must_use]
    pub fn io(&self) -> &S {
        &self.session.io
    }
}

stream_over_session!(ClientStream);

/// Why there is no TLS connection to an upstream; a metric label by [`Self::as_str`], a sentence by its
/// `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// The endpoint's host is no name that a certificate can have.
    BadName(String),
    /// No authority that is trusted here has signed the certificate.
    UnknownIssuer,
    /// The certificate, or one above it, has expired.
    Expired,
    /// The certificate, or one above it, is not valid yet.
    NotYetValid,
    /// The certificate is for other names.
    NameMismatch {
        /// The name that was looked for.
        wanted: String,
        /// The names in the certificate, the first few.
        names: Vec<String>,
    },
    /// The certificate is wrong in another way.
    BadCertificate,
    /// The upstream's bytes are not TLS, as those of plain HTTP.
    NotTls,
    /// No version, cipher suite or protocol in common, or a message out of place.
    Handshake,
    /// The upstream ended the handshake with an alert, named here.
    Alert(String),
    /// The upstream closed the connection during the handshake.
    Eof,
    /// The connection failed.
    Io,
}

impl ConnectErrorKind {
    /// As a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::BadName(_) => "bad_name",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NameMismatch { .. } => "name_mismatch",
            Self::BadCertificate => "bad_certificate",
            Self::NotTls => "not_tls",
            Self::Handshake => "handshake",
            Self::Alert(_) => "alert",
            Self::Eof => "eof",
            Self::Io => "io",
        }
    }
}

impl fmt::Display for ConnectErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName(name) => return write!(f, "{name:?} is no name that TLS can verify"),
            Self::NameMismatch { wanted, names } if names.is_empty() => {
                return write!(f, "the certificate names no server, {wanted} was wanted");
            }
            Self::NameMismatch { wanted, names } => {
                return write!(f, "the certificate is for {}, not {wanted}", names.join(", "));
            }
            Self::Alert(alert) => {
                return write!(f, "the upstream ended the handshake with the alert {alert}");
            }
            Self::UnknownIssuer => "the certificate is signed by no authority trusted here",
            Self::Expired => "the certificate has expired",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::BadCertificate => "the certificate is not acceptable",
            Self::NotTls => "the upstream does not speak TLS",
            Self::Handshake => "the handshake failed",
            Self::Eof => "the upstream closed the connection during the handshake",
            Self::Io => "the connection failed during the handshake",
        })
    }
}

/// A handshake with an upstream that failed. The sentence does not name the endpoint: the caller does.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ConnectError {
    kind: ConnectErrorKind,
    #[source]
    source: Option<io::Error>,
}

impl ConnectError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ConnectErrorKind {
        &self.kind
    }

    /// The kind as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.kind.as_str()
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let kind = match tls {
            Some(tls) => kind_of(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => ConnectErrorKind::Eof,
            None => ConnectErrorKind::Io,
        };
        Self { kind, source: Some(error) }
    }
}

fn kind_of(error: &Error) -> ConnectErrorKind {
    use rustls::InvalidMessage;
    match error {
        Error::InvalidCertificate(error) => kind_of_certificate(error),
        Error::NoCertificatesPresented => ConnectErrorKind::BadCertificate,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => ConnectErrorKind::NotTls,
        Error::AlertReceived(alert) => ConnectErrorKind::Alert(alert_name(*alert)),
        _ => ConnectErrorKind::Handshake,
    }
}

fn kind_of_certificate(error: &CertificateError) -> ConnectErrorKind {
    const NAMES_SHOWN_MAX: usize = 5;
    match error {
        // A bad signature: the issuer has the name of an authority that is trusted, but not its key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ConnectErrorKind::UnknownIssuer
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ConnectErrorKind::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ConnectErrorKind::NotYetValid
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            ConnectErrorKind::NameMismatch {
                wanted: expected.to_str().into_owned(),
                names: presented.iter().take(NAMES_SHOWN_MAX).map(|name| bare(name)).collect(),
            }
        }
        _ => ConnectErrorKind::BadCertificate,
    }
}

/// rustls gives the names of a certificate as `DnsName("a.test")` and `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// As RFC 8446 section 6 spells it.
fn alert_name(alert: AlertDescription) -> String {
    let name = match alert {
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::InternalError => "internal_error",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}
