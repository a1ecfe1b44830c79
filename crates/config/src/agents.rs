//! The agent policy of a tunnel's server: a YAML file of its own, read and checked whole.
//!
//! It locks something, so whatever is odd in it, an unknown key included, is an error: a rule must not come to mean
//! more than was written. Must not know tunnels.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;
use model::{AgentPolicy, AgentRule, AgentWho, Diagnostic, Diagnostics, Place, TextPattern};

use crate::context::Context;
use crate::keys;
use crate::report::{KeyPath, Report};
use crate::value::{Map, Value};
use crate::{read_bounded, scalar, tree};

/// Reads and checks a policy. Blocks on the file system.
///
/// # Errors
/// All that is wrong with it.
pub fn load_agent_policy(path: &Path) -> Result<AgentPolicy, Diagnostics> {
    let source = path.display().to_string();
    let failed = |place: Place, problem: String| {
        Err(Diagnostics(vec![Diagnostic::error(place, "", problem)]))
    };
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) => return failed(Place::whole(source), format!("cannot be read: {error}")),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &source),
        Err(error) => {
            let place = tree::place_of_bad_utf8(&bytes, error.valid_up_to(), &source);
            failed(place, "not UTF-8 text".to_owned())
        }
    }
}

fn parse(text: &str, source: &str) -> Result<AgentPolicy, Diagnostics> {
    let mut cx = Context {
        report: Report::new(source),
        base_dir: Path::new(""),
        files: BTreeSet::new(),
        has_mesh: false,
        tunnels: Vec::new(),
        elsewhere: None,
    };
    let tree = tree::read(text, &mut cx.report);
    let policy = tree.as_ref().and_then(|node| {
        let top = Value { node, path: KeyPath::Root };
        let map = top.map(&mut cx, &keys::AGENT_POLICY)?;
        if map.lock(&mut cx, "agents").is_none() {
            map.missing(&mut cx, "agents");
        }
        map.list(&mut cx, "agents", |cx, _, item| rule(cx, item))
    });
    if policy.is_none() && !cx.report.has_errors() {
        let place = cx.report.whole();
        cx.report.push(Diagnostic::error(place, "", "empty").expected("agents: and a list"));
    }
    let problems = cx.report.finish();
    match policy {
        Some(rules) if problems.0.is_empty() => Ok(AgentPolicy { rules }),
        _ => Err(problems),
    }
}

fn rule(cx: &mut Context<'_>, item: Value<'_, '_>) -> Option<AgentRule> {
    let map = item.map(cx, &keys::AGENT_RULE)?;
    let who = AgentWho {
        common_name: name(cx, map, "commonName"),
        dns_name: name(cx, map, "dnsName"),
        uri: name(cx, map, "uri"),
        service_account: name(cx, map, "serviceAccount"),
    };
    if let Some(account) = map.get("serviceAccount").filter(|_| !is_account(&who)) {
        let diagnostic = account.error(cx, "not a service account");
        cx.report.push(diagnostic.expected("namespace/name"));
    }
    if who == AgentWho::default() {
        let diagnostic = map.error(cx, "this rule means nobody");
        cx.report.push(diagnostic.expected("commonName, dnsName, uri or serviceAccount"));
    }
    let agent_ids = map.lock(cx, "agentIds").is_some().then(|| patterns(cx, map, "agentIds"));
    Some(AgentRule {
        who,
        agent_ids,
        hosts: patterns(cx, map, "host"),
        ipv4: networks(cx, map, "ipv4", |net| matches!(net, IpNet::V4(_))),
        ipv6: networks(cx, map, "ipv6", |net| matches!(net, IpNet::V6(_))),
        cidr: networks(cx, map, "cidr", |_| true),
        default_route: map.boolean(cx, "defaultRoute").unwrap_or(false),
    })
}

/// A name that must not be blank: left out by mistake, the rule would mean more.
fn name(cx: &mut Context<'_>, map: Map<'_, '_>, key: &'static str) -> Option<String> {
    map.lock(cx, key)?;
    let found = map.text(cx, key).map(str::to_owned);
    if found.is_none() && !cx.report.has_errors() {
        map.missing(cx, key);
    }
    found
}

