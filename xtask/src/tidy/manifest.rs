//! The direction of dependencies: which crate may know which, and which outside crate has only one home.
//! The tables here are the architecture; ARCHITECTURE.md says it in words.

use super::Finding;

/// What each crate may name of this workspace in `[dependencies]`. `[dev-dependencies]` may name `testkit`
/// too.
const MAY_NAME: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("net", &["model"]),
    ("tls", &["model"]),
    ("balance", &["model"]),
    ("stream", &["model", "net"]),
    ("mesh", &["model", "net", "tls", "balance", "stream"]),
    ("http2", &["net", "balance"]),
    ("tunnel", &["model", "net", "tls", "balance", "http2"]),
    ("http", &["model", "net", "tls", "balance"]),
    ("config", &["model", "net"]),
    ("kubernetes", &["model", "net"]),
    ("admin", &["model", "net"]),
    (
        "cloverleaf",
        &[
            "model",
            "net",
            "tls",
            "balance",
            "stream",
            "mesh",
            "tunnel",
            "http",
            "config",
            "kubernetes",
            "admin",
        ],
    ),
    ("testkit", &["model"]),
    ("xtask", &["config", "testkit"]),
];

/// Outside crates that change often or decide much: named in one crate, so that a change stays there.
const HOMES: [(&str, &[&str]); 10] = [
    ("rustls", &["tls", "testkit"]),
    ("tokio-rustls", &["tls", "testkit"]),
    ("aws-lc-rs", &["tls", "testkit"]),
    ("aws-lc-sys", &["tls"]),
    ("prometheus-client", &["admin"]),
    ("kube", &["kubernetes"]),
    ("k8s-openapi", &["kubernetes"]),
    ("saphyr-parser", &["config"]),
    ("serde-saphyr", &["kubernetes"]),
    ("notify", &["config"]),
];

/// The vocabulary does no IO, is not async and is not a file format.
const NOT_IN_MODEL: [&str; 4] = ["serde", "serde_json", "tokio", "tracing"];

/// The crate's folder name, when `path` is the manifest of one.
pub(super) fn crate_of(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    if folder == "xtask" {
        return Some(folder);
    }
    folder.strip_prefix("crates/").filter(|name| !name.contains('/'))
}

pub(super) fn check(path: &str, name: &str, text: &str) -> Vec<Finding> {
    let Some((_, allowed)) = MAY_NAME.iter().find(|(known, _)| *known == name) else {
        let advice = format!(
            "crate `{name}` is new: say in xtask/src/tidy/manifest.rs what it may depend on"
        );
        return vec![Finding::new(path, 1, advice)];
    };
    let mut findings = Vec::new();
    for dependency in dependencies(text) {
        let mut found = |advice: String| findings.push(Finding::new(path, dependency.line, advice));
        if let Some(own) = own_crate(dependency.name) {
            let for_tests = dependency.dev && own == "testkit";
            if !for_tests && !allowed.contains(&own) {
                found(format!(
                    "`{name}` may not depend on `{own}`: see the arrows in ARCHITECTURE.md"
                ));
            }
        }
        if let Some((_, homes)) = HOMES.iter().find(|(outside, _)| *outside == dependency.name)
            && !homes.contains(&name)
        {
            found(format!("only {} may name `{}`", homes.join(" and "), dependency.name));
        }
        if name == "model" && !dependency.dev && NOT_IN_MODEL.contains(&dependency.name) {
            found(format!("`model` is plain data: no `{}` in it", dependency.name));
        }
    }
    findings
}

struct Dependency<'a> {
    name: &'a str,
    line: usize,
    dev: bool,
}

/// The keys of every table of dependencies. Manifests here are simple: one key a line.
fn dependencies(text: &str) -> Vec<Dependency<'_>> {
    let mut table = "";
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end().trim_end_matches(']');
            continue;
        }
        let end = line.find(['.', '=', ' ']).unwrap_or(0);
        if table.ends_with("dependencies") && end > 0 && !line.starts_with('#') {
            let name = line[..end].trim_matches('"');
            found.push(Dependency {
                name,
                line: index + 1,
                dev: table.ends_with("dev-dependencies"),
            });
        }
    }
    found
}

/// The folder of a crate of ours, from the key in a manifest.
fn own_crate(key: &str) -> Option<&str> {
    let name = match key {
        "http-proxy" => "http",
        "http" => return None,
        key => key.strip_prefix("cloverleaf-").unwrap_or(key),
    };
    MAY_NAME.iter().map(|(known, _)| *known).find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, text: &str) -> Vec<usize> {
        check("crates/x/Cargo.toml", name, text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn arrows_point_inwards() {
        let text = "[dependencies]\nmodel.workspace = true\n\
                    http-proxy.workspace = true\nhttp.workspace = true\n";
        assert_eq!(lines("net", text), [3]);
        assert_eq!(lines("cloverleaf", text), [0usize; 0]);
        assert_eq!(lines("model", text), [2, 3]);
    }

    #[test]
    fn testkit_is_for_tests() {
        assert_eq!(lines("net", "[dependencies]\ntestkit.workspace = true\n"), [2]);
        assert_eq!(lines("net", "[dev-dependencies]\ntestkit.workspace = true\n"), [0usize; 0]);
        assert_eq!(lines("net", "[dev-dependencies]\nhttp-proxy.workspace = true\n"), [2]);
    }

    #[test]
    fn churning_crates_have_one_home() {
        let text =
            "[dependencies]\nrustls = { version = \"1\" }\nprometheus-client.workspace = true\n";
        assert_eq!(lines("tls", text), [3]);
        assert_eq!(lines("http", text), [2, 3]);
        assert_eq!(lines("testkit", "[dependencies]\nrustls.workspace = true\n"), [0usize; 0]);
    }

    #[test]
    fn the_model_is_plain_data() {
        let text = "[dependencies]\nserde = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\ntokio.workspace = true\n";
        assert_eq!(lines("model", text), [2, 4]);
    }

    #[test]
    fn a_new_crate_must_be_placed() {
        assert_eq!(lines("new", ""), [1]);
    }

    #[test]
    fn only_crates_have_manifests_that_count() {
        assert_eq!(crate_of("crates/net/Cargo.toml"), Some("net"));
        assert_eq!(crate_of("xtask/Cargo.toml"), Some("xtask"));
        assert_eq!(crate_of("Cargo.toml"), None);
        assert_eq!(crate_of("fuzz/Cargo.toml"), None);
    }
}
