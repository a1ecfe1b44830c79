//! All objects that matter, by kind and name: what the watches fill and [`crate::translate`] reads.
//!
//! Plain data without a clock. Written to disk as the list of its [`Object`]s. Must not know where they
//! come from. Start at [`Store::apply`].

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::objects::{
    EndpointSlice, Ingress, IngressClass, Key, Kind, Meta, Namespace, Pod, Secret, Service, Text,
};

/// Objects of one kind.
pub type Objects<T> = FxHashMap<Key, Arc<T>>;

/// All of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    /// Ingresses of every class.
    pub ingresses: Objects<Ingress>,
    /// Classes.
    pub classes: Objects<IngressClass>,
    /// Services.
    pub services: Objects<Service>,
    /// Slices by Service.
    pub slices: FxHashMap<Key, FxHashMap<Text, Arc<EndpointSlice>>>,
    /// Secrets of type `kubernetes.io/tls`, and those with the name of the routing Secret.
    pub secrets: Objects<Secret>,
    /// Namespaces that are routable.
    pub namespaces: Objects<Namespace>,
    /// Pods that are routable.
    pub pods: Objects<Pod>,
    /// Which Service a slice belongs to: one that is gone is named without it.
    slice_services: FxHashMap<Key, Text>,
}

/// One object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Object {
    /// See [`Ingress`].
    Ingress(Arc<Ingress>),
    /// See [`IngressClass`].
    IngressClass(Arc<IngressClass>),
    /// See [`Service`].
    Service(Arc<Service>),
    /// See [`EndpointSlice`].
    EndpointSlice(Arc<EndpointSlice>),
    /// See [`Secret`].
    Secret(Arc<Secret>),
    /// See [`Namespace`].
    Namespace(Arc<Namespace>),
    /// See [`Pod`].
    Pod(Arc<Pod>),
}

impl Object {
    /// Its name and age.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Ingress(object) => &object.meta,
            Self::IngressClass(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::EndpointSlice(object) => &object.meta,
            Self::Secret(object) => &object.meta,
            Self::Namespace(object) => &object.meta,
            Self::Pod(object) => &object.meta,
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ingress(_) => Kind::Ingress,
            Self::IngressClass(_) => Kind::IngressClass,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
        }
    }
}

macro_rules! object_from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        }
    )*};
}
object_from!(Ingress, IngressClass, Service, EndpointSlice, Secret, Namespace, Pod);

/// What has changed in a [`Store`] since it was translated last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    everything: bool,
    ingress: bool,
    pods: bool,
    services: FxHashSet<Key>,
}

impl Changed {
    /// Anything may have: all is translated anew, and certificates are checked again (they may have expired).
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether routes may have: anything beside endpoints of Services.
    #[must_use]
    pub fn routes(&self) -> bool {
        self.everything || self.ingress || self.pods
    }

    /// An object of this kind has; [`Self::slice`] for EndpointSlices, which would otherwise count as
    /// everything.
    pub fn note(&mut self, kind: Kind) {
        match kind {
            Kind::Ingress | Kind::IngressClass | Kind::Service => self.ingress = true,
            Kind::Secret => {
                self.ingress = true;
                self.pods = true;
            }
            Kind::Namespace | Kind::Pod => self.pods = true,
            Kind::EndpointSlice => self.everything = true,
        }
    }

    /// A slice of this Service has.
    pub fn slice(&mut self, service: Key) {
        self.services.insert(service);
    }

    /// What has changed here or there.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.ingress |= other.ingress;
        self.pods |= other.pods;
        self.services.extend(other.services);
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn ingress(&self) -> bool {
        self.everything || self.ingress
    }

