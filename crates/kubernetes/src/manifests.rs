//! Objects from YAML files in place of an API server: what a dry run looks at.
//!
//! Several documents in a file, lists of objects, and kinds that do not matter are all fine. What a cluster
//! would fill in is made up where it is needed to show routes: the namespace `default`, and the status of
//! Pods. Start at [`read_manifests`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use model::{Diagnostic, Place};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::objects::{
    AnnotationNames, EndpointSlice, Ingress, IngressClass, Namespace, Pod, Secret, Service,
};
use crate::store::{Changed, Object, Store};

/// Bytes of one file.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Lists within lists.
const LIST_DEPTH_MAX: usize = 4;
const TLS_SECRET_TYPE: &str = "kubernetes.io/tls";

/// What of the objects is kept: the same as the watches ask the API server for.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Whether a Namespace or Pod with these labels is routable.
    pub routable: &'a dyn Fn(&BTreeMap<String, String>) -> bool,
    /// Names of its annotations and labels.
    pub names: &'a AnnotationNames,
    /// The name of a Secret that is kept whatever its type, beside those with certificates.
    pub secret: Option<&'a str>,
}

/// Reads files, each with its name. What is wrong with one is an error and says where; its other objects
/// and the other files are read all the same. Warnings say what was made up.
#[must_use]
pub fn read_manifests<'t>(
    files: impl IntoIterator<Item = (&'t str, &'t str)>,
    reading: Reading<'_>,
) -> (Store, Vec<Diagnostic>) {
    let mut reader = Reader {
        reading,
        store: Store::default(),
        changed: Changed::default(),
        diagnostics: Vec::new(),
        stand_ins: 0,
    };
    for (name, text) in files {
        reader.file(name, text);
    }
    (reader.store, reader.diagnostics)
}

