//! Who gets a host and a path where several Namespaces claim them: the oldest, always the same, and the
//! others hear of it.
//!
//! A claim that cannot be served still stands, so that nobody else gets the requests: a Namespace whose
//! certificate is broken for an hour must not lose its paths to another. Pure.

use std::collections::BTreeMap;

use model::{
    Action, Certificate, HostName, HostPattern, PathMatch, PathRewrite, Redirect, Rule, UpstreamRef,
};

use super::json::{Fault, Shown};
use super::tenants::{HostClaim, Lock, PathClaim, Tenant, place};
use crate::objects::Kind;
use crate::translate::{Draft, Reach};

/// Rules of one Namespace, hosts times paths; the rest is left out.
const RULES_PER_NAMESPACE_MAX: usize = 10_000;

/// A host, and the Namespaces that claim it.
pub(super) struct Host<'t, 's> {
    name: &'t HostName,
    /// The oldest first.
    claims: Vec<(usize, &'t Tenant<'s>, &'t HostClaim)>,
}

/// A host that is served.
pub(super) struct Served<'t> {
    /// Its name.
    pub(super) name: &'t HostName,
    /// By which listeners.
    pub(super) reach: Reach,
    /// Some Namespace claims `/`.
    pub(super) whole: bool,
    /// The Namespace whose options count.
    pub(super) owner: &'t str,
}

/// All hosts by name. Tenants are given the oldest first.
pub(super) fn hosts<'t, 's>(tenants: &'t [Tenant<'s>]) -> Vec<Host<'t, 's>> {
    let mut hosts: BTreeMap<&HostName, Vec<_>> = BTreeMap::new();
    for (index, tenant) in tenants.iter().enumerate() {
        for (name, claim) in &tenant.hosts {
            hosts.entry(name).or_default().push((index, tenant, claim));
        }
    }
    hosts.into_iter().map(|(name, claims)| Host { name, claims }).collect()
}

/// What is drafted, and how much of its bound each tenant has used.
pub(super) struct Drafting<'d> {
    draft: &'d mut Draft,
    request_body_max: Option<u64>,
    rules: Vec<usize>,
}

impl<'d> Drafting<'d> {
    pub(super) fn new(draft: &'d mut Draft, request_body_max: Option<u64>, tenants: usize) -> Self {
        Self { draft, request_body_max, rules: vec![0; tenants] }
    }

