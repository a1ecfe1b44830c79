//! Agents' streams: who they say they are, and the packets that they send.
//!
//! Must not know clients.

use std::sync::Arc;

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};

use super::admission::{Identity, Peer, Refused};
use super::hub::{Backend, Hub};
use crate::carrier::{Carrier, CarrierError};
use crate::grpc::{self, PacketReader};
use crate::http2::RoundTrip;
use crate::identifiers::Identifiers;
use crate::link::{Flow, Side};
use crate::packet::{Message, Packet};
use crate::{AGENT_FIELD, FEATURES, FEATURES_FIELD};

/// The longest name of an agent.
const AGENT_ID_BYTES_MAX: usize = 1024;

/// What an agent says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) id: String,
    pub(super) identifiers: Identifiers,
    pub(super) flow: Flow,
    /// Which agent of ours this is, for those that have several carriers.
    pub(super) process: Option<u64>,
}

/// Serves one call of an agent until it ends. Dropped, its connections are closed.
pub(super) async fn serve(
    hub: Arc<Hub>,
    peer: Peer,
    (request, mut respond): (Request<RecvStream>, SendResponse<Message>),
    round_trip: RoundTrip,
) {
    let (hello, identity) = match admitted(&hub, &peer, request.headers()).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            hub.stats.refused_agents.count(refused.reason());
            tracing::warn!(%peer, reason = %refused, "an agent was refused");
            return grpc::refuse(&mut respond, refused.code(), refused.told());
        }
    };
    let mut head = grpc::response();
    head.headers_mut().extend(our_fields(&hub, hello.flow));
    let Ok(mut out) = respond.send_response(head, false) else { return };
    let carrier = Carrier::new(Side::Server, hello.flow, round_trip);
    let backend = Backend::new(carrier.clone(), hello.process);
    let number = hub.add(hello.id.clone(), hello.identifiers.clone(), backend.clone());
    let _present = Present { hub: &hub, number, backend: &backend };
    tracing::info!(
        agent = hello.id, identifiers = %hello.identifiers, flow = ?hello.flow, %peer, %identity,
        "an agent has come"
    );
    let mut packets = PacketReader::new(request.into_body());
    let ended = tokio::select! {
        ended = receive(&hub, number, &backend, &mut packets) => ended.inspect_err(|error| {
            if let CarrierError::Stream(error) = error {
                hub.stats.stream_failed("from_agent", error, None);
            }
        }),
        error = carrier.run_sender(&mut out, |packet| hub.stats.to_agent.count(packet)) => {
            hub.stats.stream_failed("to_agent", &error, None);
            Err(CarrierError::Stream(error))
        }
        error = carrier.run_expiry() => Err(CarrierError::Stream(error)),
        problem = hub.admission.withdrawn(&identity, &hello) => {
            return withdraw(&hub, &hello, (&peer, &problem), &mut out);
        }
    };
    match ended {
        Ok(()) => {
            tracing::info!(agent = hello.id, "an agent has gone");
            let _ = out.send_trailers(grpc::trailers(grpc::OK, ""));
        }
        // As when it has a stream to this server already, and looks for others.
        Err(error) if error.is_cancelled() => tracing::info!(agent = hello.id, "an agent has gone"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(agent = hello.id, error, "an agent's stream has ended");
            let _ = out.send_trailers(grpc::trailers(grpc::UNKNOWN, &error.to_string()));
        }
    }
}

async fn admitted(
    hub: &Hub,
    peer: &Peer,
    fields: &HeaderMap,
) -> Result<(Hello, Identity), Refused> {
    let hello = hello(fields).map_err(Refused::Malformed)?;
    let identity = hub.admission.admit(peer, fields, &hello).await?;
    Ok((hello, identity))
}

