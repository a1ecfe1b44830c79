//! `rules`: which requests, and where they go.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::{
    Action, Diagnostic, HostName, HostPattern, Listener, MatchOrder, Name, PathMatch, PathRewrite,
    Redirect, Rule, RuleSet, Scheme, Scope, UpstreamRef,
};

use super::listeners::Known as KnownListeners;
use super::upstreams::Known as KnownUpstreams;
use crate::context::Context;
use crate::keys;
use crate::scalar;
use crate::tree::Data;
use crate::value::{Map, Value};

/// Rules in all sets together, where listeners have different ones. A rule in three listeners' sets is three.
const RULE_COPIES_MAX: usize = 4_000_000;

/// A rule, and the indices of the listeners that it is limited to, sorted.
pub(super) struct Limited {
    rule: Rule,
    listeners: Option<Vec<usize>>,
}

/// All of them, in the order of the file.
pub(super) fn decode(
    cx: &mut Context<'_>,
    top: Map<'_, '_>,
    upstreams: &KnownUpstreams<'_>,
    listeners: &KnownListeners<'_>,
) -> Vec<Limited> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let rules = top.list(cx, "rules", |cx, index, item| {
        let map = item.map(cx, &keys::RULE)?;
        let name = name(cx, map, index, &mut names);
        let (path, hosts) = (path(cx, map), hosts(cx, map));
        let rewrite = rewrite(cx, map);
        let action = action(cx, map, upstreams, &rewrite);
        let fallback = map.boolean(cx, "fallback").unwrap_or(false);
        let api_key = super::api_key::decode(cx, map);
        let request_body_max = map.parsed(cx, "maxRequestBody", scalar::size);
        let response_timeout = map.duration(cx, "responseTimeout");
        let listeners = limited_to(cx, map, listeners);
        // Only now, so that every mistake of the rule has been reported.
        let ((hosts, may_match), action) = hosts.zip(action)?;
        let rule = Rule {
            name,
            hosts,
            path: if may_match { path } else { PathMatch::Never },
            rewrite,
            action,
            fallback,
            api_key,
            request_body_max,
            response_timeout,
            place: map.place(cx),
        };
        Some(Limited { rule, listeners })
    });
    rules.unwrap_or_default()
}

/// The name given, or one by position. No two rules share one.
fn name<'n>(
    cx: &mut Context<'_>,
    map: Map<'n, '_>,
    index: usize,
    names: &mut HashMap<&'n str, usize>,
) -> Name {
    let own = |index: usize| {
        let mut text = String::with_capacity(16);
        let _ = write!(text, "rules[{index}]");
        Name::from(text)
    };
    let Some(text) = map.text(cx, "name") else { return own(index) };
    let line = map.place(cx).line;
    let number = text.strip_prefix("rules[").and_then(|t| t.strip_suffix(']'));
    let other = number.is_some_and(|n| n.parse() != Ok(index));
    let first = names.insert(text, line);
    let problem = match first {
        Some(first) => format!("the rule in line {first} has this name already"),
        None if other => "this is the name of a rule without one".into(),
        None => return text.into(),
    };
    if let Some(value) = map.get("name") {
        let diagnostic =
            value.error(cx, problem).value(text).expected("a name that no other rule has");
        cx.report.push(diagnostic);
    }
    own(index)
}

fn path(cx: &mut Context<'_>, map: Map<'_, '_>) -> PathMatch {
    let path = map.text(cx, "path");
    let mode = map.text(cx, "matchMode").unwrap_or("prefix");
    let matching = match mode {
        "prefix" => PathMatch::Prefix,
        "exact" => PathMatch::Exact,
        "segments" => PathMatch::Segments,
        _ => {
            if let Some(value) = map.get("matchMode") {
                let warning = value.warning(cx, "unknown, so the rule never matches").value(mode);
                let expected = keys::RULE.key("matchMode").map(|key| key.kind.text());
                cx.report.push(warning.expected(expected.unwrap_or_default()));
            }
            return PathMatch::Never;
        }
    };
    let Some(path) = path else { return PathMatch::Any };
    if !path.starts_with('/')
        && let Some(value) = map.get("path")
    {
        let warning =
            value.warning(cx, "paths begin with a slash, so the rule never matches").value(path);
        cx.report.push(warning.expected(format!("/{path}")));
    }
    matching(path.into())
}

