//! Annotated Pods and Namespaces made into rules: the 30x dispatcher's routing, by its document.
//!
//! A Namespace names hosts, its Pods name paths, each path is served on each of the hosts by the Pods that
//! claim it. Nothing depends on the order in which objects came: Namespaces and Pods are taken by age.
//! [`tenants`] reads one Namespace with its Pods (annotations in [`hosts`] and [`paths`], what Pods of one
//! path come to in [`groups`]), [`claims`] decides between Namespaces. Must not know the API, nor how a
//! request is served. Start at [`draft`].

mod claims;
mod environment;
mod groups;
mod hosts;
mod json;
mod names;
mod options;
mod paths;
mod probes;
mod selector;
mod tenants;
#[cfg(test)]
mod tests;
mod url_path;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Action, Certificate, Endpoint, HostPattern, PathMatch, PathRewrite, PemSource, Place, Rule,
    UpstreamRef, UpstreamTls,
};

pub use environment::VARIABLES as POD_VARIABLES;
pub use options::{DefaultCertificate, DefaultReturn, PodOptions};
pub use selector::{InvalidSelector, LabelSelector};

use self::claims::{Drafting, Served};
use super::{Checks, Draft, Reach};
use crate::objects::{Kind, Meta, Pod};
use crate::store::Store;

/// What the Pods come to.
pub(super) fn draft(options: &PodOptions, store: &Store, checks: &mut Checks) -> Draft {
    let mut draft = Draft::default();
    draft.default_certificate = options.default_certificate.as_ref().map(default_certificate);
    let mut pods = pods_by_namespace(store);
    let mut namespaces: Vec<_> = store.namespaces.values().map(|namespace| &**namespace).collect();
    namespaces.sort_by(|a, b| by_age(&a.meta, &b.meta));
    let mut reader = tenants::Reader { options, store, checks, draft: &mut draft };
    let mut tenants = Vec::new();
    for namespace in namespaces {
        let of_namespace = pods.remove(&*namespace.meta.key.name).unwrap_or_default();
        tenants.push(reader.tenant(namespace, &of_namespace));
    }
    for homeless in pods.values() {
        say_homeless(options, homeless, &mut draft);
    }
    let mut drafting = Drafting::new(&mut draft, options.request_body_max, tenants.len());
    let hosts = claims::hosts(&tenants);
    let served: Vec<Served<'_>> = hosts.iter().filter_map(|host| drafting.host(host)).collect();
    unclaimed_paths(options, &served, &mut draft);
    unknown_hosts(options, &mut draft);
    draft
}

/// The oldest first; of the same second, by name.
fn by_age(a: &Meta, b: &Meta) -> std::cmp::Ordering {
    (a.created, &a.key).cmp(&(b.created, &b.key))
}

/// Each Namespace's, the oldest first.
fn pods_by_namespace(store: &Store) -> BTreeMap<&str, Vec<&Pod>> {
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in store.pods.values() {
        by_namespace.entry(&pod.meta.key.namespace).or_default().push(pod);
    }
    for pods in by_namespace.values_mut() {
        pods.sort_by(|a, b| by_age(&a.meta, &b.meta));
    }
    by_namespace
}

/// Pods that nobody will hear from, as their Namespace is not routable: the oldest is told for all.
fn say_homeless(options: &PodOptions, pods: &[&Pod], draft: &mut Draft) {
    let Some(pod) = pods.iter().find(|pod| pod.paths.is_some()) else { return };
    let message = format!(
        "Namespace {} is not selected by {}; its Pods are not served",
        pod.meta.key.namespace, options.selector
    );
    draft.problem(Kind::Pod, &pod.meta, "NamespaceNotRoutable", message);
}

/// What known hosts give for paths that no Pod claims.
fn unclaimed_paths(options: &PodOptions, served: &[Served<'_>], draft: &mut Draft) {
    let open: Vec<_> = served.iter().filter(|host| !host.whole).collect();
    if open.is_empty() {
        return;
    }
    let (action, rewrite) = default_action(options, draft);
    let forwards = matches!(action, Action::Forward(_));
    for host in open {
        let rule = Rule {
            name: format!("pods/{}", host.name).into(),
            hosts: HostPattern::Exact(host.name.clone()),
            rewrite: rewrite.clone(),
            request_body_max: options.request_body_max.filter(|_| forwards),
            place: Place::whole(format!("Namespace {}", host.owner)),
            ..own_rule("", action.clone())
        };
        draft.rules.push((rule, host.reach));
    }
}

fn default_action(options: &PodOptions, draft: &mut Draft) -> (Action, PathRewrite) {
    match &options.default_return {
        DefaultReturn::Status(status) => (Action::Respond { status: *status }, PathRewrite::Keep),
        DefaultReturn::Close => (Action::Close, PathRewrite::Keep),
        DefaultReturn::Forward { tls, target, path } => {
            let mut upstream = tenants::plain_upstream(
                "pods-default-location".to_owned(),
                Place::whole("environment DEFAULT_LOCATION_RETURN"),
            );
            upstream.endpoints = vec![Endpoint { target: target.clone(), weight: 1 }];
            upstream.tls = tls.then(|| Arc::new(UpstreamTls::default()));
            let upstream = draft.upstream(upstream);
            let action = Action::Forward(vec![UpstreamRef { upstream, weight: 1 }]);
            (action, path.clone().map_or(PathRewrite::Keep, PathRewrite::ReplaceMatch))
        }
    }
}

/// What hosts that nobody claims give: the status path, and else a closed connection, as if nobody was there.
fn unknown_hosts(options: &PodOptions, draft: &mut Draft) {
    let status = Rule {
        path: PathMatch::Exact(options.status_path.clone()),
        place: Place::whole("environment NGINX_STATUS_PATH"),
        ..own_rule("pods-status", Action::Respond { status: 200 })
    };
    let close = Rule { fallback: true, ..own_rule("pods-unknown-host", Action::Close) };
    draft.rules.extend([status, close].map(|rule| (rule, Reach::Everywhere)));
}

/// A rule for every host and path.
fn own_rule(name: &str, action: Action) -> Rule {
    Rule {
        name: name.into(),
        hosts: HostPattern::Any,
        path: PathMatch::Any,
        rewrite: PathRewrite::Keep,
        action,
        fallback: false,
        api_key: None,
        request_body_max: None,
        response_timeout: None,
        place: Place::whole("annotated Pods"),
    }
}

fn default_certificate(files: &DefaultCertificate) -> Arc<Certificate> {
    Arc::new(Certificate {
        chain: PemSource::File(files.chain.clone()),
        key: PemSource::File(files.key.clone()),
        hosts: Vec::new(),
        client_verification: None,
        place: Place::whole("environment SSL_CERT"),
    })
}
