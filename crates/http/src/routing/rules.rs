//! A set of rules, compiled: buckets by host pattern, and in each its rules by path.

use std::sync::Arc;

use model::{PathMatch, RuleSet};
use rustc_hash::FxHashMap;

use super::hosts::{HostTable, PatternIds};
use super::path_index::PathIndex;
use super::path_match::path_matches;
use super::precedence::ranked;

/// Up to this many rules of a host are tried one by one, which is then faster than an index over their
/// paths.
const FEW_RULES_MAX: usize = 8;

/// A rule as the tables hold it. The order is that of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// The smallest wins; unique in a set.
    pub(super) rank: u32,
    /// The rule's index in its set.
    pub(super) rule: u32,
}

impl Candidate {
    /// Loses against every rule.
    pub(super) const NONE: Self = Self { rank: u32::MAX, rule: u32::MAX };
}

/// A set of rules, compiled. Immutable; scopes, listeners and workers share one.
#[derive(Debug)]
pub struct CompiledRules {
    source: Arc<RuleSet>,
    hosts: HostTable<Bucket>,
    /// The rules of the small buckets, one bucket after the other, each in the order of rank.
    candidates: Vec<Candidate>,
    indexes: Vec<PathIndex>,
}

/// The rules of one host pattern.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// The best rank in it: buckets that cannot win are left out.
    best_rank: u32,
    paths: Paths,
}

#[derive(Debug, Clone, Copy)]
enum Paths {
    /// One rule, for every path that begins with a slash. Its own path need not be fetched for those.
    Root { rule: u32 },
    /// A part of `candidates`.
    Few { start: u32, end: u32 },
    /// One of `indexes`.
    Many { index: u32 },
}

impl Default for Paths {
    fn default() -> Self {
        Self::Few { start: 0, end: 0 }
    }
}

impl CompiledRules {
    /// Compiles a set, in time `n log n` of its rules.
    #[must_use]
    pub fn compile(rules: &Arc<RuleSet>) -> Self {
        Self::compile_bounded(rules, FEW_RULES_MAX)
    }

    /// The same with another bound on the rules of a host that are tried one by one.
    pub(super) fn compile_bounded(rules: &Arc<RuleSet>, few_rules_max: usize) -> Self {
        let (ids, pairs) = bucketed(rules);
        let mut compiled = Self {
            source: Arc::clone(rules),
            hosts: HostTable::new(&PatternIds::default(), |_| Bucket::default()),
            candidates: Vec::new(),
            indexes: Vec::new(),
        };
        let buckets: Vec<Bucket> = pairs
            .chunk_by(|a, b| a.0 == b.0)
            .map(|pairs| compiled.bucket(pairs, few_rules_max))
            .collect();
        compiled.hosts = HostTable::new(&ids, |id| buckets[id]);
        compiled
    }

    fn bucket(&mut self, pairs: &[(usize, Candidate)], few_rules_max: usize) -> Bucket {
        let candidates = pairs.iter().map(|&(_, candidate)| candidate);
        let best = pairs[0].1;
        let paths = if pairs.len() > few_rules_max {
            self.indexes.push(PathIndex::new(&self.source, candidates));
            Paths::Many { index: as_u32(self.indexes.len() - 1) }
        } else if pairs.len() == 1 && is_root(&self.source.rules[best.rule as usize].path) {
            Paths::Root { rule: best.rule }
        } else {
            let start = as_u32(self.candidates.len());
            self.candidates.extend(candidates);
            Paths::Few { start, end: as_u32(self.candidates.len()) }
        };
        Bucket { best_rank: best.rank, paths }
    }

    /// The set as it was before.
    #[must_use]
    pub fn source(&self) -> &Arc<RuleSet> {
        &self.source
    }

    /// The index of the rule for a host and a decoded path.
    #[must_use]
    pub fn find(&self, host: &str, path: &[u8]) -> Option<usize> {
        self.find_where(host, path, |_| true)
    }

    /// As [`Self::find`], among the rules that `accept` takes; see [`super::Router::find_where`].
    #[must_use]
    pub fn find_where(
        &self,
        host: &str,
        path: &[u8],
        accept: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = Candidate::NONE;
        self.hosts.find_map(host, |bucket| {
            if bucket.best_rank < best.rank {
                best = best.min(self.best_in(bucket, path, &accept));
            }
            None::<()>
        });
        (best != Candidate::NONE).then_some(best.rule as usize)
    }

    #[inline]
    fn best_in(&self, bucket: &Bucket, path: &[u8], accept: &impl Fn(usize) -> bool) -> Candidate {
        match bucket.paths {
            Paths::Root { rule } => {
                let index = rule as usize;
                let fits = path.first() == Some(&b'/') || self.fits(index, path);
                let candidate = Candidate { rank: bucket.best_rank, rule };
                if fits && accept(index) { candidate } else { Candidate::NONE }
            }
            Paths::Few { start, end } => {
                let few = &self.candidates[start as usize..end as usize];
                let fits = |candidate: &&Candidate| {
                    let index = candidate.rule as usize;
                    self.fits(index, path) && accept(index)
                };
                few.iter().find(fits).copied().unwrap_or(Candidate::NONE)
            }
            Paths::Many { index } => self.indexes[index as usize].find_where(path, accept),
        }
    }

    fn fits(&self, index: usize, path: &[u8]) -> bool {
        path_matches(&self.source.rules[index].path, path)
    }
}

/// Whether every path that begins with a slash fits.
fn is_root(path: &PathMatch) -> bool {
    match path {
        PathMatch::Any => true,
        PathMatch::Prefix(text) | PathMatch::Segments(text) => text.is_empty() || text == "/",
        PathMatch::Exact(_) | PathMatch::Never => false,
    }
}

/// Numbers the host patterns, and lists the rules pattern by pattern, each in the order of rank.
fn bucketed(rules: &RuleSet) -> (PatternIds<'_>, Vec<(usize, Candidate)>) {
    let mut ids = PatternIds::default();
    let candidate = |(rank, rule): (usize, usize)| {
        let id = ids.id(&rules.rules[rule].hosts);
        (id, Candidate { rank: as_u32(rank), rule: as_u32(rule) })
    };
    let mut pairs: Vec<_> = ranked(rules).into_iter().enumerate().map(candidate).collect();
    pairs.sort_unstable();
    (ids, pairs)
}

/// Rules and bytes of a set are far fewer than 2^32: memory ends before.
pub(super) fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Compiles each set once, however many scopes and listeners share it. Kept from one snapshot to the next,
/// it also spares the sets that did not change; [`Self::forget_unused`] then drops the others.
#[derive(Debug, Default)]
pub struct RulesCache {
    /// By the address of the source, which its compiled form keeps alive, so that no other set can have it.
    compiled: FxHashMap<usize, Arc<CompiledRules>>,
}

impl RulesCache {
    /// The compiled form of a set.
    pub fn compiled(&mut self, rules: &Arc<RuleSet>) -> Arc<CompiledRules> {
        let address = Arc::as_ptr(rules).addr();
        let compile = || Arc::new(CompiledRules::compile(rules));
        Arc::clone(self.compiled.entry(address).or_insert_with(compile))
    }

    /// Takes over what a router is made of.
    pub(crate) fn learn(&mut self, router: &super::Router) {
        for rules in router.compiled() {
            let address = Arc::as_ptr(rules.source()).addr();
            self.compiled.entry(address).or_insert_with(|| Arc::clone(rules));
        }
    }

    /// Drops what no router uses any more.
    pub fn forget_unused(&mut self) {
        self.compiled.retain(|_, rules| Arc::strong_count(rules) > 1);
    }
}
