//! Which kinds are followed, where, and how narrowly: no more of a cluster than the sources need.
//!
//! Must not know what a translation does with them.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::watch::Follow;
use super::{Cluster, Failure};
use crate::health::WatchHealth;
use crate::objects::{
    AnnotationNames, EndpointSlice, Ingress, IngressClass, Key, Kind, Namespace, Pod, Secret,
    Service,
};
use crate::source::hold::Message;
use crate::store::Object;

/// What of a cluster is looked at.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// What Ingresses need.
    pub ingress: bool,
    /// What annotated Pods need.
    pub pods: Option<PodSelection>,
    /// Secrets looked at wherever they are: the default certificate.
    pub secrets: Vec<Key>,
    /// Services looked at wherever they are: the one whose addresses are published.
    pub services: Vec<Key>,
}

/// What of it annotated Pods need.
#[derive(Debug, Clone)]
pub struct PodSelection {
    /// Label selector of Pods and Namespaces.
    pub labels: String,
    /// The name of the Secret with API keys and certificates, in each namespace.
    pub secret: String,
    /// Which annotations and labels are kept.
    pub names: AnnotationNames,
}

/// One watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// Empty: everywhere.
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
}

impl Selection {
    /// The watches that it takes.
    pub(crate) fn plan(&self) -> Vec<Plan> {
        let everywhere = [String::new()];
        let namespaces =
            if self.namespaces.is_empty() { &everywhere[..] } else { &self.namespaces[..] };
        let mut plans = Vec::new();
        let mut add = |kind, namespace: &str, labels: &str, fields: &str| {
            let plan = Plan {
                kind,
                namespace: namespace.to_owned(),
                labels: labels.to_owned(),
                fields: fields.to_owned(),
            };
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        };
        if self.ingress {
            add(Kind::IngressClass, "", "", "");
            for namespace in namespaces {
                for kind in [Kind::Ingress, Kind::Service, Kind::EndpointSlice] {
                    add(kind, namespace, "", "");
                }
                add(Kind::Secret, namespace, "", "type=kubernetes.io/tls");
            }
        }
        if let Some(pods) = &self.pods {
            add(Kind::Namespace, "", &pods.labels, "");
            for namespace in namespaces {
                add(Kind::Pod, namespace, &pods.labels, "");
                add(Kind::Secret, namespace, "", &format!("metadata.name={}", pods.secret));
            }
        }
        let covered = |key: &Key| namespaces.iter().any(|n| n.is_empty() || **n == *key.namespace);
        for key in &self.secrets {
            add(Kind::Secret, &key.namespace, "", &format!("metadata.name={}", key.name));
        }
        for key in self.services.iter().filter(|key| !self.ingress || !covered(key)) {
            add(Kind::Service, &key.namespace, "", &format!("metadata.name={}", key.name));
        }
        plans
    }

    fn watches(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }
}

/// What a watch is connected to.
pub(crate) struct Wiring {
    pub(crate) cluster: Cluster,
    pub(crate) selection: Arc<Selection>,
    pub(crate) out: mpsc::Sender<Message>,
}

/// How a watch goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For ever.
    Follow,
    /// Lists once.
    Once,
}

