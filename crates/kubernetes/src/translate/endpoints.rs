//! Which endpoints of a Service get requests.
//!
//! As kube-proxy chooses them: ready ones; where none is, those that are terminating but still serve
//! (KEP-1669); of the ready ones those that are meant for this node, else for this zone, if every one says
//! whom it is meant for and some are meant for us. Of two families of addresses one is enough, because both
//! lead to the same pods: the Service's first, while it has endpoints. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Endpoint, Target};
use rustc_hash::FxHashMap;

use crate::objects::{EndpointSlice, Family, Hints, Key, SliceEndpoint, Text};

/// Endpoints of one upstream; the rest, in the order of addresses, gets no requests.
pub(super) const ENDPOINTS_MAX: usize = 10_000;

/// A port of a Service, and how its endpoints are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlicePort {
    /// Which Service.
    pub(super) service: Key,
    /// The port's name there, which is its name in the slices.
    pub(super) name: Text,
    /// The preferred family.
    pub(super) family: Option<Family>,
}

/// Where this program runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Locality {
    pub(super) zone: Option<Text>,
    pub(super) node: Option<Text>,
}

/// The slices of one Service.
pub(super) type Slices = FxHashMap<Text, Arc<EndpointSlice>>;

type Candidate<'s> = (SocketAddr, Option<&'s Hints>);

/// In the order of their addresses, each once.
pub(super) fn select(slices: &Slices, port: &SlicePort, locality: &Locality) -> Vec<Endpoint> {
    let mut chosen = candidates(slices, port, |endpoint| endpoint.ready);
    if chosen.is_empty() {
        chosen = candidates(slices, port, |e| e.terminating && e.serving);
    } else {
        keep_close(&mut chosen, locality);
    }
    let preferred = port.family.unwrap_or(Family::V4);
    if chosen.iter().any(|(address, _)| Family::of(address.ip()) == preferred) {
        chosen.retain(|(address, _)| Family::of(address.ip()) == preferred);
    }
    chosen.sort_unstable_by_key(|&(address, _)| address);
    chosen.dedup_by_key(|&mut (address, _)| address);
    chosen.truncate(ENDPOINTS_MAX);
    let endpoint = |(address, _)| Endpoint { target: Target::Address(address), weight: 1 };
    chosen.into_iter().map(endpoint).collect()
}

fn candidates<'s>(
    slices: &'s Slices,
    port: &SlicePort,
    wanted: impl Fn(&SliceEndpoint) -> bool,
) -> Vec<Candidate<'s>> {
    let mut found = Vec::new();
    for slice in slices.values() {
        let Some(&(_, number)) = slice.ports.iter().find(|(name, _)| *name == port.name) else {
            continue;
        };
        let wanted = slice.endpoints.iter().filter(|endpoint| wanted(endpoint));
        found.extend(wanted.map(|e| (SocketAddr::new(e.address, number), e.hints.as_deref())));
    }
    found
}

/// Leaves those that are meant for us, where all say whom they are meant for.
fn keep_close(chosen: &mut Vec<Candidate<'_>>, locality: &Locality) {
    if !keep_meant_for(chosen, locality.node.as_ref(), |hints| &hints.nodes) {
        keep_meant_for(chosen, locality.zone.as_ref(), |hints| &hints.zones);
    }
}

/// At one level; tells whether that level decides.
fn keep_meant_for(
    chosen: &mut Vec<Candidate<'_>>,
    own: Option<&Text>,
    names: impl Fn(&Hints) -> &[Text],
) -> bool {
    let Some(own) = own else { return false };
    let ours = |hints: Option<&Hints>| hints.is_some_and(|h| names(h).contains(own));
    let all_say = chosen.iter().all(|(_, hints)| hints.is_some_and(|h| !names(h).is_empty()));
    let applies = all_say && chosen.iter().any(|&(_, hints)| ours(hints));
    if applies {
        chosen.retain(|&(_, hints)| ours(hints));
    }
    applies
}
