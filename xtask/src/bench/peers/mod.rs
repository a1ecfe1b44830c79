//! The proxies that are measured: which there are, how each is started and what its configuration says. One
//! file a proxy, each a pure function from a plan to text. All do the same work: forward to one upstream
//! over pooled connections and set X-Forwarded-For, -Host and -Proto; no access log, no compression, one
//! thread for traffic.

mod caddy;
mod cloverleaf;
mod envoy;
mod haproxy;
mod nginx;
mod traefik;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

pub(crate) use cloverleaf::{file as cloverleaf_file, path as cloverleaf_path};
pub(crate) use nginx::backend;

/// Connections that a proxy may keep open to the upstream: more than any case has requests under way.
const UPSTREAM_POOL: usize = 256;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Proxy {
    Cloverleaf,
    Nginx,
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
}

/// In the order in which they take turns.
pub(crate) const ALL: [Proxy; 6] =
    [Proxy::Cloverleaf, Proxy::Nginx, Proxy::Haproxy, Proxy::Envoy, Proxy::Traefik, Proxy::Caddy];

impl Proxy {
    /// The name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proxy::Cloverleaf => "cloverleaf",
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "haproxy",
            Proxy::Envoy => "envoy",
            Proxy::Traefik => "traefik",
            Proxy::Caddy => "caddy",
        }
    }

    /// The argument that makes the program print its version.
    pub(crate) fn version_argument(self) -> &'static str {
        match self {
            Proxy::Cloverleaf | Proxy::Envoy => "--version",
            Proxy::Nginx | Proxy::Haproxy => "-v",
            Proxy::Traefik | Proxy::Caddy => "version",
        }
    }

    /// Write the configuration and return the command that serves it in the foreground.
    pub(crate) fn command(self, program: &Path, plan: &Plan<'_>) -> Result<Command> {
        let mut command = Command::new(program);
        match self {
            Proxy::Cloverleaf => cloverleaf::command(&mut command, plan)?,
            Proxy::Nginx => nginx::command(&mut command, plan)?,
            Proxy::Haproxy => haproxy::command(&mut command, plan)?,
            Proxy::Envoy => envoy::command(&mut command, plan)?,
            Proxy::Traefik => traefik::command(&mut command, plan)?,
            Proxy::Caddy => caddy::command(&mut command, plan)?,
        }
        Ok(command)
    }
}

/// What a proxy is to do.
pub(crate) struct Plan<'a> {
    /// An empty folder for its files.
    pub(crate) folder: &'a Path,
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// Where the upstream listens, on 127.0.0.1.
    pub(crate) upstream: u16,
    /// A folder with `cert.pem`, `key.pem` and `both.pem`, when clients speak TLS.
    pub(crate) certificate: Option<&'a Path>,
    /// Hosts that it serves, each with a rule of its own; none means one rule for everything.
    pub(crate) hosts: &'a [String],
    /// How many clients it must be able to hold.
    pub(crate) clients: usize,
}

impl Plan<'_> {
    /// Write a file into the folder.
    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// The value of X-Forwarded-Proto.
    fn scheme(&self) -> &'static str {
        if self.certificate.is_some() { "https" } else { "http" }
    }
}
