//! One program after another: what is taken over, what is counted, and for how long anything is kept.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{ListenerProtocol, PemSource, Snapshot, UpstreamId};
use net::dial::Dialer;

use super::{listener, snapshot, upstream};
use crate::program::Program;
use crate::shared::Shared;
use crate::stats::Cells;
use crate::worker::Worker;

fn compiled(generation: u64, snapshot: &Snapshot, before: Option<&Program>) -> Program {
    Program::compile(generation, snapshot.clone(), None, "test", before).expect("it is valid").0
}

/// A world of one worker, and its programs so far.
struct World {
    shared: Arc<Shared>,
    worker: Rc<Worker>,
    generation: u64,
}

impl World {
    fn new(first: &Snapshot) -> Self {
        let shared = Shared::new(compiled(1, first, None), Dialer::default());
        let worker = Worker::new(0, shared.clone());
        Self { shared, worker, generation: 1 }
    }

    fn serve(&mut self, next: &Snapshot) {
        self.generation += 1;
        let before = self.shared.program();
        drop(self.shared.publish(compiled(self.generation, next, Some(&before))));
    }

    fn upstream(&self, index: usize) -> Rc<crate::forward::upstream::Upstream> {
        self.worker.upstream(&self.worker.local(), UpstreamId(index)).expect("an upstream")
    }

    /// A request to an upstream, as far as it is counted.
    fn request(&self, index: usize) {
        let local = self.worker.local();
        local.cells(&self.worker, (0, 0, index, index)).record(200, Duration::ZERO);
        let upstream = self.upstream(index);
        let mut rng = self.worker.rng.borrow_mut();
        let client = std::net::IpAddr::from([192, 0, 2, 1]);
        let picked = upstream.pick(&mut rng, client, &balance::Tried::none());
        picked.expect("an endpoint").1.cells.requests.add(1);
    }

    fn requests_to(&self, upstream: &str, endpoint: &str) -> Option<u64> {
        let read = self.shared.stats.endpoints.read();
        let found = read.iter().find(|((u, e), _)| **u == *upstream && **e == *endpoint);
        found.map(|(_, cells)| cells.iter().map(|c| c.requests.get()).sum())
    }
}

#[test]
fn what_is_equal_is_the_same_pointer_and_the_rest_is_not() {
    let first = snapshot(vec![upstream("a", &["10.0.0.1:80"], None), upstream("b", &[], None)]);
    let one = compiled(1, &first, None);
    // Equal by value alone: as when a file is read again.
    let again = snapshot(vec![upstream("a", &["10.0.0.1:80"], None), upstream("b", &[], None)]);
    let two = compiled(2, &again, Some(&one));
    assert!(two.has_shape(one.shape()));
    assert!(one.upstreams().iter().zip(two.upstreams()).all(|(a, b)| Arc::ptr_eq(a, b)));
    let router = |program: &Program| std::ptr::from_ref(program.router(0).unwrap()).addr();
    assert_eq!(router(&one), router(&two));
    let mut more = again.clone();
    more.upstreams[1] = Arc::new(upstream("b", &["10.0.0.2:80"], None));
    let three = compiled(3, &more, Some(&two));
    assert!(three.has_shape(one.shape()) && router(&three) == router(&one));
    let same: Vec<bool> =
        two.upstreams().iter().zip(three.upstreams()).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(same, [true, false]);
    // A name more: indices move, states do not.
    let mut before_them = more.clone();
    before_them.upstreams.insert(0, Arc::new(upstream("0", &[], None)));
    let four = compiled(4, &before_them, Some(&three));
    assert!(!four.has_shape(one.shape()));
    assert!(Arc::ptr_eq(&four.upstreams()[1], &three.upstreams()[0]));
    // Other rules at one listener, the same at another.
    let mut other = more.clone();
    other.listeners.push(listener(81, &more.listeners[0].scopes[0].rules));
    let five = compiled(5, &other, Some(&three));
    assert!(!five.has_shape(three.shape()) && router(&five) == router(&three));
    let rules = &other.listeners[0].scopes[0].rules;
    assert!(Arc::ptr_eq(five.router(1).unwrap().rules(0).unwrap().source(), rules));
}

#[test]
fn terminations_are_taken_over_unless_they_come_from_files() {
    let authority = testkit::Authority::new();
    let issued = authority.server(&["a.test"]);
    let inline = |pem: &str| PemSource::Inline(Arc::from(pem.as_bytes()));
    let secure = |chain: PemSource, key: PemSource| {
        let mut secure = snapshot(vec![upstream("a", &["10.0.0.1:80"], None)]);
        let certificate = model::Certificate {
            chain,
            key,
            hosts: Vec::new(),
            client_verification: None,
            place: model::Place::whole("test"),
        };
        secure.listeners[0].protocol = ListenerProtocol::Https(Arc::new(model::TlsTermination {
            certificates: vec![certificate],
            first_is_default: true,
            min_version: model::TlsVersion::V1_2,
        }));
        secure
    };
    let taken = |of: &dyn Fn() -> Snapshot| {
        let one = compiled(1, &of(), None);
        let two = compiled(2, &of(), Some(&one));
        let termination =
            |p: &Program| Arc::as_ptr(p.listener(0).unwrap().1.termination.as_ref().unwrap());
        termination(&one) == termination(&two)
    };
    assert!(taken(&|| secure(inline(&issued.chain_pem), inline(&issued.key_pem))));
    let (chain, key) = (issued.chain_file.clone(), issued.key_file.clone());
    assert!(!taken(&|| secure(PemSource::File(chain.clone()), PemSource::File(key.clone()))));
    assert!(!taken(&|| secure(inline(&issued.chain_pem), PemSource::File(key.clone()))));
}

