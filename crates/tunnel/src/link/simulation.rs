//! Two ends, seeded chance: packets delayed, readers slow or deaf, ends closed at any moment. No byte is lost or
//! swapped, memory stays within its bounds, nobody waits for another, and in the end nothing is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use balance::Rng;

use super::*;

/// More than is ever reached; who reaches it is stuck.
const STEPS_MAX: usize = 200_000;
const CONNECTIONS: i64 = 6;

#[derive(Debug, Default)]
struct Nobody;

impl Ends for Nobody {
    fn readable(&mut self) {}
    fn writable(&mut self) {}
}

/// One end of one connection as its user sees it.
#[derive(Debug, Default)]
struct User {
    written: u64,
    to_write: u64,
    read: u64,
    finished: bool,
    ended: bool,
    reads: bool,
}

struct Sides {
    link: Link<Nobody>,
    users: BTreeMap<i64, User>,
    inbox: VecDeque<Packet>,
}

/// A piece of a connection's stream: it tells which connection, and which place.
fn stream(connection: i64, at: u64, bytes: usize) -> &'static [u8] {
    const PERIOD: u64 = 251;
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD as u8).cycle().take(512 * 1024).collect());
    let from = (connection as u64 * 97 + at) % PERIOD;
    &PATTERN[from as usize..][..bytes]
}

impl Sides {
    fn new(side: Side, flow: Flow, rng: &mut Rng, deaf: i64) -> Self {
        let mut link = Link::new(side, flow);
        let mut users = BTreeMap::new();
        for number in 1..=CONNECTIONS {
            link.open(number, Nobody).unwrap();
            let to_write = rng.below(3 * 1024 * 1024);
            users.insert(number, User { to_write, reads: number != deaf, ..User::default() });
        }
        Self { link, users, inbox: VecDeque::new() }
    }

    fn write(&mut self, number: i64, rng: &mut Rng) {
        let user = self.users.get_mut(&number).unwrap();
        if user.finished || user.ended {
            return;
        }
        let left = user.to_write - user.written;
        let Ok(room) = self.link.room(number) else { return };
        if left == 0 {
            user.finished = true;
            return self.link.finish(number);
        }
        let count = left.min(room as u64).min(1 + rng.below(70_000));
        let bytes = stream(number, user.written, count as usize);
        user.written += count;
        self.link.push(number, Bytes::from_static(bytes)).unwrap();
    }

    fn read(&mut self, number: i64, rng: &mut Rng, now: Instant) {
        let user = self.users.get_mut(&number).unwrap();
        if user.ended || !user.reads {
            return;
        }
        match self.link.read(number, 1 + rng.below(100_000) as usize, now) {
            Read::Bytes(bytes) => {
                assert!(bytes == stream(number, user.read, bytes.len()), "connection {number}");
                user.read += bytes.len() as u64;
            }
            Read::Wait => {}
            Read::Finished => {
                if user.finished {
                    user.ended = true;
                    self.link.close(number, String::new());
                }
            }
            Read::Closed(_) => {
                user.ended = true;
                self.link.close(number, String::new());
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = (&i64, &User)> {
        self.users.iter().filter(|(_, user)| user.reads)
    }
}

/// Everything that can happen, one thing at a time, until all who read are through.
fn run(seed: u64, flow: Flow, deaf: i64) -> [Sides; 2] {
    let mut rng = Rng::new(seed);
    let mut sides = [
        Sides::new(Side::Server, flow, &mut rng, deaf),
        Sides::new(Side::Agent, flow, &mut rng, deaf),
    ];
    let mut now = Instant::now();
    for step in 0_usize.. {
        assert!(step < STEPS_MAX, "seed {seed}: stuck");
        if sides.iter().all(|side| side.live().all(|(_, user)| user.ended)) {
            break;
        }
        now += Duration::from_millis(rng.below(20));
        let at = rng.below(2) as usize;
        let number = 1 + rng.below(CONNECTIONS as u64) as i64;
        match rng.below(4) {
            0 => sides[at].write(number, &mut rng),
            1 => sides[at].read(number, &mut rng, now),
            2 => {
                // At most a little is under way, as between two kernels.
                if sides[1 - at].inbox.len() < 64
                    && let Some(packet) = sides[at].link.next(1 + rng.below(65_536) as usize)
                {
                    sides[1 - at].inbox.push_back(packet);
                }
            }
            _ => {
                let side = &mut sides[at];
                side.link.close_stalled(now);
                if !side.link.is_held_up()
                    && let Some(packet) = side.inbox.pop_front()
                {
                    side.link.receive(packet, now).unwrap();
                }
            }
        }
        for side in sides.iter().filter(|_| step % 16 == 0) {
            let each =
                if flow == Flow::Credit { CREDIT_BYTES_MAX } else { BUFFERED_BYTES_MAX + 65_536 };
            for connection in side.link.connections.values() {
                assert!(connection.inbound.len() <= each);
                assert!(connection.outbound.len() <= OUTBOUND_BYTES_MAX);
            }
        }
    }
    // What is still under way arrives.
    for at in [0, 1, 0, 1] {
        while let Some(packet) = sides[at].link.next(65_536) {
            sides[1 - at].inbox.push_back(packet);
        }
        while let Some(packet) = sides[1 - at].inbox.pop_front() {
            sides[1 - at].link.receive(packet, now).unwrap();
        }
    }
    sides
}

#[test]
fn with_credit_every_byte_arrives_and_nobody_waits_for_the_deaf() {
    for seed in 0..8 {
        let deaf = if seed % 2 == 0 { 3 } else { 0 };
        let [server, agent] = run(seed, Flow::Credit, deaf);
        for (here, there) in [(&server, &agent), (&agent, &server)] {
            for (number, user) in here.live() {
                assert_eq!(
                    user.read, there.users[number].to_write,
                    "seed {seed} connection {number}"
                );
            }
        }
        let left = usize::from(deaf != 0);
        assert!(server.link.len() <= left && agent.link.len() <= left, "seed {seed}");
    }
}

#[test]
fn with_an_original_the_deaf_alone_are_closed() {
    for seed in 100..108 {
        let [server, agent] = run(seed, Flow::Buffered, 3);
        // Without half-close one end's end is both's; what has arrived is right in any case.
        for (here, there) in [(&server, &agent), (&agent, &server)] {
            assert!(here.live().all(|(number, user)| user.read <= there.users[number].written));
        }
        for side in [&server, &agent] {
            assert!(side.link.connections.keys().all(|number| *number == 3), "seed {seed}");
        }
    }
}
