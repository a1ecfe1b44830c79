//! What is known of a request when it is over, for metrics and the access log.
//!
//! A record that is dropped unfinished counts the request as given up by the client. Must not know how requests are
//! answered.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::time::Instant;

use super::failure::CLIENT_CLOSED;
use super::trace::TraceParent;
use super::upstream::Endpoint;
use crate::access_log::Line;
use crate::client::Client;
use crate::head::RequestHead;
use crate::stats::RequestCells;
use crate::worker::{Local, Worker};

/// No scope, no rule, no upstream.
pub(crate) const NONE: usize = usize::MAX;

/// The way of a request through a program, by index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) listener: usize,
    pub(crate) scope: usize,
    pub(crate) rule: usize,
    pub(crate) upstream: usize,
}

/// One request's record.
#[derive(Debug)]
pub(crate) struct Record {
    worker: Rc<Worker>,
    cells: Option<Arc<RequestCells>>,
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
    pub(crate) fn begin(
        client: &Client,
        local: &Local,
        listener: usize,
        head: &RequestHead,
    ) -> Self {
        let logs = local.program.snapshot.manners.access_log.is_some();
        Self {
            line: logs.then(|| Box::new(line(client, local, listener, head))),
            worker: client.worker.clone(),
            cells: None,
            endpoint: None,
            started: Instant::now(),
            status: 0,
            body_bytes: 0,
            retries: 0,
            error: None,
            finished: false,
        }
    }

    /// The way that the request takes, known before it is answered.
    pub(crate) fn route(&mut self, local: &Local, route: Route) {
        let Route { listener, scope, rule, upstream } = route;
        self.cells = Some(local.cells(&self.worker, (listener, scope, rule, upstream)));
        let Some(line) = &mut self.line else { return };
        let snapshot = &local.program.snapshot;
        let scopes = snapshot.listeners.get(listener).map(|l| &l.scopes);
        let rule = scopes.and_then(|s| s.get(scope)?.rules.rules.get(rule));
        line.rule = rule.map(|r| r.name.to_string()).unwrap_or_default();
        line.upstream =
            snapshot.upstreams.get(upstream).map(|u| u.name.to_string()).unwrap_or_default();
    }

    /// The request goes there now; counted as under way until the next one or the end.
    pub(crate) fn endpoint(&mut self, endpoint: &Rc<Endpoint>) {
        self.leave_endpoint();
        endpoint.cells.requests.add(1);
        endpoint.cells.in_flight.add(1);
        self.endpoint = Some(endpoint.clone());
    }

    pub(crate) fn endpoint_label(&self) -> &str {
        self.endpoint.as_ref().map(|e| &*e.label).unwrap_or_default()
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
        if let Some(cells) = &self.cells {
            cells.record(self.status, took);
        }
        let Some(mut line) = self.line.take() else { return };
        line.status = self.status;
        line.took = took;
        line.body_bytes = self.body_bytes;
        line.retries = self.retries;
        line.error = self.error;
        self.endpoint_label().clone_into(&mut line.endpoint);
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

fn line(client: &Client, local: &Local, listener: usize, head: &RequestHead) -> Line {
    const TEXT_BYTES_MAX: usize = 2048;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes)).into_owned()
    };
    let listener = local.program.listener(listener);
    Line {
        at: SystemTime::now(),
        client: format!("{}:{}", client.ip_text, client.port),
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
