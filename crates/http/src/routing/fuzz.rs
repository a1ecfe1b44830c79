//! The compiled tables against the naive loop, on rules and requests made from arbitrary bytes. Names and
//! paths are drawn from a handful of characters, so that they collide, nest and end in each other all the
//! time.

use std::sync::Arc;

use model::{
    Action, HostName, HostPattern, HttpVersions, Listener, ListenerProtocol, MatchOrder, PathMatch,
    PathRewrite, Place, Rule, RuleSet, Scope, TrustedHops, UpstreamId, UpstreamRef,
};

use super::rules::CompiledRules;
use super::{Router, decode_path, explain, reference, rewritten};

const SCOPES_MAX: usize = 3;
const RULES_MAX: usize = 40;
const REQUESTS_MAX: usize = 24;

/// Arbitrary bytes as a stream of small choices; 0 when they are used up.
struct Choices<'d>(&'d [u8]);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first) % bound
    }

    fn host(&mut self) -> String {
        // The last makes names longer than those that lie beside their values.
        let labels = ["a", "b", "aa", "a-label-longer-than-any-other-label"];
        let count = 1 + self.below(4);
        let labels: Vec<&str> = (0..count).map(|_| labels[self.below(labels.len())]).collect();
        labels.join(".")
    }

    fn pattern(&mut self) -> HostPattern {
        let kind = self.below(5);
        let Ok(name) = HostName::parse(&self.host()) else { return HostPattern::Any };
        match kind {
            0 | 1 => HostPattern::Exact(name),
            2 => HostPattern::OneLabel(name),
            3 => HostPattern::ManyLabels(name),
            _ => HostPattern::Any,
        }
    }

    fn path(&mut self) -> String {
        const PIECES: [&str; 8] = ["/", "/", "a", "b", "/a", "/b", "aa", "é"];
        let count = self.below(7);
        let slash = if self.below(8) == 0 { "" } else { "/" };
        std::iter::once(slash).chain((0..count).map(|_| PIECES[self.below(8)])).collect()
    }

    fn rule(&mut self, index: usize) -> Rule {
        let hosts = self.pattern();
        let path = match self.below(12) {
            0..3 => PathMatch::Exact(self.path()),
            3..7 => PathMatch::Prefix(self.path()),
            7..10 => PathMatch::Segments(self.path()),
            10 => PathMatch::Any,
            _ => PathMatch::Never,
        };
        let action = match self.below(5) {
            0 => Action::Unavailable { upstream: "missing".into() },
            _ => Action::Forward(vec![UpstreamRef { upstream: UpstreamId(0), weight: 1 }]),
        };
        Rule {
            name: index.to_string().into(),
            hosts,
            path,
            rewrite: PathRewrite::Keep,
            fallback: self.below(6) == 0,
            api_key: None,
            request_body_max: None,
            action,
            response_timeout: None,
            place: Place::whole("fuzz"),
        }
    }

    fn rules(&mut self) -> Arc<RuleSet> {
        let order = match self.below(3) {
            0 => MatchOrder::First,
            1 => MatchOrder::LongestPath,
            _ => MatchOrder::MostSpecific,
        };
        let count = self.below(RULES_MAX + 1);
        Arc::new(RuleSet { order, rules: (0..count).map(|index| self.rule(index)).collect() })
    }

    fn listener(&mut self) -> Listener {
        let sets = [self.rules(), self.rules()];
        let count = 1 + self.below(SCOPES_MAX);
        let mut scope = |index| Scope {
            hosts: if index == 0 { HostPattern::Any } else { self.pattern() },
            rules: Arc::clone(&sets[index % sets.len()]),
        };
        Listener {
            name: "fuzz".into(),
            address: ([127, 0, 0, 1], 0).into(),
            protocol: ListenerProtocol::Http,
            protocols: HttpVersions::default(),
            scopes: (0..count).map(&mut scope).collect(),
            trusted_hops: TrustedHops::default(),
            place: Place::whole("fuzz"),
        }
    }
}

/// Reads rules and requests from arbitrary bytes and looks each request up in every way there is.
///
/// # Panics
/// Where the compiled tables and the naive loop disagree: that is its purpose.
pub fn fuzz_compare(data: &[u8]) {
    let mut choices = Choices(data);
    let listener = choices.listener();
    let router = Router::compile(&listener);
    let indexed: Vec<CompiledRules> =
        listener.scopes.iter().map(|s| CompiledRules::compile_bounded(&s.rules, 0)).collect();
    for _ in 0..REQUESTS_MAX {
        if choices.0.is_empty() {
            return;
        }
        let host = if choices.below(16) == 0 { String::new() } else { choices.host() };
        let raw = choices.path();
        let accepted = choices.below(256);
        let accept = |index: usize| accepted >> (index % 8) & 1 == 1;
        let context = || format!("{host:?} {raw:?} {accepted:08b} of {listener:#?}");

        let mut scratch = Vec::new();
        let Ok(path) = decode_path(raw.as_bytes(), &mut scratch) else { continue };
        let scope = reference::scope(&listener, &host);
        assert_eq!(router.scope(&host), scope, "{}", context());
        let rules = scope.map(|at| &listener.scopes[at].rules);
        let wanted = rules.and_then(|rules| reference::find(rules, &host, path));
        let wanted_where =
            rules.and_then(|rules| reference::find_where(rules, &host, path, accept));

        let found = router.find(&host, path);
        assert_eq!(found.map(|m| m.rule_index), wanted, "{}", context());
        let found_where = router.find_where(&host, path, accept);
        assert_eq!(found_where.map(|m| m.rule_index), wanted_where, "{}", context());
        if let Some(indexed) = scope.map(|at| &indexed[at]) {
            assert_eq!(indexed.find(&host, path), wanted, "indexed: {}", context());
            let indexed_where = indexed.find_where(&host, path, accept);
            assert_eq!(indexed_where, wanted_where, "indexed: {}", context());
        }
        let explained = explain(&listener, &host, path);
        assert_eq!((explained.scope, explained.rule), (scope, wanted), "{}", context());
        if let Some(found) = found {
            rewrites(found.rule, &raw);
        }
    }
}

/// Whatever is done with a path, there is a slash before it, and what follows it stays.
fn rewrites(rule: &Rule, raw: &str) {
    let target = format!("{raw}?q=//");
    for rewrite in [PathRewrite::StripMatch, PathRewrite::ReplaceMatch("/with/".into())] {
        let rule = Rule { rewrite, ..rule.clone() };
        for clean in [false, true] {
            let new = rewritten(target.as_bytes(), &rule, clean);
            let changed = *new != *target.as_bytes();
            let context =
                || format!("{target:?} {:?} {:?}", rule.path, String::from_utf8_lossy(&new));
            assert!(!changed || new.starts_with(b"/"), "{}", context());
            assert!(new.ends_with(b"?q=//"), "{}", context());
            let unclean = clean && new.starts_with(b"/with//");
            assert!(!unclean, "{}", context());
        }
    }
}
