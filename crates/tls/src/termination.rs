//! TLS towards clients, built from the model: files read and checked, all problems reported at once.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use model::{Certificate, Diagnostic, Diagnostics, TlsTermination};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::leaf::Leaf;
use crate::pem::{self, Complaint};
use crate::provider;
use crate::sni::SniTable;

/// TLS 1.3 tickets sent after a handshake. Each costs a sealing and some 200 bytes; a client that resumes
/// gets a new one with every connection.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// At most so many for clients that ask for a number (RFC 9149), as those that open several connections at
/// once do.
const TICKETS_ON_REQUEST_MAX: usize = 4;

/// Sessions kept in memory for TLS 1.2 clients without tickets.
const SESSIONS_MAX: usize = 1024;

/// Accepts TLS connections on a listener. Cheap to clone, shared by all worker threads.
#[derive(Clone)]
pub struct Termination {
    pub(crate) config: Arc<ServerConfig>,
    warnings: Arc<Diagnostics>,
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are behind it.
        f.debug_struct("Termination").finish_non_exhaustive()
    }
}

impl Termination {
    /// Reads the certificates and keys and checks them: readable, at most 1 MiB, a key that parses and
    /// belongs to the first certificate of the chain. Reads files, so not for a worker thread.
    ///
    /// # Errors
    /// All that is wrong, with the place of the certificate it is wrong with, and the warnings beside it.
    pub fn load(termination: &TlsTermination) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let now = SystemTime::now();
        let mut table: Option<SniTable> = None;
        for (index, certificate) in termination.certificates.iter().enumerate() {
            match load_certificate(certificate) {
                Ok((key, leaf)) => {
                    let table = table.get_or_insert_with(|| SniTable::new(key.clone()));
                    table.add(&leaf.dns_names, &key);
                    warn(certificate, &leaf, index == 0, now, &mut diagnostics);
                }
                Err(complaints) => {
                    for complaint in complaints {
                        diagnostics.push(
                            Diagnostic::error(certificate.place.clone(), "", complaint.problem)
                                .value(complaint.found)
                                .expected(complaint.expected),
                        );
                    }
                }
            }
        }
        let table = match table {
            Some(table) if !diagnostics.has_errors() => table,
            _ => {
                if !diagnostics.has_errors() {
                    let place = model::Place::whole("TLS");
                    diagnostics.push(Diagnostic::error(place, "", "no certificate is given"));
                }
                return Err(diagnostics);
            }
        };
        Ok(Self {
            config: Arc::new(server_config(termination, table)),
            warnings: Arc::new(diagnostics),
        })
    }

    /// What [`Self::load`] found odd but usable: certificates that have expired, are not valid yet, expire
    /// within seven days, or can never be chosen.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }
}

fn server_config(termination: &TlsTermination, table: SniTable) -> ServerConfig {
    let versions = provider::versions(termination.min_version);
    let mut config = ServerConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(versions)
        .expect("aws-lc-rs has cipher suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(table));
    config.alpn_protocols = crate::stream::ALPN_SERVED.iter().map(|p| p.to_vec()).collect();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    if let Some(tickets) = provider::tickets() {
        config.ticketer = tickets;
    }
    // Most clients only list what they know; see `provider::provider` for our order.
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.max_tls13_tickets = TICKETS_ON_REQUEST_MAX;
    config
}

/// A chain with its key, and what its leaf says.
fn load_certificate(
    certificate: &Certificate,
) -> Result<(Arc<CertifiedKey>, Leaf), Vec<Complaint>> {
    let (chain, key) =
        match (pem::certificates(&certificate.chain), pem::private_key(&certificate.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
    let provider = provider::provider();
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        vec![Complaint {
            problem: format!("unusable private key in {}", pem::describe(&certificate.key)),
            found: String::new(),
            expected: "an RSA key of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
        }]
    })?;
    let Some(leaf) = Leaf::parse(&chain[0]) else {
        return Err(vec![Complaint {
            problem: format!(
                "the first certificate in {} does not parse",
                pem::describe(&certificate.chain)
            ),
            found: String::new(),
            expected: "an X.509 certificate",
        }]);
    };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(vec![mismatch(certificate, &certified)]),
    }
    Ok((Arc::new(certified), leaf))
}

/// Says why a key does not fit: another certificate of the chain has it, or none.
fn mismatch(certificate: &Certificate, certified: &CertifiedKey) -> Complaint {
    let fits = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], certified.key.clone()).keys_match().is_ok()
    };
    let chain = pem::describe(&certificate.chain);
    match certified.cert.iter().position(fits) {
        Some(index) => Complaint {
            problem: format!("the chain in {chain} does not begin with the key's certificate"),
            found: format!("the key's certificate as number {} of the chain", index + 1),
            expected: "the leaf first, then its issuer",
        },
        None => Complaint {
            problem: format!(
                "the key in {} does not belong to the certificate in {chain}",
                pem::describe(&certificate.key)
            ),
            found: "different public keys".to_owned(),
            expected: "the private key of the first certificate",
        },
    }
}

fn warn(
    certificate: &Certificate,
    leaf: &Leaf,
    first: bool,
    now: SystemTime,
    diagnostics: &mut Diagnostics,
) {
    let file = pem::describe(&certificate.chain);
    if let Some(words) = leaf.time_warning(now) {
        let problem = format!("the certificate in {file} {words}");
        diagnostics.push(Diagnostic::warning(certificate.place.clone(), "", problem));
    }
    if !first && leaf.dns_names.is_empty() {
        let problem =
            format!("the certificate in {file} has no DNS name, so that it is never chosen");
        diagnostics.push(
            Diagnostic::warning(certificate.place.clone(), "", problem)
                .expected("a subject alternative name, unless it stands first"),
        );
    }
}
