//! Whether a path fits one rule.

use model::PathMatch;

/// Whether a decoded path fits.
pub(super) fn path_matches(wanted: &PathMatch, path: &[u8]) -> bool {
    match wanted {
        PathMatch::Any => true,
        PathMatch::Exact(text) => path == text.as_bytes(),
        PathMatch::Prefix(text) => path.starts_with(text.as_bytes()),
        PathMatch::Segments(text) => {
            let key = segments_key(text);
            path.starts_with(key) && ends_segment(path, key.len())
        }
        PathMatch::Never => false,
    }
}

/// What a path must begin with for [`PathMatch::Segments`]: `/api` and `/api/` mean the same, and `/`
/// means every path that begins with a slash.
pub(super) fn segments_key(text: &str) -> &[u8] {
    text.strip_suffix('/').unwrap_or(text).as_bytes()
}

/// Whether a segment of the path ends after its first `len` bytes.
pub(super) fn ends_segment(path: &[u8], len: usize) -> bool {
    path.get(len).is_none_or(|&byte| byte == b'/')
}
