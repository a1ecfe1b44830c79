//! One Namespace as a claimant: its hosts, its paths, its API key, each checked against its own objects
//! alone.
//!
//! Nothing here looks at another Namespace; who wins where two claim the same is decided in
//! [`super::claims`].

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{
    Algorithm, ApiKey, Certificate, ClientVerification, HostHeader, HostName, HostPattern,
    PathRewrite, PemSource, Place, PoolLimits, Upstream, UpstreamId,
};

use super::groups::{self, PodFaults, Settled};
use super::hosts::{self, TlsFields, Wanted};
use super::json::{Fault, Shown};
use super::options::PodOptions;
use crate::objects::{Key, Kind, Namespace, Pod, Secret};
use crate::store::Store;
use crate::translate::{Checks, Draft};

/// What one Namespace claims.
#[derive(Debug)]
pub(super) struct Tenant<'s> {
    /// Which one.
    pub(super) namespace: &'s Namespace,
    /// Its hosts.
    pub(super) hosts: BTreeMap<HostName, HostClaim>,
    /// Its paths, each on all of its hosts.
    pub(super) paths: BTreeMap<String, PathClaim<'s>>,
    /// What requests to its Pods must carry.
    pub(super) lock: Lock,
}

/// How a Namespace would have a host served.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostClaim {
    /// By http.
    Plain,
    /// By https.
    Tls(Box<Certificate>),
    /// It cannot be as the Namespace wants it; it is claimed all the same.
    Broken,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct PathClaim<'s> {
    /// In the draft.
    pub(super) upstream: UpstreamId,
    /// On the way there.
    pub(super) rewrite: PathRewrite,
    /// Who hears of it where the path is another's.
    pub(super) spokesman: Option<&'s Pod>,
}

/// What requests must carry.
#[derive(Debug)]
pub(super) enum Lock {
    /// Nothing.
    Open,
    /// This.
    Key(Arc<ApiKey>),
    /// What nobody has: the key is there, but empty.
    Shut,
}

/// What all tenants are read with.
pub(super) struct Reader<'s, 'd> {
    pub(super) options: &'s PodOptions,
    pub(super) store: &'s Store,
    pub(super) checks: &'d mut Checks,
    pub(super) draft: &'d mut Draft,
}

