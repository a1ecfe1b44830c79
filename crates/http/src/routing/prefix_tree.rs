//! Prefixes of paths: sorted, each linked to the longest other one that it begins with.
//!
//! All prefixes of a path are ancestors of the last one that does not sort behind it: whatever sorts
//! between a prefix of the path and the path begins with that prefix too. So one binary search finds a
//! place in the tree, and one walk towards the root, in leaps, the longest prefix.

use std::collections::BTreeMap;

use super::path_index::{List, Lists};
use super::path_match::ends_segment;
use super::rules::{Candidate, as_u32};

/// The rules of one prefix, each kind in the order of rank.
#[derive(Debug, Default)]
pub(super) struct PrefixRules {
    /// Those that match whatever follows.
    pub(super) plain: Vec<Candidate>,
    /// Those that match only where a segment ends.
    pub(super) segments: Vec<Candidate>,
}

/// A sorted tree of prefixes; the first is the root, which is empty and its own parent.
#[derive(Debug)]
pub(super) struct PrefixTree {
    nodes: Box<[Node]>,
    /// The prefixes one after the other.
    text: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// Where its prefix begins in `text`, and its length in bytes.
    start: u32,
    len: u32,
    parent: u32,
    /// An ancestor further up, so that a walk of `d` nodes takes `log d` leaps (Myers 1983).
    leap: u32,
    plain: List,
    segments: List,
    /// The best rule of all strict ancestors that matches what begins with this prefix.
    above: Candidate,
}

/// A node found in a tree; means nothing in another.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeId(u32);

impl PrefixTree {
    pub(super) fn new(mut prefixes: BTreeMap<&[u8], PrefixRules>, lists: &mut Lists) -> Self {
        prefixes.entry(b"").or_default();
        let mut tree = Building { nodes: Vec::new(), depths: Vec::new(), text: Vec::new() };
        let mut parent = 0;
        for (prefix, rules) in prefixes {
            while !prefix.starts_with(text_of(&tree.text, tree.nodes.get(parent))) {
                parent = tree.nodes[parent].parent as usize;
            }
            parent = tree.add(prefix, &rules, parent, lists);
        }
        Self { nodes: tree.nodes.into(), text: tree.text.into() }
    }

    /// The longest prefix that a path begins with; the root where there is none.
    pub(super) fn longest_prefix(&self, path: &[u8]) -> NodeId {
        let behind = self.nodes.partition_point(|n| text_of(&self.text, Some(n)) <= path);
        let last = behind.saturating_sub(1);
        let common = common_bytes(text_of(&self.text, self.nodes.get(last)), path);
        let len = |at: usize| self.nodes[at].len as usize;
        let mut at = last;
        while len(at) > common {
            let leap = self.nodes[at].leap as usize;
            at = if len(leap) > common { leap } else { self.nodes[at].parent as usize };
        }
        NodeId(as_u32(at))
    }

    /// The best rule at or above a path's longest prefix.
    pub(super) fn best(&self, place: NodeId, path: &[u8], lists: &Lists) -> Candidate {
        let node = &self.nodes[place.0 as usize];
        let best = node.above.min(lists.best(node.plain));
        if ends_segment(path, node.len as usize) {
            best.min(lists.best(node.segments))
        } else {
            best
        }
    }

    /// All rules at or above a path's longest prefix.
    pub(super) fn lists(&self, place: NodeId, path: &[u8]) -> impl Iterator<Item = List> {
        let parent = |&at: &usize| Some(self.nodes[at].parent as usize).filter(|&up| up != at);
        std::iter::successors(Some(place.0 as usize), parent).flat_map(move |at| {
            let node = &self.nodes[at];
            let segments = ends_segment(path, node.len as usize).then_some(node.segments);
            segments.into_iter().chain([node.plain])
        })
    }
}

struct Building {
    nodes: Vec<Node>,
    /// How many nodes are above each.
    depths: Vec<u32>,
    text: Vec<u8>,
}

impl Building {
    /// Adds the next prefix in the order of sorting, below its parent (the first one is the root).
    fn add(
        &mut self,
        prefix: &[u8],
        rules: &PrefixRules,
        parent: usize,
        lists: &mut Lists,
    ) -> usize {
        let above = self.nodes.get(parent).map_or(Candidate::NONE, |up| {
            let best = up.above.min(lists.best(up.plain));
            let at_segment = ends_segment(prefix, up.len as usize);
            if at_segment { best.min(lists.best(up.segments)) } else { best }
        });
        let node = Node {
            start: as_u32(self.text.len()),
            len: as_u32(prefix.len()),
            parent: as_u32(parent),
            leap: as_u32(self.leap(parent)),
            plain: lists.add(&rules.plain),
            segments: lists.add(&rules.segments),
            above,
        };
        self.text.extend_from_slice(prefix);
        self.depths.push(self.depths.get(parent).map_or(0, |depth| depth + 1));
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Two leaps of the same length behind each other become one.
    fn leap(&self, parent: usize) -> usize {
        let Some(up) = self.nodes.get(parent) else { return 0 };
        let once = up.leap as usize;
        let twice = self.nodes[once].leap as usize;
        let depth = |at: usize| self.depths[at];
        if depth(parent) - depth(once) == depth(once) - depth(twice) { twice } else { parent }
    }
}

/// The prefix of a node; empty where there is no node yet.
fn text_of<'t>(text: &'t [u8], node: Option<&Node>) -> &'t [u8] {
    node.map_or(&[], |n| &text[n.start as usize..n.start as usize + n.len as usize])
}

fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(prefixes: &[String]) -> PrefixTree {
        let map = prefixes.iter().map(|p| (p.as_bytes(), PrefixRules::default())).collect();
        PrefixTree::new(map, &mut Lists::default())
    }

    fn longest<'t>(tree: &'t PrefixTree, path: &str) -> &'t str {
        let NodeId(at) = tree.longest_prefix(path.as_bytes());
        std::str::from_utf8(text_of(&tree.text, Some(&tree.nodes[at as usize]))).unwrap()
    }

    #[test]
    fn the_longest_prefix_is_found_past_its_neighbours() {
        let prefixes = ["/a", "/a/b/c", "/a/b/cc/d", "/b", "/b/z"].map(String::from);
        let tree = tree(&prefixes);
        let cases = [
            ("/a/b/cd", "/a/b/c"),
            ("/a/b/cc/e", "/a/b/c"),
            ("/a/b", "/a"),
            ("/b/zz", "/b/z"),
            ("/b/a", "/b"),
            ("/", ""),
            ("", ""),
            ("/c", ""),
            ("\u{ff}", ""),
        ];
        for (path, wanted) in cases {
            assert_eq!(longest(&tree, path), wanted, "{path}");
        }
    }

    #[test]
    fn deep_chains_are_climbed_in_few_leaps() {
        const DEPTH: usize = 3_000;
        let prefixes: Vec<String> = (1..=DEPTH).map(|n| "a".repeat(n)).collect();
        let tree = tree(&prefixes);
        for len in [0, 1, 2, 1_000, 2_047, 2_048, 2_999, DEPTH] {
            let path = format!("{}b", "a".repeat(len));
            assert_eq!(longest(&tree, &path).len(), len);
        }
        let mut at = DEPTH;
        let mut leaps = 0;
        while at != 0 {
            at = tree.nodes[at].leap as usize;
            leaps += 1;
        }
        assert!(leaps <= 2 * DEPTH.ilog2(), "{leaps}");
    }
}
