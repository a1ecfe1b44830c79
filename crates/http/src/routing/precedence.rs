//! Which of two matching rules wins, as one value to sort by; and why, in words.

use std::cmp::Reverse;
use std::fmt;

use model::{Action, HostPattern, MatchOrder, PathMatch, Rule, RuleSet};

/// A rule's place among those that fit the same request: the smallest wins. A field that the set's order
/// does not look at is the same in all its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    fallback: bool,
    unavailable: bool,
    host: Specificity,
    inexact_path: bool,
    path_bytes: Reverse<usize>,
    index: usize,
}

/// How closely a pattern names a host: the smallest does most. Among wildcards the longer name comes
/// first, as in Gateway API; among Ingress wildcards, which stand for one label, no two fit the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Specificity {
    Exact,
    Wildcard { name_bytes: Reverse<usize>, many_labels: bool },
    Any,
}

/// Why one rule goes before another that fits as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The other is a fallback.
    NoFallback,
    /// The other's upstream does not exist.
    Available,
    /// It names the host more closely.
    CloserHost,
    /// It names the path exactly.
    ExactPath,
    /// Its path is longer.
    LongerPath,
    /// It comes earlier in its source.
    Earlier,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFallback => "is no fallback",
            Self::Available => "has an upstream that exists",
            Self::CloserHost => "names the host more closely",
            Self::ExactPath => "names the path exactly",
            Self::LongerPath => "has a longer path",
            Self::Earlier => "comes earlier",
        })
    }
}

impl Specificity {
    pub(super) fn of(pattern: &HostPattern) -> Self {
        let wildcard = |name: &model::HostName, many_labels| Self::Wildcard {
            name_bytes: Reverse(name.as_str().len()),
            many_labels,
        };
        match pattern {
            HostPattern::Exact(_) => Self::Exact,
            HostPattern::OneLabel(name) => wildcard(name, false),
            HostPattern::ManyLabels(name) => wildcard(name, true),
            HostPattern::Any => Self::Any,
        }
    }
}

impl Precedence {
    /// That of the rule at an index of a set of this order.
    pub(super) fn of(order: MatchOrder, rule: &Rule, index: usize) -> Self {
        let alike = Self {
            fallback: rule.fallback,
            unavailable: false,
            host: Specificity::Any,
            inexact_path: false,
            path_bytes: Reverse(0),
            index,
        };
        let path_bytes = Reverse(path_bytes(&rule.path));
        match order {
            MatchOrder::First => {
                Self { unavailable: matches!(rule.action, Action::Unavailable { .. }), ..alike }
            }
            MatchOrder::LongestPath => Self { path_bytes, ..alike },
            MatchOrder::MostSpecific => Self {
                host: Specificity::of(&rule.hosts),
                inexact_path: !matches!(rule.path, PathMatch::Exact(_)),
                path_bytes,
                ..alike
            },
        }
    }

    /// Why this one goes before another.
    pub(super) fn reason_before(&self, other: &Self) -> Reason {
        if self.fallback != other.fallback {
            Reason::NoFallback
        } else if self.unavailable != other.unavailable {
            Reason::Available
        } else if self.host != other.host {
            Reason::CloserHost
        } else if self.inexact_path != other.inexact_path {
            Reason::ExactPath
        } else if self.path_bytes != other.path_bytes {
            Reason::LongerPath
        } else {
            Reason::Earlier
        }
    }
}

/// The length of a path as it stands in the rule.
fn path_bytes(path: &PathMatch) -> usize {
    match path {
        PathMatch::Any | PathMatch::Never => 0,
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Segments(text) => text.len(),
    }
}

/// The indices of the rules that can match, the winning ones first: a rule's place in here is its rank.
pub(super) fn ranked(rules: &RuleSet) -> Vec<usize> {
    let possible = |&index: &usize| rules.rules[index].path != PathMatch::Never;
    let mut ranked: Vec<usize> = (0..rules.rules.len()).filter(possible).collect();
    ranked.sort_by_cached_key(|&index| Precedence::of(rules.order, &rules.rules[index], index));
    ranked
}
