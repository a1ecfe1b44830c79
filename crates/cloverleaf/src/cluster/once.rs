//! A cluster, or manifests in its place, looked at a single time: what a gateway would serve of it.
//!
//! Nothing is written, nothing served.

use std::path::{Path, PathBuf};

use anyhow::Context;
use config::Config;
use http_proxy::Program;
use kubernetes::manifests::{MANIFEST_BYTES_MAX, Reading, read_manifests};
use kubernetes::store::{Changed, Store};
use kubernetes::translate::{Translation, Translator};
use kubernetes::{Cluster, list_once};
use model::{Diagnostic, Diagnostics};

use super::ClusterSetup;
use super::merge::{Merge, problems, take_out};

/// Files of one folder tree; folders are followed to a depth of [`DEPTH_MAX`].
const FILES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;

/// What would be served.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Listeners and settings with the routes in them.
    pub(crate) config: Config,
    /// What is wrong with manifests (errors), and with objects (warnings: all others are served).
    pub(crate) found: Diagnostics,
}

/// Looks at the cluster. Blocks until everything is listed.
pub(crate) fn look(setup: ClusterSetup, base: Config) -> anyhow::Result<Looked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut setup = setup;
        let cluster = Cluster::connect(setup.kubeconfig.as_deref()).await?;
        setup.locate(&cluster).await;
        let store = list_once(&cluster, &setup.selection)
            .await
            .with_context(|| format!("looking at {}", cluster.server()))?;
        Ok(served(setup, base, &store, Vec::new()))
    })
}

/// Looks at files, and at the YAML and JSON files of folders.
pub(crate) fn read(setup: ClusterSetup, base: Config, paths: &[PathBuf]) -> anyhow::Result<Looked> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, 0, &mut files)?;
    }
    let mut texts = Vec::new();
    for file in files {
        let length = std::fs::metadata(&file).map_or(0, |m| m.len());
        anyhow::ensure!(
            length <= MANIFEST_BYTES_MAX as u64,
            "{} is larger than {MANIFEST_BYTES_MAX} bytes",
            file.display()
        );
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        texts.push((file.display().to_string(), text));
    }
    let (store, found) = {
        let pods = setup.translate.pods.as_ref();
        let names = pods.map(|pods| pods.names.clone()).unwrap_or_default();
        let reading = Reading {
            routable: &|labels| pods.is_some_and(|p| p.selector.matches(labels)),
            names: &names,
            secret: pods.map(|pods| &*pods.secret_name),
        };
        let files = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        read_manifests(files, reading)
    };
    Ok(served(setup, base, &store, found))
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let reading = || format!("reading {}", path.display());
    if !std::fs::metadata(path).with_context(reading)?.is_dir() {
        anyhow::ensure!(files.len() < FILES_MAX, "more than {FILES_MAX} files");
        files.push(path.to_owned());
        return Ok(());
    }
    anyhow::ensure!(depth < DEPTH_MAX, "{}: folders too deep", path.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).with_context(reading)? {
        entries.push(entry.with_context(reading)?.path());
    }
    entries.sort();
    for entry in entries {
        let kind = entry.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if entry.is_dir() || matches!(kind, "yaml" | "yml" | "json") {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

/// What a store comes to.
fn served(setup: ClusterSetup, base: Config, store: &Store, mut found: Vec<Diagnostic>) -> Looked {
    let mut translator = Translator::new(setup.translate);
    let translation = translator.translate(store, Changed::everything());
    let mut config = Merge::default().apply(&base, &translation);
    found.extend(compile_problems(&mut config, &translation));
    found.extend(problems(&translation));
    Looked { config, found: Diagnostics(found) }
}

/// As a gateway does before it serves: what cannot be loaded is left out, as far as it is an object's.
pub(crate) fn compile_problems(config: &mut Config, translation: &Translation) -> Vec<Diagnostic> {
    let compile = |config: &Config| Program::compile(1, config.snapshot.clone(), None, "", None);
    match compile(config) {
        Ok((_, warnings)) => warnings.0,
        Err(errors) if take_out(config, translation, &errors) => {
            let left = errors
                .0
                .into_iter()
                .map(|error| Diagnostic { severity: model::Severity::Warning, ..error });
            let again = compile(config).err().unwrap_or_default();
            left.chain(again.0).collect()
        }
        Err(errors) => errors.0,
    }
}
