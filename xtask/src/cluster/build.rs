//! Building the programs of a cluster from Go modules: once a machine and user, into a folder whose name is
//! a hash of the sources. Everything is made beside the place and renamed into it, so that what is there is
//! complete.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use testkit::kubernetes::{Binaries, COMPONENTS, FOLDER_VARIABLE, cache_folder, complete};

use crate::{sh, test::tools};

/// What Kubernetes is built with at least, as `go.mod` says.
const GO_MINOR: u32 = 25;
/// The version in `tests/cluster/kubeall/go.mod`.
const KUBERNETES: (&str, &str, &str) = ("v1.35.4", "1", "35");

/// The programs, built now if this machine does not have them.
pub(crate) fn binaries() -> Result<Binaries> {
    if let Some(found) = Binaries::find()? {
        return Ok(found);
    }
    let place = cache_folder()
        .with_context(|| format!("no place for the programs: set HOME or {FOLDER_VARIABLE}"))?;
    let above = place.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
    // Who comes second waits here and then finds what the first has built.
    let lock = File::create(above.join("build.lock")).context("make the lock of the build")?;
    lock.lock().context("wait for another build")?;
    if let Some(found) = Binaries::find()? {
        return Ok(found);
    }
    let go = tools::go(GO_MINOR)?;
    let building = above.join("building");
    if building.exists() {
        fs::remove_dir_all(&building).context("remove an unfinished build")?;
    }
    fs::create_dir(&building).context("make a folder to build in")?;
    // A cache of our own may be thrown away, which saves 3 GB; it is kept while a build has not succeeded.
    let cache = above.join("go-build");
    let builder = Builder { go: &go, cache: &cache, into: &building };
    println!(
        "building the programs of a Kubernetes cluster, once on this machine: about four minutes on two \
         cores"
    );
    builder.build("coredns", ".", "coredns", "")?;
    builder.build("coredns", "./pause", "pause", "")?;
    builder.build("kubeall", ".", "kubeall", &version_flags())?;
    for component in COMPONENTS {
        symlink("kubeall", building.join(component)).context("link a component")?;
    }
    complete(&building)?;
    if place.exists() {
        // Something incomplete, which nothing here leaves behind.
        fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    fs::rename(&building, &place).with_context(|| format!("make {}", place.display()))?;
    fs::remove_dir_all(&cache).context("remove the build cache")?;
    Ok(Binaries::in_folder(place)?)
}

struct Builder<'a> {
    go: &'a Path,
    cache: &'a Path,
    into: &'a Path,
}

impl Builder<'_> {
    fn build(&self, module: &str, package: &str, name: &str, flags: &str) -> Result<()> {
        let start = Instant::now();
        let mut build = Command::new(self.go);
        build
            .current_dir(sh::root().join("tests/cluster").join(module))
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOCACHE", self.cache)
            .args(["build", "-mod=readonly", "-trimpath", "-ldflags"])
            .arg(format!("-s -w{flags}"))
            .arg("-o")
            .arg(self.into.join(name))
            .arg(package);
        sh::run(&mut build)?;
        println!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Has the programs say their version, which kubectl and the API server compare.
fn version_flags() -> String {
    let (version, major, minor) = KUBERNETES;
    let base = "k8s.io/component-base/version";
    [
        format!("{base}.gitVersion={version}"),
        format!("{base}.gitMajor={major}"),
        format!("{base}.gitMinor={minor}"),
        format!("{base}.gitTreeState=clean"),
        format!("k8s.io/client-go/pkg/version.gitVersion={version}"),
    ]
    .iter()
    .fold(String::new(), |flags, value| format!("{flags} -X {value}"))
}
