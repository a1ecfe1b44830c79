//! What serves: one file a role, wiring only; [`lifecycle`] and [`signals`] are what roles share.

pub(crate) mod controller;
mod echo;
pub(crate) mod gateway;
mod lifecycle;
pub(crate) mod mesh;
mod signals;
pub(crate) mod tunnel;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;

/// The role `echo` by itself, until SIGTERM or Ctrl-C.
pub(crate) fn echo(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    crate::logging::start(false);
    let socket = echo::bind(listen)?;
    let address = socket.local_addr().context("reading the echo's address")?;
    eprintln!("cloverleaf echo: listening on http://{address}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = signals::Signals::new()?;
        echo::serve(socket, async move {
            signals.stop().await;
        })
        .await
    })?;
    Ok(ExitCode::SUCCESS)
}
