//! Which rule a request takes: a listener's scopes and rules, compiled so that a lookup costs the same
//! with ten hosts as with a hundred thousand.
//!
//! Three steps, each narrowing the one before: the most specific host pattern chooses the scope
//! ([`Router`]), the host chooses buckets of rules ([`CompiledRules`]), the path chooses the rule with the
//! best rank in them. A rank is a rule's place in the precedence of its source ([`model::MatchOrder`]).
//! This module must not know requests, headers or upstreams: hosts and paths come in prepared by
//! [`normalize_host`] and [`decode_path`]. [`mod@reference`] says the same thing naively; the tests and a fuzz
//! target hold the two against each other.

mod explain;
mod hosts;
mod names;
mod path_index;
mod path_match;
mod precedence;
mod prefix_tree;
mod redirect;
pub mod reference;
mod request;
mod rewrite;
mod rules;

#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::{Listener, Rule};

pub use explain::{Explanation, Verdict, explain};
#[cfg(any(test, feature = "fuzzing"))]
pub use fuzz::fuzz_compare;
pub use precedence::Reason;
pub use redirect::{Asked, location};
pub use request::{HOST_BYTES_MAX, InvalidEscape, clean_path, decode_path, normalize_host};
pub use rewrite::rewritten;
pub use rules::{CompiledRules, RulesCache};

use hosts::{HostTable, PatternIds};

/// A listener's scopes and rules, compiled. Immutable; workers share one.
#[derive(Debug)]
pub struct Router {
    /// Pattern to scope index.
    scopes: HostTable<usize>,
    /// By scope index.
    rules: Box<[Arc<CompiledRules>]>,
}

/// The rule that a request takes.
#[derive(Debug, Clone, Copy)]
pub struct Match<'r> {
    /// The index of the scope in [`Listener::scopes`].
    pub scope: usize,
    /// The index of the rule in the scope's [`model::RuleSet`].
    pub rule_index: usize,
    /// The rule.
    pub rule: &'r Rule,
    /// The compiled set that the rule belongs to; the same for all scopes that share a set.
    pub rules: &'r Arc<CompiledRules>,
}

impl Router {
    /// Compiles a listener by itself. Takes time and memory in proportion to its rules (and their sorting).
    #[must_use]
    pub fn compile(listener: &Listener) -> Self {
        Self::compile_with(listener, &mut RulesCache::default())
    }

    /// Compiles a listener; a set of rules that the cache has seen is compiled no second time.
    #[must_use]
    pub fn compile_with(listener: &Listener, cache: &mut RulesCache) -> Self {
        let mut ids = PatternIds::default();
        // Of two scopes for the same hosts the first is served.
        let mut first = Vec::new();
        for (index, scope) in listener.scopes.iter().enumerate() {
            if ids.id(&scope.hosts) == first.len() {
                first.push(index);
            }
        }
        let scopes = HostTable::new(&ids, |id| first[id]);
        let rules = listener.scopes.iter().map(|scope| cache.compiled(&scope.rules)).collect();
        Self { scopes, rules }
    }

    /// The scope that a host belongs to: exact name, then the longest wildcard (`*.` before `**.` of the
    /// same name), then any. `host` as [`normalize_host`] leaves it, empty where the request has none.
    #[must_use]
    pub fn scope(&self, host: &str) -> Option<usize> {
        self.scopes.find_map(host, |&scope| Some(scope))
    }

    /// The rule for a host (as [`normalize_host`] leaves it, empty where the request has none) and a path
    /// (decoded, without the query). `None` where no scope is for the host or none of its rules fits.
    #[must_use]
    pub fn find<'r>(&'r self, host: &str, path: &[u8]) -> Option<Match<'r>> {
        self.find_where(host, path, |_| true)
    }

    /// As [`Self::find`], among the rules whose further conditions hold: `accept` is asked about rules
    /// that fit host and path, at least about the one returned, and must be a pure function of the rule's
    /// index in its set. Where it accepts the best one it costs nothing beside [`Self::find`].
    #[must_use]
    pub fn find_where<'r>(
        &'r self,
        host: &str,
        path: &[u8],
        accept: impl Fn(usize) -> bool,
    ) -> Option<Match<'r>> {
        let scope = self.scope(host)?;
        let rules = self.rules.get(scope)?;
        let rule_index = rules.find_where(host, path, accept)?;
        let rule = rules.source().rules.get(rule_index)?;
        Some(Match { scope, rule_index, rule, rules })
    }

    /// The compiled rules of every scope.
    pub(crate) fn compiled(&self) -> &[Arc<CompiledRules>] {
        &self.rules
    }

    /// The compiled rules of a scope.
    #[must_use]
    pub fn rules(&self, scope: usize) -> Option<&Arc<CompiledRules>> {
        self.rules.get(scope)
    }
}
