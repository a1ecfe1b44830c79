//! What is known of a request when it is over, for metrics and the access log.
//!
//! A record that is dropped unfinished counts the request as given up by the client. Must not know how requests are
//! answered.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use model::{Name, UpstreamId};
use tokio::time::Instant;

use super::Exchange;
use super::failure::CLIENT_CLOSED;
use super::trace::TraceParent;
use super::upstream::Endpoint;
use crate::access_log::Line;
use crate::head::RequestHead;
use crate::worker::{Local, Worker};

/// No rule, no upstream.
const NONE: usize = usize::MAX;

/// One request's record.
#[derive(Debug)]
pub(crate) struct Record {
    worker: Rc<Worker>,
    local: Rc<Local>,
    listener: usize,
    scope: usize,
    rule: usize,
    upstream: usize,
    endpoint: Option<Rc<Endpoint>>,
    started: Instant,
    /// 0 until one is known.
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) retries: u32,
    pub(crate) error: Option<&'static str>,
    /// What only the access log wants, filled in only where there is one.
    line: Option<Box<Line>>,
    finished: bool,
}

impl Record {
    pub(crate) fn begin(exchange: &Exchange<'_>, head: &RequestHead) -> Self {
        let worker = exchange.client.worker.clone();
        let logs = exchange.local.program.snapshot.manners.access_log.is_some();
        Self {
            line: logs.then(|| Box::new(line(exchange, head))),
            worker,
            local: exchange.local.clone(),
            listener: exchange.listener,
            scope: NONE,
            rule: NONE,
            upstream: NONE,
            endpoint: None,
            started: Instant::now(),
            status: 0,
            body_bytes: 0,
            retries: 0,
            error: None,
            finished: false,
        }
    }

    pub(crate) fn rule(&mut self, scope: usize, rule: usize) {
        self.scope = scope;
        self.rule = rule;
    }

    pub(crate) fn upstream(&mut self, upstream: UpstreamId) {
        self.upstream = upstream.0;
    }

    pub(crate) fn upstream_id(&self) -> Option<UpstreamId> {
        (self.upstream != NONE).then_some(UpstreamId(self.upstream))
    }

    pub(crate) fn upstream_name(&self) -> Name {
        let upstream = self.upstream_id().and_then(|id| self.local.program.snapshot.upstream(id));
        upstream.map_or(self.local.program.none(), |u| &u.name).clone()
    }

    /// The request goes there now; counted as under way until the next one or the end.
    pub(crate) fn endpoint(&mut self, endpoint: &Rc<Endpoint>) {
        self.leave_endpoint();
        endpoint.cells.requests.add(1);
        endpoint.cells.in_flight.add(1);
        self.endpoint = Some(endpoint.clone());
    }

    fn leave_endpoint(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.cells.in_flight.sub(1);
        }
    }

    pub(crate) fn trace(&mut self, trace: &TraceParent) {
        if let Some(line) = &mut self.line {
            line.trace = trace.trace_id().to_owned();
        }
    }

    /// Counts and logs. Once.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.leave_endpoint();
        let took = self.started.elapsed();
        let key = (self.listener, self.scope, self.rule, self.upstream);
        self.local.cells(&self.worker, key).record(self.status, took);
        let Some(mut line) = self.line.take() else { return };
        line.status = self.status;
        line.took = took;
        line.body_bytes = self.body_bytes;
        line.retries = self.retries;
        line.error = self.error;
        let snapshot = &self.local.program.snapshot;
        let scopes = snapshot.listeners.get(self.listener).map(|l| &l.scopes);
        let rule = scopes.and_then(|s| s.get(self.scope)?.rules.rules.get(self.rule));
        line.rule = rule.map(|r| r.name.to_string()).unwrap_or_default();
        line.upstream = self.upstream_id().map(|_| self.upstream_name().to_string()).unwrap_or_default();
        line.endpoint = self.endpoint.as_ref().map(|e| e.label.to_string()).unwrap_or_default();
        let shared = &self.worker.shared;
        if let Some(log) = shared.access_log().as_ref()
            && !log.push(*line)
        {
            shared.stats.access_log_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            if self.status == 0 {
                self.status = CLIENT_CLOSED;
            }
            self.error = self.error.or(Some("client_gone"));
            self.finish();
        }
    }
}

fn line(exchange: &Exchange<'_>, head: &RequestHead) -> Line {
    const TEXT_BYTES_MAX: usize = 2048;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes)).into_owned()
    };
    let listener = exchange.local.program.listener(exchange.listener);
    Line {
        at: SystemTime::now(),
        client: format!("{}:{}", exchange.client.ip_text, exchange.client.port),
        listener: listener.map(|(l, _)| l.name.to_string()).unwrap_or_default(),
        method: text(head.method()),
        host: text(head.authority()),
        target: text(head.target()),
        version: head.version.as_str(),
        status: 0,
        rule: String::new(),
        upstream: String::new(),
        endpoint: String::new(),
        took: std::time::Duration::ZERO,
        body_bytes: 0,
        retries: 0,
        error: None,
        trace: String::new(),
        user_agent: text(head.fields.by_name(b"user-agent").unwrap_or_default()),
    }
}
