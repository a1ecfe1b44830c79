//! One request from a parsed head to a finished answer: decide, pick, dial, exchange, record.
//!
//! [`Exchange::answer`] holds the decisions. [`attempt`] speaks to one endpoint, [`request`] writes what it gets,
//! [`reply`] is the way back, [`upstream`] and [`connection`] keep what outlives a request. Must not know which
//! protocol the client speaks: bodies and answers are [`crate::stream`]'s traits.

mod attempt;
pub(crate) mod connection;
mod failure;
mod record;
pub(crate) mod reply;
mod request;
mod trace;
pub(crate) mod upstream;

use std::borrow::Cow;
use std::rc::Rc;

use balance::Tried;
use model::{Action, PathRewrite, UpstreamId};
use net::timer::Timer;

use crate::client::Client;
use crate::head::RequestHead;
use crate::routing::{clean_path, decode_path, normalize_host, strip_match};
use crate::stream::Source;
use crate::worker::Local;
use attempt::Attempt;
use failure::Failure;
use record::Record;
use reply::{OwnAnswer, Reply, Signature, wants_json};
use request::Outgoing;
use trace::TraceParent;
use upstream::Upstream;

/// How an exchange ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It got a whole answer.
    Complete,
    /// The answer was cut off: the client must be able to tell, so the connection or stream is broken.
    Broken,
}

/// What a request is answered with: the program, the listener in it, the client.
#[derive(Debug)]
pub(crate) struct Exchange<'x> {
    pub(crate) client: &'x Client,
    pub(crate) local: &'x Rc<Local>,
    /// The listener's index in the program.
    pub(crate) listener: usize,
    /// Bounds every wait of the exchange.
    pub(crate) timer: &'x Timer,
}

/// What a request asks for, after routing.
#[derive(Debug)]
enum Decision {
    /// Answered here, with the access log's word for it if it is an error.
    Own(OwnAnswer),
    /// Goes wrong before an upstream is asked.
    Fail(Failure),
    /// Goes to an upstream, with that target.
    Forward { upstream: UpstreamId, target: Vec<u8>, response_timeout: Option<std::time::Duration> },
}