/// How the path changes: not two ways at once.
fn rewrite(cx: &mut Context<'_>, map: Map<'_, '_>) -> PathRewrite {
    let strip = map.boolean(cx, "stripPath").unwrap_or(false);
    let with = new_path(cx, map, "replacePath").map(PathRewrite::ReplaceMatch);
    let whole = new_path(cx, map, "setPath").map(PathRewrite::ReplaceWhole);
    let given =
        [("stripPath", strip), ("replacePath", with.is_some()), ("setPath", whole.is_some())];
    let mut given = given.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
    if let Some((one, other)) = given.next().zip(given.next()) {
        let both = map.error(cx, format!("{one} and {other} are both given"));
        cx.report.push(both.expected("one of them"));
    }
    let strip = if strip { PathRewrite::StripMatch } else { PathRewrite::Keep };
    whole.or(with).unwrap_or(strip)
}

/// A path that takes the place of another.
fn new_path(cx: &mut Context<'_>, map: Map<'_, '_>, name: &'static str) -> Option<Arc<str>> {
    let path = map.text(cx, name)?;
    let odd = |c: char| c.is_control() || matches!(c, '?' | '#');
    if !path.starts_with('/') || path.contains(odd) {
        let wrong = map.get(name)?.error(cx, "wrong value").value(path);
        cx.report.push(wrong.expected("a path that begins with a slash, without ? and #"));
    }
    Some(path.into())
}

/// The hosts, and whether the rule can match at all: one for a host with a port cannot, as in `NanoProxy`.
fn hosts(cx: &mut Context<'_>, map: Map<'_, '_>) -> Option<(HostPattern, bool)> {
    let errors_before = cx.report.errors();
    let Some(text) = map.text(cx, "host") else {
        return (cx.report.errors() == errors_before).then_some((HostPattern::Any, true));
    };
    if let Some(pattern) = pattern(text) {
        return Some((pattern, true));
    }
    let value = map.get("host")?;
    if let Some((host, pattern)) =
        scalar::host_and_port(text).and_then(|(host, _)| Some((host, pattern(host)?)))
    {
        let problem = "a host with a port, so the rule never matches";
        let warning = value.warning(cx, problem).value(text).expected(host);
        cx.report.push(warning);
        return Some((pattern, false));
    }
    value.wrong(cx, keys::Kind::HostPattern);
    None
}

/// Of a host as files have it.
pub(super) fn pattern(text: &str) -> Option<HostPattern> {
    if text == "*" {
        return Some(HostPattern::Any);
    }
    let name = |text: &str| HostName::parse(text).ok();
    if let Some(rest) = text.strip_prefix("**.") {
        return name(rest).map(HostPattern::ManyLabels);
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return name(rest).map(HostPattern::OneLabel);
    }
    name(text).map(HostPattern::Exact)
}

/// Where the requests go. `None` if that cannot be said because of errors.
fn action(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    known: &KnownUpstreams<'_>,
    rewrite: &PathRewrite,
) -> Option<Action> {
    let errors_before = cx.report.errors();
    let own = own_action(cx, map, rewrite);
    let single = map.text(cx, "upstream");
    let list = map.get("upstreams");
    if let Some(own) = own {
        if single.is_some() || list.is_some() {
            let both = map.error(cx, "an upstream is given beside respond, redirect or close");
            cx.report.push(both.expected("one of them"));
        }
        return (cx.report.errors() == errors_before).then_some(own);
    }
    match (single, list) {
        (Some(_), Some(list)) => {
            let both =
                list.error(cx, "upstream and upstreams are both given").expected("one of them");
            cx.report.push(both);
            None
        }
        (None, Some(list)) => weighted(cx, map, list, known),
        (None, None) if cx.report.errors() > errors_before => None,
        (None, None) => {
            let warning = map.warning(cx, "no upstream is given: requests get 503");
            cx.report
                .push(warning.expected("upstream, the name of one; or respond, redirect or close"));
            Some(Action::Unavailable { upstream: "".into() })
        }
        (Some(name), None) => match known.get(name) {
            Some(id) => Some(Action::Forward(vec![UpstreamRef { upstream: (*id)?, weight: 1 }])),
            None => {
                let value = map.get("upstream")?;
                report_unknown(cx, value, name, "no upstream has this name: requests get 503");
                Some(Action::Unavailable { upstream: name.into() })
            }
        },
    }
}

