//! Which certificate a client gets, and what it must show: by the name in its hello, without walking over the
//! certificates.

use std::collections::HashMap;
use std::sync::Arc;

use model::HostPattern;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certified::Loaded;

/// The certificates of a listener by name. The tables are keyed with a random seed: clients choose what is
/// looked up.
#[derive(Debug, Default)]
pub(crate) struct SniTable {
    exact: HashMap<Box<str>, Site>,
    /// By what follows `*.`.
    one_label: HashMap<Box<str>, Site>,
    /// By what follows `**.`.
    many_labels: HashMap<Box<str>, Site>,
    /// For every name, and for none.
    any: Option<Site>,
    /// For a name that none has, and for none.
    fallback: Option<Site>,
}

/// What is served under a name.
#[derive(Debug)]
pub(crate) struct Site {
    /// Never empty. The first one whose key a client can use is taken (an RSA beside an ECDSA one).
    certificates: Vec<Arc<Loaded>>,
    /// What clients must show: the number of a domain of the listener.
    pub(crate) domain: usize,
}

impl SniTable {
    /// Serves a certificate also where no name fits.
    pub(crate) fn set_fallback(&mut self, certificate: &Arc<Loaded>, domain: usize) {
        self.fallback = Some(Site { certificates: vec![certificate.clone()], domain });
    }

    /// Serves a certificate under a name. `false`: an earlier certificate of this name asks something else of
    /// clients, so that this one is not used for it.
    pub(crate) fn add(
        &mut self,
        name: &HostPattern,
        certificate: &Arc<Loaded>,
        domain: usize,
    ) -> bool {
        let (table, name) = match name {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::OneLabel(name) => (&mut self.one_label, name),
            HostPattern::ManyLabels(name) => (&mut self.many_labels, name),
            HostPattern::Any => {
                return self.any.get_or_insert_with(|| Site::new(domain)).add(certificate, domain);
            }
        };
        let site = table.entry(name.as_str().into()).or_insert_with(|| Site::new(domain));
        site.add(certificate, domain)
    }

    /// What is served under a name in lower case: exact, the longest wildcard, any, then the fallback.
    pub(crate) fn site(&self, name: Option<&str>) -> Option<&Site> {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let named = name.and_then(|name| self.exact.get(name).or_else(|| self.wildcard(name)));
        named.or(self.any.as_ref()).or(self.fallback.as_ref())
    }

    fn wildcard(&self, name: &str) -> Option<&Site> {
        let mut parent = name.split_once('.')?.1;
        if let Some(site) = self.one_label.get(parent) {
            return Some(site);
        }
        if self.many_labels.is_empty() {
            return None;
        }
        loop {
            if let Some(site) = self.many_labels.get(parent) {
                return Some(site);
            }
            parent = parent.split_once('.')?.1;
        }
    }
}

impl Site {
    fn new(domain: usize) -> Self {
        Self { certificates: Vec::with_capacity(1), domain }
    }

    fn add(&mut self, certificate: &Arc<Loaded>, domain: usize) -> bool {
        let fits = self.domain == domain;
        if fits {
            self.certificates.push(certificate.clone());
        }
        fits
    }
}

impl ResolvesServerCert for SniTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        let candidates = &self.site(hello.server_name())?.certificates;
        let usable =
            |c: &&Arc<Loaded>| c.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = candidates.iter().find(usable).or_else(|| candidates.first())?;
        Some(chosen.key.clone())
    }
}
