//! One request from a parsed head to a finished answer: decide, pick, dial, exchange, record.
//!
//! [`Exchange::answer`] holds the decisions. [`dialling`] gets a connection,
//! [`attempt`] speaks on it, [`request`] writes what it
//! gets, [`reply`] is the way back, [`upstream`] and [`connection`] keep what outlives a request. Must not
//! know which protocol the client speaks: bodies and answers are [`crate::stream`]'s traits.

mod attempt;
pub(crate) mod connection;
mod dialling;
mod failure;
mod guard;
mod record;
pub(crate) mod reply;
mod request;
pub(crate) mod trace;
pub(crate) mod upstream;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balance::Tried;
use model::{Action, Limits, Redirect, Rule, Scheme, Timeouts};
use net::timer::Timer;

use crate::client::Client;
use crate::head::{Known, RequestHead, tokens};
use crate::program::{Identity, Program, ProgramListener};
use crate::routing::{Asked, Match, clean_path, decode_path, location, normalize_host, rewritten};
use crate::stream::Source;
use crate::worker::Local;
use attempt::{Attempt, Retry};
use failure::Failure;
use guard::Bounded;
use record::{NONE, Record, Route};
use reply::{OwnAnswer, Reply, Signature, wants_json};
use request::Outgoing;
use trace::TraceParent;
use upstream::Upstream;

/// How an exchange ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It got a whole answer.
    Complete,
    /// There is none, nor will there be: the connection or stream closes, in order.
    Closed,
    /// The answer was cut off: the client must be able to tell, so the connection or stream is broken.
    Broken,
}

/// What a request is answered with. The program is given up as soon as it has been asked: an answer that
/// streams for hours must not hold on to an old one.
#[derive(Debug)]
pub(crate) struct Exchange<'x> {
    pub(crate) client: &'x Client,
    /// Bounds every wait of the exchange.
    pub(crate) timer: &'x Timer,
}

/// What a request asks for, after routing.
enum Decision {
    /// Answered here.
    Own(OwnAnswer),
    /// Not answered at all.
    Close,
    /// Goes wrong before an upstream is asked.
    Fail(Failure),
    /// Goes to an upstream.
    Forward(Plan),
}

/// How a request goes to its upstream: everything of the program that is still needed.
struct Plan {
    upstream: Rc<Upstream>,
    /// Path and query as the upstream gets them.
    target: Vec<u8>,
    response_timeout: Option<Duration>,
    /// The client's forwarding fields are believed.
    trusted: bool,
    /// Bytes that the request's body may have.
    body_max: u64,
}

/// What every answer of a program has in common.
struct Terms {
    limits: Limits,
    timeouts: Timeouts,
    identity: Option<Arc<Identity>>,
    server_header: bool,
}

