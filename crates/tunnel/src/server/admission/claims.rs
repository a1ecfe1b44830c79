//! What an agent claims against what a policy allows it. Pure.
//!
//! Servers compare identifiers as text, so an address that is claimed must be one, written as an address is: otherwise
//! a name could be claimed in its place.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::{AgentPolicy, AgentRule, AgentWho, TextPattern};

use super::identity::Identity;
use crate::server::agents::Hello;

/// Whether a policy allows an agent what it claims.
///
/// # Errors
/// The first thing that it does not allow, in words.
pub(super) fn check(
    policy: &AgentPolicy,
    identity: &Identity,
    hello: &Hello,
) -> Result<(), String> {
    let rules: Vec<&AgentRule> =
        policy.rules.iter().filter(|rule| means(&rule.who, identity)).collect();
    if rules.is_empty() {
        return Err("no rule means this agent".to_owned());
    }
    let any = |allows: &dyn Fn(&AgentRule) -> bool| rules.iter().any(|rule| allows(rule));
    let one_of = |patterns: &[TextPattern], text: &str| patterns.iter().any(|p| p.matches(text));
    if !any(&|rule| rule.agent_ids.as_ref().is_none_or(|ids| one_of(ids, &hello.id))) {
        return Err(format!("it may not call itself {:?}", hello.id));
    }
    let claimed = &hello.identifiers;
    let not = |key: &str, value: &str| Err(format!("it may not claim {key}={value:?}"));
    for host in &claimed.host {
        if !any(&|rule| one_of(&rule.hosts, host)) {
            return not("host", host);
        }
    }
    for text in &claimed.ipv4 {
        let address = text.parse::<Ipv4Addr>().ok().map(IpNet::from_v4);
        if !any(&|rule| within(&rule.ipv4, address)) {
            return not("ipv4", text);
        }
    }
    for text in &claimed.ipv6 {
        let address = text.parse::<Ipv6Addr>().ok().map(IpNet::from_v6);
        if !any(&|rule| within(&rule.ipv6, address)) {
            return not("ipv6", text);
        }
    }
    for text in &claimed.cidr {
        let network = text.parse::<IpNet>().ok();
        if !any(&|rule| within(&rule.cidr, network)) {
            return not("cidr", text);
        }
    }
    if claimed.default_route && !any(&|rule| rule.default_route) {
        return not("default-route", "true");
    }
    Ok(())
}

/// One address as a network.
trait FromAddress {
    fn from_v4(address: Ipv4Addr) -> IpNet;
    fn from_v6(address: Ipv6Addr) -> IpNet;
}

impl FromAddress for IpNet {
    fn from_v4(address: Ipv4Addr) -> IpNet {
        IpNet::from(std::net::IpAddr::V4(address))
    }

    fn from_v6(address: Ipv6Addr) -> IpNet {
        IpNet::from(std::net::IpAddr::V6(address))
    }
}

/// Whether one of the networks has all of it. What is none is in none.
fn within(networks: &[IpNet], claimed: Option<IpNet>) -> bool {
    claimed.is_some_and(|claimed| networks.iter().any(|network| network.contains(&claimed)))
}

