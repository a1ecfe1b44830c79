//! rathole, a reverse tunnel that gives each connection one of its own: built once, then a server beside the clients
//! and a client beside the targets, over TLS. It knows no certificates of clients; a token stands for them.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    ends,
    field::{Field, HUB, port},
};
use crate::{bench::process::Server, sh};

const VERSION: &str = "0.5.0";
const CONTROL_PORT: u16 = 8091;
/// Of a file that is there for a run, and of nothing else.
const PASSWORD: &str = "bench";

/// The program; about three minutes where it is not there yet. Needs OpenSSL's headers.
pub(super) fn program() -> Result<PathBuf> {
    // The lock file that it comes with names a crate that newer compilers do not take.
    let more = ["--no-default-features", "--features", "server,client,tls"];
    sh::cargo_install("rathole", VERSION, &more)
}

/// Server and client.
pub(super) fn start(
    program: &Path,
    field: &Field,
    folder: &Path,
) -> Result<(Option<Server>, Option<Server>)> {
    let identity = folder.join("server.p12");
    let mut convert = Command::new("openssl");
    convert.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}"), "-out"]);
    convert.arg(&identity).arg("-in").arg(&field.server.chain_file);
    sh::capture(convert.arg("-inkey").arg(&field.server.key_file))?;
    let spawn = |host, name: &str, content: &str| {
        let file = folder.join(format!("{name}.toml"));
        fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        let file = file.to_str().context("the path of a file")?.to_owned();
        let log = folder.join(format!("{name}.log"));
        ends::spawn(field, host, program, &log, &[format!("--{name}"), file])
    };
    let server = spawn(HUB, "server", &server_file(field, &identity))?;
    let client = spawn(field.far(), "client", &client_file(field))?;
    Ok((Some(server), Some(client)))
}

fn server_file(field: &Field, identity: &Path) -> String {
    let mut text = format!(
        "[server]\nbind_addr = \"{}:{CONTROL_PORT}\"\ndefault_token = \"{PASSWORD}\"\n\
         [server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = {identity:?}\npkcs12_password = \"{PASSWORD}\"\n",
        field.hub_address(),
    );
    for port in port::ALL {
        let listens = ends::listens(port);
        let _ = writeln!(text, "[server.services.p{port}]\nbind_addr = \"{listens}\"");
    }
    text
}

fn client_file(field: &Field) -> String {
    let hub = field.hub_address();
    let mut text = format!(
        "[client]\nremote_addr = \"{hub}:{CONTROL_PORT}\"\ndefault_token = \"{PASSWORD}\"\n\
         [client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = {:?}\nhostname = \"{hub}\"\n",
        field.authority.file(),
    );
    for port in port::ALL {
        let target = SocketAddr::new(field.far_address(), port);
        let _ = writeln!(text, "[client.services.p{port}]\nlocal_addr = \"{target}\"");
    }
    text
}