    /// Drafts the certificate and the rules of a host, but for what it answers where no rule fits. `None`:
    /// it is served to nobody.
    pub(super) fn host<'t>(&mut self, host: &Host<'t, '_>) -> Option<Served<'t>> {
        let usable =
            |(_, _, claim): &&(usize, &Tenant<'_>, &HostClaim)| **claim != HostClaim::Broken;
        let &(_, owner, options) = host.claims.iter().find(usable)?;
        let reach = match options {
            HostClaim::Tls(certificate) => {
                self.draft.certificates.push(Certificate::clone(certificate));
                Reach::TlsOnly
            }
            _ => Reach::PlainOnly,
        };
        let mut winners: BTreeMap<&str, (&Tenant<'_>, bool)> = BTreeMap::new();
        for &(index, tenant, claim) in &host.claims {
            let fits = self.reconcile(host.name, (tenant, claim), (owner, options));
            for (path, wanted) in &tenant.paths {
                match winners.get(path.as_str()) {
                    Some((winner, _)) => self.lost(host.name, path, wanted, winner),
                    None => {
                        let drafted =
                            self.rule(host.name, reach, index, tenant, (path, wanted), fits);
                        winners.insert(path, (tenant, drafted));
                    }
                }
            }
        }
        for (path, (tenant, _)) in winners.iter().filter(|(_, (_, drafted))| *drafted) {
            let bare = path.strip_suffix('/').filter(|bare| !bare.is_empty());
            if let Some(bare) = bare.filter(|bare| !winners.contains_key(bare)) {
                self.draft.rules.push((to_folder(host.name, bare, tenant), reach));
            }
        }
        let whole = winners.contains_key("/");
        Some(Served { name: host.name, reach, whole, owner: &owner.namespace.meta.key.name })
    }

    /// Whether a Namespace's paths may be served on a host with the options of another.
    fn reconcile(
        &mut self,
        host: &HostName,
        (tenant, claim): (&Tenant<'_>, &HostClaim),
        (owner, options): (&Tenant<'_>, &HostClaim),
    ) -> bool {
        if *claim == HostClaim::Broken || same(claim, options) {
            return *claim != HostClaim::Broken;
        }
        let fits = no_weaker(options, claim);
        let outcome = if fits {
            "those count, and the paths of this Namespace are served with them"
        } else {
            "they protect less than those of this Namespace, whose paths on it are answered with 503"
        };
        let message = format!(
            "host {host}: Namespace {}, which is older, has other options for it; {outcome}",
            owner.namespace.meta.key.name
        );
        self.draft.problem(Kind::Namespace, &tenant.namespace.meta, "HostConflict", message);
        fits
    }

    fn lost(&mut self, host: &HostName, path: &str, wanted: &PathClaim<'_>, winner: &Tenant<'_>) {
        let Some(pod) = wanted.spokesman else { return };
        let message = format!(
            "basePath {} on host {host}: it is served for Namespace {}, which is older; Pods of this \
             Namespace get no requests for it",
            Shown(path),
            winner.namespace.meta.key.name
        );
        self.draft.problem(Kind::Pod, &pod.meta, "PathConflict", message);
    }

    fn rule(
        &mut self,
        host: &HostName,
        reach: Reach,
        index: usize,
        tenant: &Tenant<'_>,
        (path, wanted): (&str, &PathClaim<'_>),
        fits: bool,
    ) -> bool {
        self.rules[index] += 1;
        if self.rules[index] > RULES_PER_NAMESPACE_MAX {
            if self.rules[index] == RULES_PER_NAMESPACE_MAX + 1 {
                let message = format!(
                    "its hosts and paths make more than {RULES_PER_NAMESPACE_MAX} routes; those that \
                     follow path {} on host {host} are left out",
                    Shown(path)
                );
                let fault = Fault::new("TooManyRoutes", message);
                let meta = &tenant.namespace.meta;
                self.draft.problem(Kind::Namespace, meta, fault.reason, fault.message);
            }
            return false;
        }
        let forward =
            || Action::Forward(vec![UpstreamRef { upstream: wanted.upstream, weight: 1 }]);
        let (action, api_key) = match &tenant.lock {
            _ if !fits => (Action::Respond { status: 503 }, None),
            Lock::Open => (forward(), None),
            Lock::Key(key) => (forward(), Some(key.clone())),
            Lock::Shut => (Action::Respond { status: 403 }, None),
        };
        let forwards = matches!(action, Action::Forward(_));
        let rule = Rule {
            name: format!("pods/{host}{path}").into(),
            hosts: HostPattern::Exact(host.clone()),
            path: PathMatch::Prefix(path.to_owned()),
            rewrite: if forwards { wanted.rewrite.clone() } else { PathRewrite::Keep },
            action,
            fallback: false,
            api_key,
            request_body_max: self.request_body_max.filter(|_| forwards),
            response_timeout: None,
            place: place(tenant.namespace),
        };
        self.draft.rules.push((rule, reach));
        true
    }
}

/// What a path that lacks no more than the slash at the end of a basePath is answered with, as nginx has it: a redirect
/// to the basePath.
fn to_folder(host: &HostName, bare: &str, tenant: &Tenant<'_>) -> Rule {
    const MOVED_PERMANENTLY: u16 = 301;
    let to = Redirect { status: MOVED_PERMANENTLY, scheme: None, host: None, port: None };
    // The basePath was decoded; what takes its place is not.
    let folder = format!("{}/", bare.replace('%', "%25"));
    Rule {
        name: format!("pods/{host}{bare}").into(),
        hosts: HostPattern::Exact(host.clone()),
        path: PathMatch::Exact(bare.to_owned()),
        rewrite: PathRewrite::ReplaceWhole(folder.into()),
        action: Action::Redirect(to),
        fallback: false,
        api_key: None,
        request_body_max: None,
        response_timeout: None,
        place: place(tenant.namespace),
    }
}

/// Whether two claims come to the same, whoever makes them.
fn same(one: &HostClaim, other: &HostClaim) -> bool {
    match (one, other) {
        (HostClaim::Tls(one), HostClaim::Tls(other)) => {
            (&one.chain, &one.key, &one.client_verification)
                == (&other.chain, &other.key, &other.client_verification)
        }
        _ => one == other,
    }
}

/// Whether a host served with these options is protected at least as the claim wants it.
fn no_weaker(options: &HostClaim, claim: &HostClaim) -> bool {
    match (options, claim) {
        (_, HostClaim::Plain) => true,
        (HostClaim::Tls(options), HostClaim::Tls(claim)) => {
            claim.client_verification.is_none()
                || claim.client_verification == options.client_verification
        }
        _ => false,
    }
}