struct Reader<'a> {
    reading: Reading<'a>,
    store: Store,
    changed: Changed,
    diagnostics: Vec<Diagnostic>,
    /// Addresses made up so far.
    stand_ins: u32,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, text: &str) {
        let source: Arc<str> = name.into();
        if text.len() > MANIFEST_BYTES_MAX {
            let problem = Diagnostic::error(Place::whole(source), "", "the file is too long")
                .value(format!("{} bytes", text.len()))
                .expected(format!("at most {MANIFEST_BYTES_MAX} bytes"));
            self.diagnostics.push(problem);
            return;
        }
        match serde_saphyr::from_multiple::<Value>(text) {
            Ok(documents) => {
                for (index, document) in documents.into_iter().enumerate() {
                    self.document(&format!("{name} document {}", index + 1), document, 0);
                }
            }
            Err(error) => {
                let at = |number: u64| usize::try_from(number).unwrap_or(0);
                let place = match error.location() {
                    Some(l) => Place::at(source, at(l.line()), at(l.column())),
                    None => Place::whole(source),
                };
                let said = error.to_string();
                let first = said.lines().next().unwrap_or_default();
                self.diagnostics.push(Diagnostic::error(place, "", format!("not YAML: {first}")));
            }
        }
    }

    fn document(&mut self, source: &str, mut document: Value, depth: usize) {
        if document.is_null() {
            return;
        }
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        if kind.is_empty() {
            let place = Place::whole(source);
            self.diagnostics.push(Diagnostic::error(place, "kind", "no object of Kubernetes"));
            return;
        }
        if kind.ends_with("List") && depth < LIST_DEPTH_MAX {
            if let Value::Array(items) = document["items"].take() {
                for item in items {
                    self.document(source, item, depth + 1);
                }
            }
            return;
        }
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let source = format!("{source} ({kind} {name})");
        let version = document["apiVersion"].as_str().unwrap_or_default().to_owned();
        self.object(&source, &version, &kind, document);
    }

    fn object(&mut self, source: &str, version: &str, kind: &str, document: Value) {
        let names = self.reading.names;
        match (version, kind) {
            ("networking.k8s.io/v1", "Ingress") => {
                self.keep(source, document, |api: networking::Ingress| {
                    Some(Ingress::from_api(api))
                });
            }
            ("networking.k8s.io/v1", "IngressClass") => {
                let made = |api: networking::IngressClass| Some(IngressClass::from_api(api));
                self.keep(source, document, made);
            }
            ("v1", "Service") => {
                self.keep(source, document, |api: core::Service| Some(Service::from_api(api)));
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.keep(source, document, |api: discovery::EndpointSlice| {
                    EndpointSlice::from_api(api)
                });
            }
            ("v1", "Secret") => {
                let wanted = self.reading.secret;
                self.keep(source, document, |api: core::Secret| {
                    let tls = api.type_.as_deref() == Some(TLS_SECRET_TYPE);
                    let named = wanted.is_some() && api.metadata.name.as_deref() == wanted;
                    (tls || named).then(|| Secret::from_api(api))
                });
            }
            ("v1", "Namespace") => {
                let routable = self.reading.routable;
                let no_labels = BTreeMap::new();
                self.keep(source, document, |api: core::Namespace| {
                    let takes = routable(api.metadata.labels.as_ref().unwrap_or(&no_labels));
                    takes.then(|| Namespace::from_api(api, names))
                });
            }
            ("v1", "Pod") => self.pod(source, document),
            ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("v1", "ReplicationController") => self.template(source, document),
            _ => {}
        }
    }

    /// Converts and stores; `None` is left out in silence.
    fn keep<K: DeserializeOwned, T: Into<Object>>(
        &mut self,
        source: &str,
        mut document: Value,
        convert: impl FnOnce(K) -> Option<T>,
    ) {
        let cluster_wide = matches!(document["kind"].as_str(), Some("Namespace" | "IngressClass"));
        if !cluster_wide
            && document["metadata"]["namespace"].is_null()
            && document["metadata"].is_object()
        {
            document["metadata"]["namespace"] = json!("default");
        }
        match serde_json::from_value::<K>(document) {
            Ok(api) => {
                if let Some(object) = convert(api) {
                    self.store.apply(object.into(), &mut self.changed);
                }
            }
            Err(error) => {
                // A Secret's values must not be shown, and the text of the error might have one.
                let secret = source.contains("(Secret ");
                let why =
                    if secret { "a field has the wrong type".into() } else { error.to_string() };
                self.diagnostics.push(Diagnostic::error(Place::whole(source), "", why));
            }
        }
    }

    /// One that no cluster has seen counts as running and ready, at an address of documentation.
    fn pod(&mut self, source: &str, document: Value) {
        let made_up = document["status"].is_null().then(|| self.stand_in_address());
        let names = self.reading.names;
        let routable = self.reading.routable;
        let no_labels = BTreeMap::new();
        let mut kept = false;
        self.keep(source, document, |api: core::Pod| {
            let takes = routable(api.metadata.labels.as_ref().unwrap_or(&no_labels));
            kept = takes;
            takes.then(|| {
                let pod = Pod::from_api(api, names);
                match made_up {
                    Some(address) => {
                        Pod { address: Some(address), running: true, ready: true, ..pod }
                    }
                    None => pod,
                }
            })
        });
        if let Some(address) = made_up.filter(|_| kept) {
            let problem = "it has no status: taken as running and ready";
            let warning = Diagnostic::warning(Place::whole(source), "status", problem);
            self.diagnostics.push(warning.value(format!("address {address} made up")));
        }
    }

    /// What makes Pods counts as one of them.
    fn template(&mut self, source: &str, mut document: Value) {
        let mut take = |pointer| document.pointer_mut(pointer).map(Value::take).unwrap_or_default();
        let mut pod = take("/spec/template");
        if !pod.is_object() {
            return;
        }
        if !pod["metadata"].is_object() {
            pod["metadata"] = json!({});
        }
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = take("/metadata/name");
        pod["metadata"]["namespace"] = take("/metadata/namespace");
        self.pod(source, pod);
    }

    /// 198.18.0.0/15 is for tests of devices (RFC 2544), and has more room than the blocks of RFC 5737.
    fn stand_in_address(&mut self) -> IpAddr {
        const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
        const ROOM: u32 = 1 << 17;
        self.stand_ins = self.stand_ins % (ROOM - 1) + 1;
        Ipv4Addr::from(FIRST + self.stand_ins).into()
    }
}
