//! `cargo xtask generate`: documents that are made from the code, so that they cannot be wrong, and the plain
//! manifests that are made from the Helm chart.
//! It knows where they lie; what they say comes from the crate that owns it.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::sh;

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail when a document is not up to date
    #[arg(long)]
    check: bool,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    write()?;
    crate::helm::write()
}

/// Each document with its content.
fn documents() -> Vec<(&'static str, String)> {
    vec![
        ("docs/configuration.md", config::reference_markdown()),
        ("docs/gateway.schema.json", config::json_schema()),
    ]
}

fn write() -> Result<()> {
    for (path, content) in documents() {
        fs::write(sh::root().join(path), content).with_context(|| format!("write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Fail when a document differs from what would be written.
pub(crate) fn check() -> Result<()> {
    let stale: Vec<&str> = documents()
        .into_iter()
        .filter(|(path, content)| {
            fs::read_to_string(sh::root().join(path)).ok().as_ref() != Some(content)
        })
        .map(|(path, _)| path)
        .collect();
    if !stale.is_empty() {
        bail!("not up to date: {}; run `cargo xtask generate`", stale.join(", "));
    }
    Ok(())
}
