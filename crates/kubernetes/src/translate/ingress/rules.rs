//! Rules of Ingresses: one for each path, and those of default backends, which stand behind all others.
//!
//! Start at [`Rules::add`].

use model::{Action, HostPattern, PathMatch, PathRewrite, Place, Redirect, Rule, Scheme};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::{Draft, Reach};
use super::annotations::Settings;
use super::backends::{Backends, Field};
use super::paths;
use crate::objects::from_api::shown;
use crate::objects::{Backend, Ingress, IngressPath, Key, Kind, PathType};

/// What has been claimed so far, and by which Ingress.
#[derive(Default)]
pub(super) struct Rules {
    paths: FxHashMap<(HostPattern, PathMatch), Key>,
    defaults: FxHashMap<HostPattern, Key>,
}

/// The one of an Ingress that its rules are made with.
struct Source<'a> {
    ingress: &'a Ingress,
    settings: &'a Settings,
    place: Place,
    /// What the names of its rules begin with.
    prefix: String,
}

impl Source<'_> {
    fn problem(&self, draft: &mut Draft, reason: &'static str, message: String) {
        draft.problem(Kind::Ingress, &self.ingress.meta, reason, message);
    }

    /// Adds a rule; where clients of http are sent to https, for those of https, and a redirect for the others.
    fn add(&self, rule: Rule, draft: &mut Draft) {
        // The method and the body stay, and clients may remember it.
        const PERMANENT_REDIRECT: u16 = 308;
        if !self.settings.https_redirect {
            draft.rules.push((rule, Reach::Everywhere));
            return;
        }
        let to = Redirect {
            status: PERMANENT_REDIRECT,
            scheme: Some(Scheme::Https),
            host: None,
            port: None,
        };
        let redirect = Rule {
            rewrite: PathRewrite::Keep,
            action: Action::Redirect(to),
            request_body_max: None,
            response_timeout: None,
            ..rule.clone()
        };
        draft.rules.extend([(redirect, Reach::PlainOnly), (rule, Reach::TlsOnly)]);
    }

    fn rule(&self, name: &str, hosts: HostPattern, path: PathMatch, action: Action) -> Rule {
        let strips = self.settings.strip_path && path != PathMatch::Any;
        Rule {
            name: format!("{}/{name}", self.prefix).into(),
            fallback: path == PathMatch::Any,
            hosts,
            path,
            rewrite: if strips { PathRewrite::StripMatch } else { PathRewrite::Keep },
            action,
            api_key: None,
            request_body_max: self.settings.request_body_max,
            response_timeout: self.settings.response_timeout,
            place: self.place.clone(),
        }
    }
}

impl Rules {
    /// Those of one Ingress. Ingresses come in the order in which they win: the oldest first.
    pub(super) fn add(
        &mut self,
        ingress: &Ingress,
        settings: &Settings,
        backends: &mut Backends<'_>,
        draft: &mut Draft,
    ) {
        let key = &ingress.meta.key;
        let source = Source {
            ingress,
            settings,
            place: Place::whole(format!("Ingress {key}")),
            prefix: format!("ingress/{key}"),
        };
        for path in &ingress.paths {
            let Some((hosts, matched)) = self.claim(&source, path, draft) else { continue };
            let field = Field::Path(path.at);
            let action = backends.action(ingress, settings, &path.backend, field, draft);
            let name = format!("{}/{}", path.at.0, path.at.1);
            source.add(source.rule(&name, hosts, matched, action), draft);
        }
        match &ingress.default_backend {
            Some(backend) => self.add_defaults(&source, backend, backends, draft),
            None => without_default(&source, draft),
        }
    }