/// What the gateway does by itself.
fn own_action(cx: &mut Context<'_>, map: Map<'_, '_>, rewrite: &PathRewrite) -> Option<Action> {
    let status = map.integer(cx, "respond").and_then(|n| u16::try_from(n).ok());
    let respond = status.map(|status| ("respond", Action::Respond { status }));
    let redirect = redirect(cx, map, rewrite).map(|to| ("redirect", Action::Redirect(to)));
    let close = map.boolean(cx, "close").unwrap_or(false).then_some(("close", Action::Close));
    let mut given = [respond, redirect, close].into_iter().flatten();
    let (name, action) = given.next()?;
    if let Some((other, _)) = given.next() {
        let both = map.error(cx, format!("{name} and {other} are both given"));
        cx.report.push(both.expected("one of them"));
        return None;
    }
    Some(action)
}

/// Where clients are sent; not to where they are.
fn redirect(cx: &mut Context<'_>, map: Map<'_, '_>, rewrite: &PathRewrite) -> Option<Redirect> {
    const STATUS: u16 = 302;
    let value = map.get("redirect")?;
    let errors_before = cx.report.errors();
    let keys = value.map(cx, &keys::REDIRECT)?;
    let number = |number: Option<u64>| number.and_then(|n| u16::try_from(n).ok());
    let redirect = Redirect {
        status: number(keys.integer(cx, "status")).unwrap_or(STATUS),
        scheme: keys.choice(cx, "scheme").and_then(|word| Scheme::parse(word.as_bytes())),
        host: keys.host(cx, "host"),
        port: number(keys.integer(cx, "port")),
    };
    let fine = cx.report.errors() == errors_before;
    if fine && redirect.is_relative() && *rewrite == PathRewrite::Keep {
        let nowhere = value.error(cx, "clients are sent to where they are");
        cx.report.push(nowhere.expected(
            "a scheme, a host or a port; or a path, by setPath, replacePath or stripPath of the rule",
        ));
    }
    Some(redirect)
}

/// Warns of redirects that go round in circles: to the scheme that the listener has, and nothing else.
fn warn_of_circles(cx: &mut Context<'_>, rules: &[Limited], listeners: &[Listener]) {
    for Limited { rule, listeners: limited } in rules {
        let Action::Redirect(to) = &rule.action else { continue };
        if to.host.is_some() || to.port.is_some() || rule.rewrite != PathRewrite::Keep {
            continue;
        }
        let has_it = |index: &usize| limited.as_ref().is_none_or(|some| some.contains(index));
        let same = |l: &Listener| to.scheme.is_some_and(|s| s.as_str() == l.protocol.scheme());
        let mut circles = (0..).zip(listeners).filter(|(index, l)| has_it(index) && same(l));
        let Some((_, listener)) = circles.next() else { continue };
        let problem = format!("on listener {} clients are sent to where they are", listener.name);
        let warning = Diagnostic::warning(rule.place.clone(), "redirect", problem);
        cx.report.push(warning.expected("listeners of the other scheme, by the key listeners"));
    }
}

fn report_unknown(cx: &mut Context<'_>, value: Value<'_, '_>, name: &str, problem: &str) {
    let warning = value.warning(cx, problem).value(name);
    cx.report.push(warning);
}

