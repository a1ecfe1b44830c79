//! The watcher against every way in which a file can change.

use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloverleaf_config::{WATCHED_FILES_MAX, WatchError, Watcher};

/// Far more than an announcement takes; only a missing one reaches it.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long nothing must happen where nothing has changed.
const QUIET: Duration = Duration::from_millis(250);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

async fn announced(watcher: &mut Watcher, what: &str) {
    let begin = Instant::now();
    let waited = tokio::time::timeout(DEADLINE, watcher.changed()).await;
    assert!(waited.is_ok(), "{what}: not announced");
    println!("{what}: {:?}", begin.elapsed());
}

async fn quiet(watcher: &mut Watcher, what: &str) {
    assert!(tokio::time::timeout(QUIET, watcher.changed()).await.is_err(), "{what}: announced");
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn writing_in_place_and_renaming_over() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "1");
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        quiet(&mut watcher, "nothing").await;
        place.write("config.yaml", "2");
        announced(&mut watcher, "in place").await;
        let mut appended = fs::OpenOptions::new().append(true).open(&file).unwrap();
        appended.write_all(b"3").unwrap();
        announced(&mut watcher, "appended, file still open").await;
        for round in 0..3 {
            let next = place.write("next", &format!("rename {round}"));
            fs::rename(next, &file).unwrap();
            announced(&mut watcher, "renamed over").await;
        }
        place.write("config.yaml", "after the renames");
        announced(&mut watcher, "in place again").await;
    });
}

#[test]
fn only_another_content_counts() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "1");
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        place.write("config.yaml", "1");
        let next = place.write("next", "1");
        fs::rename(next, &file).unwrap();
        place.write("another file", "1");
        let _ = fs::read(&file).unwrap();
        quiet(&mut watcher, "the same content").await;
    });
}

#[test]
fn a_config_map_is_swapped() {
    run(async {
        let place = Place::new();
        let version = |name: &str, text: &str| {
            fs::create_dir(place.path(name)).unwrap();
            place.write(&format!("{name}/config.yaml"), text);
        };
        version("..1", "1");
        symlink("..1", place.path("..data")).unwrap();
        symlink("..data/config.yaml", place.path("config.yaml")).unwrap();
        let mut watcher = Watcher::new(vec![place.path("config.yaml")]).unwrap();
        for round in 2..5 {
            let (old, new) = (format!("..{}", round - 1), format!("..{round}"));
            version(&new, &new);
            symlink(&new, place.path("..data_tmp")).unwrap();
            fs::rename(place.path("..data_tmp"), place.path("..data")).unwrap();
            fs::remove_dir_all(place.path(&old)).unwrap();
            announced(&mut watcher, "swapped").await;
        }
        place.write("..4/config.yaml", "behind the links");
        announced(&mut watcher, "written behind the links").await;
    });
}

#[test]
fn gone_and_back() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "1");
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        fs::remove_file(&file).unwrap();
        announced(&mut watcher, "gone").await;
        place.write("config.yaml", "1");
        announced(&mut watcher, "back").await;
    });
}

#[test]
fn the_directory_comes_goes_and_is_replaced() {
    run(async {
        let place = Place::new();
        let file = place.path("a/b/config.yaml");
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        fs::create_dir_all(place.path("a/b")).unwrap();
        fs::write(&file, "1").unwrap();
        announced(&mut watcher, "directory made").await;
        fs::remove_dir_all(place.path("a")).unwrap();
        announced(&mut watcher, "directory gone").await;
        fs::create_dir_all(place.path("a/b")).unwrap();
        fs::write(&file, "2").unwrap();
        announced(&mut watcher, "directory back").await;
        fs::create_dir(place.path("a/c")).unwrap();
        fs::write(place.path("a/c/config.yaml"), "3").unwrap();
        fs::rename(place.path("a/b"), place.path("a/old")).unwrap();
        fs::rename(place.path("a/c"), place.path("a/b")).unwrap();
        announced(&mut watcher, "directory replaced").await;
        fs::write(&file, "4").unwrap();
        announced(&mut watcher, "written in the new directory").await;
    });
}

#[test]
fn a_burst_is_one_or_few_announcements_and_the_last_content_counts() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "0");
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        for n in 1..=200 {
            place.write("config.yaml", &n.to_string());
        }
        let mut announcements = 0;
        while tokio::time::timeout(QUIET, watcher.changed()).await.is_ok() {
            announcements += 1;
        }
        assert!((1..=5).contains(&announcements), "{announcements} announcements");
        quiet(&mut watcher, "nothing more").await;
    });
}

#[test]
fn a_call_that_is_dropped_loses_nothing() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "1");
        let mut watcher = Watcher::new(vec![file]).unwrap();
        place.write("config.yaml", "2");
        // Dropped at every stage: before the event, while it settles, while the file is read.
        for tenth_ms in 0..400 {
            let step = Duration::from_micros(tenth_ms * 100);
            if tokio::time::timeout(step, watcher.changed()).await.is_ok() {
                return;
            }
        }
        announced(&mut watcher, "after many drops").await;
    });
}

#[test]
fn the_set_of_files_can_change() {
    run(async {
        let place = Place::new();
        let (a, b) = (place.write("a", "1"), place.write("b", "1"));
        let mut watcher = Watcher::new(vec![a.clone()]).unwrap();
        place.write("b", "2");
        quiet(&mut watcher, "a file that is not watched").await;
        place.write("a", "2");
        watcher.set_paths(vec![b.clone(), a.clone(), b.clone()]).unwrap();
        announced(&mut watcher, "a change before the set changed").await;
        place.write("b", "3");
        announced(&mut watcher, "a file added").await;
        watcher.set_paths(vec![b]).unwrap();
        place.write("a", "3");
        quiet(&mut watcher, "a file removed").await;
        let many = (0..=WATCHED_FILES_MAX).map(|n| PathBuf::from(format!("/x/{n}"))).collect();
        assert!(matches!(watcher.set_paths(many), Err(WatchError::TooManyFiles(_))));
        place.write("b", "4");
        announced(&mut watcher, "after a refused set").await;
    });
}

#[test]
fn polling_finds_changes_without_notifications() {
    run(async {
        let place = Place::new();
        let file = place.write("config.yaml", "1");
        let mut watcher = Watcher::polling(vec![file.clone()], Duration::from_millis(20)).unwrap();
        quiet(&mut watcher, "nothing").await;
        place.write("config.yaml", "2");
        announced(&mut watcher, "polled").await;
        fs::remove_file(&file).unwrap();
        announced(&mut watcher, "polled: gone").await;
    });
}

#[test]
fn the_poll_finds_what_events_cannot() {
    run(async {
        // A directory two above the file is replaced: nothing that is watched sees it.
        let place = Place::new();
        for (directory, text) in [("a", "1"), ("c", "2")] {
            fs::create_dir_all(place.path(directory).join("b")).unwrap();
            place.write(&format!("{directory}/b/config.yaml"), text);
        }
        let mut watcher = Watcher::new(vec![place.path("a/b/config.yaml")]).unwrap();
        fs::rename(place.path("a"), place.path("old")).unwrap();
        fs::rename(place.path("c"), place.path("a")).unwrap();
        announced(&mut watcher, "replaced far up").await;
        place.write("a/b/config.yaml", "3");
        announced(&mut watcher, "written there").await;
    });
}

#[test]
fn a_pipe_is_never_read() {
    run(async {
        let watcher =
            Watcher::new(vec![Path::new("/dev/null").into(), Path::new("/dev/tty").into()]);
        quiet(&mut watcher.unwrap(), "a device").await;
    });
}
