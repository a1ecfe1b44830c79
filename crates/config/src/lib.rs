//! The gateway's YAML file: read, checked, and turned into [`model::Snapshot`], with all of its mistakes
//! said at once.
//!
//! Every `NanoProxy` file is a valid one. The keys are declared once, in `keys`; the decoder, the reference
//! page, the JSON schema and the tests all read that table. This crate must not bind a socket, read a
//! certificate's content or the environment, or know how requests are matched. Start at [`load`];
//! [`Watcher`] says when to call it again.

mod agents;
mod context;
mod decode;
mod flags;
mod keys;
mod overrides;
mod reference;
mod report;
mod scalar;
mod schema;
mod show;
mod suggest;
mod tree;
mod value;
mod watch;
mod write;

pub use agents::load_agent_policy;
pub use flags::{FlagSection, Setting, load_flags, parse_flags};
pub use overrides::Overrides;
pub use reference::reference_markdown;
pub use schema::json_schema;
pub use show::{nanoproxy_yaml, snapshot_json};
pub use watch::{WATCHED_FILES_MAX, WatchError, Watcher};
pub use write::{Written, write};

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use model::{Diagnostic, Diagnostics, Place, Snapshot, UpstreamId};

use context::Context;
use decode::Decoded;
use report::Report;
use tree::FILE_BYTES_MAX;

/// The admin port's address where neither file nor flag gives one.
pub const ADMIN_ADDRESS_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Where the admin port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAddress {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl AdminAddress {
    /// `off`, or `ip:port` with an IPv6 address in brackets. `None` if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::Off);
        }
        scalar::socket_address(text).map(Self::At)
    }
}

impl Default for AdminAddress {
    fn default() -> Self {
        Self::At(ADMIN_ADDRESS_DEFAULT)
    }
}

/// The mesh that a gateway's host is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// The file of its settings, which names the others. Read and watched by whoever serves.
    pub proxy_conf: PathBuf,
    /// Its ports are served too.
    pub serve: bool,
    /// Cluster ports that upstreams serve.
    pub ports: Vec<(u16, UpstreamId)>,
}

/// A checked configuration, flags and environment applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the data plane serves.
    pub snapshot: Snapshot,
    /// Where the admin port listens.
    pub admin: AdminAddress,
    /// The mesh that this host is part of.
    pub mesh: Option<MeshConfig>,
    /// Where the embedded test upstream listens, if there is one.
    pub echo: Option<SocketAddr>,
    /// Number of worker threads; `None` is one for each core.
    pub workers: Option<usize>,
    /// Every other file that it names and whose content matters: certificates, keys, authorities. Sorted,
    /// each once.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a file. There is a configuration only if there are no errors; warnings may come with it.
///
/// Relative paths in the file begin at its directory. Blocks on the file system.
#[must_use]
pub fn load(path: &Path, overrides: &Overrides) -> (Option<Config>, Diagnostics) {
    let source = path.display().to_string();
    let failed = |place: Place, problem: String| {
        (None, Diagnostics(vec![Diagnostic::error(place, "", problem)]))
    };
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(e) => return failed(Place::whole(source), format!("cannot be read: {e}")),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let base_dir = path.parent().unwrap_or(Path::new(""));
            parse(text, &source, base_dir, overrides)
        }
        Err(e) => {
            let place = tree::place_of_bad_utf8(&bytes, e.valid_up_to(), &source);
            failed(place, "not UTF-8 text".into())
        }
    }
}

/// At most one byte more than is allowed, so that [`parse`] can say so.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks a text. `source` is what diagnostics call it; relative paths in it begin at `base_dir`.
#[must_use]
pub fn parse(
    text: &str,
    source: &str,
    base_dir: &Path,
    overrides: &Overrides,
) -> (Option<Config>, Diagnostics) {
    let mut cx = Context {
        report: Report::new(source),
        base_dir,
        files: BTreeSet::new(),
        has_mesh: false,
        tunnels: Vec::new(),
        elsewhere: overrides.routes_elsewhere.as_deref(),
    };
    let tree = tree::read(text, &mut cx.report);
    let decoded = match (&tree, cx.report.has_errors()) {
        // Not YAML: everything else would be a guess.
        (None, true) => None,
        _ => decode::file(&mut cx, tree.as_ref()),
    };
    let config = decoded.and_then(|mut decoded| {
        overrides.apply(&mut cx, &mut decoded);
        overrides::report_collisions(&mut cx, &decoded);
        let files = std::mem::take(&mut cx.files).into_iter().collect();
        let Decoded { snapshot, admin, mesh, echo, workers } = decoded;
        let admin = admin.map(|(address, _)| address).unwrap_or_default();
        let echo = echo.map(|(address, _)| address);
        let config = Config { snapshot, admin, mesh, echo, workers, files };
        (!cx.report.has_errors()).then_some(config)
    });
    (config, cx.report.finish())
}
