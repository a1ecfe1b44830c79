//! What flags and environment say about a Kubernetes cluster, as options of the crate that knows clusters, and the
//! configuration that stands where there is no file.
//!
//! Only resolves; must not serve. [`merge`] puts routes and listeners together, [`once`] looks at a cluster, or at
//! manifests in its place, a single time, [`view`] shows a cluster on the admin port.

pub(crate) mod merge;
pub(crate) mod once;
pub(crate) mod view;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use config::{Config, Overrides};
use kubernetes::objects::{Key, Text};
use kubernetes::translate::{self, IngressOptions, PodOptions};
use kubernetes::{Cluster, LeaseOptions, PodSelection, Publish, ReportOptions, Selection};
use model::{
    Certificate, HttpVersions, Listener, ListenerProtocol, Manners, PemSource, Place, Snapshot,
    TlsTermination, TlsVersion, TrustedHops,
};

use crate::UsageError;
use crate::cli::{ClusterArgs, KubernetesSource, ReportArgs};
use crate::env::{self, Environment};

/// Where nothing else is said.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;
const LEASE_NAME: &str = "cloverleaf";
/// The name under which Events are written.
const CONTROLLER: &str = "cloverleaf/gateway";

/// A cluster as a source of routes.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSetup {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) selection: Selection,
    pub(crate) translate: translate::Options,
    /// What the pod source's environment says beside that.
    pods: Option<PodOptions>,
    pod: env::Pod,
    https_port: Option<u16>,
}

impl ClusterSetup {
    /// Flags win over the environment.
    ///
    /// # Errors
    /// A [`UsageError`] that names every flag or variable that cannot be used.
    pub(crate) fn resolve(args: &ClusterArgs, tls_skip_verify: bool) -> Result<Self, UsageError> {
        let environment = Environment::of_process().map_err(|e| UsageError(e.to_string()))?;
        let sources = match &args.kubernetes_sources[..] {
            [] => &[KubernetesSource::Ingress],
            given => given,
        };
        let default_certificate =
            args.default_certificate.as_deref().map(|text| key("--default-certificate", text));
        let default_certificate = default_certificate.transpose()?;
        let mut ingress = None;
        if sources.contains(&KubernetesSource::Ingress) {
            let mut options = IngressOptions {
                default_certificate: default_certificate.clone(),
                backend_tls_skip_verify: tls_skip_verify,
                ..IngressOptions::default()
            };
            if !args.controller_name.is_empty() {
                options.controllers =
                    args.controller_name.iter().map(|n| n.as_str().into()).collect();
            }
            ingress = Some(options);
        }
        let mut pods = None;
        if sources.contains(&KubernetesSource::Pods) {
            let mut options = PodOptions::from_environment(env::variable).map_err(|errors| {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                UsageError(lines.join("\n"))
            })?;
            options.tls = true;
            pods = Some(options);
        }
        let selection = Selection {
            namespaces: args.watch_namespace.clone(),
            ingress: ingress.is_some(),
            pods: pods.as_ref().map(|pods| PodSelection {
                labels: pods.selector.as_str().to_owned(),
                secret: pods.secret_name.to_string(),
                names: pods.names.clone(),
            }),
            secrets: default_certificate.into_iter().collect(),
            services: Vec::new(),
        };
        let translate = translate::Options {
            ingress,
            pods: pods.clone(),
            zone: environment.pod.zone.as_deref().map(Text::from),
            node: environment.pod.node.as_deref().map(Text::from),
            check_certificate: Some(check_certificate),
        };
        Ok(Self {
            kubeconfig: args.kubeconfig.clone(),
            selection,
            translate,
            pods,
            pod: environment.pod,
            https_port: environment.https_port,
        })
    }

