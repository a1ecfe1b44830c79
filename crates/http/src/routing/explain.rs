//! Why a request takes the rule it takes, for a person. A plain loop; not for the request path.

use std::fmt;

use model::{Action, HostPattern, Listener, Name, PathMatch, Rule, RuleSet};

use super::precedence::{Precedence, Reason};
use super::reference;

/// What became of a request's search for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The index of the scope in [`Listener::scopes`]; `None` where none is for the host.
    pub scope: Option<usize>,
    /// The index of the rule in the scope's [`RuleSet`]; `None` where none fits.
    pub rule: Option<usize>,
    /// Why not, for each rule before the chosen one in the order of its source; for all where none was
    /// chosen.
    pub passed_over: Vec<(usize, Verdict)>,
}

/// Why a rule was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can never match: its source gave it conditions that nothing fulfils.
    NeverMatches,
    /// It is for other hosts.
    HostDiffers {
        /// Those.
        wanted: HostPattern,
    },
    /// It is for other paths.
    PathDiffers {
        /// Those.
        wanted: PathMatch,
    },
    /// It fits, but its upstream does not exist and a later rule answers.
    Unavailable {
        /// The name that the source gave.
        upstream: Name,
    },
    /// It fits, but the chosen one goes before it.
    LowerPrecedence {
        /// What the chosen one has that this one has not.
        because: Reason,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverMatches => f.write_str("can never match"),
            Self::HostDiffers { wanted } => write!(f, "is for host {wanted}"),
            Self::PathDiffers { wanted } => match wanted {
                PathMatch::Any => f.write_str("is for every path"),
                PathMatch::Exact(text) => write!(f, "is for the path {text} alone"),
                PathMatch::Prefix(text) => write!(f, "is for paths that begin with {text}"),
                PathMatch::Segments(text) => write!(f, "is for {text} and the paths below it"),
                PathMatch::Never => f.write_str("is for no path"),
            },
            Self::Unavailable { upstream } => {
                write!(f, "fits, but upstream {upstream} does not exist and a later rule answers")
            }
            Self::LowerPrecedence { because: Reason::NoFallback } => {
                f.write_str("fits, but it is a fallback, which stands behind all others")
            }
            Self::LowerPrecedence { because } => write!(f, "fits, but the chosen rule {because}"),
        }
    }
}

/// Explains which rule of a listener a request takes. `host` and `path` as for [`super::Router::find`].
#[must_use]
pub fn explain(listener: &Listener, host: &str, path: &[u8]) -> Explanation {
    let scope = reference::scope(listener, host);
    let Some(rules) = scope.and_then(|at| listener.scopes.get(at)).map(|scope| &scope.rules) else {
        return Explanation { scope, rule: None, passed_over: Vec::new() };
    };
    let rule = reference::find(rules, host, path);
    let before = rules.rules.iter().enumerate().take(rule.unwrap_or(usize::MAX));
    let passed_over =
        before.map(|(at, passed)| (at, verdict(rules, (at, passed), rule, host, path))).collect();
    Explanation { scope, rule, passed_over }
}

/// Why a rule that comes before the chosen one was not taken.
fn verdict(
    rules: &RuleSet,
    (index, rule): (usize, &Rule),
    chosen: Option<usize>,
    host: &str,
    path: &[u8],
) -> Verdict {
    if rule.path == PathMatch::Never {
        return Verdict::NeverMatches;
    }
    if !rule.hosts.matches(host) {
        return Verdict::HostDiffers { wanted: rule.hosts.clone() };
    }
    let Some(chosen) = chosen.filter(|_| reference::path_matches(&rule.path, path)) else {
        return Verdict::PathDiffers { wanted: rule.path.clone() };
    };
    let precedence = |at: usize, rule| Precedence::of(rules.order, rule, at);
    let because = precedence(chosen, &rules.rules[chosen]).reason_before(&precedence(index, rule));
    match (&rule.action, because) {
        (Action::Unavailable { upstream }, Reason::Available) => {
            Verdict::Unavailable { upstream: upstream.clone() }
        }
        _ => Verdict::LowerPrecedence { because },
    }
}
