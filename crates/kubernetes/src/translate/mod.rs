//! Objects made into model: pure, without IO or clock, the same output for the same input.
//!
//! Each source (`ingress`, `pods`) makes a [`Draft`] of rules, upstreams and certificates. [`Translator`]
//! puts them together, fills in the endpoints of Services, and keeps what is equal to before, because
//! endpoints change a thousand times as often as routes: a change of endpoints alone costs only its
//! Services and keeps the rules, and so the compiled matcher. Must not know the API. Start at
//! [`Translator::translate`].

mod checks;
mod draft;
mod endpoints;
mod ingress;
mod pods;
mod translator;

use std::sync::Arc;

use model::{Certificate, RuleSet, Upstream};

use crate::objects::{Key, ObjectRef, Text};

pub use crate::store::Changed;
pub use checks::CertificateCheck;
pub use ingress::IngressOptions;
pub use pods::{
    DefaultCertificate, DefaultReturn, InvalidSelector, LabelSelector, POD_VARIABLES, PodOptions,
};
pub use translator::Translator;

pub(crate) use checks::Checks;
pub(crate) use draft::{Draft, Reach};

/// What is translated, and for where.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Ingresses; `None`: not at all.
    pub ingress: Option<IngressOptions>,
    /// Pod annotations; `None`: not at all.
    pub pods: Option<PodOptions>,
    /// The zone that this program runs in (its node's label `topology.kubernetes.io/zone`): endpoints that
    /// are meant for a zone are chosen by it.
    pub zone: Option<Text>,
    /// The node that this program runs on; see [`Self::zone`].
    pub node: Option<Text>,
    /// Whether a certificate can be served; `None`: nobody looks deeper than at its PEM.
    pub check_certificate: Option<CertificateCheck>,
}

/// What the objects come to. Rules refer to upstreams by index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// For http listeners. Order [`model::MatchOrder::MostSpecific`]. The same Arc as in the translation
    /// before, where nothing changed.
    pub rules: Arc<RuleSet>,
    /// For https listeners. The same Arc as [`Self::rules`] where they do not differ (a pod source's hosts
    /// with TLS are served on these alone, its others on http alone).
    pub tls_rules: Arc<RuleSet>,
    /// Each the same Arc as before, where nothing changed. Names are unique.
    pub upstreams: Vec<Arc<Upstream>>,
    /// For https listeners, oldest claim of a name first. Each has been checked and names its hosts.
    pub certificates: Arc<Vec<Certificate>>,
    /// For https listeners, where no other certificate fits: the operator's choice, which goes before
    /// [`Self::certificates`] with [`model::TlsTermination::first_is_default`]. Its hosts are those that
    /// stand in it.
    pub default_certificate: Option<Arc<Certificate>>,
    /// What is wrong with objects; everything else is served all the same. Sorted, so that equal ones
    /// compare equal.
    pub problems: Arc<Vec<Problem>>,
    /// Ingresses of our classes: those whose status is ours to write. Sorted.
    pub ours: Arc<Vec<Key>>,
}

/// What is wrong with an object, said to its owner in an Event and to the operator in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// Which object.
    pub object: ObjectRef,
    /// One word in UpperCamelCase, as Events have it: `InvalidPath`, `MissingService`.
    pub reason: &'static str,
    /// One sentence: place in the object, value found, what was expected, and what becomes of it.
    pub message: String,
}