/// Whether all that a rule says of whom it means holds.
fn means(who: &AgentWho, identity: &Identity) -> bool {
    let AgentWho { common_name, dns_name, uri, service_account } = who;
    let names = &identity.names;
    let holds =
        |wanted: &Option<String>, has: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(has);
    let account = |wanted: &str| {
        let own = identity.service_account.as_ref();
        own.is_some_and(|own| wanted.split_once('/') == Some((&own.namespace, &own.name)))
    };
    *who != AgentWho::default()
        && holds(common_name, &|name| names.common_names.iter().any(|own| own == name))
        && holds(dns_name, &|name| names.dns_names.iter().any(|own| own.eq_ignore_ascii_case(name)))
        && holds(uri, &|uri| names.uris.iter().any(|own| own == uri))
        && holds(service_account, &account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifiers::Identifiers;
    use crate::link::Flow;
    use crate::server::admission::ServiceAccount;
    use tls::ClientNames;

    fn hello(id: &str, identifiers: &str) -> Hello {
        let identifiers = Identifiers::parse(identifiers).unwrap();
        Hello { id: id.to_owned(), identifiers, flow: Flow::Buffered, process: None }
    }

    fn one() -> AgentRule {
        AgentRule {
            who: AgentWho { common_name: Some("one".to_owned()), ..AgentWho::default() },
            agent_ids: Some(vec![TextPattern::Exactly("one".to_owned())]),
            hosts: vec![
                TextPattern::Exactly("one".to_owned()),
                TextPattern::Ending(".one".to_owned()),
            ],
            ipv4: vec!["10.0.0.0/8".parse().unwrap()],
            ipv6: vec!["fd00::/8".parse().unwrap()],
            cidr: vec!["10.0.0.0/8".parse().unwrap()],
            default_route: false,
        }
    }

    fn named(name: &str) -> Identity {
        let names = ClientNames { common_names: vec![name.to_owned()], ..ClientNames::default() };
        Identity { names, service_account: None }
    }

    #[test]
    fn an_agent_may_claim_what_its_rule_allows_and_no_more() {
        let policy = AgentPolicy { rules: vec![one()] };
        for allowed in
            ["", "host=one&host=a.one", "ipv4=10.1.2.3", "ipv6=fd00::1", "cidr=10.1.0.0/16"]
        {
            check(&policy, &named("one"), &hello("one", allowed)).unwrap();
        }
        for (claimed, part) in [
            ("host=two", "host=\"two\""),
            ("host=one&host=two", "two"),
            ("host=ONE", "ONE"),
            ("host=10.0.0.1", "host"),
            ("ipv4=11.0.0.1", "ipv4"),
            // A name where an address is expected would be found as a host.
            ("ipv4=two", "ipv4"),
            ("ipv4=010.0.0.1", "ipv4"),
            ("ipv6=one", "ipv6"),
            ("ipv6=fe80::1", "ipv6"),
            ("cidr=0.0.0.0/0", "cidr"),
            ("cidr=10.0.0.0/7", "cidr"),
            ("default-route=true", "default-route"),
        ] {
            let problem = check(&policy, &named("one"), &hello("one", claimed)).unwrap_err();
            assert!(problem.contains(part), "{claimed}: {problem}");
        }
        let problem = check(&policy, &named("one"), &hello("two", "host=one")).unwrap_err();
        assert!(problem.contains("call itself"), "{problem}");
    }

    #[test]
    fn an_agent_that_no_rule_means_may_not_come() {
        let policy = AgentPolicy { rules: vec![one()] };
        for identity in [named("two"), named("One"), named(""), Identity::default()] {
            assert!(check(&policy, &identity, &hello("one", "")).is_err(), "{identity}");
        }
        let nobody = AgentPolicy { rules: vec![AgentRule::default()] };
        assert!(check(&nobody, &named("one"), &hello("one", "")).is_err());
        assert!(check(&AgentPolicy::default(), &named("one"), &hello("one", "")).is_err());
    }

    #[test]
    fn all_that_a_rule_says_of_somebody_must_hold() {
        let who = AgentWho {
            common_name: Some("one".to_owned()),
            dns_name: Some("agent.one".to_owned()),
            uri: Some("spiffe://one".to_owned()),
            service_account: Some("n/a".to_owned()),
        };
        let whole = Identity {
            names: ClientNames {
                common_names: vec!["one".to_owned()],
                dns_names: vec!["other".to_owned(), "Agent.One".to_owned()],
                uris: vec!["spiffe://one".to_owned()],
            },
            service_account: Some(ServiceAccount { namespace: "n".into(), name: "a".into() }),
        };
        assert!(means(&who, &whole));
        for spoil in [
            |i: &mut Identity| i.names.common_names.clear(),
            |i: &mut Identity| i.names.dns_names.clear(),
            |i: &mut Identity| i.names.uris.clear(),
            |i: &mut Identity| i.service_account = None,
            |i: &mut Identity| {
                i.service_account =
                    Some(ServiceAccount { namespace: "m".into(), name: "a".into() });
            },
        ] {
            let mut identity = whole.clone();
            spoil(&mut identity);
            assert!(!means(&who, &identity), "{identity}");
        }
    }

    #[test]
    fn several_rules_allow_what_any_of_them_does() {
        let second = AgentRule {
            who: one().who,
            agent_ids: None,
            default_route: true,
            ..AgentRule::default()
        };
        let policy = AgentPolicy { rules: vec![one(), second] };
        check(&policy, &named("one"), &hello("any", "host=one&default-route=true")).unwrap();
        assert!(check(&policy, &named("one"), &hello("any", "host=two")).is_err());
    }
}
