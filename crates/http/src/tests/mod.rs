//! Models for the unit tests of this crate, and what is tested of several of its parts together.

mod changes;
mod figures;

use std::sync::Arc;

use model::{
    Action, Endpoint, HealthCheck, HostName, HostPattern, Listener, ListenerProtocol, MatchOrder,
    PathMatch, PathRewrite, Place, Rule, RuleSet, Scope, Snapshot, Target, Upstream, UpstreamId,
    UpstreamRef,
};

/// A plain upstream with these addresses as endpoints.
pub(crate) fn upstream(name: &str, endpoints: &[&str], check: Option<HealthCheck>) -> Upstream {
    let endpoint = |address: &&str| Endpoint {
        target: Target::Address(address.parse().expect("an address")),
        weight: 1,
    };
    Upstream {
        name: Arc::from(name),
        endpoints: endpoints.iter().map(endpoint).collect(),
        algorithm: model::Algorithm::RoundRobin,
        tls: None,
        host_header: model::HostHeader::Preserve,
        pool: model::PoolLimits::default(),
        health_check: check,
        connect_timeout: None,
        response_timeout: None,
        place: Place::whole("test"),
    }
}

/// A rule for a host of its own.
pub(crate) fn rule(number: usize, action: Action) -> Rule {
    Rule {
        name: format!("rule-{number}").into(),
        hosts: HostPattern::Exact(HostName::parse(&format!("h{number}.test")).expect("a name")),
        path: PathMatch::Any,
        rewrite: PathRewrite::Keep,
        action,
        fallback: false,
        api_key: None,
        request_body_max: None,
        response_timeout: None,
        place: Place::whole("test"),
    }
}

fn forward(upstream: usize) -> Action {
    Action::Forward(vec![UpstreamRef { upstream: UpstreamId(upstream), weight: 1 }])
}

/// A plain listener on a port of 127.0.0.1 with one scope.
fn listener(port: u16, rules: &Arc<RuleSet>) -> Listener {
    Listener {
        name: format!("port-{port}").into(),
        address: ([127, 0, 0, 1], port).into(),
        protocol: ListenerProtocol::Http,
        protocols: model::HttpVersions::default(),
        scopes: vec![Scope { hosts: HostPattern::Any, rules: rules.clone() }],
        trusted_hops: model::TrustedHops::default(),
        place: Place::whole("test"),
    }
}

/// A listener, and for each upstream a rule.
pub(crate) fn snapshot(upstreams: Vec<Upstream>) -> Snapshot {
    let rules = (0..upstreams.len()).map(|number| rule(number, forward(number))).collect();
    let rules = Arc::new(RuleSet { order: MatchOrder::First, rules });
    Snapshot {
        listeners: vec![listener(80, &rules)],
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        ..Snapshot::default()
    }
}
