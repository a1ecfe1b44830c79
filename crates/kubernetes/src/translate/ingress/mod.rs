//! Ingresses (`networking.k8s.io/v1`) made into rules, upstreams and certificates.
//!
//! The oldest Ingress wins what two of them claim: a host and path, a name for TLS, the default backend.
//! Rules stand in the order of their Ingresses' age; which of several that fit a request wins is the order
//! of their set ([`model::MatchOrder::MostSpecific`]), which is the specification's. Start at [`draft`].

mod annotations;
mod backends;
mod certificates;
mod class;
mod paths;
mod rules;

use model::{Action, HostPattern, PathMatch, PathRewrite, Rule};
use rustc_hash::FxHashSet;

use crate::objects::{Ingress, Key, Kind, Text};
use crate::store::Store;

use super::{Checks, Draft};
use backends::Backends;
use class::Classes;
use rules::Rules;

/// What of Ingresses is served, and how.
#[derive(Debug, Clone)]
pub struct IngressOptions {
    /// Names of controllers whose classes are ours (`spec.controller` of an IngressClass).
    pub controllers: Vec<Text>,
    /// The Secret with the certificate for hosts that have none of their own.
    pub default_certificate: Option<Key>,
    /// Whether Services of type ExternalName are served: whoever may write one then reaches what this
    /// program reaches.
    pub external_names: bool,
    /// Whether backends with TLS are trusted whoever they are, where their Ingress does not say
    /// (`TLS_SKIP_VERIFY` of `NanoProxy`).
    pub backend_tls_skip_verify: bool,
}

impl Default for IngressOptions {
    fn default() -> Self {
        Self {
            controllers: vec!["benc-uk/nanoproxy".into(), "cloverleaf/gateway".into()],
            default_certificate: None,
            external_names: true,
            backend_tls_skip_verify: false,
        }
    }
}

/// All Ingresses of our classes.
pub(super) fn draft(options: &IngressOptions, store: &Store, checks: &mut Checks) -> Draft {
    let mut draft = Draft::default();
    let classes = Classes::of(&options.controllers, store, &mut draft);
    let mut ours: Vec<&Ingress> =
        store.ingresses.values().map(|ingress| &**ingress).filter(|i| classes.take(i)).collect();
    ours.sort_by(|a, b| (a.meta.created, &a.meta.key).cmp(&(b.meta.created, &b.meta.key)));
    let mut backends = Backends::new(options, store);
    let mut rules = Rules::default();
    for ingress in &ours {
        for flaw in &ingress.flaws {
            draft.problem(Kind::Ingress, &ingress.meta, "UnusableField", &**flaw);
        }
        let settings = annotations::settings(ingress, &mut draft);
        rules.add(ingress, &settings, &mut backends, &mut draft);
    }
    certificates::add(options, &ours, store, checks, &mut draft);
    draft.ours = ours.iter().map(|ingress| ingress.meta.key.clone()).collect();
    draft
}

/// What hosts of Ingresses give for paths that none of their rules has, where another source would have a word
/// there: 404, as without it. A default backend goes before.
pub(super) fn unmatched_paths(draft: &Draft) -> Vec<Rule> {
    let rules = || draft.rules.iter().map(|(rule, _)| rule);
    let mut known: FxHashSet<&HostPattern> =
        rules().filter(|rule| rule.fallback).map(|rule| &rule.hosts).collect();
    if !known.insert(&HostPattern::Any) {
        return Vec::new();
    }
    let unmatched = |rule: &Rule| Rule {
        name: format!("ingress/{}", rule.hosts).into(),
        path: PathMatch::Any,
        rewrite: PathRewrite::Keep,
        action: Action::Respond { status: 404 },
        fallback: false,
        api_key: None,
        request_body_max: None,
        response_timeout: None,
        ..rule.clone()
    };
    rules().filter(|rule| known.insert(&rule.hosts)).map(unmatched).collect()
}
