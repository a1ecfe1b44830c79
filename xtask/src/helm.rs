//! The Helm chart: linted and rendered with each of the values files beside it, and the plain manifests in
//! `deploy/kubernetes`, which are rendered from it so that the two cannot differ.
//!
//! It knows where they lie. What the chart says is the chart's own business; whether a cluster takes it is
//! tested in `crates/cloverleaf/tests/cluster`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{sh, test::tools};

/// The names of values files that a plain manifest is made of, with its first lines.
const MANIFESTS: [(&str, &str); 3] = [
    ("deployment", "Cloverleaf as a Deployment behind a Service of type LoadBalancer."),
    ("daemonset", "Cloverleaf on ports 80 and 443 of every node."),
    (
        "sidecar",
        "Cloverleaf as a controller that asks the API server and a gateway beside it that does not.",
    ),
];
/// The namespace and the name of what the manifests make.
const NAME: &str = "cloverleaf";
/// What Helm alone has a use for.
const OF_HELM: [&str; 3] = ["# Source: ", "app.kubernetes.io/managed-by: Helm", "helm.sh/chart: "];

/// Lint and render everything; an error when something is wrong or a manifest is not up to date.
pub(crate) fn check() -> Result<()> {
    let helm = Helm::installed()?;
    let files = values_files()?;
    for file in &files {
        helm.run(&["lint", "--quiet", "--strict"], Some(file))?;
        helm.render(file)?;
    }
    for (name, manifest) in helm.manifests()? {
        let written = fs::read_to_string(manifest_file(name)).unwrap_or_default();
        ensure!(
            written == manifest,
            "deploy/kubernetes/{name}.yaml is not up to date; run `cargo xtask generate`"
        );
    }
    println!("helm: {} values files, {} manifests", files.len(), MANIFESTS.len());
    Ok(())
}

/// Write the plain manifests.
pub(crate) fn write() -> Result<()> {
    for (name, manifest) in Helm::installed()?.manifests()? {
        let file = manifest_file(name);
        fs::write(&file, manifest).with_context(|| format!("write {}", file.display()))?;
        println!("wrote deploy/kubernetes/{name}.yaml");
    }
    Ok(())
}

fn chart() -> PathBuf {
    sh::root().join("deploy/helm/cloverleaf")
}

fn values_folder() -> PathBuf {
    sh::root().join("deploy/helm/values")
}

fn manifest_file(name: &str) -> PathBuf {
    sh::root().join("deploy/kubernetes").join(name).with_extension("yaml")
}

fn values_files() -> Result<Vec<PathBuf>> {
    let folder = values_folder();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension() == Some(OsStr::new("yaml")));
    ensure!(!files.is_empty(), "no values file in {}", folder.display());
    files.sort();
    Ok(files)
}

struct Helm(PathBuf);

impl Helm {
    fn installed() -> Result<Self> {
        tools::helm().map(Self)
    }

    /// With the chart behind the arguments; what it wrote to standard output.
    fn run(&self, arguments: &[&str], values: Option<&Path>) -> Result<String> {
        let mut command = Command::new(&self.0);
        // Nothing of the user's own configuration.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, sh::tools().join("helm-home"));
        }
        command.args(arguments).arg(chart());
        if let Some(values) = values {
            command.arg("--values").arg(values);
        }
        sh::capture(&mut command)
    }

    fn render(&self, values: &Path) -> Result<String> {
        self.run(&["template", "--namespace", NAME, NAME], Some(values))
            .with_context(|| format!("with {}", values.display()))
    }

    fn manifests(&self) -> Result<Vec<(&'static str, String)>> {
        let render = |(name, title): &(&'static str, &str)| {
            let values = values_folder().join(name).with_extension("yaml");
            Ok((*name, plain(title, name, &self.render(&values)?)?))
        };
        MANIFESTS.iter().map(render).collect()
    }
}

/// What `kubectl apply -f` takes, from what Helm renders.
fn plain(title: &str, name: &str, rendered: &str) -> Result<String> {
    let ours = |line: &&str| !OF_HELM.iter().any(|theirs| line.trim_start().starts_with(theirs));
    let body: Vec<&str> = rendered.lines().filter(ours).map(str::trim_end).collect();
    if !body.iter().any(|line| *line == format!("  namespace: {NAME}")) {
        bail!("{name}: nothing in the namespace {NAME}: has the chart changed?");
    }
    Ok(format!(
        "# {title}\n\
         # Made from deploy/helm/values/{name}.yaml by `cargo xtask generate`: change that, or the chart.\n\
         apiVersion: v1\n\
         kind: Namespace\n\
         metadata:\n  name: {NAME}\n{}\n",
        body.join("\n").trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_plain_manifest_says_nothing_of_helm() {
        let rendered = "---\n# Source: c/templates/a.yaml\nkind: A\nmetadata:\n  namespace: cloverleaf\n  \
                        labels:\n    a: b\n    app.kubernetes.io/managed-by: Helm\n    helm.sh/chart: c-1\n";
        let made = plain("Title.", "a", rendered).unwrap();
        assert!(made.starts_with("# Title.\n# Made from deploy/helm/values/a.yaml"), "{made}");
        let rest = "---\nkind: A\nmetadata:\n  namespace: cloverleaf\n  labels:\n    a: b\n";
        assert!(made.ends_with(rest), "{made}");
        assert!(plain("Title.", "a", "kind: A\n").is_err());
    }
}
