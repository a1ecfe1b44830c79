//! The rules of one host pattern by path, where they are many: a hash table of exact paths and a tree of
//! prefixes. A lookup costs the length of the path and the logarithm of the number of prefixes.

use std::collections::BTreeMap;
use std::ops::Range;

use model::{PathMatch, RuleSet};
use rustc_hash::FxHashMap;

use super::path_match::segments_key;
use super::prefix_tree::{PrefixRules, PrefixTree};
use super::rules::{Candidate, as_u32};

/// Many rules by path.
#[derive(Debug)]
pub(super) struct PathIndex {
    lists: Lists,
    /// Rules for every path.
    any: List,
    exact: FxHashMap<Box<[u8]>, List>,
    prefixes: PrefixTree,
}

/// Runs of candidates, each in the order of rank, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Candidate>);

/// One of the runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    start: u32,
    end: u32,
}

impl Lists {
    pub(super) fn add(&mut self, candidates: &[Candidate]) -> List {
        let start = as_u32(self.0.len());
        self.0.extend_from_slice(candidates);
        List { start, end: as_u32(self.0.len()) }
    }

    pub(super) fn get(&self, list: List) -> &[Candidate] {
        let range: Range<usize> = list.start as usize..list.end as usize;
        &self.0[range]
    }

    pub(super) fn best(&self, list: List) -> Candidate {
        self.get(list).first().copied().unwrap_or(Candidate::NONE)
    }
}

impl PathIndex {
    /// Over these rules of a set, given in the order of rank.
    pub(super) fn new(rules: &RuleSet, candidates: impl Iterator<Item = Candidate>) -> Self {
        let mut any = Vec::new();
        let mut exact: FxHashMap<&[u8], Vec<Candidate>> = FxHashMap::default();
        let mut prefixes: BTreeMap<&[u8], PrefixRules> = BTreeMap::new();
        for candidate in candidates {
            match &rules.rules[candidate.rule as usize].path {
                PathMatch::Any => any.push(candidate),
                PathMatch::Exact(text) => exact.entry(text.as_bytes()).or_default().push(candidate),
                PathMatch::Prefix(text) => {
                    prefixes.entry(text.as_bytes()).or_default().plain.push(candidate);
                }
                PathMatch::Segments(text) => {
                    prefixes.entry(segments_key(text)).or_default().segments.push(candidate);
                }
                PathMatch::Never => {}
            }
        }
        let mut lists = Lists::default();
        Self {
            any: lists.add(&any),
            exact: exact.into_iter().map(|(path, run)| (path.into(), lists.add(&run))).collect(),
            prefixes: PrefixTree::new(prefixes, &mut lists),
            lists,
        }
    }

    /// The best rule for a path among those that `accept` takes. If it takes the best of all, which is
    /// known beforehand for every place of the tree, no other is looked at.
    #[inline]
    pub(super) fn find_where(&self, path: &[u8], accept: &impl Fn(usize) -> bool) -> Candidate {
        let exact = self.exact.get(path).copied().unwrap_or_default();
        let place = self.prefixes.longest_prefix(path);
        let best = self.lists.best(self.any).min(self.lists.best(exact)).min(self.prefixes.best(
            place,
            path,
            &self.lists,
        ));
        if best == Candidate::NONE || accept(best.rule as usize) {
            return best;
        }
        let accepted = |list: List| {
            let run = self.lists.get(list).iter();
            run.copied().find(|c| accept(c.rule as usize)).unwrap_or(Candidate::NONE)
        };
        let prefixed = self.prefixes.lists(place, path).map(accepted).min();
        accepted(self.any).min(accepted(exact)).min(prefixed.unwrap_or(Candidate::NONE))
    }
}
