//! One look at the watched files: what is in them, and which directories would show a change.
//!
//! A file's path is walked component by component, as the kernel does: each symbolic link on the way (a
//! `ConfigMap` mount has two) can be swapped, each missing part can appear, so the directories that hold
//! them are of interest, and in them those names alone. Blocking, pure reading; knows nothing of
//! notifications or time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::tree::FILE_BYTES_MAX;

/// Symbolic links followed on the way to a file, as in the kernel.
const LINKS_FOLLOWED_MAX: usize = 40;
const READ_BYTES: usize = 64 * 1024;

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// What is in each file, in the order they were given.
    pub(super) contents: Vec<Content>,
    /// Every directory whose changes matter, with its device and inode: under one name there may be another
    /// tomorrow.
    pub(super) directories: BTreeMap<PathBuf, (u64, u64)>,
    /// The paths whose changes matter: the names in those directories, and the directories themselves.
    pub(super) names: BTreeSet<PathBuf>,
}

/// What a file holds, as far as a change can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Length and hash of the bytes.
    Bytes(u64, u64),
    /// It is no regular file (a pipe, a device, a directory): never read, because reading would change it.
    Special,
    /// Missing or unreadable.
    Unreadable(std::io::ErrorKind),
}

impl Survey {
    /// Looks at files with absolute paths.
    pub(super) fn take(paths: &[PathBuf]) -> Self {
        let mut survey = Self::default();
        for path in paths {
            survey.walk(path);
        }
        // After the walk: what changes from here on is either read below or seen in a watched directory.
        survey.contents = paths.iter().map(|path| content(path)).collect();
        survey
    }

    fn walk(&mut self, path: &Path) {
        let mut links = 0;
        let mut here = PathBuf::from("/");
        // The parts still to go, the next one last.
        let mut rest = parts(path);
        while let Some(part) = rest.pop() {
            if part == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&part);
            match fs::symlink_metadata(&next) {
                Ok(metadata) if metadata.is_symlink() => {
                    self.note(&here, &next);
                    links += 1;
                    let Ok(target) = fs::read_link(&next) else { return };
                    if links > LINKS_FOLLOWED_MAX {
                        return;
                    }
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    rest.extend(parts(&target));
                }
                Ok(_) if rest.is_empty() => return self.note(&here, &next),
                Ok(_) => here = next,
                Err(_) => return self.note(&here, &next),
            }
        }
    }

    /// A name in a directory matters.
    fn note(&mut self, directory: &Path, name: &Path) {
        if let Ok(metadata) = fs::metadata(directory) {
            self.directories.insert(directory.into(), (metadata.dev(), metadata.ino()));
            self.names.extend([name.into(), directory.into()]);
        }
    }
}

/// The parts of a path below the root, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(OsString::from(name)),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

fn content(path: &Path) -> Content {
    hashed(path).unwrap_or_else(|e| Content::Unreadable(e.kind()))
}

fn hashed(path: &Path) -> std::io::Result<Content> {
    if !fs::metadata(path)?.is_file() {
        return Ok(Content::Special);
    }
    let mut file = fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1);
    let mut buffer = vec![0; READ_BYTES];
    let (mut length, mut hasher) = (0, DefaultHasher::new());
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Content::Bytes(length, hasher.finish())),
            Ok(n) => {
                length += n as u64;
                hasher.write(&buffer[..n]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names_below(survey: &Survey, root: &Path) -> Vec<String> {
        let below = |path: &PathBuf| Some(path.strip_prefix(root).ok()?.display().to_string());
        survey.names.iter().filter_map(below).collect()
    }

    #[test]
    fn every_link_on_the_way_is_of_interest() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("mount/..1")).unwrap();
        fs::write(root.join("mount/..1/file"), "a").unwrap();
        symlink("..1", root.join("mount/..data")).unwrap();
        symlink("..data/file", root.join("mount/file")).unwrap();
        let survey = Survey::take(&[root.join("mount/file")]);
        let expected = ["mount", "mount/..1", "mount/..1/file", "mount/..data", "mount/file"];
        assert_eq!(names_below(&survey, &root), expected);
        assert!(matches!(survey.contents[0], Content::Bytes(1, _)));
    }

    #[test]
    fn the_nearest_directory_that_exists_is_of_interest() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let survey = Survey::take(&[root.join("a/b/file")]);
        assert_eq!(names_below(&survey, &root), ["", "a"]);
        assert_eq!(survey.contents, [Content::Unreadable(std::io::ErrorKind::NotFound)]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let survey = Survey::take(&[root.join("a"), PathBuf::from("/dev/null")]);
        assert_eq!(names_below(&survey, &root), ["", "a", "b"]);
        assert_eq!(survey.contents[1], Content::Special);
    }
}