impl Exchange<'_> {
    /// Answers a request by a program, in which the listener has that index. Dropped, the upstream
    /// connection is closed, and the request is recorded as given up by the client.
    pub(crate) async fn answer<B: Source, R: Reply>(
        &self,
        (local, listener): (Rc<Local>, usize),
        head: &mut RequestHead,
        body: &mut B,
        reply: &mut R,
    ) -> Ending {
        let mut record = Record::begin(self.client, &local, listener, head);
        let mut route = Route { listener, scope: NONE, rule: NONE, upstream: NONE };
        let decision = self.decide(&local, head, &mut route);
        record.route(&local, route);
        let program = &local.program;
        let terms = Terms {
            limits: program.snapshot.limits,
            timeouts: program.snapshot.timeouts,
            identity: program.identity().cloned(),
            server_header: program.snapshot.manners.server_header,
        };
        drop(local);
        // An answer of our own waits for the client as well.
        self.timer.set(terms.timeouts.stream_idle);
        let failure = match decision {
            Decision::Close => {
                record.status = failure::CLOSED_BY_RULE;
                record.finish();
                return Ending::Closed;
            }
            Decision::Own(own) => return self.answer_own(own, head, reply, &mut record).await,
            Decision::Fail(failure) => failure,
            Decision::Forward(plan) => {
                match self.forward(&plan, &terms, head, (body, reply), &mut record).await {
                    Ok(()) => {
                        record.finish();
                        return Ending::Complete;
                    }
                    Err(failure) => failure,
                }
            }
        };
        self.timer.set(terms.timeouts.stream_idle);
        self.fail(failure, head, reply, &mut record).await
    }

    async fn answer_own(
        &self,
        own: OwnAnswer,
        head: &RequestHead,
        reply: &mut impl Reply,
        record: &mut Record,
    ) -> Ending {
        record.status = own.status;
        let signature = Signature::own(&self.client.worker);
        match self.timer.guard(own.send(reply, head.is_head(), signature)).await {
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
        tracing::debug!(
            error = failure.code(),
            detail = &failure as &dyn std::error::Error,
            endpoint = record.endpoint_label(),
            "failed"
        );
        let Some(status) = failure.status().filter(|_| !reply.has_begun()) else {
            if record.status == 0 {
                record.status = failure::CLIENT_CLOSED;
            }
            record.finish();
            return Ending::Broken;
        };
        let own =
            OwnAnswer::error(status, failure.code(), failure.message(), wants_json(&head.fields));
        self.answer_own(own, head, reply, record).await
    }

    /// What to do with a request: looks, and changes nothing but where it notes the way.
    fn decide(&self, local: &Rc<Local>, head: &RequestHead, route: &mut Route) -> Decision {
        let program = &local.program;
        let Some((model, listener)) = program.listener(route.listener) else {
            return Decision::Fail(Failure::NoRule);
        };
        if let Some(own) = gateway_path(program, head) {
            return Decision::Own(own);
        }
        let path = head.path();
        if path == b"*" {
            return Decision::Own(OwnAnswer::text(200, ""));
        }
        if path.is_empty() {
            return Decision::Fail(Failure::ConnectNotServed);
        }
        let Ok(host) = normalize_host(head.authority()) else {
            return Decision::Fail(Failure::BadRequest("400: the host is malformed"));
        };
        if self.is_misdirected(listener, &host) {
            return Decision::Fail(Failure::Misdirected);
        }
        let clean = program.snapshot.manners.redirect_unclean_paths;
        if clean && let Some(clean) = clean_path(path) {
            return Decision::Own(to_clean_path(clean, head));
        }
        let mut scratch = Vec::new();
        let Ok(decoded) = decode_path(path, &mut scratch) else {
            return Decision::Fail(Failure::BadRequest(
                "400: the path has a malformed percent escape",
            ));
        };
        let Some(found) = listener.router.find(&host, decoded) else {
            return Decision::Fail(Failure::NoRule);
        };
        (route.scope, route.rule) = (found.scope, found.rule_index);
        let trusted = model.trusted_hops.contains(self.client.ip);
        self.act(local, head, &found, route, (trusted, clean))
    }

    /// Whether the client had to show something else for its connection than it would have to for this
    /// host: the name in its hello was another's (RFC 9110 section 7.4).
    fn is_misdirected(&self, listener: &ProgramListener, host: &str) -> bool {
        let verifying = listener.termination.as_ref().filter(|t| t.verifies_clients());
        verifying.is_some_and(|termination| *termination.domain(host) != self.client.domain)
    }

    /// What a rule does with a request. `trusted`: the client's forwarding fields are believed; `clean`: no
    /// upstream sees an unclean path.
    fn act(
        &self,
        local: &Rc<Local>,
        head: &RequestHead,
        found: &Match<'_>,
        route: &mut Route,
        (trusted, clean): (bool, bool),
    ) -> Decision {
        let (rule, worker) = (found.rule, &self.client.worker);
        if rule.api_key.as_ref().is_some_and(|key| !guard::has_key(&head.fields, key)) {
            return Decision::Fail(Failure::Forbidden);
        }
        let upstreams = match &rule.action {
            Action::Unavailable { .. } => return Decision::Fail(Failure::MissingUpstream),
            Action::Respond { status } => {
                return Decision::Own(OwnAnswer::respond(*status, wants_json(&head.fields)));
            }
            Action::Redirect(to) => return self.redirect(head, rule, to, (trusted, clean)),
            Action::Close => return Decision::Close,
            Action::Forward(upstreams) => upstreams,
        };
        let limits = &local.program.snapshot.limits;
        let body_max = rule.request_body_max.or(limits.request_body).unwrap_or(u64::MAX);
        if guard::says_too_much(head.framing, body_max) {
            return Decision::Fail(Failure::BodyTooLarge);
        }
        let chosen = local.choose(worker, (route.listener, route.scope, route.rule), upstreams);
        let Some(upstream) = chosen.and_then(|id| worker.upstream(local, id)) else {
            return Decision::Fail(Failure::NoEndpoint);
        };
        route.upstream = chosen.map_or(NONE, |id| id.0);
        Decision::Forward(Plan {
            upstream,
            target: rewritten(head.target(), rule, clean).into_owned(),
            response_timeout: rule.response_timeout,
            trusted,
            body_max,
        })
    }

    /// The answer that sends the client elsewhere.
    fn redirect(
        &self,
        head: &RequestHead,
        rule: &Rule,
        to: &Redirect,
        (trusted, clean): (bool, bool),
    ) -> Decision {
        let asked = Asked {
            scheme: self.scheme(head, trusted),
            authority: head.authority(),
            target: head.target(),
        };
        let Some(location) = location(rule, to, &asked, clean) else {
            return Decision::Fail(Failure::BadRequest("400: the request names no host"));
        };
        let answer = OwnAnswer::respond(to.status, wants_json(&head.fields));
        Decision::Own(OwnAnswer { location: Some(location), ..answer })
    }

    /// The scheme that the client used: a trusted hop in front, which ends TLS for us, says so.
    fn scheme(&self, head: &RequestHead, trusted: bool) -> Scheme {
        let said = head.fields.get(Known::XForwardedProto).filter(|_| trusted);
        // Of a list the first: that hop spoke with the client.
        let said =
            said.and_then(|list| Scheme::parse(list.split(|b| *b == b',').next()?.trim_ascii()));
        let own = Scheme::parse(self.client.scheme.as_bytes());
        said.or(own).unwrap_or(Scheme::Http)
    }

    /// Sends the request to endpoints until one answers or no further try is safe.
    async fn forward<B: Source, R: Reply>(
        &self,
        plan: &Plan,
        terms: &Terms,
        head: &mut RequestHead,
        (body, reply): (&mut B, &mut R),
        record: &mut Record,
    ) -> Result<(), Failure> {
        let worker = &self.client.worker;
        let takes_trailers = head
            .fields
            .all(Known::Te)
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")));
        head.fields.remove_hop_by_hop();
        let mut sent = head.fields.all(Known::Traceparent);
        // Several are none (W3C Trace Context section 3.2).
        let sent = sent.next().filter(|_| sent.next().is_none());
        let trace = TraceParent::of(sent, &mut worker.rng.borrow_mut());
        record.trace(&trace);
        let outgoing = Outgoing {
            head,
            target: &plan.target,
            trusted: plan.trusted,
            client: self.client,
            trace: &trace,
            takes_trailers,
        };
        let model = &plan.upstream.source.model;
        let attempt = Attempt {
            worker,
            upstream: plan.upstream.clone(),
            outgoing: &outgoing,
            timer: self.timer,
            connect_timeout: model.connect_timeout.unwrap_or(terms.timeouts.connect),
            response_timeout: plan
                .response_timeout
                .or(model.response_timeout)
                .unwrap_or(terms.timeouts.response),
            stream_idle: terms.timeouts.stream_idle,
            limits: terms.limits,
            signature: Signature {
                worker,
                identity: terms.identity.as_deref(),
                server: terms.server_header,
            },
            upgrades: &self.client.cells.upgrades,
        };
        let mut body = Bounded::new(body, plan.body_max);
        self.attempts(attempt, &mut body, reply, record).await
    }

    /// One attempt after another, while the last failed in a way that allows it.
    async fn attempts<B: Source, R: Reply>(
        &self,
        mut attempt: Attempt<'_>,
        body: &mut B,
        reply: &mut R,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let mut tried = Tried::none();
        let Some(mut picked) = attempt.pick(&tried) else {
            let is_down = attempt.upstream.is_down();
            return Err(if is_down { Failure::AllDown } else { Failure::NoEndpoint });
        };
        // Where one idle connection had been closed, the others probably have been too.
        let mut fresh = false;
        loop {
            let (index, leeway) = (picked.index, record.retries < quick_retries(&attempt.limits));
            record.endpoint(&picked.endpoint);
            let failed = match attempt.connect(picked, fresh, leeway, &mut tried).await {
                Ok((to, connection)) => {
                    if to.index != index {
                        record.endpoint(&to.endpoint);
                        record.retries += 1;
                    }
                    match attempt.run(&to.endpoint, connection, (body, reply), record).await {
                        Ok(()) => return Ok(()),
                        Err(failed) => failed,
                    }
                }
                Err(failed) => failed,
            };
            let (failure, retry) = failed;
            let allowed = retries_allowed(&attempt.limits, &failure);
            let Some(reason) = retry.filter(|_| record.retries < allowed) else {
                return Err(failure);
            };
            attempt.renew(&mut tried);
            picked = match attempt.pick(&tried) {
                Some(next) => next,
                None => return Err(failure),
            };
            fresh = reason == Retry::Fresh;
            record.retries += 1;
            attempt.upstream.cells.retries.add(reason.label());
        }
    }
}

