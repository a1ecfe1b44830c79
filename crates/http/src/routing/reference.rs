//! What the compiled tables must say, said in the plainest way: a loop over all rules. `explain` uses it,
//! and tests and fuzzing hold the tables against it, so it shares no code with them.

use model::{Action, HostPattern, Listener, MatchOrder, PathMatch, Rule, RuleSet};

/// The scope for a host; see [`super::Router::scope`].
#[must_use]
pub fn scope(listener: &Listener, host: &str) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, scope) in listener.scopes.iter().enumerate() {
        let beaten = best.map(|at| specificity(&listener.scopes[at].hosts));
        if scope.hosts.matches(host) && beaten.is_none_or(|b| specificity(&scope.hosts) > b) {
            best = Some(index);
        }
    }
    best
}

/// The index of the rule for a host and a decoded path.
#[must_use]
pub fn find(rules: &RuleSet, host: &str, path: &[u8]) -> Option<usize> {
    find_where(rules, host, path, |_| true)
}

/// The same among the rules that `accept` takes.
#[must_use]
pub fn find_where(
    rules: &RuleSet,
    host: &str,
    path: &[u8],
    accept: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, rule) in rules.rules.iter().enumerate() {
        let fits = rule.hosts.matches(host) && path_matches(&rule.path, path) && accept(index);
        if fits && best.is_none_or(|at| beats(rules.order, rule, &rules.rules[at])) {
            best = Some(index);
        }
    }
    best
}

/// Whether a decoded path fits a rule's.
#[must_use]
pub fn path_matches(wanted: &PathMatch, path: &[u8]) -> bool {
    match wanted {
        PathMatch::Any => true,
        PathMatch::Never => false,
        PathMatch::Exact(text) => text.as_bytes() == path,
        PathMatch::Prefix(text) => {
            path.len() >= text.len() && path[..text.len()] == *text.as_bytes()
        }
        PathMatch::Segments(text) => {
            let mut wanted: Vec<&[u8]> = text.as_bytes().split(|&b| b == b'/').collect();
            if wanted.len() > 1 && wanted.last().is_some_and(|last| last.is_empty()) {
                wanted.pop();
            }
            let segments: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
            segments.starts_with(&wanted)
        }
    }
}

/// Whether a rule that comes later in its source goes before an earlier one.
fn beats(order: MatchOrder, later: &Rule, earlier: &Rule) -> bool {
    let unavailable = |rule: &Rule| matches!(rule.action, Action::Unavailable { .. });
    let length = |rule: &Rule| match &rule.path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Segments(text) => text.len(),
        PathMatch::Any | PathMatch::Never => 0,
    };
    if later.fallback != earlier.fallback {
        return earlier.fallback;
    }
    let exact = |rule: &Rule| matches!(rule.path, PathMatch::Exact(_));
    match order {
        MatchOrder::First => unavailable(earlier) && !unavailable(later),
        MatchOrder::LongestPath => length(later) > length(earlier),
        MatchOrder::MostSpecific => {
            let key = |rule: &Rule| (specificity(&rule.hosts), exact(rule), length(rule));
            key(later) > key(earlier)
        }
    }
}

/// The greater, the more specific: class, length of the name, and `*.` before `**.`.
fn specificity(pattern: &HostPattern) -> (u8, usize, bool) {
    match pattern {
        HostPattern::Exact(_) => (2, 0, false),
        HostPattern::OneLabel(name) => (1, name.as_str().len(), true),
        HostPattern::ManyLabels(name) => (1, name.as_str().len(), false),
        HostPattern::Any => (0, 0, false),
    }
}
