//! In what way clients are verified: a domain, and which domain a connection belongs to.
//!
//! Names with the same authorities and the same demand are one domain, also over several listeners and
//! after a reload. Sessions resume within a domain alone, and whoever serves requests compares domains: a
//! client that was let in for one name must not reach another that asks for other certificates. Must not
//! know names or requests.

use std::fmt;
use std::sync::Arc;

use model::ClientVerification;
use rustls::RootCertStore;
use rustls::server::ProducesTickets;
use rustls::server::danger::ClientCertVerifier;

use crate::in_use::{self, InUse};
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
        // There is one of each kind at a time; see `InUse`.
        self.key() == other.key()
    }
}

impl Eq for ClientDomain {}

impl fmt::Debug for ClientDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            None => "unverified",
            Some(domain) if domain.optional => "optional",
            Some(_) => "required",
        })
    }
}

/// A domain and what its connections share.
pub(crate) struct Domain {
    optional: bool,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// Its own: a ticket of another domain does not open. `None` where the machine gives no randomness.
    pub(crate) tickets: Option<Arc<dyn ProducesTickets>>,
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
    // Two with the same authorities and the same demand are the same.
    static IN_USE: InUse<Domain> = InUse::new();
    let optional = verification.optional;
    let demand: &[u8] = if optional { b"optional" } else { b"required" };
    let parts = certificates.iter().map(|certificate| certificate.as_ref());
    let content = in_use::digest(std::iter::once(demand).chain(parts));
    let make = || {
        let verifier = verify_client::against(roots, certificates.clone(), optional);
        let verifier = verifier.map_err(|error| Complaint {
            problem: "clients cannot be verified against these authorities".to_owned(),
            found: error.to_string(),
            expected: "X.509 certificates, version 3",
        })?;
        Ok(Domain { optional, verifier, tickets: provider::new_tickets() })
    };
    let domain = IN_USE.get_or_make(content, make)?;
    Ok((ClientDomain(Some(domain)), warning))
}
