//! Rules: which requests, and what happens to them. Each source's precedence is kept as data
//! ([`MatchOrder`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{HostName, HostPattern, Name, Place, UpstreamId};

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
    /// The first in the order of the source (`NanoProxy` files). A rule whose action is
    /// [`Action::Unavailable`] stands behind all others but fallbacks: it answers only where nothing else
    /// would.
    #[default]
    First,
    /// The longest path, then the first (pod annotations, as nginx's prefix locations).
    LongestPath,
    /// Exact host before wildcard (the longer name first, `*.` before `**.`) before any; then an exact path
    /// before prefixes; then the longest path; then the first (Ingress).
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
    /// Stands behind every rule that is none, whatever the order: answers only where nothing else does (a
    /// default backend). Among several, the order decides.
    pub fallback: bool,
    /// What a request must carry to be let through; 403 where it does not.
    pub api_key: Option<Arc<ApiKey>>,
    /// In place of the snapshot's bound on a request's body.
    pub request_body_max: Option<u64>,
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

/// How the path changes on its way to the upstream, or to where the client is sent. The query and the encoding of
/// what stays are untouched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathRewrite {
    /// Not at all: the bytes that came.
    #[default]
    Keep,
    /// The part that [`Rule::path`] matched goes; what is left gets a leading slash if it has none.
    StripMatch,
    /// The part that [`Rule::path`] matched is replaced by this path, which begins with a slash (a pod's
    /// `targetPath`). There is never more than one slash at the seam, and there is one where the matched
    /// part ended in one: `/a` to `/b` makes `/b/x` of `/a/x` and `/bx` of `/ax`; `/a/` to `/b` makes
    /// `/b/x` of `/a/x`. [`PathMatch::Any`] matches nothing of the path, so that this one is put before it.
    ReplaceMatch(Arc<str>),
    /// This path, which begins with a slash, stands in place of the whole.
    ReplaceWhole(Arc<str>),
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
    /// This status, with a body that names it.
    Respond {
        /// 200 to 599.
        status: u16,
    },
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// The connection (HTTP/2: the stream) closes without an answer, as if nobody was there.
    Close,
}

/// Where a client is sent (RFC 9110 section 15.4): what it asked for, with what is given here in its place, and
/// the path as [`Rule::rewrite`] makes it. The query stays.
///
/// Where only the path changes, `Location` is a path alone, so that it is right behind any proxy. Else it is a
/// whole URL, and its port, where none is given, is the scheme's own if a scheme is given, and if not the one that
/// the client named. (Gateway API wants that of the Gateway's listener there: its source has to give it.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// In place of the one that the client used.
    pub scheme: Option<Scheme>,
    /// In place of the one that the client named.
    pub host: Option<HostName>,
    /// The port; left out of the URL where it is the scheme's own.
    pub port: Option<u16>,
}

impl Redirect {
    /// Whether it says nothing but a path.
    #[must_use]
    pub fn is_relative(&self) -> bool {
        self.scheme.is_none() && self.host.is_none() && self.port.is_none()
    }
}

/// The scheme of a URL that is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Without regard to case (RFC 3986 section 3.1).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
    }
}

/// A shared secret in a request field.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The field's name, in lower case.
    pub header: Name,
    /// The whole value that it must have. Compared in constant time.
    pub value: Arc<[u8]>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is a secret.
        f.debug_struct("ApiKey").field("header", &self.header).finish_non_exhaustive()
    }
}

/// One of the upstreams of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamRef {
    /// Which one, in the snapshot of the rule.
    pub upstream: UpstreamId,
    /// Its share of the requests, beside the others' of the rule; 0 gets none.
    pub weight: u32,
}
