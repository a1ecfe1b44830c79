//! The environment: the only place in the tasks that reads it, so that everything they depend on stands here.
//! It must not decide anything.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Whether this is a CI run (`CI=true`), where nothing may be left out in silence.
#[expect(clippy::disallowed_methods, reason = "this file is where the tasks read the environment")]
pub(crate) fn ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The cargo that runs this task, or the one on the path.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The file that `name` means as a command, looked up in `PATH` and in the folders where Debian keeps
/// servers.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let server_folders = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(server_folders)
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
