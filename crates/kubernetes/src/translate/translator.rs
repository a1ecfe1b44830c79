//! Puts the sources' drafts together and keeps what is equal to before.

use std::sync::Arc;

use model::{Action, MatchOrder, Rule, RuleSet, Upstream, UpstreamId};
use rustc_hash::FxHashMap;

use super::checks::Checks;
use super::draft::object_ref;
use super::endpoints::{ENDPOINTS_MAX, Locality, SlicePort, select};
use super::{Changed, Draft, Options, Problem, Reach, Translation, ingress, pods};
use crate::objects::{Key, Kind};
use crate::store::Store;

/// Translates a store again and again. What it remembers only makes it fast: the same store and options
/// give the same translation, whatever came before.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    locality: Locality,
    checks: Checks,
    /// One for each source, in the order in which they are put together.
    drafts: [Draft; 2],
    /// Where the endpoints of an upstream come from, by its index.
    ports: Vec<Option<SlicePort>>,
    /// The upstreams of a Service.
    bound: FxHashMap<Key, Vec<UpstreamId>>,
    /// What is wrong with the slices of these Services; without those that have nothing wrong.
    slice_problems: FxHashMap<Key, Vec<Problem>>,
    /// `None`: nothing was translated yet.
    last: Option<Translation>,
}

impl Translator {
    /// With nothing translated yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            locality: Locality { zone: options.zone.clone(), node: options.node.clone() },
            checks: Checks::new(options.check_certificate),
            options,
            drafts: Default::default(),
            ports: Vec::new(),
            bound: FxHashMap::default(),
            slice_problems: FxHashMap::default(),
            last: None,
        }
    }

    /// What the store comes to. `changed` must name what changed since the last call; the first call
    /// translates everything. Costs in proportion to all routes and endpoints where routes changed, else to
    /// the endpoints of the Services that did (and one pointer for each upstream).
    pub fn translate(&mut self, store: &Store, changed: Changed) -> Translation {
        let before = self.last.take();
        let everything = changed.is_everything() || before.is_none();
        let before = before.unwrap_or_default();
        let now = if everything || changed.routes() {
            self.draft(store, &changed, everything);
            self.put_together(store, &before)
        } else {
            self.refresh(store, &changed, before)
        };
        self.last = Some(now.clone());
        now
    }

    fn draft(&mut self, store: &Store, changed: &Changed, everything: bool) {
        if everything {
            self.checks.forget();
        }
        let [from_ingress, from_pods] = &mut self.drafts;
        if let Some(options) =
            self.options.ingress.as_ref().filter(|_| everything || changed.ingress())
        {
            self.checks.begin("ingress");
            *from_ingress = ingress::draft(options, store, &mut self.checks);
            self.checks.end();
        }
        if let Some(options) = self.options.pods.as_ref().filter(|_| everything || changed.pods()) {
            self.checks.begin("pods");
            *from_pods = pods::draft(options, store, &mut self.checks);
            self.checks.end();
        }
    }

    fn put_together(&mut self, store: &Store, before: &Translation) -> Translation {
        let upstreams = self.all_upstreams(store, before);
        let (rules, tls_rules) = self.all_rules(before);
        let default_certificate = self.drafts.iter().find_map(|d| d.default_certificate.clone());
        let certificates =
            self.drafts.iter().flat_map(|d| d.certificates.iter().cloned()).collect();
        let mut ours: Vec<Key> = self.drafts.iter().flat_map(|d| d.ours.iter().cloned()).collect();
        ours.sort();
        self.slice_problems = self
            .bound
            .keys()
            .map(|service| (service.clone(), slice_problems(store, service)))
            .filter(|(_, problems)| !problems.is_empty())
            .collect();
        Translation {
            rules,
            tls_rules,
            upstreams,
            certificates: kept(&before.certificates, certificates),
            default_certificate: match (&before.default_certificate, default_certificate) {
                (Some(before), Some(now)) if *before == now => Some(Arc::clone(before)),
                (_, now) => now,
            },
            problems: kept(&before.problems, self.all_problems()),
            ours: kept(&before.ours, ours),
        }
    }

    fn all_upstreams(&mut self, store: &Store, before: &Translation) -> Vec<Arc<Upstream>> {
        let known: FxHashMap<&str, &Arc<Upstream>> =
            before.upstreams.iter().map(|upstream| (&*upstream.name, upstream)).collect();
        let mut all: Vec<Upstream> = Vec::new();
        self.ports.clear();
        self.bound.clear();
        for draft in &self.drafts {
            let offset = all.len();
            all.extend(draft.upstreams.iter().cloned());
            self.ports.resize(all.len(), None);
            for (id, port) in &draft.sliced {
                let id = UpstreamId(id.0 + offset);
                if let Some(slices) = store.slices.get(&port.service) {
                    all[id.0].endpoints = select(slices, port, &self.locality);
                }
                self.ports[id.0] = Some(port.clone());
                self.bound.entry(port.service.clone()).or_default().push(id);
            }
        }
        all.into_iter()
            .map(|upstream| match known.get(&*upstream.name) {
                Some(before) if ***before == upstream => Arc::clone(before),
                _ => Arc::new(upstream),
            })
            .collect()
    }

    fn all_rules(&self, before: &Translation) -> (Arc<RuleSet>, Arc<RuleSet>) {
        let mut sets = [Vec::new(), Vec::new()];
        let mut offset = 0;
        let mut differ = false;
        for draft in &self.drafts {
            for (rule, reach) in &draft.rules {
                let rule = shifted(rule, offset);
                differ |= *reach != Reach::Everywhere;
                match reach {
                    Reach::Everywhere => {
                        sets[1].push(rule.clone());
                        sets[0].push(rule);
                    }
                    Reach::PlainOnly => sets[0].push(rule),
                    Reach::TlsOnly => sets[1].push(rule),
                }
            }
            offset += draft.upstreams.len();
        }
        if self.options.pods.is_some() {
            // That source has a rule for every host that nobody named: these are named. Behind it, as a host of
            // both is its.
            let unmatched = ingress::unmatched_paths(&self.drafts[0]);
            sets.iter_mut().for_each(|rules| rules.extend(unmatched.iter().cloned()));
        }
        let [plain, tls] = sets.map(|rules| RuleSet { order: MatchOrder::MostSpecific, rules });
        let plain = kept(&before.rules, plain);
        let tls = if differ { kept(&before.tls_rules, tls) } else { Arc::clone(&plain) };
        (plain, tls)
    }

    fn all_problems(&self) -> Vec<Problem> {
        let drafted = self.drafts.iter().flat_map(Draft::problems);
        let sliced = self.slice_problems.values().flatten().cloned();
        let mut all: Vec<Problem> = drafted.chain(sliced).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The endpoints of these Services alone.
    fn refresh(&mut self, store: &Store, changed: &Changed, mut now: Translation) -> Translation {
        let mut problems_differ = false;
        for service in changed.services() {
            let Some(ids) = self.bound.get(service) else { continue };
            for &UpstreamId(id) in ids {
                let Some(port) = &self.ports[id] else { continue };
                let slices = store.slices.get(service);
                let endpoints = slices.map(|s| select(s, port, &self.locality)).unwrap_or_default();
                if now.upstreams[id].endpoints != endpoints {
                    let before = (*now.upstreams[id]).clone();
                    now.upstreams[id] = Arc::new(Upstream { endpoints, ..before });
                }
            }
            let problems = slice_problems(store, service);
            let before = if problems.is_empty() {
                self.slice_problems.remove(service).unwrap_or_default()
            } else {
                self.slice_problems.insert(service.clone(), problems.clone()).unwrap_or_default()
            };
            problems_differ |= before != problems;
        }
        if problems_differ {
            now.problems = kept(&now.problems, self.all_problems());
        }
        now
    }
}

