//! In what way clients are verified: a domain, and which domain a connection belongs to.
//!
//! Names with the same authorities and the same demand are one domain, also over several listeners and
//! after a reload. Sessions resume within a domain alone, and whoever serves requests compares domains: a
//! client that was let in for one name must not reach another that asks for other certificates. Must not
//! know names or requests.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use model::ClientVerification;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
use rustls::server::danger::ClientCertVerifier;

use crate::pem::{self, Complaint};
use crate::{provider, verify_client};

/// What clients had to show to get a connection, or have to show for a host. The default is nothing. Two
/// are equal where authorities and demand are.
#[derive(Clone, Default)]
pub struct ClientDomain(pub(crate) Option<Arc<Domain>>);

impl ClientDomain {
    /// The same for equal ones, as long as one of them lives.
    pub(crate) fn key(&self) -> usize {
        self.0.as_ref().map_or(0, |domain| Arc::as_ptr(domain).addr())
    }
}

impl PartialEq for ClientDomain {
    fn eq(&self, other: &Self) -> bool {
        // There is one of each kind at a time; see `shared`.
        self.key() == other.key()
    }
}

impl Eq for ClientDomain {}

impl fmt::Debug for ClientDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            None => "unverified",
            Some(domain) if domain.kind.optional => "optional",
            Some(_) => "required",
        })
    }
}

/// A domain and what its connections share.
pub(crate) struct Domain {
    kind: Kind,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// Its own: a ticket of another domain does not open. `None` where the machine gives no randomness.
    pub(crate) tickets: Option<Arc<dyn ProducesTickets>>,
}

/// What makes two domains the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    authorities: Vec<CertificateDer<'static>>,
    optional: bool,
}

/// Reads the authorities. Parts of the source that cannot be one are told of beside the domain.
///
/// # Errors
/// What is wrong with the source.
pub(crate) fn load(
    verification: &ClientVerification,
) -> Result<(ClientDomain, Option<String>), Complaint> {
    let certificates = pem::certificates(&verification.authorities)?;
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
    let source = pem::describe(&verification.authorities);
    if added == 0 {
        return Err(Complaint {
            problem: format!("no certificate in {source} can be an authority"),
            found: format!("{ignored} that do not parse"),
            expected: "X.509 certificates, version 3",
        });
    }
    let warning = (ignored > 0)
        .then(|| format!("{ignored} of the certificates in {source} can be no authority"));
    let kind = Kind { authorities: certificates, optional: verification.optional };
    Ok((ClientDomain(Some(shared(kind, roots)?)), warning))
}

/// Domains in use, by the hash of their kind.
type InUse = (RandomState, Mutex<HashMap<u64, Vec<Weak<Domain>>>>);

/// The one domain of a kind: the one in use, so that sessions resume after a reload, else a new one. The
/// table grows no further than what is in use at a time.
fn shared(kind: Kind, roots: RootCertStore) -> Result<Arc<Domain>, Complaint> {
    static IN_USE: OnceLock<InUse> = OnceLock::new();
    let (hasher, table) = IN_USE.get_or_init(InUse::default);
    let hash = hasher.hash_one(&kind);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let alike = table.get(&hash).into_iter().flatten().filter_map(Weak::upgrade);
    if let Some(known) = alike.into_iter().find(|domain| domain.kind == kind) {
        return Ok(known);
    }
    if table.len() == table.capacity() {
        // Amortised: no more than twice what was in use when it last grew.
        table.retain(|_, domains| {
            domains.retain(|domain| domain.strong_count() > 0);
            !domains.is_empty()
        });
    }
    let verifier = verify_client::against(roots, kind.authorities.clone(), kind.optional);
    let verifier = verifier.map_err(|error| Complaint {
        problem: "clients cannot be verified against these authorities".to_owned(),
        found: error.to_string(),
        expected: "X.509 certificates, version 3",
    })?;
    let domain = Arc::new(Domain { kind, verifier, tickets: provider::new_tickets() });
    let alike = table.entry(hash).or_default();
    alike.retain(|domain| domain.strong_count() > 0);
    alike.push(Arc::downgrade(&domain));
    Ok(domain)
}
