//! Who asks, and how often: a task for each endpoint with a check, started and stopped as programs change.
//!
//! Lives on the control runtime, so that no check delays a request. Must not know how a check is made nor what its
//! result means.

use std::sync::Arc;
use std::time::Duration;

use balance::Rng;
use model::Name;
use net::dial::Dialer;
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{EndpointHealth, UpstreamHealth, probe};
use crate::program::{Program, Shape};
use crate::shared::Shared;

/// Checks under way at once, over all upstreams; the next ones wait. Each has a socket.
const PROBES_AT_ONCE_MAX: usize = 512;
/// Within this time a new endpoint is asked for the first time: until then it is believed.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The shortest interval, whatever a check says.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Asks the endpoints of a program that have a health check. Dropped, it stops.
#[derive(Debug)]
pub struct Prober {
    means: Arc<Means>,
    shape: Option<Arc<Shape>>,
    /// As the program has them, by upstream.
    seen: Vec<Option<UpstreamHealth>>,
    asked: FxHashMap<Name, Vec<Asking>>,
}

/// What every check needs.
#[derive(Debug)]
struct Means {
    dialer: Dialer,
    tls: tls::ClientTls,
    permits: Semaphore,
}

/// A task that asks one endpoint until this is dropped.
#[derive(Debug)]
struct Asking {
    health: Arc<EndpointHealth>,
    task: AbortHandle,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// One that asks nobody yet; names are resolved and remembered together with the workers.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(shared: &Shared) -> Result<Self, model::Diagnostics> {
        let unverified = model::UpstreamTls {
            verification: model::Verification::Skip,
            ..model::UpstreamTls::default()
        };
        let tls = tls::ClientTls::load(&unverified, &model::Place::whole("health checks"))?;
        let dialer = shared.dialer.clone();
        let means = Means { dialer, tls, permits: Semaphore::new(PROBES_AT_ONCE_MAX) };
        Ok(Self {
            means: Arc::new(means),
            shape: None,
            seen: Vec::new(),
            asked: FxHashMap::default(),
        })
    }

    /// Asks the endpoints of this program from now on. Those that were asked in the same way before are not
    /// disturbed. To be called within the control runtime, after the program was published.
    pub fn follow(&mut self, program: &Program) {
        let seen: Vec<_> = program.upstream_healths().map(|(_, health)| health.cloned()).collect();
        let same_names = self.shape.as_ref().is_some_and(|shape| program.has_shape(shape));
        let before = std::mem::replace(&mut self.seen, seen);
        if same_names {
            for (index, (name, health)) in program.upstream_healths().enumerate() {
                let known = before.get(index).and_then(Option::as_ref);
                if known.map(Arc::as_ptr) != health.map(Arc::as_ptr) {
                    self.ask(name, health);
                }
            }
            return;
        }
        self.shape = Some(program.shape().clone());
        let mut old = std::mem::take(&mut self.asked);
        for (name, health) in program.upstream_healths() {
            if let Some(known) = old.remove(name) {
                self.asked.insert(name.clone(), known);
            }
            self.ask(name, health);
        }
    }

    /// Asks the endpoints of one upstream, and no others of it.
    fn ask(&mut self, upstream: &Name, health: Option<&UpstreamHealth>) {
        let Some(health) = health else {
            self.asked.remove(upstream);
            return;
        };
        let old = self.asked.remove(upstream).unwrap_or_default();
        let mut old: FxHashMap<usize, Asking> =
            old.into_iter().map(|asking| (address(&asking.health), asking)).collect();
        let mut new: FxHashMap<usize, Asking> = FxHashMap::default();
        for health in health.iter() {
            let address = address(health);
            let asking = || old.remove(&address).unwrap_or_else(|| self.start(health));
            new.entry(address).or_insert_with(asking);
        }
        self.asked.insert(upstream.clone(), new.into_values().collect());
    }

    fn start(&self, health: &Arc<EndpointHealth>) -> Asking {
        let task = net::task::spawn("health", keep_asking(self.means.clone(), health.clone()));
        Asking { health: health.clone(), task: task.abort_handle() }
    }
}

fn address(health: &Arc<EndpointHealth>) -> usize {
    Arc::as_ptr(health).addr()
}

/// Asks one endpoint for ever: soon, and then once an interval. Dropped, the check under way counts nothing.
async fn keep_asking(means: Arc<Means>, health: Arc<EndpointHealth>) {
    // The same endpoint keeps its rhythm, and no two have the same.
    let seed = balance::identity(&health.target.to_string()) ^ balance::identity(&health.upstream);
    let mut rng = Rng::new(seed);
    let interval = health.check.interval.max(INTERVAL_MIN);
    let mut next = Instant::now() + up_to_a_tenth(interval.min(FIRST_WITHIN * 10), &mut rng);
    loop {
        tokio::time::sleep_until(next).await;
        let began = Instant::now();
        let Ok(permit) = means.permits.acquire().await else { return };
        // Boxed, so that thousands of tasks that sleep stay small.
        let asked = probe::ask(&means.dialer, &means.tls, &health.target, &health.check);
        let outcome = Box::pin(asked).await;
        drop(permit);
        health.note(outcome);
        let spread = up_to_a_tenth(interval, &mut rng);
        // Evenly on both sides of the interval.
        next = began + interval + spread - up_to_a_tenth(interval, &mut rng);
    }
}

