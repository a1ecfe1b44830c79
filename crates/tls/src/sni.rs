//! Which certificate a client gets: by the name in its hello, without walking over the certificates.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of a listener by name. Both tables are keyed with a random seed: clients choose what is
/// looked up.
#[derive(Debug)]
pub(crate) struct SniTable {
    /// By exact name.
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For no name and for a name that none has.
    fallback: Vec<Arc<CertifiedKey>>,
}

impl SniTable {
    /// A table whose fallback is the given certificate. Its names are added with [`Self::add`] like any
    /// other's.
    pub(crate) fn new(fallback: Arc<CertifiedKey>) -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), fallback: vec![fallback] }
    }

    /// Serves a certificate under names, in lower case. Of several certificates with one name, the first
    /// whose key the client can use is taken (an RSA beside an ECDSA one).
    pub(crate) fn add(&mut self, names: &[String], certificate: &Arc<CertifiedKey>) {
        for name in names {
            let (table, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            table.entry(name.into()).or_default().push(certificate.clone());
        }
    }

    /// The certificates for a name: exact, then `*.` and one label, then the fallback.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.fallback };
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for SniTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        let candidates = self.candidates(hello.server_name());
        let usable =
            |c: &&Arc<CertifiedKey>| c.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(usable).or_else(|| candidates.first()).cloned()
    }
}
