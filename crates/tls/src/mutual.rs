//! TLS between equals: each side shows a certificate of its own and verifies the other's, whoever dialled.
//!
//! TLS 1.3 alone, one ALPN name, and tickets, so that a further connection between the same two costs neither
//! signatures nor their verification. What was loaded stays as it is: who renews certificates loads them again and puts
//! the one in the other's place, while connections go on. Must not know what is carried. Start at [`Mutual::load`].

mod error;
mod shown;
mod verify;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use model::{Diagnostic, Diagnostics, PemSource, Place};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::server::{NoServerSessionStorage, ServerConfig, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, CommonState, HandshakeKind, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::{MutualError, MutualErrorKind};
pub use shown::{Admitted, host_key};

use crate::client::ClientStream;
use crate::domain::ClientDomain;
use crate::leaf::{Leaf, Validity};
use crate::pem::Complaint;
use crate::stream::{ServerStream, Session};
use crate::{certified, pem, provider};
use shown::Shown;
use verify::{Connecting, Dialled};

/// Peers whose sessions are kept for resumption; rustls keeps eight tickets of each.
const RESUMABLE_PEERS_MAX: usize = 1024;
/// Of each connection, so that the next one can resume.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// What one shows, and whom one trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The own certificate, then those between it and an authority.
    pub certificate: PemSource,
    /// Its private key.
    pub key: PemSource,
    /// Who signs the certificates of equals.
    pub authorities: PemSource,
}

/// Connects equals, in both directions. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Mutual {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    material: Arc<Material>,
    alpn: &'static [u8],
}

/// What has been read.
struct Material {
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    names: String,
    /// Of the whole chain, the first.
    expires: SystemTime,
    warnings: Diagnostics,
}

impl fmt::Debug for Mutual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are behind it.
        f.debug_struct("Mutual").field("names", &self.material.names).finish_non_exhaustive()
    }
}

/// Whether a connection's first byte is that of a TLS handshake (RFC 8446 section 5.1).
#[must_use]
pub fn looks_like_tls(first: &[u8]) -> bool {
    first.first() == Some(&0x16)
}

impl Mutual {
    /// Reads the files and checks them. `alpn` names the protocol that is carried. Reads files, so not for a worker
    /// thread.
    ///
    /// # Errors
    /// All that is wrong, at the given place, and the warnings beside it.
    pub fn load(
        credentials: &Credentials,
        admitted: Admitted,
        alpn: &'static [u8],
        place: &Place,
    ) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut complain = |complaint: Complaint| {
            diagnostics.push(
                Diagnostic::error(place.clone(), "", complaint.problem)
                    .value(complaint.found)
                    .expected(complaint.expected),
            );
        };
        let own = certified::load(&credentials.certificate, &credentials.key);
        let own = own.map_err(|complaints| complaints.into_iter().for_each(&mut complain));
        let roots = authorities(&credentials.authorities).map_err(&mut complain);
        let (Ok(own), Ok(roots)) = (own, roots) else { return Err(diagnostics) };
        let material = Material::new(credentials, own.key.clone(), &own.leaf, roots, place)?;
        Ok(Self::with(Arc::new(material), admitted, alpn))
    }

    fn with(material: Arc<Material>, admitted: Admitted, alpn: &'static [u8]) -> Self {
        let client = Arc::new(client_config(&material, admitted.clone(), alpn));
        let server = Arc::new(server_config(&material, admitted, alpn));
        Self { client, server, material, alpn }
    }

    /// The same certificate and authorities, for others. No session of before resumes.
    #[must_use]
    pub fn admitting(&self, admitted: Admitted) -> Self {
        Self::with(self.material.clone(), admitted, self.alpn)
    }

    /// What [`Self::load`] found odd but usable: a certificate that has expired or will within seven days.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.material.warnings
    }

    /// The names of the own certificate, as a person reads them.
    #[must_use]
    pub fn names(&self) -> &str {
        &self.material.names
    }

    /// When the first certificate of the own chain expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.material.expires
    }

    /// The handshake with one who connected and has sent `first`, in which [`looks_like_tls`]. Dropped, it drops the
    /// stream, and with it the connection; the deadline is the caller's.
    ///
    /// # Errors
    /// Why there is no connection that can be trusted. The peer has been told, the stream is dropped.
    pub async fn accept<S>(&self, io: S, first: &[u8]) -> Result<ServerStream<S>, MutualError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut session = Session::new(io, UnbufferedServerConnection::new(self.server.clone())?);
        poll_fn(|cx| Poll::Ready(session.feed(cx, first))).await?;
        poll_fn(|cx| session.poll_handshake(cx)).await?;
        self.check(&session.tls)?;
        Ok(ServerStream { session, domain: ClientDomain::default() })
    }

    /// The handshake with one who was dialled by this name or address. What it sends last goes out with the first write
    /// or flush. Dropped, it drops the stream, and with it the connection; the deadline is the caller's.
    ///
    /// That the other side accepts us shows only when something is read: see [`MutualError::after_handshake`].
    ///
    /// # Errors
    /// Why there is no connection that can be trusted. The peer has been told, the stream is dropped.
    pub async fn connect<S>(&self, io: S, host: &str) -> Result<ClientStream<S>, MutualError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host).map_err(io::Error::other)?.to_owned();
        let tls = UnbufferedClientConnection::new(self.client.clone(), name)?;
        let mut session = Session::new(io, tls);
        poll_fn(|cx| session.poll_handshake(cx)).await?;
        self.check(&session.tls)?;
        Ok(ClientStream { session })
    }

    /// The protocol is the one that is meant. And a resumed session vouches for certificates that were good when it
    /// began: they must not have expired.
    fn check(&self, tls: &CommonState) -> Result<(), MutualError> {
        if tls.alpn_protocol() != Some(self.alpn) {
            return Err(MutualError::new(MutualErrorKind::Handshake));
        }
        if tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let over = |der: &CertificateDer<'_>| {
            Leaf::parse(der).is_none_or(|c| c.validity(SystemTime::now()) == Validity::Over)
        };
        match chain {
            [] => Err(MutualError::new(MutualErrorKind::NoCertificate)),
            chain if chain.iter().any(over) => Err(MutualError::new(MutualErrorKind::Expired)),
            _ => Ok(()),
        }
    }
}