#[test]
fn an_unchanged_upstream_keeps_its_state_and_a_changed_one_its_endpoints() {
    let mut now = snapshot(vec![
        upstream("a", &["10.0.0.1:80"], None),
        upstream("b", &["10.0.0.2:80", "10.0.0.3:80"], None),
    ]);
    let mut world = World::new(&now);
    let (a, b) = (world.upstream(0), world.upstream(1));
    now.upstreams[1] = Arc::new(upstream("b", &["10.0.0.3:80", "10.0.0.4:80"], None));
    world.request(1);
    world.request(1);
    world.serve(&now);
    assert!(Rc::ptr_eq(&world.upstream(0), &a));
    let changed = world.upstream(1);
    assert!(!Rc::ptr_eq(&changed, &b));
    assert_eq!(world.requests_to("b", "10.0.0.2:80"), None);
    assert_eq!(world.requests_to("b", "10.0.0.3:80"), Some(1));
    assert_eq!(world.requests_to("b", "10.0.0.4:80"), Some(0));
}

#[test]
fn what_was_gone_and_came_back_is_counted_where_it_is_read() {
    let with = |endpoints: &[&str]| {
        snapshot(vec![upstream("a", &["10.0.0.1:80"], None), upstream("b", endpoints, None)])
    };
    let (there, away) = (with(&["10.0.0.2:80"]), with(&["10.0.0.9:80"]));
    let no_b = snapshot(vec![upstream("a", &["10.0.0.1:80"], None)]);
    for (gone, counted) in [(&away, 2), (&no_b, 1)] {
        // Once the worker sees the program without it, once it does not.
        for looks in [false, true] {
            let mut world = World::new(&there);
            world.request(1);
            assert_eq!(world.requests_to("b", "10.0.0.2:80"), Some(1));
            world.serve(gone);
            assert_eq!(world.requests_to("b", "10.0.0.2:80"), None);
            if looks {
                world.request(0);
            }
            world.serve(&there);
            world.request(1);
            assert_eq!(world.requests_to("b", "10.0.0.2:80"), Some(1), "looks: {looks}");
            let upstream = world.upstream(1);
            assert!(upstream.is_counted() && !upstream.cells.is_forgotten());
            let read = world.shared.stats.upstreams.read();
            let (_, cells) = read.iter().find(|(name, _)| **name == *"b").unwrap();
            assert!(cells.iter().any(|cells| Arc::ptr_eq(cells, &upstream.cells)));
            let requests = world.shared.stats.requests.read();
            let (_, cells) = requests.iter().find(|(k, _)| *k.upstream == *"b").unwrap();
            let sum: u64 = cells.iter().map(|c| c.classes[1].get()).sum();
            // Rules and names lived through the change of endpoints; not through the other.
            assert_eq!(sum, counted);
        }
    }
}

#[test]
fn a_worker_that_comes_late_brings_no_name_back() {
    let there = snapshot(vec![upstream("a", &["10.0.0.1:80"], None)]);
    let mut world = World::new(&there);
    let late = world.worker.local();
    world.serve(&snapshot(vec![upstream("b", &["10.0.0.2:80"], None)]));
    let upstream = world.worker.upstream(&late, UpstreamId(0)).unwrap();
    assert!(!upstream.is_counted());
    late.cells(&world.worker, (0, 0, 0, 0)).record(200, Duration::ZERO);
    assert_eq!(world.requests_to("a", "10.0.0.1:80"), None);
    assert!(world.shared.stats.requests.read().is_empty());
    assert!(world.shared.stats.upstreams.read().is_empty());
    // And when it is there again, the late state is not taken for it.
    world.serve(&there);
    world.request(0);
    assert_eq!(world.requests_to("a", "10.0.0.1:80"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_removed_listener_is_known_until_its_socket_has_surely_closed() {
    let first = snapshot(vec![upstream("a", &["10.0.0.1:80"], None)]);
    let mut without = first.clone();
    let address = without.listeners.pop().unwrap().address;
    let mut world = World::new(&first);
    world.serve(&without);
    for _ in 0..5 {
        drop(world.worker.sweep());
        assert!(world.worker.last_with(address).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let handle = world.worker.register(address);
    tokio::time::advance(Duration::from_secs(60)).await;
    drop(world.worker.sweep());
    assert!(world.worker.last_with(address).is_some(), "a connection is left");
    drop(handle);
    drop(world.worker.sweep());
    assert!(world.worker.last_with(address).is_none());
}

#[test]
fn a_request_leaves_an_endpoint_only_for_another_one() {
    let (a, b, c) = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80");
    let list = |endpoints: &[&str]| snapshot(vec![upstream("u", endpoints, None)]);
    let mut world = World::new(&list(&[a, b]));
    let old = world.upstream(0);
    let first = old.endpoint(0).expect("the first");
    let (none, mut both) = (balance::Tried::none(), balance::Tried::none());
    [0, 1].into_iter().for_each(|index| both.add(index));
    // Now, does it wait for the first; does it where it was sent to both already?
    let cases: [(&[&str], bool, bool); 7] = [
        (&[a, b], false, false),
        (&[b, a], false, false),
        (&[b], true, false),
        (&[c, b], true, true),
        (&[], false, false),
        (&[c], true, true),
        (&[c, a], false, false),
    ];
    for (endpoints, leaves, leaves_both) in cases {
        world.serve(&list(endpoints));
        let newest = world.worker.newest(&"u".into()).expect("it is there");
        assert_eq!(newest.replaces(&old, &first, &none), leaves, "{endpoints:?}");
        assert_eq!(newest.replaces(&old, &first, &both), leaves_both, "{endpoints:?}");
    }
    world.serve(&snapshot(vec![]));
    assert!(world.worker.newest(&"u".into()).is_none());
}