    /// What objects hear; `None` if nothing is written. `own_namespace` is where a Lease stands if the environment
    /// does not say.
    ///
    /// # Errors
    /// A [`UsageError`] that names the flag.
    fn reports(
        &mut self,
        args: &ReportArgs,
        own_namespace: &str,
    ) -> Result<Option<ReportOptions>, UsageError> {
        if args.read_only {
            return Ok(None);
        }
        let own = self.pod.host_ip.as_deref().or(self.pod.ip.as_deref());
        let publish = match (&args.publish_service, &args.publish_address[..], own) {
            (Some(service), _, _) => {
                let service = key("--publish-service", service)?;
                self.selection.services.push(service.clone());
                Publish::Service(service)
            }
            (None, [], None) => Publish::Nothing,
            (None, [], Some(own)) => Publish::Addresses(vec![own.into()]),
            (None, given, _) => {
                for address in given {
                    model::HostName::parse(address).map_err(|_| {
                        UsageError(format!(
                            "flag --publish-address: found {address:?}, expected an IP address or a host name"
                        ))
                    })?;
                }
                Publish::Addresses(given.iter().map(|a| a.as_str().into()).collect())
            }
        };
        let instance = self.identity();
        let lease = LeaseOptions {
            namespace: self.pod.namespace.clone().unwrap_or_else(|| own_namespace.to_owned()),
            name: args.lease_name.clone().unwrap_or_else(|| LEASE_NAME.to_owned()),
            identity: instance.clone(),
        };
        Ok(Some(ReportOptions {
            lease: Some(lease),
            publish,
            controller: CONTROLLER.to_owned(),
            instance,
        }))
    }

    /// Whether there is a listener for TLS: without one, hosts of the pod source that ask for it are left out.
    pub(crate) fn set_tls(&mut self, tls: bool) {
        if let Some(pods) = &mut self.translate.pods {
            pods.tls = tls;
        }
    }

    /// Reaches the cluster; all that there is to start following it. Dropped, nothing has happened.
    ///
    /// # Errors
    /// Where the cluster cannot be found, or a flag cannot be used.
    pub(crate) async fn connect(
        mut self,
        report: &ReportArgs,
        state: Option<PathBuf>,
    ) -> anyhow::Result<(Cluster, kubernetes::Options)> {
        let cluster = Cluster::connect(self.kubeconfig.as_deref()).await?;
        let report = self.reports(report, cluster.namespace())?;
        self.locate(&cluster).await;
        let (selection, translate) = (self.selection, self.translate);
        Ok((cluster, kubernetes::Options { selection, translate, state, report }))
    }

    /// Finds out in which zone this runs, if the environment says on which node but not where that is. Dropped,
    /// nothing has happened.
    async fn locate(&mut self, cluster: &Cluster) {
        // Only endpoints of Services have zones.
        let translate = &self.translate;
        if let (Some(_), None, Some(node)) = (&translate.ingress, &translate.zone, &translate.node)
        {
            self.translate.zone = cluster.zone_of_node(node).await.map(Text::from);
        }
    }

    /// The pod's name; elsewhere the machine's with something that no other process has.
    fn identity(&self) -> String {
        self.pod.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let moment = since.map_or(0, |d| d.as_nanos());
            format!("{}-{}-{moment:x}", host.trim(), std::process::id())
        })
    }

    /// What stands where there is no file: a listener for HTTP and one for HTTPS on all addresses.
    pub(crate) fn base(&self, overrides: &Overrides, https_port: Option<u16>) -> Config {
        let mut config = Config {
            snapshot: Snapshot {
                listeners: self.listeners(overrides, https_port),
                manners: self.manners(),
                ..Snapshot::default()
            },
            admin: overrides.admin.unwrap_or_default(),
            mesh: None,
            echo: None,
            workers: overrides.workers,
            files: Vec::new(),
        };
        if let Some(timeout) = overrides.timeout {
            let timeouts = &mut config.snapshot.timeouts;
            timeouts.head = timeout;
            timeouts.idle = timeout;
            timeouts.connect = timeout;
            timeouts.response = timeout;
        }
        config.snapshot.manners.config_path |= overrides.debug;
        for listener in &config.snapshot.listeners {
            let ListenerProtocol::Https(tls) = &listener.protocol else { continue };
            for certificate in &tls.certificates {
                for source in [&certificate.chain, &certificate.key] {
                    if let PemSource::File(path) = source {
                        config.files.push(path.clone());
                    }
                }
            }
        }
        config
    }

    /// The listeners of a file that names none.
    pub(crate) fn listeners(
        &self,
        overrides: &Overrides,
        https_port: Option<u16>,
    ) -> Vec<Listener> {
        let pods_alone = self.pods.as_ref().filter(|_| self.translate.ingress.is_none());
        let (http, https) =
            pods_alone.map_or((HTTP_PORT, HTTPS_PORT), |pods| (pods.port, pods.tls_port));
        let http = overrides.port.unwrap_or(http);
        let https = https_port.or(self.https_port).unwrap_or(https);
        let certificates = self.own_certificate(overrides).into_iter().collect::<Vec<_>>();
        let tls = TlsTermination {
            first_is_default: !certificates.is_empty(),
            certificates,
            min_version: TlsVersion::V1_2,
        };
        let listener = |name: &str, port, protocol| Listener {
            name: name.into(),
            address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            protocol,
            protocols: HttpVersions::All,
            scopes: Vec::new(),
            trusted_hops: TrustedHops::default(),
            place: Place::whole("--kubernetes"),
        };
        vec![
            listener("http", http, ListenerProtocol::Http),
            listener("https", https, ListenerProtocol::Https(Arc::new(tls))),
        ]
    }

    /// `CERT_PATH`, else the dispatcher's `SSL_CERT`: for names that no other certificate is for.
    fn own_certificate(&self, overrides: &Overrides) -> Option<Certificate> {
        let pods = self.pods.as_ref().and_then(|pods| pods.default_certificate.as_ref());
        let (chain, key, place) = match (&overrides.cert_path, pods) {
            (Some(folder), _) => (folder.join("cert.pem"), folder.join("key.pem"), "CERT_PATH"),
            (None, Some(files)) => (files.chain.clone(), files.key.clone(), "SSL_CERT"),
            (None, None) => return None,
        };
        Some(Certificate {
            chain: PemSource::File(chain),
            key: PemSource::File(key),
            hosts: Vec::new(),
            client_verification: None,
            place: Place::whole(place),
        })
    }

    /// As each original has it: `NanoProxy` answers its health path and names itself; the dispatcher's hosts belong to
    /// their owners whole.
    fn manners(&self) -> Manners {
        let nanoproxy = self.translate.ingress.is_some();
        Manners {
            health_path: nanoproxy,
            proxy_headers: nanoproxy,
            redirect_unclean_paths: nanoproxy,
            server_header: true,
            ..Manners::default()
        }
    }

    /// What the operator should hear about the environment.
    pub(crate) fn warnings(&self) -> &[model::Diagnostic] {
        self.pods.as_ref().map(|pods| &pods.warnings[..]).unwrap_or_default()
    }
}

