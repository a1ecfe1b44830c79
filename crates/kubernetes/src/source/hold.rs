//! The objects as they are now, and what has changed since they were last translated. Pure.

use crate::objects::{Key, Kind};
use crate::store::{Changed, Object, Store};

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Message {
    /// This is there, as it is here.
    Object(Object),
    /// This is not there any more.
    Gone(Kind, Key),
    /// This watch has said everything that there is.
    Listed(usize),
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) store: Store,
    pub(crate) changed: Changed,
}

/// What one message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that decides about traffic.
    None,
    /// Who answers, but mostly not what is asked: it should not wait.
    Endpoints,
    /// Anything.
    Config,
}

impl Held {
    /// Puts an object in place of what was there.
    pub(crate) fn put(&mut self, object: Object) -> Effect {
        let kind = object.kind();
        self.noting(kind, |store, changed| store.apply(object, changed))
    }

    /// Takes an object away.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) -> Effect {
        self.noting(kind, |store, changed| store.remove(kind, key, changed))
    }

    fn noting(&mut self, kind: Kind, act: impl FnOnce(&mut Store, &mut Changed) -> bool) -> Effect {
        let mut changed = Changed::default();
        act(&mut self.store, &mut changed);
        if changed.is_empty() {
            return Effect::None;
        }
        self.changed.merge(changed);
        match kind {
            Kind::EndpointSlice | Kind::Pod => Effect::Endpoints,
            _ => Effect::Config,
        }
    }
}
