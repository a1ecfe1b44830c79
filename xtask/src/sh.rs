//! Running other programs: where the repository is, how a command is shown and how its failure reads.
//! It must not know which commands there are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where tools are installed, ignored by git, kept between runs.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// `cargo` at the top of the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(crate::env::cargo());
    command.args(args).current_dir(root());
    command
}

/// Cargo under a bound: what hangs is ended and fails, instead of holding the run for ever.
pub(crate) fn cargo_within(limit: Duration, args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=10").arg(limit.as_secs().to_string()).arg(crate::env::cargo());
    command.args(args).current_dir(root());
    command
}

/// A program of a Rust crate, built from source into a folder of [`tools`] that is named after its version, once.
pub(crate) fn cargo_install(name: &str, version: &str, more: &[&str]) -> Result<PathBuf> {
    let root = tools().join(format!("{name}-{version}"));
    let file = root.join("bin").join(name);
    if file.is_file() {
        return Ok(file);
    }
    let build = tools().join("build");
    let mut install = cargo(&["install", name, "--quiet", "--version", version]);
    install.args(more).arg("--root").arg(&root);
    install.env("CARGO_TARGET_DIR", &build).env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(&mut install)?;
    // Only the program is kept: what it was built from may be over a gigabyte.
    fs::remove_dir_all(&build).context("remove the build folder of a tool")?;
    Ok(file)
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = program.to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Show the command, run it with no standard input and wait; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Run the command and return what it wrote to standard output; what it wrote to standard error is in the
/// error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A Python environment in `folder` with these packages.
pub(crate) fn venv(folder: &Path, packages: &[&str]) -> Result<()> {
    let make = || run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    if make().is_err() {
        apt_install(&["python3-venv"])?;
        make()?;
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))
}

/// Install Debian packages by name. Only root can; anybody else is told what to type.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if crate::env::which("apt-get").is_none() || !is_root() {
        bail!("missing on this machine: install with `sudo apt-get install {list}`");
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "-qq"]).stdout(Stdio::null());
    run(&mut update)?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A package must not start a server of its own beside the ones that we start.
        .env("RUNLEVEL", "1")
        .stdout(Stdio::null());
    run(&mut install)
}

fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}
