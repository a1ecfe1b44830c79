//! Certificates of a tunnel's ends: loaded, watched, and loaded again while connections go on.
//!
//! Must not know who uses them.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use config::Watcher;
use model::{
    Certificate, ClientVerification, Diagnostics, HostName, HttpVersions, PemSource, Place,
    TlsTermination, TlsVersion, UpstreamTls, Verification,
};
use tls::{CipherSuites, ClientTls, Termination};

/// A flag with a file.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) flag: &'static str,
    pub(super) file: PathBuf,
}

impl Named {
    /// `None` for an empty value, as for a flag that is not given.
    pub(super) fn new(flag: &'static str, file: &str) -> Option<Self> {
        (!file.is_empty()).then(|| Self { flag, file: file.into() })
    }
}

/// What one port shows, and asks for.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) certificate: Named,
    pub(super) key: Named,
    /// `None`: nobody is asked.
    pub(super) authorities: Option<Named>,
    pub(super) versions: HttpVersions,
    pub(super) min_version: TlsVersion,
    pub(super) suites: CipherSuites,
}

impl Served {
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let named = [Some(&self.certificate), Some(&self.key), self.authorities.as_ref()];
        named.into_iter().flatten().map(|named| named.file.clone()).collect()
    }

    pub(super) fn load(&self) -> Result<Termination, Diagnostics> {
        let verification = self.authorities.as_ref().map(|named| {
            Arc::new(ClientVerification {
                authorities: PemSource::File(named.file.clone()),
                optional: false,
            })
        });
        let certificate = Certificate {
            client_verification: verification,
            ..certificate(&self.certificate, &self.key)
        };
        let termination = TlsTermination {
            certificates: vec![certificate],
            first_is_default: true,
            min_version: self.min_version,
        };
        Termination::load_with(&termination, self.versions, &self.suites)
    }
}

/// What an agent or a client shows, and believes.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// `None`: it shows none.
    pub(super) certificate: Option<(Named, Named)>,
    /// `None`: the machine's.
    pub(super) authorities: Option<Named>,
    /// In place of the other side's host.
    pub(super) server_name: Option<HostName>,
    pub(super) protocols: Vec<Vec<u8>>,
}

impl Shown {
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let pair = self.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        pair.chain(&self.authorities).map(|named| named.file.clone()).collect()
    }

    pub(super) fn load(&self) -> Result<ClientTls, Diagnostics> {
        let verification = match &self.authorities {
            None => Verification::System,
            Some(named) => Verification::Authorities(PemSource::File(named.file.clone())),
        };
        let upstream = UpstreamTls { verification, server_name: self.server_name.clone() };
        let loaded = ClientTls::load(&upstream, &Place::whole("flag --ca-cert"))?;
        let loaded = match &self.certificate {
            None => loaded,
            Some((chain, key)) => loaded.with_certificate(&certificate(chain, key))?,
        };
        Ok(loaded.with_protocols(self.protocols.clone()))
    }
}

fn certificate(chain: &Named, key: &Named) -> Certificate {
    Certificate {
        chain: PemSource::File(chain.file.clone()),
        key: PemSource::File(key.file.clone()),
        hosts: Vec::new(),
        client_verification: None,
        place: Place::whole(format!("flags {} and {}", chain.flag, key.flag)),
    }
}

/// The certificate's and the key's flag, both or neither.
pub(super) fn pair(
    certificate: (&'static str, &str),
    key: (&'static str, &str),
) -> Result<Option<(Named, Named)>, crate::UsageError> {
    match (Named::new(certificate.0, certificate.1), Named::new(key.0, key.1)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        _ => Err(crate::UsageError(format!(
            "flags {} and {}: found one of them, expected both",
            certificate.0, key.0
        ))),
    }
}

/// What an agent or a client shows, loaded, and its files followed.
pub(super) fn start(shown: Shown, what: &'static str) -> anyhow::Result<Arc<ArcSwap<ClientTls>>> {
    // Watched from before they are read.
    let watcher = Watcher::new(shown.files())?;
    let loaded = shown.load().map_err(super::server::usage)?;
    for warning in loaded.warnings().warnings() {
        tracing::warn!(%warning);
    }
    let place = Arc::new(ArcSwap::from_pointee(loaded));
    let load = move || shown.load();
    net::task::spawn("certificates", follow(watcher, what, place.clone(), load));
    Ok(place)
}

/// Loads again whenever a file changes; what cannot be loaded is said, and the last good ones stay. For ever.
pub(super) async fn follow<T>(
    mut watcher: Watcher,
    what: &'static str,
    place: Arc<ArcSwap<T>>,
    load: impl Fn() -> Result<T, Diagnostics> + Clone + Send + 'static,
) where
    T: Send + Sync + 'static,
{
    loop {
        watcher.changed().await;
        let load = load.clone();
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok(loaded)) => {
                place.store(Arc::new(loaded));
                tracing::info!(what, "new certificates");
            }
            Ok(Err(problems)) => {
                for problem in problems.errors() {
                    tracing::error!(what, %problem, "new certificates cannot be used; the old ones stay");
                }
            }
            Err(error) => tracing::error!(what, %error, "loading certificates"),
        }
    }
}
