//! A server and an agent in Go on gRPC's own library (`tests/konnectivity/load/relay.go`), which move packets as the
//! originals do and do nothing else: what stands for them in the same run.

use std::path::Path;

use anyhow::Result;
use testkit::Issued;

use super::{
    ends::{self, CLIENT_PORT},
    field::{Field, HUB},
};
use crate::bench::process::Server;

const AGENT_PORT: u16 = 8091;

/// Server and agent.
pub(super) fn start(field: &Field, folder: &Path) -> Result<(Option<Server>, Option<Server>)> {
    let hub = field.hub_address();
    let spawn = |host, name: &str, shown: &Issued, more: &[String]| {
        let own = [
            format!("relay-{name}"),
            format!("-ca={}", field.authority.file().display()),
            format!("-cert={}", shown.chain_file.display()),
            format!("-key={}", shown.key_file.display()),
        ];
        let log = folder.join(format!("{name}.log"));
        ends::spawn(field, host, &field.client, &log, &[&own, more].concat())
    };
    let comes = [format!("-listen=127.0.0.1:{CLIENT_PORT}"), format!("-agents={hub}:{AGENT_PORT}")];
    let server = spawn(HUB, "server", &field.server, &comes)?;
    let goes = [format!("-proxy={hub}:{AGENT_PORT}")];
    let agent = spawn(field.far(), "agent", &field.agent, &goes)?;
    Ok((Some(server), Some(agent)))
}

/// Whether the agent has come to the server.
pub(super) fn is_ready(server: &Server) -> bool {
    server.last_words().contains("ready")
}
