//! The command `status`: what a running gateway is doing, from its admin port.
//!
//! Fetching (`status/fetch.rs`) is blocking, with bounds; rendering (`status/render.rs`) is pure.
//! Must not know the gateway, only the shape of `/state` ([`admin::State`]).

mod fetch;
mod render;
mod table;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use anyhow::Context as _;

use render::render;

/// Prints the state of the gateway whose admin port is at `address`: as tables, or with `json` the
/// JSON as it came.
///
/// # Errors
/// Where nobody answers there, or not as an admin port does; the text says which, and that the exit
/// code is 1.
pub(crate) fn run(address: SocketAddr, json: bool) -> anyhow::Result<()> {
    let body = fetch::state(address)?;
    let value = serde_json::from_str(&body)
        .with_context(|| format!("what answers at {address} is no Cloverleaf admin port"))?;
    let text = if json {
        body
    } else {
        let state = admin::State::from_json(&value)
            .with_context(|| format!("cannot read the state from {address}"))?;
        // Not cut where it goes to a file or another program.
        let width = terminal_size::terminal_size_of(std::io::stdout());
        render(&state, width.map_or(usize::MAX, |(width, _)| width.0.into()))
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read it has seen enough, as with `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to the standard output"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use admin::metrics::Family;
    use admin::{Provider, Readiness, Server, State};

    use super::{fetch, render};

    struct Fake;

    impl Provider for Fake {
        fn readiness(&self) -> Readiness {
            Readiness::Ready
        }
        fn metrics(&self) -> Vec<Family> {
            Vec::new()
        }
        fn config(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        fn state(&self) -> serde_json::Value {
            State { version: "1.2.3".to_owned(), ..State::default() }.to_json()
        }
    }

    #[tokio::test]
    async fn a_real_admin_port_is_understood() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.local_addr();
        let asked = tokio::task::spawn_blocking(move || fetch::state(address).unwrap());
        let mut body = String::new();
        let shutdown = async { body = asked.await.unwrap() };
        server.run(Arc::new(Fake), shutdown).await.unwrap();
        let state = State::from_json(&serde_json::from_str(&body).unwrap()).unwrap();
        assert!(render(&state, 80).starts_with("cloverleaf 1.2.3, up 0 s, not ready\n"));
    }
}