/// `NAMESPACE/NAME`.
fn key(flag: &str, text: &str) -> Result<Key, UsageError> {
    let fine = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    match text.split_once('/') {
        Some((namespace, name)) if fine(namespace) && fine(name) => {
            Ok(Key { namespace: namespace.into(), name: name.into() })
        }
        _ => Err(UsageError(format!("flag {flag}: found {text:?}, expected NAMESPACE/NAME"))),
    }
}

/// Whether a certificate of a cluster can be served: asked before it comes anywhere near a listener, so that one that
/// cannot stops nobody else's.
fn check_certificate(certificate: &Certificate) -> Result<Vec<String>, String> {
    let alone = TlsTermination {
        certificates: vec![certificate.clone()],
        first_is_default: false,
        min_version: TlsVersion::V1_2,
    };
    let said = |found: &model::Diagnostics| -> Vec<String> {
        found.0.iter().map(|d| d.problem.clone()).collect()
    };
    match tls::Termination::load(&alone, HttpVersions::All) {
        Ok(loaded) => Ok(said(loaded.warnings())),
        Err(found) => Err(said(&found).join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_parts() {
        assert_eq!(key("--x", "a/b").unwrap().to_string(), "a/b");
        for bad in ["", "a", "/b", "a/", "a/b/c", "a b/c", "a/b\n"] {
            assert!(key("--x", bad).unwrap_err().to_string().contains("--x"), "{bad:?}");
        }
    }

    #[test]
    fn without_a_file_there_are_two_listeners() {
        let setup = ClusterSetup::resolve(&ClusterArgs::default(), false).unwrap();
        let config = setup.base(&Overrides::default(), None);
        let addresses: Vec<String> =
            config.snapshot.listeners.iter().map(|l| l.address.to_string()).collect();
        assert_eq!(addresses, ["[::]:8080", "[::]:8443"]);
        let pods = ClusterArgs {
            kubernetes_sources: vec![KubernetesSource::Pods],
            ..ClusterArgs::default()
        };
        let setup = ClusterSetup::resolve(&pods, false).unwrap();
        let overrides = Overrides { port: Some(81), ..Overrides::default() };
        let listeners = setup.listeners(&overrides, None);
        let ports: Vec<u16> = listeners.iter().map(|l| l.address.port()).collect();
        assert_eq!(ports, [81, 443]);
    }
}
