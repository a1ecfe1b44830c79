//! Follows the files, the names of hosts, and who listens on this host.
//!
//! A new state is published whole; connections that are open keep what they have.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Watcher;
use mesh::security::Secured;
use mesh::source::{Files, read_file};
use mesh::{Maker, Resolved, Shared};
use model::{HostName, Place};
use tokio::time::{MissedTickBehavior, interval};

use super::names::Names;
use super::provider::Provider;
use super::sockets::Ports;

/// How soon a port is left to a program that has begun to listen on it.
const LISTENERS_EVERY: Duration = Duration::from_millis(250);
/// How soon another address of a host's name is noticed.
const NAMES_EVERY: Duration = Duration::from_secs(30);

/// What changes, and what it changes.
pub(super) struct Follow {
    pub(super) proxy_conf: PathBuf,
    pub(super) files: Files,
    pub(super) names: Names,
    pub(super) resolved: Resolved,
    pub(super) listen_name: HostName,
    pub(super) listen: IpAddr,
    pub(super) maker: Maker,
    pub(super) shared: Arc<Shared>,
    /// What is listened on; nothing where the mesh is only dialled.
    pub(super) ports: Option<Ports>,
    pub(super) provider: Arc<Provider>,
}

/// The files to watch.
pub(super) fn watched(proxy_conf: &Path, files: &Files) -> Vec<PathBuf> {
    let settings = &files.settings;
    let mut paths =
        vec![proxy_conf.to_owned(), settings.hosts_file.clone(), settings.mappings_file.clone()];
    paths.extend(settings.security.files().cloned());
    paths
}

/// Says how connections between hosts are secured now.
pub(super) fn announce(secured: &Secured) {
    let security = secured.mode().as_str();
    match secured.mutual() {
        None => tracing::info!(security, "connections between hosts"),
        Some(mutual) => {
            tracing::info!(security, certificate = mutual.names(), "connections between hosts");
        }
    }
}

impl Follow {
    /// For ever. Dropped, a change that was just being brought in may be lost: call [`Self::reload`], or end.
    pub(super) async fn run(&mut self, watcher: &mut Watcher) {
        let mut listeners = interval(LISTENERS_EVERY);
        listeners.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut names = interval(NAMES_EVERY);
        names.set_missed_tick_behavior(MissedTickBehavior::Delay);
        names.reset();
        let is_steered = self.ports.as_ref().is_some_and(Ports::is_steered);
        loop {
            tokio::select! {
                () = watcher.changed() => self.reload(watcher).await,
                _ = listeners.tick(), if is_steered => self.steer(),
                _ = names.tick() => self.look_up().await,
            }
        }
    }

    /// Leaves ports to those who listen on them now.
    pub(super) fn steer(&mut self) {
        if let Some(ports) = &mut self.ports {
            ports.update(&self.shared.state());
            self.provider.set_ports(Some(ports.view()));
        }
    }

    /// Reads the files again and serves what they say now, as far as it can be.
    pub(super) async fn reload(&mut self, watcher: &mut Watcher) {
        let began = Instant::now();
        let (path, before) = (self.proxy_conf.clone(), self.files.clone());
        let secured = self.maker.secured().clone();
        // Off this thread: a file system may be slow.
        let read = move || {
            let (files, mut found) = Files::read(&path, Some(&before), &read_file);
            let place = Place::whole(path.display().to_string());
            let settings = &files.settings.security;
            let secured = Secured::renewed(&secured, settings, &files.hosts, &place, &mut found);
            (files, secured, found)
        };
        let Ok((files, secured, found)) = tokio::task::spawn_blocking(read).await else { return };
        for problem in &found.0 {
            match problem.severity {
                model::Severity::Error => tracing::error!("{problem}"),
                model::Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        if let Err(error) = watcher.set_paths(watched(&self.proxy_conf, &files)) {
            tracing::error!(error = &error as &dyn std::error::Error, "watching the files");
        }
        let other = !secured.is(self.maker.secured());
        if other {
            announce(&secured);
        }
        self.maker.secure(secured);
        if files != self.files || other {
            self.warn_of_restart(&files);
            self.resolved = self.names.resolve(&files, self.listen).await;
            self.files = files;
            self.publish();
        }
        tracing::info!(
            hosts = self.files.hosts.len(),
            mappings = self.files.mappings.len(),
            took_us = began.elapsed().as_micros(),
            "reloaded"
        );
        self.provider.reloaded(began.elapsed(), found);
    }

    /// Some settings are read once, as the original reads them all.
    fn warn_of_restart(&self, files: &Files) {
        let (old, new) = (&self.files.settings, &files.settings);
        let mut keys = Vec::new();
        keys.extend((old.host != new.host).then_some("HOST"));
        keys.extend((old.port != new.port).then_some("PORT"));
        keys.extend((old.steering != new.steering).then_some("STEERING"));
        let bound = self.ports.as_ref().is_some_and(|ports| !ports.is_steered());
        keys.extend((bound && old.cluster_ports != new.cluster_ports).then_some("CLUSTERPORTS"));
        if !keys.is_empty() {
            tracing::warn!(keys = keys.join(", "), "changed, and in force after a restart");
        }
    }

    async fn look_up(&mut self) {
        let resolved = self.names.resolve(&self.files, self.listen).await;
        if resolved != self.resolved {
            tracing::info!("the addresses of hosts have changed");
            self.resolved = resolved;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let state = self.maker.make(&self.files, &self.resolved, &self.listen_name);
        self.shared.publish(state);
        self.steer();
    }
}
