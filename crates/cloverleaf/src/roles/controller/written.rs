//! The file that a controller writes, and the folder beside it with what is secret.
//!
//! Each is readable by its owner alone and whole at every moment: first what the file names, then the file, then what
//! it names no longer goes. Must not know what stands in it.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kubernetes::persist::write_atomically;
use model::Snapshot;

/// Of the folder: its owner alone.
const FOLDER_MODE: u32 = 0o700;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    file: PathBuf,
    /// What stands in the file, if it was written by this process.
    last: Option<config::Written>,
}

impl Written {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, last: None }
    }

    /// Writes a snapshot, if that changes anything. Blocks on the file system.
    ///
    /// # Errors
    /// Where the file system refuses; then the file is as it was.
    pub(super) fn write(&mut self, snapshot: &Snapshot, listeners: bool) -> anyhow::Result<()> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder_name = format!("{name}.d");
        let written = config::write(snapshot, listeners, &folder_name);
        if self.last.as_ref() == Some(&written) {
            return Ok(());
        }
        let folder = self.file.with_file_name(folder_name);
        if !written.files.is_empty() {
            make_folder(&folder)?;
        }
        for (name, content) in &written.files {
            put(&folder.join(name), content)?;
        }
        put(&self.file, written.yaml.as_bytes())?;
        sweep(&folder, &written);
        tracing::info!(file = %self.file.display(), beside = written.files.len(), "written");
        self.last = Some(written);
        Ok(())
    }
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(FOLDER_MODE).recursive(true);
    builder.create(folder).with_context(|| format!("making {}", folder.display()))
}

/// Puts a content in place, unless it is there already.
fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() == content.len() as u64)
        && std::fs::read(path).is_ok_and(|there| there == content)
    {
        return Ok(());
    }
    write_atomically(path, |out| out.write_all(content))
        .with_context(|| format!("writing {}", path.display()))
}

/// Removes what the file names no longer. What cannot be removed does no harm.
fn sweep(folder: &Path, written: &config::Written) {
    let named: HashSet<&str> = written.files.iter().map(|(name, _)| name.as_str()).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = [".pem", ".key", ".new"].iter().any(|end| name.ends_with(end));
        if ours && !named.contains(&*name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;

    fn snapshot(key: &str) -> Snapshot {
        let text = "rules: [{path: /, respond: 204}]";
        let parse = |text: &str| {
            config::parse(text, "f", Path::new(""), &config::Overrides::default()).0.unwrap()
        };
        let mut snapshot = parse(text).snapshot;
        let rules = Arc::make_mut(&mut snapshot.listeners[0].scopes[0].rules);
        let key = model::ApiKey { header: "x".into(), value: key.as_bytes().into() };
        rules.rules[0].api_key = Some(Arc::new(key));
        snapshot
    }

    #[test]
    fn what_is_named_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let mut written = Written::new(file.clone());
        for key in ["one", "two", "two"] {
            written.write(&snapshot(key), false).unwrap();
            let (read, found) = config::load(&file, &config::Overrides::default());
            assert_eq!(found.to_string(), "");
            let rules = &read.unwrap().snapshot.listeners[0].scopes[0].rules;
            assert_eq!(&*rules.rules[0].api_key.as_ref().unwrap().value, key.as_bytes());
            let beside = folder.path().join("config.yaml.d");
            let names: Vec<_> = std::fs::read_dir(&beside).unwrap().collect();
            assert_eq!(names.len(), 1);
            for path in [&file, &names[0].as_ref().unwrap().path()] {
                assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