fn up_to_a_tenth(interval: Duration, rng: &mut Rng) -> Duration {
    let tenth = u64::try_from((interval / 10).as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.below(tenth.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{snapshot, upstream};
    use model::{HealthCheck, Probe, Upstream};
    use std::collections::BTreeMap;
    use tokio::task::Id;

    fn checked(name: &str, endpoints: &[&str], rise: u32) -> Upstream {
        let check = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            rise,
            fall: 1,
        };
        upstream(name, endpoints, Some(check))
    }

    /// The task of each endpoint.
    fn tasks(prober: &Prober) -> BTreeMap<String, Id> {
        let named = |asking: &Asking| {
            (format!("{} {}", asking.health.upstream, asking.health.target), asking.task.id())
        };
        prober.asked.values().flatten().map(named).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_follow_the_programs_and_those_that_stay_are_not_disturbed() {
        let (one, two, three) = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80");
        let programs = [
            vec![checked("a", &[one, two], 1), checked("b", &[one], 1)],
            // The same names, another endpoint.
            vec![checked("a", &[two, three], 1), checked("b", &[one], 1)],
            // A name more, before the others; one endpoint twice.
            vec![
                upstream("0", &[one], None),
                checked("a", &[two, two], 1),
                checked("b", &[one], 1),
            ],
            // Another check; no check.
            vec![checked("0", &[one], 1), checked("a", &[two], 2), upstream("b", &[one], None)],
            vec![],
        ];
        let wanted: [(&[&str], &[&str]); 5] = [
            (&["a 10.0.0.1:80", "a 10.0.0.2:80", "b 10.0.0.1:80"], &[]),
            (&["a 10.0.0.3:80"], &["a 10.0.0.2:80", "b 10.0.0.1:80"]),
            (&[], &["a 10.0.0.2:80", "b 10.0.0.1:80"]),
            (&["0 10.0.0.1:80", "a 10.0.0.2:80"], &[]),
            (&[], &[]),
        ];
        let first = Program::compile(0, snapshot(vec![]), None, "test", None).unwrap().0;
        let shared = Shared::new(first, Dialer::default());
        let mut prober = Prober::new(&shared).unwrap();
        let mut before = BTreeMap::new();
        for (generation, (upstreams, (new, kept))) in (1..).zip(programs.into_iter().zip(wanted)) {
            let last = shared.program();
            let next = snapshot(upstreams);
            let next = Program::compile(generation, next, None, "test", Some(&last)).unwrap().0;
            drop(shared.publish(next));
            prober.follow(&shared.program());
            let now = tasks(&prober);
            assert_eq!(now.len(), new.len() + kept.len(), "program {generation}");
            for name in new {
                assert_ne!(before.get(*name), now.get(*name), "program {generation}: {name}");
                assert!(now.contains_key(*name), "program {generation}: {name}");
            }
            for name in kept {
                assert!(now.contains_key(*name), "program {generation}: {name}");
                assert_eq!(before.get(*name), now.get(*name), "program {generation}: {name}");
            }
            before = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn checks_keep_their_rhythm_and_no_two_the_same() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let checked = vec![checked("a", &[&address], 1), checked("b", &[&address], 1)];
        let program = Program::compile(1, snapshot(checked), None, "test", None).unwrap().0;
        let shared = Shared::new(program, Dialer::default());
        let mut prober = Prober::new(&shared).unwrap();
        prober.follow(&shared.program());
        let began = Instant::now();
        let count = |index: usize| {
            let program = shared.program();
            let health = program.health(model::UpstreamId(index)).unwrap()[0].clone();
            health.results().map(|(_, count)| count).sum::<u64>()
        };
        let mut moments = [Vec::new(), Vec::new()];
        while moments.iter().any(|moments| moments.len() < 20) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < Duration::from_secs(400));
            for (index, moments) in moments.iter_mut().enumerate() {
                if count(index) > moments.len() as u64 {
                    moments.push(began.elapsed());
                }
            }
        }
        for moments in &moments {
            // What a check itself takes is real time, during which the clock may have jumped.
            assert!(moments[0] <= FIRST_WITHIN + Duration::from_millis(1_100), "{moments:?}");
            for pair in moments.windows(2) {
                let apart = (pair[1] - pair[0]).as_millis();
                assert!((7_900..=12_100).contains(&apart), "{moments:?}");
            }
        }
        assert_ne!(moments[0], moments[1]);
    }
}
