//! What one source comes to before it is put together with the others.

use std::sync::Arc;

use model::{Certificate, Name, Rule, Upstream, UpstreamId};
use rustc_hash::FxHashMap;

use super::Problem;
use super::endpoints::SlicePort;
use crate::objects::{Key, Kind, Meta, ObjectRef};

/// Problems said of one object; of the rest only the number.
const PROBLEMS_PER_OBJECT_MAX: usize = 10;

/// What one source comes to. Its rules refer to [`Self::upstreams`] by index; the indices of others do not
/// matter.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Each with the listeners that serve it. Names are unique over all sources: they begin with the
    /// source's.
    pub(crate) rules: Vec<(Rule, Reach)>,
    /// See [`Self::upstream`], which keeps names unique.
    pub(crate) upstreams: Vec<Upstream>,
    /// Upstreams whose endpoints come from the EndpointSlices of a Service and are filled in later.
    pub(super) sliced: Vec<(UpstreamId, SlicePort)>,
    /// Checked, each with its hosts, oldest claim first.
    pub(crate) certificates: Vec<Certificate>,
    /// Where no other fits.
    pub(crate) default_certificate: Option<Arc<Certificate>>,
    /// See [`Self::problem`], which bounds them.
    problems: Vec<Problem>,
    /// Ingresses of our classes.
    pub(crate) ours: Vec<Key>,
    names: FxHashMap<Name, UpstreamId>,
    /// How many problems each object has, whether they stand in [`Self::problems`] or not.
    counts: FxHashMap<ObjectRef, usize>,
}

/// Which listeners serve a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All.
    Everywhere,
    /// Those of protocol http.
    PlainOnly,
    /// Those of protocol https.
    TlsOnly,
}

impl Draft {
    /// Adds an upstream. Of two with the same name the second is renamed.
    pub(crate) fn upstream(&mut self, mut upstream: Upstream) -> UpstreamId {
        let wanted = upstream.name.clone();
        let mut copy = 1;
        while self.names.contains_key(&upstream.name) {
            copy += 1;
            upstream.name = format!("{wanted}~{copy}").into();
        }
        let id = UpstreamId(self.upstreams.len());
        self.names.insert(upstream.name.clone(), id);
        self.upstreams.push(upstream);
        id
    }

    /// Adds a problem with an object, unless it has too many already: then only their number is said.
    pub(crate) fn problem(
        &mut self,
        kind: Kind,
        meta: &Meta,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let object = object_ref(kind, meta);
        let count = self.counts.entry(object.clone()).or_default();
        *count += 1;
        if *count <= PROBLEMS_PER_OBJECT_MAX {
            self.problems.push(Problem { object, reason, message: message.into() });
        }
    }

    /// What is wrong with objects, in no order.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let many = self.counts.iter().filter(|(_, count)| **count > PROBLEMS_PER_OBJECT_MAX);
        let unsaid = many.map(|(object, count)| Problem {
            object: object.clone(),
            reason: "MoreProblems",
            message: format!("and {} more, which are not listed", count - PROBLEMS_PER_OBJECT_MAX),
        });
        self.problems.iter().cloned().chain(unsaid)
    }
}

/// Names an object.
pub(crate) fn object_ref(kind: Kind, meta: &Meta) -> ObjectRef {
    ObjectRef { kind, key: meta.key.clone(), uid: meta.uid.clone() }
}