    /// Host and path of a rule, unless they are none or an older Ingress has them.
    fn claim(
        &mut self,
        source: &Source<'_>,
        path: &IngressPath,
        draft: &mut Draft,
    ) -> Option<(HostPattern, PathMatch)> {
        let (rule, index) = path.at;
        let hosts = match paths::host(&path.host) {
            Ok(hosts) => hosts,
            Err(expected) => {
                let message = format!(
                    "spec.rules[{rule}].host is {}, expected {expected}; the rule is not served",
                    shown(&path.host)
                );
                source.problem(draft, "InvalidHost", message);
                return None;
            }
        };
        let at = format_args!("spec.rules[{rule}].http.paths[{index}]");
        let matched = match paths::path(&path.path_type, &path.path) {
            Ok(matched) => matched,
            Err((part, expected)) => {
                let found = match &path.path_type {
                    PathType::Unknown(word) => word,
                    _ => &path.path,
                };
                let message = format!(
                    "{at}.{part} is {}, expected {expected}; the path is not served",
                    shown(found)
                );
                source.problem(draft, "InvalidPath", message);
                return None;
            }
        };
        if let Some(why) = paths::oddity(&path.path) {
            let message = format!("{at}.path is {}; {why}", shown(&path.path));
            source.problem(draft, "UnlikelyPath", message);
        }
        let key = &source.ingress.meta.key;
        let claim = (hosts, matched);
        if let Some(winner) = self.paths.get(&claim) {
            let (reason, by) = if winner == key {
                ("DuplicatePath", "an earlier path of this Ingress".to_owned())
            } else {
                ("PathTaken", format!("Ingress {winner}, which is older"))
            };
            let message = format!(
                "{at}.path is {} for host {}, which is served by {by}; this one is not",
                shown(&path.path),
                shown(&path.host)
            );
            source.problem(draft, reason, message);
            return None;
        }
        self.paths.insert(claim.clone(), key.clone());
        Some(claim)
    }

    /// The default backend serves the Ingress's hosts where no path fits, and every other host if it is the
    /// oldest.
    fn add_defaults(
        &mut self,
        source: &Source<'_>,
        backend: &Backend,
        backends: &mut Backends<'_>,
        draft: &mut Draft,
    ) {
        let ingress = source.ingress;
        let key = &ingress.meta.key;
        let named = ingress.paths.iter().map(|path| &path.host).chain(&ingress.bare_hosts);
        let mut seen = FxHashSet::default();
        let mut hosts: Vec<HostPattern> = Vec::new();
        for host in named.filter(|host| seen.insert((*host).clone())) {
            match paths::host(host) {
                Ok(pattern) if pattern != HostPattern::Any => hosts.push(pattern),
                Ok(_) => {}
                // One with paths has been reported with the first of them.
                Err(expected) if ingress.bare_hosts.contains(host) => {
                    let message = format!(
                        "spec.rules has the host {}, expected {expected}; it is not served",
                        shown(host)
                    );
                    source.problem(draft, "InvalidHost", message);
                }
                Err(_) => {}
            }
        }
        let alone = hosts.is_empty();
        hosts.push(HostPattern::Any);
        let action =
            backends.action(ingress, source.settings, backend, Field::DefaultBackend, draft);
        for pattern in hosts {
            if let Some(winner) = self.defaults.get(&pattern) {
                if winner != key && (alone || pattern != HostPattern::Any) {
                    let message = format!(
                        "spec.defaultBackend would serve host {pattern}, whose default backend is that of \
                         Ingress {winner}, which is older; this one does not serve it"
                    );
                    source.problem(draft, "DefaultBackendTaken", message);
                }
                continue;
            }
            self.defaults.insert(pattern.clone(), key.clone());
            let name = match &pattern {
                HostPattern::Any => "default".to_owned(),
                host => format!("default/{host}"),
            };
            let rule = source.rule(&name, pattern, PathMatch::Any, action.clone());
            source.add(rule, draft);
        }
    }
}

fn without_default(source: &Source<'_>, draft: &mut Draft) {
    for host in &source.ingress.bare_hosts {
        let message = format!(
            "spec.rules has the host {} without paths, expected paths or \
             a spec.defaultBackend; it gets 404 from here",
            shown(host)
        );
        source.problem(draft, "HostWithoutPaths", message);
    }
}