/// How many times a request may have been sent again after such a failure.
fn retries_allowed(limits: &Limits, failure: &Failure) -> u32 {
    match failure {
        Failure::Dial(error) if matches!(error.as_str(), "refused" | "abandoned") => {
            quick_retries(limits)
        }
        _ => limits.retries,
    }
}

/// How many times where nothing was sent and no time was lost: while an upstream shrinks, most of its endpoints may be
/// gone at once.
fn quick_retries(limits: &Limits) -> u32 {
    const QUICK_RETRIES_MAX: u32 = 16;
    if limits.retries > 0 { limits.retries.max(QUICK_RETRIES_MAX) } else { 0 }
}

/// The gateway's own paths (`NanoProxy`'s), before any rule.
fn gateway_path(program: &Program, head: &RequestHead) -> Option<OwnAnswer> {
    let manners = &program.snapshot.manners;
    match head.path().strip_prefix(b"/.nanoproxy/")? {
        b"health" if manners.health_path => Some(OwnAnswer::text(200, "OK")),
        b"config" if manners.config_path => {
            let dump = program.config_dump.as_deref().unwrap_or_default();
            Some(OwnAnswer::text(200, Cow::Owned(dump.to_owned())))
        }
        _ => None,
    }
}

/// A redirect to the cleaned path, with the query as it was.
fn to_clean_path(clean: String, head: &RequestHead) -> OwnAnswer {
    let mut location = clean.into_bytes();
    location.extend_from_slice(head.target().get(head.path().len()..).unwrap_or_default());
    OwnAnswer { location: Some(location), ..OwnAnswer::text(307, "") }
}
