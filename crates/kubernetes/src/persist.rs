//! The last known objects on disk, so that a start without the API server serves what was served before.
//!
//! One JSON file, written whole to a neighbour and renamed, readable by its owner alone: it holds the private keys
//! of the Secrets. A file that cannot be read is somebody else's news, never a reason not to start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::objects::{Kind, Meta, Secret, Text};
use crate::store::{Changed, Object, Store};

/// Most that is read.
pub const STATE_BYTES_MAX: u64 = 1 << 30;
/// Of the form of the file.
const FORM: u32 = 1;
/// Readable and writable by the owner alone.
const MODE: u32 = 0o600;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system.
    #[error("{what} {}", path.display())]
    File {
        /// Reading or writing.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what was written here. What stands there is not shown: it may be a key.
    #[error("{} is not a state of this version (line {line}, column {column})", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// From 1; 0 where nothing is wrong but its version.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Larger than [`STATE_BYTES_MAX`].
    #[error("{} is larger than {STATE_BYTES_MAX} bytes", path.display())]
    Large {
        /// Which file.
        path: PathBuf,
    },
}

/// The file.
#[derive(Serialize, Deserialize)]
struct State {
    form: u32,
    secrets: Vec<SecretText>,
    /// All others.
    objects: Vec<Object>,
}

/// A Secret with its fields in base64: a third of what a list of numbers takes.
#[derive(Serialize, Deserialize)]
struct SecretText {
    meta: Meta,
    data: BTreeMap<Text, String>,
}

impl SecretText {
    fn of(secret: &Secret) -> Self {
        let data = secret.data.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value)));
        Self { meta: secret.meta.clone(), data: data.collect() }
    }

    fn secret(self) -> Option<Secret> {
        let mut data = BTreeMap::new();
        for (name, value) in self.data {
            data.insert(name, Arc::from(STANDARD.decode(value).ok()?));
        }
        Some(Secret { meta: self.meta, data })
    }
}

/// Writes all objects, in place of what was there. Blocks on the file system.
///
/// # Errors
/// Where the file system refuses; then what was there is there still.
pub fn save(path: &Path, store: &Store) -> Result<(), StateError> {
    let failed = |source| StateError::File { what: "writing", path: path.into(), source };
    let secrets = store.secrets.values().map(|secret| SecretText::of(secret)).collect();
    let objects = store.objects().filter(|o| o.kind() != Kind::Secret).collect();
    let written = State { form: FORM, secrets, objects };
    write_atomically(path, |out| serde_json::to_writer(out, &written).map_err(Into::into))
        .map_err(failed)
}

/// A file that is either as it was or as it is meant to be, readable by its owner alone.
///
/// # Errors
/// Where the file system refuses.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // One that a crash left may be anybody's to read.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_data()?;
    std::fs::rename(&beside, path)
}

/// Reads what [`save`] wrote; `None` where there is no file. Blocks on the file system.
///
/// # Errors
/// Where it cannot be read or is something else.
pub fn load(path: &Path) -> Result<Option<Store>, StateError> {
    let failed = |source| StateError::File { what: "reading", path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.len() > STATE_BYTES_MAX {
        return Err(StateError::Large { path: path.into() });
    }
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let form = |line, column| StateError::Form { path: path.into(), line, column };
    let read: State = serde_json::from_slice(&bytes).map_err(|e| form(e.line(), e.column()))?;
    if read.form != FORM {
        return Err(form(0, 0));
    }
    let mut store = Store::default();
    let mut changed = Changed::default();
    for object in read.objects {
        store.apply(object, &mut changed);
    }
    for secret in read.secrets {
        let secret = secret.secret().ok_or_else(|| form(0, 0))?;
        store.apply(Object::from(secret), &mut changed);
    }
    Ok(Some(store))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Key, Namespace};

    fn meta(name: &str) -> Meta {
        let key = Key { namespace: "a".into(), name: name.into() };
        Meta { key, uid: "u".into(), created: 7, deleting: false }
    }

    fn store() -> Store {
        let mut store = Store::default();
        let data = BTreeMap::from([("api-key".into(), Arc::from(&b"\x00\xffkey"[..]))]);
        let secret = Secret { meta: meta("routing"), data };
        let labels = BTreeMap::new();
        let namespace = Namespace { meta: meta("n"), hosts: Some("{}".into()), labels };
        for object in [Object::from(secret), Object::from(namespace)] {
            store.apply(object, &mut Changed::default());
        }
        store
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert!(load(&path).unwrap().is_none());
        std::fs::write(folder.path().join("state.json.new"), "left by a crash").unwrap();
        for _ in 0..2 {
            save(&path, &store()).unwrap();
            assert_eq!(load(&path).unwrap(), Some(store()));
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        save(&path, &store()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for bad in [
            &good[..good.len() / 2],
            b"",
            b"null",
            br#"{"form":99,"secrets":[],"objects":[]}"#,
            br#"{"form":1,"secrets":[{"meta":{},"data":{"k":"TOPSECRET"}}],"objects":[]}"#,
            br#"{"form":1,"secrets":"TOPSECRET","objects":[]}"#,
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, StateError::Form { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("TOPSECRET"));
        }
    }
}
