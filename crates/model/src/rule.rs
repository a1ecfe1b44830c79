//! Rules: which requests, and what happens to them. Each source's precedence is kept as data ([`MatchOrder`]).

use std::time::Duration;

use crate::{HostPattern, Name, Place, UpstreamId};

/// Rules that are tried together, in an order that their source defines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleSet {
    /// Which of several matching rules wins.
    pub order: MatchOrder,
    /// The rules, in the order of their source.
    pub rules: Vec<Rule>,
}

/// Which of several matching rules wins. Sources differ, and none is bent to another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatchOrder {
    /// The first in the order of the source (`NanoProxy` files). A rule whose action is [`Action::Unavailable`]
    /// stands behind all others: it answers only where nothing else would.
    #[default]
    First,
    /// The longest path, then the first (pod annotations, as nginx's prefix locations).
    LongestPath,
    /// Exact host before wildcard (the longer name first, `*.` before `**.`) before any; then an exact path before
    /// prefixes; then the longest path; then the first (Ingress).
    MostSpecific,
}

/// What happens to requests of some hosts and paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique in its set; a metric label and what `explain` prints.
    pub name: Name,
    /// Which hosts.
    pub hosts: HostPattern,
    /// Which paths.
    pub path: PathMatch,
    /// How the path changes on the way.
    pub rewrite: PathRewrite,
    /// What then.
    pub action: Action,
    /// In place of the snapshot's response timeout.
    pub response_timeout: Option<Duration>,
    /// Where it was declared.
    pub place: Place,
}

/// Which paths. Compared with the percent-decoded path, without the query, with regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// This path alone.
    Exact(String),
    /// Every path that begins with these characters; `/api` matches `/apis` (`NanoProxy`, annotations).
    Prefix(String),
    /// Every path whose first segments are these; `/api` and `/api/` both match `/api` and `/api/x`, neither
    /// matches `/apis` (Ingress, Gateway API).
    Segments(String),
    /// No path: a rule that can never match, kept so that it can be reported.
    Never,
}

/// How the path changes on its way to the upstream. The query and the encoding of what stays are untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathRewrite {
    /// Not at all: the bytes that came.
    #[default]
    Keep,
    /// The part that [`Rule::path`] matched goes; what is left gets a leading slash if it has none.
    StripMatch,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends the request to one of these, by weight. Never empty.
    Forward(Vec<UpstreamRef>),
    /// 503, for a reason that is the operator's to mend: the upstream named here does not exist.
    Unavailable {
        /// The name that the source gave.
        upstream: Name,
    },
}

/// One of the upstreams of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamRef {
    /// Which one, in the snapshot of the rule.
    pub upstream: UpstreamId,
    /// Its share of the requests, beside the others' of the rule; 0 gets none.
    pub weight: u32,
}
