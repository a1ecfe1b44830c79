//! Certificates of Ingresses: which Secret stands for which name.
//!
//! The names are those that `spec.tls` declares, else those of the Ingress's own rules; what a certificate
//! says of itself counts for nothing, because a tenant could write another's name into it. The oldest
//! Ingress that declares a name has it, even while its Secret cannot be used: a mistake of one must not
//! hand its name to another.

use std::sync::Arc;

use model::{Certificate, HostPattern, PemSource, Place};
use rustc_hash::FxHashMap;

use super::super::{Checks, Draft};
use super::{IngressOptions, paths};
use crate::objects::from_api::shown;
use crate::objects::{Ingress, IngressTls, Key, Kind, Meta, Secret, Text};
use crate::store::Store;

/// A Secret that Ingresses name: its certificate's index in the draft, with what is odd about it; or why it
/// has none.
type Outcome = Result<(usize, Vec<String>), String>;

struct Claims<'s> {
    store: &'s Store,
    /// Who has a name, and with which Secret.
    names: FxHashMap<HostPattern, (Key, Text)>,
    secrets: FxHashMap<Key, Outcome>,
}

/// Those of these Ingresses, the oldest first, and the default one.
pub(super) fn add(
    options: &IngressOptions,
    ingresses: &[&Ingress],
    store: &Store,
    checks: &mut Checks,
    draft: &mut Draft,
) {
    let mut claims = Claims { store, names: FxHashMap::default(), secrets: FxHashMap::default() };
    for ingress in ingresses {
        for (index, tls) in ingress.tls.iter().enumerate() {
            // Without a Secret they get the default certificate.
            if let Some(secret) = &tls.secret {
                claims.add(&Entry { ingress, index, secret }, checks, draft);
            }
        }
    }
    // One without hosts would be used for whatever stands in it.
    draft.certificates.retain(|certificate| !certificate.hosts.is_empty());
    if let Some(key) = &options.default_certificate {
        add_default(key, store, checks, draft);
    }
}

/// One of `spec.tls` that names a Secret.
struct Entry<'i> {
    ingress: &'i Ingress,
    index: usize,
    secret: &'i Text,
}

impl Entry<'_> {
    fn problem(&self, draft: &mut Draft, reason: &'static str, message: &str) {
        let message = format!("spec.tls[{}]{message}", self.index);
        draft.problem(Kind::Ingress, &self.ingress.meta, reason, message);
    }

    /// The hosts that it is for.
    fn patterns(&self, draft: &mut Draft) -> Vec<HostPattern> {
        let mut patterns = Vec::new();
        for host in declared_hosts(self.ingress, &self.ingress.tls[self.index]) {
            match paths::host(host) {
                Ok(HostPattern::Any) => {}
                Ok(pattern) => patterns.push(pattern),
                Err(expected) => {
                    let found = shown(host);
                    let message =
                        format!(".hosts has {found}, expected {expected}; it has no certificate");
                    self.problem(draft, "InvalidHost", &message);
                }
            }
        }
        if patterns.is_empty() {
            let message = format!(
                " has no host that it could be for, expected some there or in spec.rules; \
                 Secret {} is not used",
                shown(self.secret)
            );
            self.problem(draft, "TlsWithoutHosts", &message);
        }
        patterns
    }
}