impl<'s> Reader<'s, '_> {
    /// Reads a Namespace with its Pods, which are given the oldest first.
    pub(super) fn tenant(&mut self, namespace: &'s Namespace, pods: &[&'s Pod]) -> Tenant<'s> {
        let key = Key {
            namespace: namespace.meta.key.name.clone(),
            name: self.options.secret_name.clone(),
        };
        let secret = self.store.secrets.get(&key).map(|secret| &**secret);
        let hosts = self.hosts(namespace, secret);
        let mut faults = PodFaults::new();
        let groups = groups::groups(&self.options.names.paths, pods, &mut faults);
        if !groups.is_empty() && namespace.hosts.is_none() {
            let message = format!(
                "Pods of this Namespace have the annotation {}, but it has no annotation {}; they are not \
                 served",
                self.options.names.paths, self.options.names.hosts
            );
            self.problem(namespace, Fault::new("NoHosts", message));
        }
        let mut paths = BTreeMap::new();
        for (path, group) in groups.into_iter().filter(|_| !hosts.is_empty()) {
            let settled = group.settle(self.options.health_checks, &mut faults);
            let claim = self.path_claim(namespace, &path, settled);
            paths.insert(path, claim);
        }
        for (pod, fault) in faults {
            self.draft.problem(Kind::Pod, &pod.meta, fault.reason, fault.message);
        }
        let lock = if paths.is_empty() { Lock::Open } else { self.lock(namespace, secret) };
        Tenant { namespace, hosts, paths, lock }
    }

    fn problem(&mut self, namespace: &Namespace, fault: Fault) {
        self.draft.problem(Kind::Namespace, &namespace.meta, fault.reason, fault.message);
    }

    fn path_claim(
        &mut self,
        namespace: &Namespace,
        path: &str,
        settled: Settled<'s>,
    ) -> PathClaim<'s> {
        let name = format!("pods/{}{path}", namespace.meta.key.name);
        let mut upstream = plain_upstream(name, place(namespace));
        upstream.endpoints = settled.endpoints;
        upstream.health_check = settled.health_check;
        PathClaim {
            upstream: self.draft.upstream(upstream),
            rewrite: settled.target_path.map_or(PathRewrite::Keep, PathRewrite::ReplaceMatch),
            spokesman: settled.spokesman,
        }
    }

    fn lock(&mut self, namespace: &Namespace, secret: Option<&Secret>) -> Lock {
        let field = &self.options.api_key_field;
        match secret.and_then(|secret| secret.data.get(field)) {
            None => Lock::Open,
            Some(value) if value.is_empty() => {
                let message = format!(
                    "Secret {}: the field {field} is empty; requests to Pods of this Namespace are answered \
                     with 403",
                    self.options.secret_name
                );
                self.problem(namespace, Fault::new("EmptyApiKey", message));
                Lock::Shut
            }
            Some(value) => Lock::Key(Arc::new(ApiKey {
                header: self.options.api_key_header.clone(),
                value: STANDARD.encode(value).into_bytes().into(),
            })),
        }
    }

    fn hosts(
        &mut self,
        namespace: &Namespace,
        secret: Option<&Secret>,
    ) -> BTreeMap<HostName, HostClaim> {
        let Some(text) = &namespace.hosts else { return BTreeMap::new() };
        let read = hosts::read(&self.options.names.hosts, text);
        for fault in read.faults {
            self.problem(namespace, fault);
        }
        let broken = read.refused.into_iter().map(|host| (host, HostClaim::Broken));
        let mut claims: BTreeMap<HostName, HostClaim> = broken.collect();
        for (host, wanted) in read.hosts {
            let claim = match wanted {
                Wanted::Plain => Ok(HostClaim::Plain),
                Wanted::Tls(fields) => self.certificate(namespace, &host, &fields, secret),
            };
            let claim = claim.unwrap_or_else(|fault| {
                self.problem(namespace, fault);
                HostClaim::Broken
            });
            claims.insert(host, claim);
        }
        claims
    }

    fn certificate(
        &mut self,
        namespace: &Namespace,
        host: &HostName,
        fields: &TlsFields,
        secret: Option<&Secret>,
    ) -> Result<HostClaim, Fault> {
        let at = format!("annotation {}, host {host}", self.options.names.hosts);
        if !self.options.tls {
            let message = format!("{at}: this router has no https listener; the host is left out");
            return Err(Fault::new("TlsDisabled", message));
        }
        let name = &self.options.secret_name;
        let secret = secret.ok_or_else(|| {
            let message = format!("{at}: there is no Secret {name}; the host is left out");
            Fault::new("MissingSecret", message)
        })?;
        let pem = |field: &str| match secret.data.get(field) {
            Some(text) if !text.iter().all(u8::is_ascii_whitespace) => {
                Ok(PemSource::Inline(Arc::clone(text)))
            }
            found => {
                let what = if found.is_some() { "is empty" } else { "is missing" };
                let field = Shown(field);
                let message =
                    format!("{at}: Secret {name}: the field {field} {what}; the host is left out");
                Err(Fault::new("MissingSecretField", message))
            }
        };
        let authorities = fields.client.as_deref().map(pem).transpose()?;
        let certificate = Certificate {
            chain: pem(&fields.certificate)?,
            key: pem(&fields.key)?,
            hosts: vec![HostPattern::Exact(host.clone())],
            client_verification: authorities
                .map(|authorities| Arc::new(ClientVerification { authorities, optional: false })),
            place: place(namespace),
        };
        let odd = self.checks.check(&certificate).map_err(|why| {
            let message = format!("{at}: Secret {name}: {why}; the host is left out");
            Fault::new("InvalidCertificate", message)
        })?;
        for what in odd {
            let message = format!("{at}: Secret {name}: {what}; the host is served all the same");
            self.problem(namespace, Fault::new("CertificateWarning", message));
        }
        Ok(HostClaim::Tls(Box::new(certificate)))
    }
}

/// Where rules and upstreams of a Namespace were declared. Not by which Pod: those come and go while the
/// rules stay.
pub(super) fn place(namespace: &Namespace) -> Place {
    Place::whole(format!("Namespace {}", namespace.meta.key.name))
}

/// An upstream with all defaults and without endpoints.
pub(super) fn plain_upstream(name: String, place: Place) -> Upstream {
    Upstream {
        name: name.into(),
        endpoints: Vec::new(),
        algorithm: Algorithm::RoundRobin,
        tls: None,
        host_header: HostHeader::Preserve,
        pool: PoolLimits::default(),
        health_check: None,
        connect_timeout: None,
        response_timeout: None,
        place,
    }
}
