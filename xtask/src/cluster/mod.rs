//! `cargo xtask cluster`: a real Kubernetes on this machine, for tests and for people. The work is done by
//! `testkit::kubernetes`, which the tests use as well; here is its command line. How its programs are built
//! is in `build`, what `cargo xtask test` has of it in `tests`. It must not know how a cluster is put
//! together.

mod build;
mod tests;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use build::binaries;
use testkit::kubernetes::{CLOVERLEAF_IMAGE, Cluster, Image};
pub(crate) use tests::for_tests;

use crate::{env, sh};

/// What nodes are made of, and what the scripts of `examples/` use, as Debian packages and one program of each.
const PACKAGES: [(&str, &str); 9] = [
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("busybox-static", "busybox"),
    ("util-linux", "unshare"),
];
/// This one has no program on the path.
const NETWORK_PLUGINS: (&str, &str) = ("containernetworking-plugins", "/usr/lib/cni/bridge");

#[derive(clap::Subcommand)]
pub(crate) enum Action {
    /// Build the programs of a cluster, unless this machine has them
    Build,
    /// Start the cluster and leave it running
    Up {
        /// How many nodes; 0 is a control plane alone, for which root is not needed
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=3))]
        nodes: u8,
    },
    /// End the cluster and remove all that it left
    Down,
    /// Show what runs
    Status,
    /// Make the image localhost/cloverleaf:test from a build of the program, and load it
    Image {
        /// The program; without it the development build is made and taken
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
        /// Write the archive here instead of loading it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Load an image archive into every node
    Load {
        /// An OCI or docker archive
        archive: PathBuf,
    },
    /// Run kubectl as the administrator
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

pub(crate) fn main(action: &Action) -> Result<()> {
    match action {
        Action::Build => binaries().map(|binaries| println!("{}", binaries.folder().display())),
        Action::Up { nodes } => up(*nodes),
        Action::Down => {
            println!("{}", if Cluster::down()? { "the cluster is down" } else { "there was none" });
            Ok(())
        }
        Action::Status => status(),
        Action::Image { program, output } => image(program.as_deref(), output.as_deref()),
        Action::Load { archive } => Ok(running()?.load(archive)?),
        Action::Kubectl { arguments } => kubectl(arguments),
    }
}

/// The programs of a control plane, built now if this machine does not have them.
pub(crate) fn programs() -> Result<testkit::kubernetes::Binaries> {
    binaries()
}

/// Installs what nodes need and is not there.
fn packages() -> Result<()> {
    let program_missing = |(_, program): &&(&str, &str)| env::which(program).is_none();
    let mut missing: Vec<&str> =
        PACKAGES.iter().filter(program_missing).map(|(package, _)| *package).collect();
    if !Path::new(NETWORK_PLUGINS.1).exists() {
        missing.push(NETWORK_PLUGINS.0);
    }
    if missing.is_empty() { Ok(()) } else { sh::apt_install(&missing) }
}

fn up(nodes: u8) -> Result<()> {
    if nodes > 0 {
        packages()?;
    }
    let binaries = binaries()?;
    let start = Instant::now();
    let cluster = Cluster::up(&binaries, nodes)?;
    println!("up after {:.1} s; to use it:", start.elapsed().as_secs_f64());
    println!("export KUBECONFIG={}", cluster.access().kubeconfig().display());
    Ok(())
}

fn running() -> Result<Cluster> {
    Cluster::running()?.context("the cluster is down: `cargo xtask cluster up` starts it")
}

fn status() -> Result<()> {
    let Some(status) = Cluster::status()? else {
        println!("down");
        return Ok(());
    };
    for (name, alive) in &status.running {
        println!("{name:24} {}", if *alive { "runs" } else { "stopped" });
    }
    match status.owner {
        Some(pid) => println!("ends with process {pid}, a test"),
        None if status.running.iter().any(|(_, alive)| *alive) => {
            println!("stays until `cargo xtask cluster down`");
        }
        None => println!("whoever it belonged to is gone: the next start tidies up"),
    }
    println!("control plane: {} MiB", status.memory_bytes >> 20);
    println!("kubeconfig: {}", status.kubeconfig.display());
    Ok(())
}

fn image(program: Option<&Path>, output: Option<&Path>) -> Result<()> {
    let built = sh::root().join("target/debug/cloverleaf");
    if program.is_none() {
        sh::run(&mut sh::cargo(&["build", "--locked", "--package", "cloverleaf"]))?;
    }
    let image = Image::cloverleaf(program.unwrap_or(&built))?;
    match output {
        Some(archive) => image.write(archive)?,
        None => running()?.load_image(&image)?,
    }
    println!("{CLOVERLEAF_IMAGE}");
    Ok(())
}

/// Hands over to kubectl with our standard input and output.
fn kubectl(arguments: &[String]) -> Result<()> {
    let mut command: Command = running()?.access().command();
    let status = command.args(arguments).status().context("start kubectl")?;
    if !status.success() {
        bail!("kubectl: {status}");
    }
    Ok(())
}
