//! The program's own log: readable on a terminal, JSON elsewhere, always on standard error.
//!
//! Not the access log, which is the data plane's. Must not know what is logged.

mod json;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` says more exactly what is wanted.
pub(crate) fn start(debug: bool) {
    start_at(if debug { "debug" } else { "info" });
}

/// The same, from a level on: `error`, `warn`, `info` or `debug`.
pub(crate) fn start_at(level: &str) {
    // What the Kubernetes client says of each failed attempt, the source says once for each outage.
    const QUIET: &str = "kube_client=off";
    let usual = match level {
        "debug" => "debug,h2=info,hyper=info,rustls=info,tower=info",
        level => level,
    };
    let usual = format!("{usual},{QUIET}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.event_format(json::Json).init();
    }
}