fn authorities(source: &PemSource) -> Result<RootCertStore, Complaint> {
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(pem::certificates(source)?);
    if added == 0 {
        return Err(Complaint {
            problem: format!("no certificate in {} can be an authority", pem::describe(source)),
            found: format!("{ignored} that do not parse"),
            expected: "X.509 certificates, version 3",
        });
    }
    Ok(roots)
}

impl Material {
    fn new(
        credentials: &Credentials,
        own: Arc<CertifiedKey>,
        leaf: &Leaf,
        roots: RootCertStore,
        place: &Place,
    ) -> Result<Self, Diagnostics> {
        let file = pem::describe(&credentials.certificate);
        let shown = own.cert.first().and_then(|der| Shown::parse(der)).unwrap_or_default();
        if shown.not_for_servers || shown.not_for_clients {
            let missing = if shown.not_for_clients { "clientAuth" } else { "serverAuth" };
            let problem = format!("the certificate in {file} cannot be used in both directions");
            let found = format!("an extended key usage without {missing}");
            let error = Diagnostic::error(place.clone(), "", problem);
            let error = error.value(found).expected("serverAuth and clientAuth, or no such limit");
            return Err(Diagnostics(vec![error]));
        }
        let mut warnings = Diagnostics::default();
        let now = SystemTime::now();
        if let Some(words) = leaf.time_warning(now) {
            let problem = format!("the certificate in {file} {words}");
            warnings.push(Diagnostic::warning(place.clone(), "", problem));
        }
        let roots = Arc::new(roots);
        if leaf.validity(now) == Validity::Now && !is_own_equal(&own, &roots) {
            let problem = format!(
                "the certificate in {file} is signed by none of the authorities in {}: equals that trust the same ones \
                 will refuse it",
                pem::describe(&credentials.authorities)
            );
            warnings.push(Diagnostic::warning(place.clone(), "", problem));
        }
        let expires = own.cert.iter().filter_map(|der| Leaf::parse(der)).map(|c| c.expires()).min();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(expires.unwrap_or_default());
        Ok(Self { own, roots, names: shown.names(), expires, warnings })
    }
}

/// Whether the own certificate is one that would be accepted, apart from its names.
fn is_own_equal(own: &CertifiedKey, roots: &Arc<RootCertStore>) -> bool {
    let Some((leaf, chain)) = own.cert.split_first() else { return false };
    let shown = Shown::parse(leaf).unwrap_or_default();
    let itself = Admitted::Hosts(Arc::new(shown.hosts.into_iter().collect()));
    let Ok(verifier) = Connecting::new(roots.clone(), itself) else { return false };
    match verifier.verify_client_cert(leaf, chain, UnixTime::now()) {
        Ok(_) => true,
        Err(error) => MutualError::from(error).kind() == MutualErrorKind::WrongPeer,
    }
}

fn client_config(material: &Material, admitted: Admitted, alpn: &[u8]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(provider::versions(model::TlsVersion::V1_3))
        .expect("aws-lc-rs has cipher suites for it")
        .dangerous()
        .with_custom_certificate_verifier(Dialled::new(material.roots.clone(), admitted))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            material.own.clone(),
        )));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(RESUMABLE_PEERS_MAX);
    config
}

fn server_config(material: &Material, admitted: Admitted, alpn: &[u8]) -> ServerConfig {
    let verifier = Connecting::new(material.roots.clone(), admitted)
        .expect("there is an authority, which was checked when it was read");
    let mut config = ServerConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(provider::versions(model::TlsVersion::V1_3))
        .expect("aws-lc-rs has cipher suites for it")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(material.own.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(tickets) = provider::new_tickets() {
        config.ticketer = tickets;
    }
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config
}
