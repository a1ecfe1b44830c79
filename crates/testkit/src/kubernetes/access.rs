//! Talking to a cluster as somebody: kubectl with a kubeconfig, and kubeconfigs for others with fewer
//! rights. It works with every cluster, ours or somebody's own; it must not know how one is started.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::wait_until;

use super::command::run;
use super::error::{Error, make_folder};
use super::pki::{Signed, write_secret};

/// What one call of kubectl may take, waiting included.
pub const KUBECTL_WITHIN: Duration = Duration::from_secs(120);
/// How long a token for a service account is good.
const TOKEN_LIFE: &str = "24h";

/// A kubeconfig, the kubectl to use it with, and a folder for more of them.
#[derive(Debug, Clone)]
pub struct Access {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

/// A namespace of a test's own. Its deletion is asked for when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    access: Access,
    name: String,
}

impl Access {
    /// With this kubectl and this kubeconfig; new files go into the folder.
    pub(super) fn new(kubectl: PathBuf, kubeconfig: PathBuf, folder: &Path) -> Self {
        Self { kubectl, kubeconfig, folder: folder.to_owned() }
    }

    /// The kubeconfig: for a program under test, or for `KUBECONFIG=… kubectl`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl with these arguments and this standard input; what it wrote to standard output.
    ///
    /// # Errors
    /// If it fails, with what it wrote to stderr, or takes longer than [`KUBECTL_WITHIN`].
    pub fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> Result<String, Error> {
        run(self.command().args(arguments), stdin, KUBECTL_WITHIN)
    }

    /// kubectl, ready for arguments: for one that keeps running, such as `port-forward`.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.folder.join("kubectl-cache"))
            .env_remove("KUBERNETES_MASTER");
        command
    }

    /// `kubectl apply -f -` with this YAML or JSON.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn apply(&self, manifest: &str) -> Result<(), Error> {
        self.kubectl(&["apply", "-f", "-"], Some(manifest)).map(|_| ())
    }

    /// `kubectl get … -o json`, as a value.
    ///
    /// # Errors
    /// As [`Self::kubectl`], or if the answer is no JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value, Error> {
        let arguments = [&["get", "-o", "json"], arguments].concat();
        let text = self.kubectl(&arguments, None)?;
        serde_json::from_str(&text)
            .map_err(|source| Error::State { file: "kubectl's answer".to_owned(), source })
    }

    /// `kubectl wait`, which also waits for an object that is not there yet.
    ///
    /// # Errors
    /// If the condition does not hold in time.
    pub fn wait(&self, condition: &str, object: &[&str], within: Duration) -> Result<(), Error> {
        let condition = format!("--for={condition}");
        let timeout = format!("--timeout={}ms", within.as_millis());
        let exists =
            wait_until(within, || self.kubectl(&[&["get"], object].concat(), None).is_ok());
        if !exists {
            let what = format!("object {}", object.join(" "));
            return Err(Error::Late { what, within, log: String::new() });
        }
        self.kubectl(&[&["wait", &condition, &timeout], object].concat(), None).map(|_| ())
    }

    /// Whether the API server says that it is ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"], None).is_ok()
    }

    /// A namespace that no other test uses, its name beginning with `prefix`, with its default service
    /// account where the cluster makes one.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn namespace(&self, prefix: &str) -> Result<Namespace, Error> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        self.kubectl(&["create", "namespace", &name], None)?;
        Ok(Namespace { access: self.clone(), name })
    }

    /// The same cluster, as a service account that exists: what a program in a pod with it may do, and no
    /// more. The token is good for a day.
    ///
    /// # Errors
    /// As [`Self::kubectl`], or if the kubeconfig cannot be written.
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Result<Self, Error> {
        let arguments = ["create", "token", name, "-n", namespace, "--duration", TOKEN_LIFE];
        let token = self.kubectl(&arguments, None)?;
        let raw = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"];
        let mut config: Value = serde_json::from_str(&self.kubectl(&raw, None)?)
            .map_err(|source| Error::State { file: "the kubeconfig".to_owned(), source })?;
        config["users"][0]["user"] = json!({ "token": token.trim() });
        self.with_kubeconfig(&format!("{namespace}-{name}"), &config)
    }

    /// The same cluster with another kubeconfig.
    pub(super) fn with_kubeconfig(&self, name: &str, config: &Value) -> Result<Self, Error> {
        make_folder(&self.folder)?;
        let file = self.folder.join(format!("{name}.kubeconfig"));
        write_secret(&file, &config.to_string())?;
        Ok(Self { kubeconfig: file, ..self.clone() })
    }
}

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// kubectl in this namespace.
    ///
    /// # Errors
    /// As [`Access::kubectl`].
    pub fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> Result<String, Error> {
        self.access.kubectl(&[&["-n", &self.name], arguments].concat(), stdin)
    }

    /// `kubectl apply -f -` in this namespace.
    ///
    /// # Errors
    /// As [`Access::kubectl`].
    pub fn apply(&self, manifest: &str) -> Result<(), Error> {
        self.kubectl(&["apply", "-f", "-"], Some(manifest)).map(|_| ())
    }

    /// As [`Access::get`] in this namespace.
    ///
    /// # Errors
    /// As [`Access::get`].
    pub fn get(&self, arguments: &[&str]) -> Result<Value, Error> {
        self.access.get(&[&["-n", &self.name], arguments].concat())
    }

    /// As [`Access::wait`] in this namespace.
    ///
    /// # Errors
    /// As [`Access::wait`].
    pub fn wait(&self, condition: &str, object: &[&str], within: Duration) -> Result<(), Error> {
        self.access.wait(condition, &[&["-n", &self.name], object].concat(), within)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"];
        // The cluster may be gone by now, and the namespace with it.
        let _ = self.access.kubectl(&delete, None);
    }
}

/// A kubeconfig for the holder of a certificate.
pub(super) fn kubeconfig(server: &str, authority_pem: &str, user: &Signed) -> Value {
    let base64 = |text: &str| STANDARD.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": server,
            "certificate-authority-data": base64(authority_pem),
        }}],
        "users": [{ "name": "user", "user": {
            "client-certificate-data": base64(&user.certificate),
            "client-key-data": base64(&user.key),
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "user" }}],
        "current-context": "test",
    })
}
