//! What is wrong with objects, said in the operator's log: each once when it comes and once when it goes.
//!
//! Pure but for the log. Must not know who else hears of it.

use std::sync::Arc;

use crate::translate::Problem;

/// Lines for one translation; the rest is counted. All of them are on the admin port.
const LINES_MAX: usize = 50;

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct ProblemLog {
    said: Arc<Vec<Problem>>,
}

impl ProblemLog {
    /// Says what is new and what is no longer so.
    pub(super) fn say(&mut self, problems: &Arc<Vec<Problem>>) {
        if Arc::ptr_eq(&self.said, problems) {
            return;
        }
        let (new, gone) = differences(&self.said, problems);
        for problem in new.iter().take(LINES_MAX) {
            let (object, message) = (problem.object.to_string(), &*problem.message);
            tracing::warn!(object, reason = problem.reason, "{message}");
        }
        for problem in gone.iter().take(LINES_MAX) {
            let object = problem.object.to_string();
            tracing::info!(object, reason = problem.reason, "mended: {}", problem.message);
        }
        let unsaid = new.len().saturating_sub(LINES_MAX) + gone.len().saturating_sub(LINES_MAX);
        if unsaid > 0 {
            tracing::warn!(more = unsaid, "and more problems came or went: see /state");
        }
        self.said = problems.clone();
    }
}

/// What only the second has, and what only the first. Both are sorted.
fn differences<'p>(
    before: &'p [Problem],
    now: &'p [Problem],
) -> (Vec<&'p Problem>, Vec<&'p Problem>) {
    let only = |these: &'p [Problem], those: &[Problem]| {
        these.iter().filter(|p| those.binary_search(p).is_err()).collect()
    };
    (only(now, before), only(before, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Key, Kind, ObjectRef};

    #[test]
    fn only_differences_are_said() {
        let problem = |name: &str| Problem {
            object: ObjectRef {
                kind: Kind::Ingress,
                key: Key { namespace: "a".into(), name: name.into() },
                uid: "".into(),
            },
            reason: "MissingService",
            message: "gone".to_owned(),
        };
        let (one, two, three) = (problem("1"), problem("2"), problem("3"));
        let before = [one.clone(), two.clone()];
        let now = [two, three.clone()];
        assert_eq!(differences(&before, &now), (vec![&three], vec![&one]));
    }
}
