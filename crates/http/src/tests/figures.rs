//! What a change costs, measured: `cargo test --release -p cloverleaf-http figures -- --nocapture`.
//!
//! Prints and asserts nothing: figures belong into `bench/`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{HealthCheck, Probe, Snapshot, Upstream, UpstreamId};
use net::dial::Dialer;

use super::{snapshot, upstream};
use crate::health::Prober;
use crate::program::Program;
use crate::shared::Shared;
use crate::worker::Worker;

const UPSTREAMS: usize = 5_000;
const ENDPOINTS_EACH: usize = 10;
const CHANGES: u64 = 500;

fn named(number: usize, shift: usize, check: Option<&HealthCheck>) -> Upstream {
    let address = |at: usize| {
        let at = number * ENDPOINTS_EACH + at + shift;
        format!("10.{}.{}.{}:8080", at >> 16 & 255, at >> 8 & 255, at & 255)
    };
    let addresses: Vec<String> = (0..ENDPOINTS_EACH).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    upstream(&format!("namespace/service-{number}:http"), &addresses, check.cloned())
}

fn middle(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("median {:?}, 99 % {:?}, longest {:?}", at(50), at(99), at(100))
}

async fn measure(what: &str, check: Option<HealthCheck>) {
    let mut now: Snapshot = snapshot((0..UPSTREAMS).map(|n| named(n, 0, check.as_ref())).collect());
    let began = Instant::now();
    let first = Program::compile(1, now.clone(), None, "x", None).unwrap().0;
    println!("{what}: the first program {:?}", began.elapsed());
    let shared = Shared::new(first, Dialer::default());
    let mut prober = Prober::new(&shared).unwrap();
    prober.follow(&shared.program());
    let worker = Worker::new(0, shared.clone());
    for index in 0..UPSTREAMS {
        let local = worker.local();
        worker.upstream(&local, UpstreamId(index)).unwrap();
        local.cells(&worker, (0, 0, index, index));
    }
    let (mut control, mut picked_up, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let index = usize::try_from(change).unwrap() * 7 % UPSTREAMS;
        let shift = usize::from(change % 2 == 0);
        now.upstreams[index] = Arc::new(named(index, shift, check.as_ref()));
        let next = now.clone();
        let before = shared.program();
        let began = Instant::now();
        let next = Program::compile(change + 2, next, None, "x", Some(&before)).unwrap().0;
        let old = shared.publish(next);
        prober.follow(&shared.program());
        control.push(began.elapsed());
        let began = Instant::now();
        let local = worker.local();
        picked_up.push(began.elapsed());
        let began = Instant::now();
        worker.upstream(&local, UpstreamId(index)).unwrap();
        local.cells(&worker, (0, 0, index, index));
        used.push(began.elapsed());
        drop(local);
        drop((old, before));
    }
    println!("{what}: a change, control thread   {}", middle(control));
    println!("{what}: a change, worker picks up  {}", middle(picked_up));
    println!("{what}: a change, first use of it  {}", middle(used));
}

#[tokio::test]
async fn figures_of_a_change_of_endpoints() {
    println!("{UPSTREAMS} rules and upstreams, {} endpoints", UPSTREAMS * ENDPOINTS_EACH);
    measure("plain", None).await;
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        // None comes during the measurement.
        interval: Duration::from_secs(100_000),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
    };
    measure("with health checks", Some(check)).await;
}