    pub(crate) fn pods(&self) -> bool {
        self.everything || self.pods
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Key> {
        self.services.iter()
    }
}

/// Puts an object into its map; tells whether it differs from what was there.
fn put<T: PartialEq>(objects: &mut Objects<T>, key: Key, object: Arc<T>) -> bool {
    if objects.get(&key) == Some(&object) {
        return false;
    }
    objects.insert(key, object);
    true
}

impl Store {
    /// Takes in a new or changed object and notes what that changes. What is equal to before changes
    /// nothing, and an Ingress of which only the status changed (as we write it) no routes. Tells whether
    /// it differs from before.
    pub fn apply(&mut self, object: Object, changed: &mut Changed) -> bool {
        let key = object.meta().key.clone();
        let kind = object.kind();
        let differs = match object {
            Object::Ingress(ingress) => return self.apply_ingress(key, ingress, changed),
            Object::EndpointSlice(slice) => return self.apply_slice(&key, slice, changed),
            Object::IngressClass(object) => put(&mut self.classes, key, object),
            Object::Service(object) => put(&mut self.services, key, object),
            Object::Secret(object) => put(&mut self.secrets, key, object),
            Object::Namespace(object) => put(&mut self.namespaces, key, object),
            Object::Pod(object) => put(&mut self.pods, key, object),
        };
        if differs {
            changed.note(kind);
        }
        differs
    }

    fn apply_ingress(&mut self, key: Key, new: Arc<Ingress>, changed: &mut Changed) -> bool {
        let same_routes = self.ingresses.get(&key).is_some_and(|old| {
            old.status != new.status
                && Ingress { status: new.status.clone(), ..(**old).clone() } == *new
        });
        let differs = put(&mut self.ingresses, key, new);
        if differs && !same_routes {
            changed.note(Kind::Ingress);
        }
        differs
    }

    fn apply_slice(&mut self, key: &Key, slice: Arc<EndpointSlice>, changed: &mut Changed) -> bool {
        let service = Key { namespace: key.namespace.clone(), name: slice.service.clone() };
        let before = self.slice_services.insert(key.clone(), service.name.clone());
        if before.is_some_and(|before| before != service.name) {
            // Its label has changed hands.
            self.slice_services.remove(key);
            self.remove_slice_everywhere(key, changed);
            self.slice_services.insert(key.clone(), service.name.clone());
        }
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&key.name) == Some(&slice) {
            return false;
        }
        slices.insert(key.name.clone(), slice);
        changed.slice(service);
        true
    }

    fn remove_slice_everywhere(&mut self, key: &Key, changed: &mut Changed) {
        self.slices.retain(|service, slices| {
            if service.namespace == key.namespace && slices.remove(&key.name).is_some() {
                changed.slice(service.clone());
            }
            !slices.is_empty()
        });
    }

    /// Takes an object out and notes what that changes. Tells whether it was there.
    pub fn remove(&mut self, kind: Kind, key: &Key, changed: &mut Changed) -> bool {
        let was_there = match kind {
            Kind::EndpointSlice => return self.remove_slice(key, changed),
            Kind::Ingress => self.ingresses.remove(key).is_some(),
            Kind::IngressClass => self.classes.remove(key).is_some(),
            Kind::Service => self.services.remove(key).is_some(),
            Kind::Secret => self.secrets.remove(key).is_some(),
            Kind::Namespace => self.namespaces.remove(key).is_some(),
            Kind::Pod => self.pods.remove(key).is_some(),
        };
        if was_there {
            changed.note(kind);
        }
        was_there
    }

    fn remove_slice(&mut self, key: &Key, changed: &mut Changed) -> bool {
        let Some(name) = self.slice_services.remove(key) else { return false };
        let service = Key { namespace: key.namespace.clone(), name };
        let Some(slices) = self.slices.get_mut(&service) else { return false };
        let was_there = slices.remove(&key.name).is_some();
        if slices.is_empty() {
            self.slices.remove(&service);
        }
        if was_there {
            changed.slice(service);
        }
        was_there
    }

    /// All objects, in no order: what is written to disk. [`Self::apply`] puts each back.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let slices = self.slices.values().flat_map(FxHashMap::values);
        (self.ingresses.values().cloned().map(Object::Ingress))
            .chain(self.classes.values().cloned().map(Object::IngressClass))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(slices.cloned().map(Object::EndpointSlice))
            .chain(self.secrets.values().cloned().map(Object::Secret))
            .chain(self.namespaces.values().cloned().map(Object::Namespace))
            .chain(self.pods.values().cloned().map(Object::Pod))
    }

    /// How many objects it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ingresses.len()
            + self.classes.len()
            + self.services.len()
            + self.slice_services.len()
            + self.secrets.len()
            + self.namespaces.len()
            + self.pods.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
