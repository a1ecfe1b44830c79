//! The access log: one JSON line a request, written by a thread of its own behind a bounded queue.
//!
//! A slow disk never slows a request: what does not fit into the queue is dropped and counted. Must not know sockets
//! or rules.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::json;

/// Lines that wait for the writer.
const LINES_MAX: usize = 8192;

/// One request, as logged.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) at: SystemTime,
    pub(crate) client: String,
    pub(crate) listener: String,
    pub(crate) method: String,
    pub(crate) host: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) version: &'static str,
    pub(crate) status: u16,
    pub(crate) rule: String,
    pub(crate) upstream: String,
    pub(crate) endpoint: String,
    pub(crate) took: Duration,
    pub(crate) body_bytes: u64,
    pub(crate) retries: u32,
    pub(crate) error: Option<&'static str>,
    pub(crate) trace: String,
    pub(crate) user_agent: String,
}

impl Line {
    fn to_json(&self) -> String {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut line = json!({
            "time_unix_ms": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            "client": self.client, "listener": self.listener, "method": self.method, "host": self.host,
            "target": self.target, "version": self.version, "status": self.status, "rule": self.rule,
            "upstream": self.upstream, "endpoint": self.endpoint,
            "took_us": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "body_bytes": self.body_bytes, "retries": self.retries, "trace": self.trace,
            "user_agent": self.user_agent,
        });
        if let (Some(error), Some(line)) = (self.error, line.as_object_mut()) {
            line.insert("error".to_owned(), error.into());
        }
        line.to_string()
    }
}

/// The way to the writer. When it goes, the writer writes what it has and ends.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    writer: std::thread::JoinHandle<()>,
}

impl AccessLog {
    /// Opens where the log goes and starts its writer.
    ///
    /// # Errors
    /// The file's or the thread's.
    pub fn open(to: &model::AccessLog) -> std::io::Result<Self> {
        let out: Box<dyn Write + Send> = match to {
            model::AccessLog::Stdout => Box::new(std::io::stdout()),
            model::AccessLog::File(path) => {
                Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (lines, queue) = sync_channel(LINES_MAX);
        let named = std::thread::Builder::new().name("access-log".to_owned());
        let writer = named.spawn(move || write(out, &queue))?;
        Ok(Self { lines, writer })
    }

    /// Waits until everything is written. Blocks.
    pub fn finish(self) {
        drop(self.lines);
        if self.writer.join().is_err() {
            tracing::error!("the access log's writer panicked; this is a bug");
        }
    }

    /// Hands a line over; `false` where the queue is full.
    pub(crate) fn push(&self, line: Line) -> bool {
        self.lines.try_send(line).is_ok()
    }
}

/// Writes lines as they come, many at once where many wait.
fn write(out: Box<dyn Write + Send>, queue: &Receiver<Line>) {
    let mut out = std::io::BufWriter::new(out);
    while let Ok(first) = queue.recv() {
        let mut failed = writeln!(out, "{}", first.to_json()).err();
        for line in queue.try_iter() {
            failed = failed.or(writeln!(out, "{}", line.to_json()).err());
        }
        if let Some(error) = failed.or(out.flush().err()) {
            tracing::error!(%error, "writing the access log");
        }
    }
}
