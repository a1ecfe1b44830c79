//! Which Ingresses are ours: those of a class whose controller we are, and those of no class while the
//! default one is.

use rustc_hash::FxHashSet;

use super::super::Draft;
use crate::objects::{Ingress, IngressClass, Kind, Text};
use crate::store::Store;

/// The classes that are ours.
pub(super) struct Classes<'s> {
    ours: FxHashSet<&'s str>,
    default_is_ours: bool,
}

impl<'s> Classes<'s> {
    /// Of several default classes the newest counts, then the first by name, as the API server's admission
    /// has it; ours among them hear of it.
    pub(super) fn of(controllers: &[Text], store: &'s Store, draft: &mut Draft) -> Self {
        let is_ours = |class: &&IngressClass| controllers.contains(&class.controller);
        let all = || store.classes.values().map(|class| &**class);
        let mut defaults: Vec<&IngressClass> = all().filter(|class| class.is_default).collect();
        defaults.sort_by(|a, b| {
            b.meta.created.cmp(&a.meta.created).then_with(|| a.meta.key.cmp(&b.meta.key))
        });
        if let [newest, _, ..] = defaults[..] {
            for class in defaults.iter().filter(|class| is_ours(class)) {
                let message = format!(
                    "metadata.annotations[\"ingressclass.kubernetes.io/is-default-class\"] is \"true\" \
                     on {} classes, expected one; Ingresses without a class go to the newest, {}",
                    defaults.len(),
                    newest.meta.key
                );
                draft.problem(Kind::IngressClass, &class.meta, "SeveralDefaultClasses", message);
            }
        }
        Self {
            ours: all().filter(is_ours).map(|class| &*class.meta.key.name).collect(),
            default_is_ours: defaults.first().is_some_and(is_ours),
        }
    }

    /// Whether an Ingress is of one of them.
    pub(super) fn take(&self, ingress: &Ingress) -> bool {
        match &ingress.class {
            Some(class) => self.ours.contains(&**class),
            None => self.default_is_ours,
        }
    }
}
