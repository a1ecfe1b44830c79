//! Where a gateway's configuration comes from: flags over environment over file, as one value that can be loaded
//! again and again.
//!
//! Must not serve anything.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use config::{AdminAddress, Config, Overrides};
use model::Diagnostics;

use crate::UsageError;
use crate::cli::SourceArgs;
use crate::cluster::ClusterSetup;
use crate::env::{Environment, seconds};

/// `NanoProxy`'s default.
const DEFAULT_FILE: &str = "./config.yaml";

/// A file and what is said in place of parts of it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) overrides: Overrides,
    config_b64: Option<String>,
    /// What stands in place of a file that nobody named, where there is a cluster to serve.
    base: Option<Box<Config>>,
    /// `CONF_FILE`
    named_by_environment: Option<PathBuf>,
}

impl Source {
    /// Flags win over the environment.
    ///
    /// # Errors
    /// A [`UsageError`] that names the flag or variable.
    pub(crate) fn resolve(args: &SourceArgs) -> anyhow::Result<Self> {
        let usage = |error: crate::env::EnvironmentError| UsageError(error.to_string());
        let env = Environment::of_process().map_err(usage)?;
        let timeout = args.timeout.clone().map(|value| {
            seconds("--timeout", value)
                .map_err(|e| UsageError(e.to_string().replace("environment variable ", "flag ")))
        });
        let named = env.conf_file.clone();
        Ok(Self {
            path: args.config.clone().or(env.conf_file).unwrap_or_else(|| DEFAULT_FILE.into()),
            overrides: Overrides {
                port: args.port.or(env.port),
                timeout: timeout.transpose()?.or(env.timeout),
                cert_path: args.cert_path.clone().or(env.cert_path),
                tls_skip_verify: args.tls_skip_verify || env.tls_skip_verify,
                debug: args.debug || env.debug,
                ..Overrides::default()
            },
            config_b64: env.config_b64,
            base: None,
            named_by_environment: named,
        })
    }

    /// `CONF_FILE`, which for a controller is the file that it writes.
    pub(crate) fn named_by_environment(&self) -> Option<PathBuf> {
        self.named_by_environment.clone()
    }

    /// Routes come from a cluster: unless flag or environment name a file, there is none.
    ///
    /// # Errors
    /// A [`UsageError`] where the environment cannot be used.
    pub(crate) fn with_cluster(
        mut self,
        args: &SourceArgs,
        setup: &ClusterSetup,
        https_port: Option<u16>,
    ) -> anyhow::Result<Self> {
        let env = Environment::of_process().map_err(|e| UsageError(e.to_string()))?;
        self.overrides.routes_elsewhere = Some(setup.listeners(&self.overrides, https_port));
        let named = args.config.is_some() || env.conf_file.is_some() || env.config_b64.is_some();
        self.base = (!named).then(|| Box::new(setup.base(&self.overrides, https_port)));
        Ok(self)
    }

    /// The file's path, if there is a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.base.is_none().then_some(&*self.path)
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        match (self.file(), &self.overrides.routes_elsewhere) {
            (Some(path), None) => path.display().to_string(),
            (Some(path), Some(_)) => format!("Kubernetes and {}", path.display()),
            (None, _) => "Kubernetes".to_owned(),
        }
    }

    /// Puts `--admin-address` and `--workers` in place of the file's.
    pub(crate) fn with_process_flags(
        mut self,
        admin: Option<&str>,
        workers: Option<u16>,
    ) -> Result<Self, UsageError> {
        if let Some(text) = admin {
            let parsed = AdminAddress::parse(text).ok_or_else(|| {
                UsageError(format!("flag --admin-address: found {text:?}, expected IP:PORT or off"))
            })?;
            self.overrides.admin = Some(parsed);
        }
        self.overrides.workers = workers.map(usize::from);
        Ok(self)
    }

    /// Writes `CONFIG_B64`, if it is set, over the file, as `NanoProxy` does at its start.
    ///
    /// # Errors
    /// Where it is not base64, or the file cannot be written.
    pub(crate) fn write_config_b64(&self) -> anyhow::Result<()> {
        let Some(encoded) = &self.config_b64 else { return Ok(()) };
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(encoded.trim()).map_err(|e| {
                UsageError(format!("environment variable CONFIG_B64: not standard base64: {e}"))
            })?;
        std::fs::write(&self.path, decoded)
            .with_context(|| format!("writing CONFIG_B64 to {}", self.path.display()))
    }

    /// Reads and checks the file. Blocks on the file system.
    pub(crate) fn load(&self) -> (Option<Config>, Diagnostics) {
        if let Some(base) = &self.base {
            return (Some((**base).clone()), Diagnostics::default());
        }
        config::load(&self.path, &self.overrides)
    }
}
