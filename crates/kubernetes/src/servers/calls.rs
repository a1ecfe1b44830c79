//! What became of requests for Leases, for metrics: how many by the answer's code, and how long they took.
//!
//! Must not know metrics' names.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bounds of buckets, in seconds: the original agent's.
pub const BOUNDS_SECONDS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];
/// Kinds of answers that are told apart; there are far fewer.
const ANSWERS_MAX: usize = 64;
/// The code of what was not answered at all.
const NO_ANSWER: (u16, &str) = (0, "NoAnswer");

/// Requests of one kind.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    answers: BTreeMap<(u16, String), u64>,
    latencies: BTreeMap<u16, Latency>,
}

/// How long requests with one code took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Latency {
    /// How many fell into each bucket, the last being what is longer than all bounds.
    pub buckets: [u64; BOUNDS_SECONDS.len() + 1],
    /// Of all of them, in seconds.
    pub sum: f64,
}

impl Calls {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one. `None` is one without an answer in time.
    pub(super) fn note<T>(&self, answer: Option<&kube::Result<T>>, took: Duration) {
        let (code, reason) = match answer {
            Some(Ok(_)) => (200, ""),
            Some(Err(kube::Error::Api(status))) => (status.code, status.reason.as_str()),
            Some(Err(_)) | None => NO_ANSWER,
        };
        let mut counted = self.counted();
        let key = (code, reason.to_owned());
        if counted.answers.len() < ANSWERS_MAX || counted.answers.contains_key(&key) {
            *counted.answers.entry(key).or_default() += 1;
        }
        if counted.latencies.len() < ANSWERS_MAX || counted.latencies.contains_key(&code) {
            let latency = counted.latencies.entry(code).or_default();
            let seconds = took.as_secs_f64();
            latency.buckets[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
            latency.sum += seconds;
        }
    }

    /// How many by the answer's code and reason. 0 is the code of what was not answered.
    #[must_use]
    pub fn answers(&self) -> Vec<(u16, String, u64)> {
        let counted = self.counted();
        let answers = counted.answers.iter();
        answers.map(|((code, reason), count)| (*code, reason.clone(), *count)).collect()
    }

    /// How long they took, by the answer's code.
    #[must_use]
    pub fn latencies(&self) -> Vec<(u16, Latency)> {
        self.counted().latencies.iter().map(|(code, latency)| (*code, latency.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_code_and_there_are_never_too_many() {
        let calls = Calls::default();
        calls.note(Some(&Ok(())), Duration::from_millis(5));
        calls.note(Some(&Ok(())), Duration::from_secs(31));
        calls.note::<()>(None, Duration::from_secs(1));
        for code in 0..1000 {
            let status = kube::core::Status { code, ..kube::core::Status::success() };
            let error = kube::Error::Api(status.boxed());
            calls.note::<()>(Some(&Err(error)), Duration::ZERO);
        }
        let answers = calls.answers();
        assert_eq!(answers.len(), ANSWERS_MAX);
        assert!(answers.contains(&(0, "NoAnswer".to_owned(), 1)));
        let ok = answers.iter().find(|(code, reason, _)| (*code, reason.as_str()) == (200, ""));
        assert_eq!(ok.unwrap().2, 3);
        let latencies = calls.latencies();
        let (_, ok) = latencies.iter().find(|(code, _)| *code == 200).unwrap();
        assert_eq!((ok.buckets[0], ok.buckets[7]), (2, 1));
    }
}