/// The value before where the new one is equal to it.
fn kept<T: PartialEq>(before: &Arc<T>, now: T) -> Arc<T> {
    if **before == now { Arc::clone(before) } else { Arc::new(now) }
}

/// A rule of a draft whose upstreams come behind so many others.
fn shifted(rule: &Rule, offset: usize) -> Rule {
    let mut rule = rule.clone();
    if let Action::Forward(targets) = &mut rule.action {
        for target in targets {
            target.upstream.0 += offset;
        }
    }
    rule
}

fn slice_problems(store: &Store, service: &Key) -> Vec<Problem> {
    let Some(slices) = store.slices.get(service) else { return Vec::new() };
    let mut problems = Vec::new();
    for slice in slices.values().filter(|slice| !slice.flaws.is_empty()) {
        problems.extend(slice.flaws.iter().map(|flaw| Problem {
            object: object_ref(Kind::EndpointSlice, &slice.meta),
            reason: "UnusableEndpoint",
            message: flaw.to_string(),
        }));
    }
    let endpoints: usize = slices.values().map(|slice| slice.endpoints.len()).sum();
    if endpoints > ENDPOINTS_MAX
        && let Some(slice) = slices.values().min_by(|a, b| a.meta.key.cmp(&b.meta.key))
    {
        problems.push(Problem {
            object: object_ref(Kind::EndpointSlice, &slice.meta),
            reason: "TooManyEndpoints",
            message: format!(
                "Service {service} has {endpoints} endpoints; only {ENDPOINTS_MAX} get requests"
            ),
        });
    }
    problems.sort();
    problems
}