fn is_account(who: &AgentWho) -> bool {
    let parts = who.service_account.as_deref().and_then(|account| account.split_once('/'));
    parts.is_some_and(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    })
}

fn patterns(cx: &mut Context<'_>, map: Map<'_, '_>, key: &'static str) -> Vec<TextPattern> {
    let pattern = |cx: &mut Context<'_>, _, item: Value<'_, '_>| {
        let text = item.text(cx, keys::Kind::Text).unwrap_or_default();
        let pattern = TextPattern::parse(text);
        if pattern.is_none() {
            let diagnostic = item.error(cx, "not a pattern").value(text);
            cx.report.push(diagnostic.expected("a text, *.name or *"));
        }
        pattern
    };
    map.list(cx, key, pattern).unwrap_or_default()
}

fn networks(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    key: &'static str,
    fits: fn(&IpNet) -> bool,
) -> Vec<IpNet> {
    let network = |cx: &mut Context<'_>, _, item: Value<'_, '_>| {
        let text = item.text(cx, keys::Kind::Network).unwrap_or_default();
        let network = scalar::network(text).filter(fits);
        if network.is_none() {
            let diagnostic = item.error(cx, "not a network of this kind").value(text);
            cx.report.push(diagnostic.expected("10.0.0.0/8, or one address"));
        }
        network
    };
    map.list(cx, key, network).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_whole() {
        let text = "
agents:
  - commonName: one
    dnsName: agent.one
    agentIds: [one]
    host: [one, '*.one.example']
    ipv4: [10.0.0.0/8, 192.0.2.1]
    ipv6: ['fd00::/8']
    cidr: [10.0.0.0/8]
  - serviceAccount: kube-system/konnectivity-agent
    host: ['*']
    defaultRoute: true
";
        let policy = parse(text, "f").unwrap();
        let [one, any] = &policy.rules[..] else { panic!("{policy:?}") };
        assert_eq!(one.who.common_name.as_deref(), Some("one"));
        assert_eq!(one.agent_ids, Some(vec![TextPattern::Exactly("one".into())]));
        assert_eq!((one.hosts.len(), one.ipv4.len(), one.ipv6.len()), (2, 2, 1));
        assert!(!one.default_route && any.default_route);
        assert_eq!((any.agent_ids.as_ref(), &any.hosts[..]), (None, &[TextPattern::Any][..]));
        assert_eq!(parse("agents: []", "f").unwrap(), AgentPolicy::default());
    }

    #[test]
    fn whatever_is_odd_in_it_is_an_error() {
        for (text, part) in [
            ("", "empty"),
            ("agents:", "agents"),
            ("agents: {}", "mapping"),
            ("other: []", "agents"),
            ("agents: [{host: [a]}]", "means nobody"),
            ("agents: [{commonName: a, hosts: [a]}]", "unknown key"),
            ("agents: [{commonName: a, dnsname: b}]", "unknown key"),
            ("agents: [{commonName: a, dnsName: }]", "dnsName"),
            ("agents: [{commonName: a, dnsName: ''}]", "dnsName"),
            ("agents: [{commonName: a, agentIds: }]", "agentIds"),
            ("agents: [{commonName: a, host: ['a*']}]", "not a pattern"),
            ("agents: [{commonName: a, host: a}]", "host"),
            ("agents: [{commonName: a, ipv4: ['fd00::/8']}]", "not a network"),
            ("agents: [{commonName: a, ipv6: [10.0.0.0/8]}]", "not a network"),
            ("agents: [{serviceAccount: a}]", "namespace/name"),
            ("agents: [{serviceAccount: a/b/c}]", "namespace/name"),
            ("agents: [", "YAML"),
        ] {
            let problems = parse(text, "f").unwrap_err();
            let all: String = problems.0.iter().map(ToString::to_string).collect();
            assert!(all.contains(part), "{text}: {all}");
        }
        let problems = load_agent_policy(Path::new("/does/not/exist")).unwrap_err();
        assert!(problems.0[0].to_string().contains("/does/not/exist"));
    }
}
