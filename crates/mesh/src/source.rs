//! What the three files say together, and what becomes of it when they change: each file by itself keeps its last good
//! state while it is gone, wrong, broken off or empty by accident.
//!
//! Reads through a function that it is given, so that a test needs no files. Start at [`Files::read`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::{Diagnostic, Diagnostics, Place, Target};

use crate::files::mappings::Mapping;
use crate::files::settings::Settings;
use crate::files::{hosts, is_blank, mappings, settings};

/// Larger files are not read.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The last good state of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `proxy.conf`
    pub settings: Arc<Settings>,
    /// `hosts.conf`, all hosts in their order.
    pub hosts: Arc<[Target]>,
    /// `portmappings.conf`
    pub mappings: Arc<[Mapping]>,
}

/// Gives the text of a file.
pub type Read<'r> = &'r dyn Fn(&Path) -> io::Result<String>;

impl Files {
    /// Reads all three. Of what cannot be read or used, the state `before` stays, or where there was none, the
    /// defaults, no hosts and no pods. Every such thing is among the diagnostics; an error in `proxy.conf` is one
    /// (only then a first start makes no sense), as is a file of which the state before stays.
    #[must_use]
    pub fn read(proxy_conf: &Path, before: Option<&Self>, read: Read<'_>) -> (Self, Diagnostics) {
        let mut found = Diagnostics::default();
        let folder = proxy_conf.parent().unwrap_or(Path::new(""));
        let settings = match text(proxy_conf, read, false) {
            Ok((name, text)) => {
                let (settings, problems) = settings::parse(&name, folder, &text);
                let wrong = problems.has_errors();
                found.0.extend(problems.0);
                (!wrong).then(|| Arc::new(settings))
            }
            Err(problem) => {
                found.push(*problem);
                None
            }
        };
        let settings = settings.or_else(|| before.map(|files| files.settings.clone()));
        let settings = settings.unwrap_or_else(|| Arc::new(Settings::defaults(folder)));
        let keep = settings.keep_when_empty;
        let hosts = part(&settings.hosts_file, read, keep.hosts, hosts::parse, &mut found);
        let mappings =
            part(&settings.mappings_file, read, keep.mappings, mappings::parse, &mut found);
        let files = Self {
            hosts: hosts.or_else(|| before.map(|f| f.hosts.clone())).unwrap_or_default(),
            mappings: mappings.or_else(|| before.map(|f| f.mappings.clone())).unwrap_or_default(),
            settings,
        };
        (files, found)
    }
}

/// The content of one file; `None` where the state before stays.
fn part<T>(
    path: &Path,
    read: Read<'_>,
    keep_when_empty: bool,
    parse: fn(&Arc<str>, &str) -> (Vec<T>, Diagnostics),
    found: &mut Diagnostics,
) -> Option<Arc<[T]>> {
    let (name, text) = match text(path, read, keep_when_empty) {
        Ok(read) => read,
        Err(problem) => {
            found.push(*problem);
            return None;
        }
    };
    let (items, problems) = parse(&name, &text);
    let wrong = problems.has_errors();
    found.0.extend(problems.0);
    (!wrong).then(|| items.into())
}

fn text(
    path: &Path,
    read: Read<'_>,
    keep_when_empty: bool,
) -> Result<(Arc<str>, String), Box<Diagnostic>> {
    let name: Arc<str> = path.display().to_string().into();
    let place = || Place::whole(name.clone());
    let text = read(path).map_err(|error| {
        let problem = format!("cannot be read, what it last said stays: {error}");
        Box::new(Diagnostic::error(place(), "", problem))
    })?;
    if keep_when_empty && is_blank(&text) {
        let problem = "is empty, what it last said stays (KEEPEMPTY can say otherwise)";
        return Err(Box::new(Diagnostic::error(place(), "", problem)));
    }
    Ok((name, text))
}

/// Reads a file of the file system, up to [`FILE_BYTES_MAX`]. Bytes that are no UTF-8 are replaced.
///
/// # Errors
/// The file system's, and one for a file that is too long.
pub fn read_file(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than 8 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Disk = HashMap<&'static str, &'static str>;

    fn read(disk: &Disk, before: Option<&Files>) -> (Files, Diagnostics) {
        let read = |path: &Path| {
            let text = disk.get(path.to_str().unwrap());
            text.map(|t| (*t).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        Files::read(Path::new("/c/proxy.conf"), before, &read)
    }

    fn good() -> Disk {
        Disk::from([
            ("/c/proxy.conf", "HOST 10.0.0.1\n"),
            ("/c/hosts.conf", "10.0.0.1:32767\n10.0.0.2:32767\n"),
            ("/c/portmappings.conf", "61000:30000:9:false\n"),
        ])
    }

    #[test]
    fn each_file_keeps_its_last_good_state() {
        let (before, found) = read(&good(), None);
        assert!(found.0.is_empty(), "{found}");
        assert_eq!((before.hosts.len(), before.mappings.len()), (2, 1));
        for (file, text, problem) in [
            ("/c/proxy.conf", None, "/c/proxy.conf: error: cannot be read"),
            ("/c/proxy.conf", Some("PORT x\n"), "/c/proxy.conf:1:6: error: PORT"),
            ("/c/hosts.conf", None, "/c/hosts.conf: error: cannot be read"),
            ("/c/hosts.conf", Some(" \n"), "/c/hosts.conf: error: is empty"),
            ("/c/portmappings.conf", None, "/c/portmappings.conf: error: cannot be read"),
            ("/c/portmappings.conf", Some("61001:3"), "the file breaks off"),
        ] {
            let mut disk = good();
            match text {
                Some(text) => disk.insert(file, text),
                None => disk.remove(file),
            };
            let (after, found) = read(&disk, Some(&before));
            assert_eq!(after, before, "{file} {text:?}");
            assert!(found.to_string().contains(problem), "{found}");
        }
    }

    #[test]
    fn files_that_may_be_empty_are() {
        let (before, _) = read(&good(), None);
        let mut disk = good();
        disk.insert("/c/portmappings.conf", "");
        let (after, found) = read(&disk, Some(&before));
        assert!(after.mappings.is_empty() && found.0.is_empty(), "{found}");
        disk.insert("/c/proxy.conf", "KEEPEMPTY mappings\n");
        disk.insert("/c/hosts.conf", "");
        let (after, found) = read(&disk, Some(&before));
        assert!(after.hosts.is_empty() && !after.mappings.is_empty());
        assert!(found.to_string().starts_with("/c/portmappings.conf: error: is empty"), "{found}");
    }

    #[test]
    fn at_the_start_there_is_nothing_to_keep() {
        let (files, found) = read(&Disk::new(), None);
        assert_eq!(*files.settings, Settings::defaults(Path::new("/c")));
        assert_eq!(found.errors().count(), 3);
    }
}
