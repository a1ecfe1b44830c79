//! What every decoding function is given: where relative paths begin, and where mistakes go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::Listener;

use crate::decode::KnownTunnel;
use crate::report::Report;

/// One file under way.
pub(crate) struct Context<'b> {
    /// What is wrong so far.
    pub(crate) report: Report,
    /// Where relative paths begin: the configuration file's directory.
    pub(crate) base_dir: &'b Path,
    /// Files that the configuration names and that must be watched with it.
    pub(crate) files: BTreeSet<PathBuf>,
    /// There is a mesh that upstreams may be reached through.
    pub(crate) has_mesh: bool,
    /// The tunnels that upstreams may be reached through.
    pub(crate) tunnels: Vec<KnownTunnel>,
    /// Routes do not come from the file; these are its listeners if it names none.
    pub(crate) elsewhere: Option<&'b [Listener]>,
}
