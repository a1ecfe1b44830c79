//! What holds for every text, mutated, fuzzed or kept in the corpus: there is no panic, a configuration
//! only without errors, and a dump that reads back as itself.

use std::path::Path;

use cloverleaf_config::{Overrides, nanoproxy_yaml, parse, snapshot_json};

/// Checks a text, and says whether it is a valid configuration.
///
/// # Panics
/// Where the property does not hold.
pub(crate) fn holds(text: &str) -> bool {
    let overrides = Overrides::default();
    let (config, diagnostics) = parse(text, "f", Path::new("/x"), &overrides);
    assert_eq!(config.is_some(), !diagnostics.has_errors(), "{diagnostics}\n{text}");
    let Some(config) = config else { return false };
    assert!(!snapshot_json(&config.snapshot).is_null());
    let dump = nanoproxy_yaml(&config.snapshot);
    let (again, diagnostics) = parse(&dump, "f", Path::new("/x"), &overrides);
    let again = again.unwrap_or_else(|| panic!("{diagnostics}\n{dump}"));
    assert_eq!(nanoproxy_yaml(&again.snapshot), dump, "{text}");
    true
}