/// Ends the stream of an agent that may not be what it is any more.
fn withdraw(
    hub: &Hub,
    hello: &Hello,
    (peer, problem): (&Peer, &str),
    out: &mut SendStream<Message>,
) {
    let refused = Refused::NotAllowed(problem.to_owned());
    hub.stats.refused_agents.count(refused.reason());
    tracing::warn!(agent = hello.id, %peer, problem, "an agent is sent away: the policy has changed");
    let _ = out.send_trailers(grpc::trailers(refused.code(), refused.told()));
}

/// Takes the agent away when it is gone, however that came.
struct Present<'a> {
    hub: &'a Hub,
    number: u64,
    backend: &'a Backend,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.hub.remove(self.number);
        self.backend.end("the agent has gone");
    }
}

fn our_fields(hub: &Hub, flow: Flow) -> HeaderMap {
    let mut fields = HeaderMap::new();
    if let Ok(id) = HeaderValue::from_str(&hub.settings.server_id) {
        fields.insert("serverid", id);
    }
    fields.insert("servercount", HeaderValue::from(hub.settings.server_count));
    if flow == Flow::Credit {
        fields.insert(FEATURES_FIELD, HeaderValue::from_static(FEATURES));
    }
    fields
}

fn hello(fields: &HeaderMap) -> Result<Hello, &'static str> {
    let mut ids = fields.get_all("agentid").iter();
    let (Some(id), None) = (ids.next(), ids.next()) else {
        return Err("expected one agent ID in the context");
    };
    let id = id.to_str().ok().filter(|id| id.len() <= AGENT_ID_BYTES_MAX);
    let id = id.ok_or("expected an agent ID of at most 1024 printable characters")?.to_owned();
    let mut all = fields.get_all("agentidentifiers").iter();
    let identifiers = match (all.next(), all.next()) {
        (None, _) => Identifiers::default(),
        (Some(text), None) => {
            let text = text.to_str().map_err(|_| "expected identifiers in printable characters")?;
            Identifiers::parse_lenient(text).map_err(|_| "expected identifiers as key=value&…")?
        }
        _ => return Err("expected at most one set of agent identifiers in the context"),
    };
    let ours = fields.get(FEATURES_FIELD).is_some_and(|value| value == FEATURES);
    let flow = if ours { Flow::Credit } else { Flow::Buffered };
    let process = fields.get(AGENT_FIELD).and_then(|number| number.to_str().ok()?.parse().ok());
    Ok(Hello { id, identifiers, flow, process })
}

async fn receive(
    hub: &Hub,
    number: u64,
    backend: &Backend,
    packets: &mut PacketReader,
) -> Result<(), CarrierError> {
    while let Some(packet) = backend.carrier.next(packets).await? {
        hub.stats.from_agent.count(&packet);
        match packet {
            Packet::DialResponse { error, connection, dial } => {
                if !backend.answer(dial, connection, error)? {
                    hub.stats.unrecognized_responses.add(1);
                }
            }
            Packet::CloseDial { dial } => backend.give_up(dial),
            Packet::Drain => {
                tracing::info!("an agent is about to go");
                hub.drain(number);
            }
            Packet::DialRequest { .. } => {}
            other => backend.carrier.receive(other)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn an_agent_says_who_it_is_exactly_once() {
        let found =
            hello(&fields(&[("agentid", "a"), ("agentidentifiers", "host=h&new=1")])).unwrap();
        assert_eq!((found.id.as_str(), found.flow), ("a", Flow::Buffered));
        assert_eq!(found.identifiers.host, ["h"]);
        let ours = hello(&fields(&[("agentid", "a"), (FEATURES_FIELD, FEATURES)])).unwrap();
        assert_eq!(ours.flow, Flow::Credit);
        for pairs in [
            &[][..],
            &[("agentid", "a"), ("agentid", "b")],
            &[("agentid", "a"), ("agentidentifiers", "host=h"), ("agentidentifiers", "host=i")],
            &[("agentid", "a"), ("agentidentifiers", "host=%ff")],
        ] {
            assert!(hello(&fields(pairs)).is_err(), "{pairs:?}");
        }
    }
}
