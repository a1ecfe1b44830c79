//! What an operator chooses of the pod source, with the defaults of the 30x dispatcher.
//!
//! Where the choices come from is [`super::environment`]'s.

use std::path::PathBuf;
use std::sync::Arc;

use model::{Diagnostic, Name, Target};

use super::selector::LabelSelector;
use crate::objects::{AnnotationNames, Text};

/// What of Pods is served, and how. The defaults are those of the 30x dispatcher.
#[derive(Debug, Clone, PartialEq)]
pub struct PodOptions {
    /// `ROUTABLE_LABEL_SELECTOR`: which Pods and Namespaces are looked at. Whoever fills the store keeps to
    /// it.
    pub selector: LabelSelector,
    /// `HOSTS_ANNOTATION`, `PATHS_ANNOTATION`, `ORG_LABEL`, `ENV_LABEL`, `APP_NAME_LABEL`, `APP_REV_LABEL`.
    /// The labels are kept with the objects; they decide nothing.
    pub names: AnnotationNames,
    /// `API_KEY_SECRET_NAME`: the Secret of each Namespace that holds its API key and its hosts'
    /// certificates.
    pub secret_name: Text,
    /// `API_KEY_SECRET_FIELD`: where in it the API key is.
    pub api_key_field: Text,
    /// `API_KEY_HEADER`, in lower case: where requests carry the key.
    pub api_key_header: Name,
    /// `DEFAULT_LOCATION_RETURN`: what a known host gives for a path that no Pod claims.
    pub default_return: DefaultReturn,
    /// `NGINX_ENABLE_HEALTH_CHECKS`: Pods' probes are asked from here, too.
    pub health_checks: bool,
    /// `NGINX_MAX_CLIENT_BODY_SIZE` in bytes; `None`: no bound of its own.
    pub request_body_max: Option<u64>,
    /// `NGINX_STATUS_PATH`, decoded: answered with 200 for hosts that nobody claims.
    pub status_path: String,
    /// `PORT`
    pub port: u16,
    /// `SSL_PORT`
    pub tls_port: u16,
    /// `SSL_CERT` and `SSL_KEY`: for connections that name no known host.
    pub default_certificate: Option<DefaultCertificate>,
    /// There is an https listener: because of [`Self::default_certificate`], or for another reason that the
    /// program knows. Without one, hosts that ask for TLS are left out.
    pub tls: bool,
    /// What the operator should hear about these choices, though they can be used.
    pub warnings: Vec<Diagnostic>,
}

/// A certificate in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultCertificate {
    /// The chain, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What a known host gives for a path that no Pod claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultReturn {
    /// This status, 200 to 599.
    Status(u16),
    /// The connection closes without an answer (nginx's 444).
    Close,
    /// Whatever is behind this URI answers. It gets the client's `Host`.
    Forward {
        /// Over TLS, verified against the machine's authorities.
        tls: bool,
        /// Where.
        target: Target,
        /// Put before the request's path, encoded; `None`: the path goes as it came.
        path: Option<Arc<str>>,
    },
}

impl Default for PodOptions {
    fn default() -> Self {
        let selector = "github.com/30x.dispatcher.routable=true";
        Self {
            selector: LabelSelector::parse(selector).expect("the default is a selector"),
            names: AnnotationNames::default(),
            secret_name: "routing".into(),
            api_key_field: "api-key".into(),
            api_key_header: "x-routing-api-key".into(),
            default_return: DefaultReturn::Status(404),
            health_checks: false,
            request_body_max: None,
            status_path: "/dispatcher/status".to_owned(),
            port: 80,
            tls_port: 443,
            default_certificate: None,
            tls: false,
            warnings: Vec::new(),
        }
    }
}