impl Wiring {
    /// Carries out a plan; with [`Mode::Once`] it ends, and may fail. Dropped, it stops where it is.
    pub(crate) async fn run(
        &self,
        mode: Mode,
        (index, plan): (usize, &Plan),
        health: &Arc<WatchHealth>,
    ) -> Result<(), Failure> {
        let all = Job { wiring: self, mode, index, plan, health };
        let names = self.selection.pods.as_ref().map(|pods| pods.names.clone()).unwrap_or_default();
        match plan.kind {
            Kind::Ingress => {
                let convert = |o: networking::Ingress| Some(Object::from(Ingress::from_api(o)));
                all.namespaced(convert).await
            }
            Kind::IngressClass => {
                let convert =
                    |o: networking::IngressClass| Some(Object::from(IngressClass::from_api(o)));
                all.cluster_wide(convert).await
            }
            Kind::Service => {
                let convert = |o: core::Service| Some(Object::from(Service::from_api(o)));
                all.namespaced(convert).await
            }
            Kind::EndpointSlice => {
                let convert =
                    |o: discovery::EndpointSlice| EndpointSlice::from_api(o).map(Object::from);
                all.namespaced(convert).await
            }
            Kind::Secret => {
                let convert = |o: core::Secret| Some(Object::from(Secret::from_api(o)));
                all.namespaced(convert).await
            }
            Kind::Namespace => {
                let selection = self.selection.clone();
                let convert = move |o: core::Namespace| {
                    let wanted = selection.watches(o.metadata.name.as_deref().unwrap_or_default());
                    wanted.then(|| Object::from(Namespace::from_api(o, &names)))
                };
                all.cluster_wide(convert).await
            }
            Kind::Pod => {
                let convert = move |o: core::Pod| Some(Object::from(Pod::from_api(o, &names)));
                all.namespaced(convert).await
            }
        }
    }
}

/// One watch of a kind that is not a type yet.
struct Job<'a> {
    wiring: &'a Wiring,
    mode: Mode,
    index: usize,
    plan: &'a Plan,
    health: &'a Arc<WatchHealth>,
}

impl Job<'_> {
    async fn namespaced<K>(
        self,
        convert: impl Fn(K) -> Option<Object> + Send + Sync + 'static,
    ) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let client = self.wiring.cluster.client();
        let api = match &*self.plan.namespace {
            "" => Api::all(client),
            namespace => Api::namespaced(client, namespace),
        };
        self.run(api, Box::new(convert)).await
    }

    async fn cluster_wide<K>(
        self,
        convert: impl Fn(K) -> Option<Object> + Send + Sync + 'static,
    ) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = Api::all(self.wiring.cluster.client());
        self.run(api, Box::new(convert)).await
    }

    async fn run<K>(
        self,
        api: Api<K>,
        convert: Box<dyn Fn(K) -> Option<Object> + Send + Sync>,
    ) -> Result<(), Failure>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let follow = Follow {
            api,
            labels: self.plan.labels.clone(),
            fields: self.plan.fields.clone(),
            index: self.index,
            kind: self.plan.kind,
            convert,
            out: self.wiring.out.clone(),
            health: self.health.clone(),
        };
        match self.mode {
            Mode::Follow => {
                follow.run().await;
                Ok(())
            }
            Mode::Once => follow.once().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(selection: &Selection) -> Vec<String> {
        let show = |p: &Plan| {
            format!("{} {:?} {:?} {:?}", p.kind.as_str(), p.namespace, p.labels, p.fields)
        };
        selection.plan().iter().map(show).collect()
    }

    #[test]
    fn no_more_is_watched_than_needed() {
        let ingress = Selection { ingress: true, ..Selection::default() };
        assert_eq!(
            plans(&ingress),
            [
                r#"IngressClass "" "" """#,
                r#"Ingress "" "" """#,
                r#"Service "" "" """#,
                r#"EndpointSlice "" "" """#,
                r#"Secret "" "" "type=kubernetes.io/tls""#,
            ]
        );
        let pods = PodSelection {
            labels: "routable=true".to_owned(),
            secret: "routing".to_owned(),
            names: AnnotationNames::default(),
        };
        let key =
            |namespace: &str, name: &str| Key { namespace: namespace.into(), name: name.into() };
        let narrow = Selection {
            namespaces: vec!["a".to_owned(), "b".to_owned()],
            pods: Some(pods),
            secrets: vec![key("c", "cert")],
            services: vec![key("a", "lb")],
            ..Selection::default()
        };
        assert_eq!(
            plans(&narrow),
            [
                r#"Namespace "" "routable=true" """#,
                r#"Pod "a" "routable=true" """#,
                r#"Secret "a" "" "metadata.name=routing""#,
                r#"Pod "b" "routable=true" """#,
                r#"Secret "b" "" "metadata.name=routing""#,
                r#"Secret "c" "" "metadata.name=cert""#,
                r#"Service "a" "" "metadata.name=lb""#,
            ]
        );
    }
}
