//! What is known of the one cluster of a machine between the programs that use it: a file in the cluster's
//! folder, read and written under a lock. It must not start or stop anything.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wait::wait_until;

use super::binaries::{Binaries, variable};
use super::control::Core;
use super::error::{Error, make_folder, write};
use super::service::{Running, Service};

/// How long one who changes the cluster may hold the lock; starting one takes about ten seconds.
const LOCKED_WITHIN: Duration = Duration::from_secs(240);

/// The cluster as it was last changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) core: Core,
    pub(super) nodes: Vec<Service>,
    /// The process that it dies with; none for one that stays.
    pub(super) owner: Option<Running>,
    pub(super) binaries: PathBuf,
    /// Whether it was started to the end.
    pub(super) complete: bool,
}

impl State {
    /// Whether it can be used.
    pub(super) fn alive(&self) -> bool {
        self.complete && self.core.alive()
    }

    /// The recorded state, if there is any.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let file = file(folder);
        match fs::read(&file) {
            Ok(bytes) => {
                let shown = file.display().to_string();
                let state = serde_json::from_slice(&bytes);
                state.map(Some).map_err(|source| Error::State { file: shown, source })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read {}", file.display()))(error)),
        }
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), Error> {
        let file = file(folder);
        let text = serde_json::to_vec_pretty(self);
        let text =
            text.map_err(|source| Error::State { file: file.display().to_string(), source })?;
        let beside = file.with_extension("new");
        write(&beside, text)?;
        fs::rename(&beside, &file).map_err(Error::io(format!("write {}", file.display())))
    }

    pub(super) fn binaries(&self) -> Result<Binaries, Error> {
        Binaries::in_folder(&self.binaries)
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

/// Where the one cluster of this machine and user lives. For root that is below `/var/lib`, as container
/// images need a disk.
pub(super) fn folder() -> Result<PathBuf, Error> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/cloverleaf-test-cluster"));
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let cache = cache.ok_or_else(|| Error::Unable("there is no HOME for its files".to_owned()))?;
    Ok(cache.join("cloverleaf/cluster"))
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Held while the cluster is looked at or changed; let go when it is dropped.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for whoever holds it, for a bounded time.
    pub(super) fn take(folder: &Path) -> Result<Self, Error> {
        if let Some(above) = folder.parent() {
            make_folder(above)?;
        }
        let path = folder.with_extension("lock");
        let shown = format!("lock {}", path.display());
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(Error::io(shown.clone()))?;
        let mut failure = None;
        let locked = wait_until(LOCKED_WITHIN, || match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                failure = Some(error);
                true
            }
        });
        match failure {
            Some(error) => Err(Error::io(shown)(error)),
            None if locked => Ok(Self { _file: file }),
            None => Err(Error::Unable(format!(
                "somebody has been starting or stopping the test cluster for {LOCKED_WITHIN:?}: \
                 see `fuser {}`",
                path.display()
            ))),
        }
    }
}