/// Several upstreams by weight. Those that do not exist are left out; if none is left, requests get 503.
fn weighted(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    list: Value<'_, '_>,
    known: &KnownUpstreams<'_>,
) -> Option<Action> {
    let errors_before = cx.report.errors();
    let mut missing: Option<&str> = None;
    let mut weights = 0;
    let references = map.list(cx, "upstreams", |cx, _, item| {
        let map = item.map(cx, &keys::RULE_UPSTREAM)?;
        let weight = map.integer(cx, "weight").and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        weights += u64::from(weight);
        let name = map.required(cx, "upstream")?;
        match known.get(name) {
            Some(id) => Some(UpstreamRef { upstream: (*id)?, weight }),
            None => {
                missing.get_or_insert(name);
                report_unknown(
                    cx,
                    map.get("upstream")?,
                    name,
                    "no upstream has this name: left out",
                );
                None
            }
        }
    })?;
    if cx.report.errors() > errors_before {
        return None;
    }
    if weights == 0 {
        let empty = matches!(&list.node.data, Data::List(items) if items.is_empty());
        let (problem, expected) = match empty {
            true => ("an empty list", "at least one upstream"),
            false => ("all weights are 0", "at least one above 0"),
        };
        let diagnostic = list.error(cx, problem).expected(expected);
        cx.report.push(diagnostic);
        return None;
    }
    match missing {
        Some(name) if references.iter().all(|r| r.weight == 0) => {
            Some(Action::Unavailable { upstream: name.into() })
        }
        // Those with errors of their own are not in the list, but then nothing is served.
        _ if references.is_empty() => None,
        _ => Some(Action::Forward(references)),
    }
}

/// The listeners that a rule is limited to, if it is.
fn limited_to(
    cx: &mut Context<'_>,
    map: Map<'_, '_>,
    known: &KnownListeners<'_>,
) -> Option<Vec<usize>> {
    let mut indices = map.list(cx, "listeners", |cx, _, item| {
        let name = item.text(cx, keys::Kind::Text)?;
        let found = known.get(name);
        if found.is_none() {
            let unknown = item.error(cx, "no listener has this name").value(name);
            cx.report.push(unknown.expected(listener_names(known)));
        }
        found.copied().flatten()
    })?;
    indices.sort_unstable();
    indices.dedup();
    Some(indices)
}

/// What a rule could have named, if that is short enough to say.
fn listener_names(known: &KnownListeners<'_>) -> String {
    const NAMES_SHOWN_MAX: usize = 8;
    if known.len() > NAMES_SHOWN_MAX {
        return "the name of a listener".into();
    }
    let mut names: Vec<&str> = known.keys().copied().collect();
    names.sort_unstable();
    names.join(" or ")
}

/// Gives every listener its rules: one shared set, or one for each group of listeners that differ.
pub(super) fn distribute(cx: &mut Context<'_>, rules: Vec<Limited>, listeners: &mut [Listener]) {
    warn_of_circles(cx, &rules, listeners);
    let scope =
        |rules: &Arc<RuleSet>| vec![Scope { hosts: HostPattern::Any, rules: rules.clone() }];
    if rules.iter().all(|r| r.listeners.is_none()) {
        let rules = rules.into_iter().map(|r| r.rule).collect();
        let shared = Arc::new(RuleSet { order: MatchOrder::First, rules });
        for listener in listeners {
            listener.scopes = scope(&shared);
        }
        return;
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); listeners.len()];
    let mut copies = 0;
    for (index, limited) in rules.iter().enumerate() {
        let all: Vec<usize>;
        let wanted = match &limited.listeners {
            Some(some) => some,
            None => {
                all = (0..listeners.len()).collect();
                &all
            }
        };
        copies += wanted.len();
        if copies > RULE_COPIES_MAX {
            let problem = format!("more than {RULE_COPIES_MAX} rules, counted for each listener");
            cx.report.push(Diagnostic::error(limited.rule.place.clone(), "rules", problem));
            return;
        }
        for listener in wanted {
            members[*listener].push(index);
        }
    }
    let mut sets: HashMap<Vec<usize>, Arc<RuleSet>> = HashMap::new();
    for (listener, members) in listeners.iter_mut().zip(members) {
        let set = sets.entry(members).or_insert_with_key(|members| {
            let rules = members.iter().map(|index| rules[*index].rule.clone()).collect();
            Arc::new(RuleSet { order: MatchOrder::First, rules })
        });
        listener.scopes = scope(set);
    }
}