impl Exchange<'_> {
    /// Answers a request. Dropped, the upstream connection is closed, and the request is recorded as given up by
    /// the client.
    pub(crate) async fn answer<B: Source, R: Reply>(
        &self,
        head: &mut RequestHead,
        body: &mut B,
        reply: &mut R,
    ) -> Ending {
        let mut record = Record::begin(self, head);
        let decision = self.decide(head, &mut record);
        let failure = match decision {
            Decision::Own(own) => return self.answer_own(own, head, reply, &mut record).await,
            Decision::Fail(failure) => failure,
            Decision::Forward { upstream, target, response_timeout } => {
                let Some(upstream) = self.client.worker.upstream(self.local, upstream) else {
                    return self.fail(Failure::NoEndpoint, head, reply, &mut record).await;
                };
                match self.forward(head, body, reply, &mut record, (upstream, &target, response_timeout)).await {
                    Ok(()) => {
                        record.finish();
                        return Ending::Complete;
                    }
                    Err(failure) => failure,
                }
            }
        };
        self.fail(failure, head, reply, &mut record).await
    }

    fn signature(&self) -> Signature<'_> {
        Signature { worker: &self.client.worker, identity: self.local.program.identity() }
    }

    async fn answer_own(
        &self,
        own: OwnAnswer,
        head: &RequestHead,
        reply: &mut impl Reply,
        record: &mut Record,
    ) -> Ending {
        record.status = own.status;
        match self.timer.guard(own.send(reply, head.is_head(), self.signature())).await {
            Ok(Ok(bytes)) => {
                record.body_bytes = bytes;
                record.finish();
                Ending::Complete
            }
            _ => Ending::Broken,
        }
    }

    /// Answers a failure, if the answer has not begun; else the client's connection is broken.
    async fn fail(
        &self,
        failure: Failure,
        head: &RequestHead,
        reply: &mut impl Reply,
        record: &mut Record,
    ) -> Ending {
        record.error = Some(failure.code());
        tracing::debug!(error = failure.code(), detail = %failure, upstream = %record.upstream_name(), "failed");
        let Some(status) = failure.status().filter(|_| !reply.has_begun()) else {
            if record.status == 0 {
                record.status = failure::CLIENT_CLOSED;
            }
            record.finish();
            return Ending::Broken;
        };
        self.timer.set(self.local.program.snapshot.timeouts.stream_idle);
        let own = OwnAnswer::error(status, failure.code(), failure.message(), wants_json(&head.fields));
        self.answer_own(own, head, reply, record).await
    }

    /// What to do with a request: looks, and changes nothing but the record.
    fn decide(&self, head: &RequestHead, record: &mut Record) -> Decision {
        let program = &self.local.program;
        let Some((_, listener)) = program.listener(self.listener) else {
            return Decision::Fail(Failure::NoRule);
        };
        if let Some(own) = self.gateway_path(head) {
            return Decision::Own(own);
        }
        let path = head.path();
        if path == b"*" {
            return Decision::Own(OwnAnswer::text(200, ""));
        }
        if path.is_empty() {
            return Decision::Fail(Failure::Connect405);
        }
        let Ok(host) = normalize_host(head.authority()) else {
            return Decision::Fail(Failure::BadRequest("the host is malformed"));
        };
        if program.snapshot.manners.redirect_unclean_paths
            && let Some(clean) = std::str::from_utf8(path).ok().and_then(clean_path)
        {
            return Decision::Own(redirect(clean, head));
        }
        let mut scratch = Vec::new();
        let Ok(decoded) = decode_path(path, &mut scratch) else {
            return Decision::Fail(Failure::BadRequest("the path has a malformed percent escape"));
        };
        let Some(found) = listener.router.find(&host, decoded) else {
            return Decision::Fail(Failure::NoRule);
        };
        record.rule(found.scope, found.rule_index);
        let upstream = match &found.rule.action {
            Action::Unavailable { .. } => return Decision::Fail(Failure::MissingUpstream),
            Action::Forward(upstreams) => {
                let key = (self.listener, found.scope, found.rule_index);
                match self.local.choose(&self.client.worker, key, upstreams) {
                    Some(upstream) => upstream,
                    None => return Decision::Fail(Failure::NoEndpoint),
                }
            }
        };
        record.upstream(upstream);
        let target = rewritten(head, found.rule, program.snapshot.manners.redirect_unclean_paths);
        Decision::Forward { upstream, target, response_timeout: found.rule.response_timeout }
    }

    /// The gateway's own paths (`NanoProxy`'s), before any rule.
    fn gateway_path(&self, head: &RequestHead) -> Option<OwnAnswer> {
        let path = head.path().strip_prefix(b"/.nanoproxy/")?;
        let program = &self.local.program;
        match path {
            b"health" if program.snapshot.manners.health_path => Some(OwnAnswer::text(200, "OK")),
            b"config" if program.snapshot.manners.config_path => {
                let dump = program.config_dump.as_deref().unwrap_or_default();
                Some(OwnAnswer::text(200, Cow::Owned(dump.to_owned())))
            }
            _ => None,
        }
    }

    /// Sends the request to endpoints until one answers or no further try is safe.
    async fn forward<B: Source, R: Reply>(
        &self,
        head: &mut RequestHead,
        body: &mut B,
        reply: &mut R,
        record: &mut Record,
        (upstream, target, response_timeout): (Rc<Upstream>, &[u8], Option<std::time::Duration>),
    ) -> Result<(), Failure> {
        let snapshot = &self.local.program.snapshot;
        let worker = &self.client.worker;
        let takes_trailers = head.fields.all(crate::head::Known::Te).any(|v| {
            crate::head::tokens(v).any(|t| t.eq_ignore_ascii_case(b"trailers"))
        });
        head.fields.remove_hop_by_hop();
        let trace = TraceParent::of(
            head.fields.get(crate::head::Known::Traceparent),
            &mut worker.rng.borrow_mut(),
        );
        record.trace(&trace);
        let (model_listener, _) = self.local.program.listener(self.listener).ok_or(Failure::NoRule)?;
        let outgoing = Outgoing {
            head,
            target,
            trusted: model_listener.trusted_hops.contains(self.client.ip),
            client: self.client,
            trace: &trace,
            takes_trailers,
        };
        let attempt = Attempt {
            worker,
            upstream: &upstream,
            client_tls: record.upstream_id().and_then(|id| self.local.program.client_tls(id)).cloned(),
            outgoing: &outgoing,
            timer: self.timer,
            connect_timeout: upstream.model.connect_timeout.unwrap_or(snapshot.timeouts.connect),
            response_timeout: response_timeout
                .or(upstream.model.response_timeout)
                .unwrap_or(snapshot.timeouts.response),
            stream_idle: snapshot.timeouts.stream_idle,
            limits: snapshot.limits,
            signature: self.signature(),
            upgrades: &self.client.cells.upgrades,
        };
        let mut tried = Tried::none();
        loop {
            let picked = upstream.pick(&mut worker.rng.borrow_mut(), &tried);
            let Some((index, endpoint, _in_flight)) = picked else { return Err(Failure::NoEndpoint) };
            record.endpoint(&endpoint);
            let (failure, retry) = match attempt.run(&endpoint, body, reply, record).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let Some(reason) = retry.filter(|_| record.retries < snapshot.limits.retries) else {
                return Err(failure);
            };
            if reason == attempt::Retry::Elsewhere {
                tried.add(index);
                if tried.len() >= upstream.endpoints() {
                    return Err(failure);
                }
            }
            record.retries += 1;
            upstream.cells.retries.add(reason.label());
        }
    }
}

/// A redirect to the cleaned path, with the query as it was.
fn redirect(clean: String, head: &RequestHead) -> OwnAnswer {
    let mut location = clean.into_bytes();
    location.extend_from_slice(head.target().get(head.path().len()..).unwrap_or_default());
    OwnAnswer { location: Some(location), ..OwnAnswer::text(307, "") }
}

/// Path and query as the upstream gets them. `clean`: what stripping makes unclean (`/strip../x`) is cleaned, so that
/// no upstream sees a path that the gateway itself would not take.
fn rewritten(head: &RequestHead, rule: &model::Rule, clean: bool) -> Vec<u8> {
    let (path, target) = (head.path(), head.target());
    match rule.rewrite {
        PathRewrite::Keep => target.to_vec(),
        PathRewrite::StripMatch => {
            let mut changed = strip_match(path, &rule.path).into_owned();
            let cleaned = std::str::from_utf8(&changed).ok().filter(|_| clean).and_then(clean_path);
            if let Some(cleaned) = cleaned {
                changed = cleaned.into_bytes();
            }
            changed.extend_from_slice(target.get(path.len()..).unwrap_or_default());
            changed
        }
    }
}