impl Claims<'_> {
    fn add(&mut self, entry: &Entry<'_>, checks: &mut Checks, draft: &mut Draft) {
        let patterns = entry.patterns(draft);
        if patterns.is_empty() {
            return;
        }
        let mut won = self.win(entry, patterns, draft);
        let namespace = entry.ingress.meta.key.namespace.clone();
        let key = Key { namespace, name: entry.secret.clone() };
        let secret = shown(entry.secret);
        match self.certificate(&key, checks, draft) {
            Ok((at, warnings)) => {
                draft.certificates[at].hosts.append(&mut won);
                for warning in warnings {
                    let message =
                        format!(".secretName is {secret}: {warning}; it is used all the same");
                    entry.problem(draft, "DoubtfulCertificate", &message);
                }
            }
            Err(why) => {
                let message = format!(
                    ".secretName is {secret}: {why}; its hosts have no certificate of their own"
                );
                entry.problem(draft, "UnusableCertificate", &message);
            }
        }
    }

    /// Those that nobody had before.
    fn win(
        &mut self,
        entry: &Entry<'_>,
        patterns: Vec<HostPattern>,
        draft: &mut Draft,
    ) -> Vec<HostPattern> {
        let key = &entry.ingress.meta.key;
        let mut won = Vec::new();
        for pattern in patterns {
            match self.names.get(&pattern) {
                None => {
                    self.names.insert(pattern.clone(), (key.clone(), entry.secret.clone()));
                    won.push(pattern);
                }
                Some((winner, secret))
                    if winner.namespace == key.namespace && secret == entry.secret => {}
                Some((winner, _)) => {
                    let message = format!(
                        ".hosts has {pattern}, whose certificate is the one of Ingress {winner}, \
                         which is older or names it earlier; Secret {} is not used for it",
                        shown(entry.secret)
                    );
                    entry.problem(draft, "TlsHostTaken", &message);
                }
            }
        }
        won
    }

    /// That of a Secret, looked at once.
    fn certificate(&mut self, key: &Key, checks: &mut Checks, draft: &mut Draft) -> Outcome {
        if let Some(known) = self.secrets.get(key) {
            return known.clone();
        }
        let outcome = load(self.store, key, checks).map(|(certificate, warnings)| {
            draft.certificates.push(certificate);
            (draft.certificates.len() - 1, warnings)
        });
        self.secrets.insert(key.clone(), outcome.clone());
        outcome
    }
}

/// The hosts of an entry, or else those of the Ingress's rules, each once.
fn declared_hosts<'i>(ingress: &'i Ingress, tls: &'i IngressTls) -> Vec<&'i Text> {
    let mut hosts: Vec<&Text> = if tls.hosts.is_empty() {
        ingress.paths.iter().map(|path| &path.host).chain(&ingress.bare_hosts).collect()
    } else {
        tls.hosts.iter().collect()
    };
    hosts.sort();
    hosts.dedup();
    hosts
}

fn load(
    store: &Store,
    key: &Key,
    checks: &mut Checks,
) -> Result<(Certificate, Vec<String>), String> {
    let Some(secret) = store.secrets.get(key) else {
        return Err(format!(
            "namespace {} has no Secret of type kubernetes.io/tls with that name",
            key.namespace
        ));
    };
    let certificate = Certificate {
        chain: field(secret, "tls.crt")?,
        key: field(secret, "tls.key")?,
        hosts: Vec::new(),
        client_verification: None,
        place: Place::whole(format!("Secret {key}")),
    };
    let warnings = checks.check(&certificate)?;
    Ok((certificate, warnings))
}

fn field(secret: &Secret, name: &str) -> Result<PemSource, String> {
    match secret.data.get(name) {
        Some(text) => Ok(PemSource::Inline(Arc::clone(text))),
        None => Err(format!("that Secret has no field {name}")),
    }
}

fn add_default(key: &Key, store: &Store, checks: &mut Checks, draft: &mut Draft) {
    let meta = match store.secrets.get(key) {
        Some(secret) => secret.meta.clone(),
        None => Meta { key: key.clone(), uid: Text::default(), created: 0, deleting: false },
    };
    let mut problem = |reason, what: String, then: &str| {
        draft.problem(
            Kind::Secret,
            &meta,
            reason,
            format!("as the default certificate: {what}; {then}"),
        );
    };
    match load(store, key, checks) {
        Ok((certificate, warnings)) => {
            for warning in warnings {
                problem("DoubtfulCertificate", warning, "it is used all the same");
            }
            draft.default_certificate = Some(Arc::new(certificate));
        }
        Err(why) => problem("UnusableCertificate", why, "there is none"),
    }
}
