//! Finds out whether hosts that have not been heard are there, beside the connections and not in their way: each is
//! dialled, and the connection closed. An original does so itself when its client goes away.
//!
//! What is not heard is asked after what is ([`crate::hosts::order`]); so a host that is silent costs nobody its time,
//! and one that is there has its share as soon as it has answered.

use std::sync::Arc;
use std::time::Duration;

use crate::Millis;
use crate::asking::unreached;
use crate::hosts::Knock;
use crate::shared::{Shared, State};

/// Hosts that one connection, or the start, has dialled.
const KNOCKED_AT_ONCE_MAX: usize = 64;

/// Dials every host of the state that has not been heard. Returns at once.
pub fn all(shared: &Arc<Shared>) {
    let state = shared.state();
    at_unheard(shared, &state, shared.now());
}

/// Dials those that have not been heard, that nobody else dials, and that were not found silent just now.
pub(crate) fn at_unheard(shared: &Shared, state: &State, now: Millis) {
    let within = state.settings.times.host;
    let knocks = state.hosts.iter().filter_map(|host| host.knock(now));
    for knock in knocks.take(KNOCKED_AT_ONCE_MAX) {
        drop(net::task::spawn("knock", one(shared.asker(state), knock, within)));
    }
}

async fn one(asker: crate::asking::Asker, knock: Knock, within: Duration) {
    let dialled = asker.dialer.connect_tcp(&knock.host().target, within).await;
    knock.answered(dialled.map(drop).map_err(|error| unreached(&error)), asker.clock.now());
}
