//! The Pods of one Namespace that claim the same path: who of them gets requests, and how.
//!
//! Pods come and go while a Deployment rolls; what they say is settled so that no request fails meanwhile.
//! Pure. Must not know hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Endpoint, HealthCheck, Target};

use super::json::{Fault, Shown};
use super::paths::{self, Route};
use super::probes::health_check;
use crate::objects::Pod;
use crate::translate::endpoints::ENDPOINTS_MAX;

/// What is wrong, and with which Pod.
pub(super) type PodFaults<'s> = Vec<(&'s Pod, Fault)>;

/// Claims of a path, the oldest Pod's first.
#[derive(Debug, Default)]
pub(super) struct Group<'s> {
    members: Vec<(&'s Pod, Route)>,
}

/// What a group comes to.
#[derive(Debug)]
pub(super) struct Settled<'s> {
    /// What takes the path's place on the way.
    pub(super) target_path: Option<Arc<str>>,
    /// Who serves it, the oldest Pod first; may be none.
    pub(super) endpoints: Vec<Endpoint>,
    /// How they are asked whether they can.
    pub(super) health_check: Option<HealthCheck>,
    /// Who hears of it where the path is another's.
    pub(super) spokesman: Option<&'s Pod>,
}

/// Sorts the claims of Pods, which are given the oldest first, by path.
pub(super) fn groups<'s>(
    annotation: &str,
    pods: &[&'s Pod],
    faults: &mut PodFaults<'s>,
) -> BTreeMap<String, Group<'s>> {
    let mut groups: BTreeMap<String, Group<'s>> = BTreeMap::new();
    for pod in pods {
        let Some(text) = &pod.paths else { continue };
        let (routes, wrong) = paths::read(annotation, text, &pod.containers);
        faults.extend(wrong.into_iter().map(|fault| (*pod, fault)));
        for route in routes {
            groups.entry(route.base_path.clone()).or_default().members.push((*pod, route));
        }
    }
    groups
}

/// The address of a Pod that gets requests: running, ready, and not on its way out.
fn serving(pod: &Pod) -> Option<std::net::IpAddr> {
    pod.address.filter(|_| pod.running && pod.ready && !pod.meta.deleting)
}

impl<'s> Group<'s> {
    /// The oldest Pod that serves says what the path becomes on the way. Pods that say otherwise get no
    /// requests until those are gone: they were not written for what they would be sent. Where the Pods'
    /// probes differ, none is asked from here: half of the Pods would fail the other half's.
    pub(super) fn settle(&self, health_checks: bool, faults: &mut PodFaults<'s>) -> Settled<'s> {
        let leads = |(pod, _): &&(&Pod, Route)| serving(pod).is_some();
        let lead = self.members.iter().find(leads).or(self.members.first());
        let target_path = lead.and_then(|(_, route)| route.target_path.clone());
        let mut settled = Settled {
            target_path,
            endpoints: Vec::new(),
            health_check: None,
            spokesman: self.members.first().map(|(pod, _)| *pod),
        };
        let mut seen = BTreeSet::new();
        let mut serving_members = Vec::new();
        for (pod, route) in &self.members {
            let Some(address) = serving(pod) else { continue };
            if let Some((lead, _)) = lead.filter(|_| route.target_path != settled.target_path) {
                faults.push((*pod, disagreement(route, lead, settled.target_path.as_deref())));
                continue;
            }
            let address = SocketAddr::new(address, route.port);
            if settled.endpoints.len() < ENDPOINTS_MAX && seen.insert(address) {
                let target = Target::Address(address);
                settled.endpoints.push(Endpoint { target, weight: route.weight });
            }
            serving_members.push((*pod, route));
        }
        if health_checks {
            settled.health_check = agreed_check(&serving_members, faults);
        }
        settled
    }
}

fn disagreement(route: &Route, lead: &Pod, target_path: Option<&str>) -> Fault {
    let named = |path: Option<&str>| {
        path.map_or_else(|| "no targetPath".to_owned(), |p| format!("targetPath {}", Shown(p)))
    };
    let message = format!(
        "basePath {} with {}: Pod {}, which is older, has {}; this Pod gets no requests for it while \
         that one serves",
        Shown(&route.base_path),
        named(route.target_path.as_deref()),
        lead.meta.key.name,
        named(target_path),
    );
    Fault::new("TargetPathDiffers", message)
}

/// The check that all members wish for.
fn agreed_check<'s>(
    members: &[(&'s Pod, &Route)],
    faults: &mut PodFaults<'s>,
) -> Option<HealthCheck> {
    let mut wished = Vec::new();
    for (pod, route) in members {
        let check = pod.containers.get(route.container).map(|c| health_check(c, route.port));
        match check.transpose() {
            Ok(check) => wished.push((*pod, check.flatten())),
            Err(fault) => {
                faults.push((*pod, fault));
                wished.push((*pod, None));
            }
        }
    }
    let (lead, first) = wished.first()?;
    let Some((pod, _)) = wished.iter().find(|(_, check)| check != first) else {
        return first.clone();
    };
    let message = format!(
        "its probe differs from that of Pod {}, which is older and serves the same path; until they agree, \
         the health of neither is checked",
        lead.meta.key.name
    );
    faults.push((*pod, Fault::new("ProbeDiffers", message)));
    None
}
