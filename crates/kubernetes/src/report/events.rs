//! Events about what is wrong with objects: which are due, and what stands in them. Pure.
//!
//! Each problem is said once, again when it changes, and again after [`REPEAT`], because the API server forgets
//! Events after an hour. How many are sent at once is bounded: the log and the admin port have them all.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use rustc_hash::{FxHashMap, FxHasher};
use tokio::time::Instant;

use crate::objects::Kind;
use crate::translate::Problem;

/// A problem that lasts is said again after this time.
pub(crate) const REPEAT: Duration = Duration::from_secs(50 * 60);
/// One Event may be sent each such time,
const REFILL: Duration = Duration::from_millis(200);
/// and this many at once after a quiet time.
const BURST: u32 = 100;
/// Problems remembered as said.
const SAID_MAX: usize = 20_000;
/// Of the API: `note`.
const NOTE_BYTES_MAX: usize = 1024;
/// Of the API: `reportingInstance`.
const INSTANCE_BYTES_MAX: usize = 128;
/// Of the API: a name. What follows the object's name takes 17.
const NAME_BYTES_MAX: usize = 253 - 17;

/// What was said, and how much may be.
#[derive(Debug, Default)]
pub(super) struct Said {
    at: FxHashMap<u64, Instant>,
    /// Spent of [`BURST`], as of a time.
    spent: u32,
    since: Option<Instant>,
}

impl Said {
    /// Those that are to be said now; they count as said.
    pub(super) fn due(&mut self, problems: &Arc<Vec<Problem>>, now: Instant) -> Vec<Problem> {
        self.at.retain(|_, at| now.duration_since(*at) < REPEAT);
        self.refill(now);
        let mut due = Vec::new();
        let unsaid = problems.iter().filter(|problem| {
            // One that was not read from an API server has nobody to hear it.
            !problem.object.uid.is_empty() && !self.at.contains_key(&identity(problem))
        });
        for problem in in_turn(unsaid) {
            if self.spent >= BURST || self.at.len() >= SAID_MAX {
                break;
            }
            self.spent += 1;
            self.at.insert(identity(problem), now);
            due.push(problem.clone());
        }
        due
    }

    /// It could not be said after all.
    pub(super) fn unsaid(&mut self, problem: &Problem) {
        self.at.remove(&identity(problem));
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let steps = now.duration_since(since).as_millis() / REFILL.as_millis();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_sub(steps);
        self.since = Some(if self.spent == 0 { now } else { since + REFILL * steps });
    }
}

/// The first of each namespace, then the second of each: who makes many problems keeps nobody else from hearing.
fn in_turn<'p>(problems: impl Iterator<Item = &'p Problem>) -> Vec<&'p Problem> {
    let mut of_namespace = FxHashMap::<&str, usize>::default();
    let mut turns: Vec<(usize, &Problem)> = problems
        .map(|problem| {
            let turn = of_namespace.entry(&*problem.object.key.namespace).or_default();
            *turn += 1;
            (*turn, problem)
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, problem)| problem).collect()
}

/// The same for the same problem of the same object, in every process.
fn identity(problem: &Problem) -> u64 {
    let mut hasher = FxHasher::default();
    problem.hash(&mut hasher);
    hasher.finish()
}

/// The Event of a problem. Its name says which problem it is, so that replicas and restarts make one series of it.
pub(super) fn event(problem: &Problem, controller: &str, instance: &str, now: MicroTime) -> Event {
    let object = &problem.object;
    let (group, namespace) = match object.kind {
        Kind::Ingress | Kind::IngressClass => ("networking.k8s.io/v1", &*object.key.namespace),
        Kind::EndpointSlice => ("discovery.k8s.io/v1", &*object.key.namespace),
        Kind::Service | Kind::Secret | Kind::Namespace | Kind::Pod => {
            ("v1", &*object.key.namespace)
        }
    };
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let name = format!("{}.{:016x}", cut(&object.key.name, NAME_BYTES_MAX), identity(problem));
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            // Where the API wants Events about what has no namespace.
            namespace: some(namespace).or_else(|| some("default")),
            ..ObjectMeta::default()
        },
        event_time: Some(now),
        action: some("Route"),
        reason: some(problem.reason),
        note: some(cut(&problem.message, NOTE_BYTES_MAX)),
        type_: some("Warning"),
        regarding: Some(ObjectReference {
            api_version: some(group),
            kind: some(object.kind.as_str()),
            name: some(&object.key.name),
            namespace: some(namespace),
            uid: some(&object.uid),
            ..ObjectReference::default()
        }),
        reporting_controller: some(controller),
        reporting_instance: some(cut(instance, INSTANCE_BYTES_MAX)),
        ..Event::default()
    }
}

/// At most that many bytes, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    use crate::objects::{Key, ObjectRef};

    fn problem(name: &str, message: &str) -> Problem {
        let key = Key { namespace: "a".into(), name: name.into() };
        let object = ObjectRef { kind: Kind::Ingress, key, uid: "u".into() };
        Problem { object, reason: "InvalidPath", message: message.to_owned() }
    }

    #[test]
    fn each_is_said_once_until_it_changes_or_grows_old() {
        let begin = Instant::now();
        let mut said = Said::default();
        let problems = Arc::new(vec![problem("x", "one"), problem("y", "two")]);
        assert_eq!(said.due(&problems, begin).len(), 2);
        assert_eq!(said.due(&problems, begin).len(), 0);
        // Gone and back soon: still said.
        assert_eq!(said.due(&Arc::default(), begin).len(), 0);
        assert_eq!(said.due(&problems, begin).len(), 0);
        let changed = Arc::new(vec![problem("x", "other"), problem("y", "two")]);
        assert_eq!(said.due(&changed, begin), [problem("x", "other")]);
        said.unsaid(&problem("x", "other"));
        assert_eq!(said.due(&changed, begin).len(), 1);
        assert_eq!(said.due(&changed, begin + REPEAT).len(), 2);
    }

    #[test]
    fn a_flood_is_bounded() {
        let begin = Instant::now();
        let mut said = Said::default();
        let problems: Vec<Problem> = (0..1000).map(|i| problem(&i.to_string(), "m")).collect();
        let problems = Arc::new(problems);
        assert_eq!(said.due(&problems, begin).len(), BURST as usize);
        assert_eq!(said.due(&problems, begin).len(), 0);
        assert_eq!(said.due(&problems, begin + REFILL * 7).len(), 7);
        assert_eq!(said.due(&problems, begin + REFILL * 7 + REFILL * 1000).len(), BURST as usize);
    }

    #[test]
    fn who_makes_a_flood_does_not_silence_others() {
        let mut said = Said::default();
        let mut problems: Vec<Problem> = (0..1000).map(|i| problem(&i.to_string(), "m")).collect();
        let mut other = problem("x", "m");
        other.object.key.namespace = "b".into();
        problems.push(other.clone());
        let due = said.due(&Arc::new(problems), Instant::now());
        assert_eq!(due.len(), BURST as usize);
        assert!(due.contains(&other));
    }

    #[test]
    fn an_event_fits_into_the_api() {
        let long = problem(&"n".repeat(253), &"é".repeat(2000));
        let event =
            event(&long, "cloverleaf/gateway", &"i".repeat(300), MicroTime(Timestamp::now()));
        assert_eq!(event.metadata.name.unwrap().len(), 253);
        assert!(event.note.unwrap().len() <= NOTE_BYTES_MAX);
        assert_eq!(event.reporting_instance.unwrap().len(), 128);
    }
}
