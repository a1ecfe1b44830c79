//! What can go wrong with a cluster for tests, each naming the operation.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Why something of a cluster failed. Nothing here carries a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with a code other than 0.
    #[error("`{command}` failed: {stderr}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// What it wrote to stderr, cut to its end.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("no {what} after {within:?}{log}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// The end of the log that may say why, or nothing.
        log: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot make the certificate of {name}")]
    Certificate {
        /// Whose it is.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The recorded state of the cluster cannot be read.
    #[error("the cluster's state in {file} is not what this version writes")]
    State {
        /// The file.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// This machine or this user cannot do it; the text says what to do.
    #[error("{0}")]
    Unable(String),
}

impl Error {
    /// For `map_err`: the operation in words.
    pub(super) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }
}

/// Writes a file; the error names it.
pub(super) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

/// Makes a folder and those above it; the error names it.
pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io(format!("make {}", path.display())))
}
