//! Rules for any text: no tabs, no path of somebody's machine, no host name of a registry, no large file.

use super::Finding;

const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Where tabs stand for spaces that a reader cannot count. Go and make want theirs.
const NO_TABS_IN: [&str; 9] =
    [".rs", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".service", "Containerfile"];
/// Written by tools, with the addresses that they need.
const WRITTEN_BY_TOOLS: [&str; 2] = ["Cargo.lock", "go.sum"];

/// Put together here so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
const REGISTRY_HOSTS: [&str; 12] = [
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("maven.apache", ".org"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("gcr", ".io"),
    concat!("registry.k8s", ".io"),
];

pub(super) fn size(path: &str, bytes: u64) -> Option<Finding> {
    (bytes > FILE_MAX_BYTES).then(|| {
        Finding::new(
            path,
            1,
            format!("{bytes} bytes: no file over {FILE_MAX_BYTES} is kept in git"),
        )
    })
}

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    if WRITTEN_BY_TOOLS.iter().any(|name| path.ends_with(name)) {
        return Vec::new();
    }
    // Fixtures are wrong on purpose.
    let no_tabs = NO_TABS_IN.iter().any(|end| path.ends_with(end)) && !path.contains("/fixtures/");
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut found = |advice: String| findings.push(Finding::new(path, index + 1, advice));
        if no_tabs && line.contains('\t') {
            found("a tab: use spaces".to_owned());
        }
        for needle in MACHINE_PATHS.iter().filter(|needle| line.contains(*needle)) {
            found(format!(
                "`{needle}` is a path of one machine: say it relative to the repository"
            ));
        }
        for needle in REGISTRY_HOSTS.iter().filter(|needle| line.contains(*needle)) {
            found(format!("`{needle}` is the host of a registry: name the package only"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_are_refused_where_spaces_are_the_rule() {
        assert_eq!(check("a.rs", "x\n\ty\n")[0].line, 2);
        assert_eq!(check("go.mod", "x\n\ty\n"), []);
        assert_eq!(check("crates/config/tests/fixtures/invalid/tab.yaml", "\tx\n"), []);
    }

    #[test]
    fn machine_paths_and_registries_are_refused() {
        let text = format!("cd {}main\nfrom {}\n", MACHINE_PATHS[0], REGISTRY_HOSTS[0]);
        let lines: Vec<usize> =
            check("README.md", &text).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
        assert_eq!(check("Cargo.lock", &text), []);
    }

    #[test]
    fn large_files_are_refused() {
        assert_eq!(size("a.bin", FILE_MAX_BYTES), None);
        assert!(size("a.bin", FILE_MAX_BYTES + 1).is_some());
    }
}
