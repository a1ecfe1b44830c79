//! Asking hosts for a pod: who is asked when, until one has said yes or all have said no. Sans-io.
//!
//! The next host is asked as soon as one says no, and also when those that were asked have been silent for a while;
//! they may still win. So a silent host costs that while, and only until it is remembered. All waits end at the
//! deadline.

use crate::Millis;

/// Hosts that may be asked at the same time for one connection, and so the sockets that it may hold.
pub const ASKED_AT_ONCE_MAX: usize = 8;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this host; its time ends at `until`.
    Ask {
        /// Which of the hosts.
        host: usize,
        /// When it counts as silent.
        until: Millis,
    },
    /// Wait for an answer, at most until then, and look again.
    Wait(Millis),
    /// All have said no.
    AllSaidNo,
    /// Time is over.
    TooLate,
}

/// One connection's search.
#[derive(Debug)]
pub struct Race {
    order: std::vec::IntoIter<usize>,
    asked: usize,
    /// When the next host is asked although nobody has answered.
    next_at: Millis,
    patience: u64,
    host_time: u64,
    deadline: Millis,
}

impl Race {
    /// Asks hosts in this order. `patience` is how long they may be silent before the next one is asked too,
    /// `host_time` how long one has to answer, both in milliseconds.
    #[must_use]
    pub fn new(
        order: Vec<usize>,
        now: Millis,
        patience: u64,
        host_time: u64,
        deadline: Millis,
    ) -> Self {
        Self { order: order.into_iter(), asked: 0, next_at: now, patience, host_time, deadline }
    }

    /// What to do now.
    pub fn step(&mut self, now: Millis) -> Step {
        if now >= self.deadline {
            return Step::TooLate;
        }
        let may_ask = self.asked < ASKED_AT_ONCE_MAX && !self.order.as_slice().is_empty();
        if may_ask
            && (now >= self.next_at || self.asked == 0)
            && let Some(host) = self.order.next()
        {
            self.asked += 1;
            self.next_at = now + self.patience;
            return Step::Ask { host, until: (now + self.host_time).min(self.deadline) };
        }
        match (self.asked, may_ask) {
            (0, _) => Step::AllSaidNo,
            (_, true) => Step::Wait(self.next_at.min(self.deadline)),
            (_, false) => Step::Wait(self.deadline),
        }
    }

    /// One that was asked has said no, or its time is over. The next one need not wait.
    pub fn missed(&mut self, now: Millis) {
        self.asked = self.asked.saturating_sub(1);
        self.next_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(hosts: usize) -> Race {
        Race::new((0..hosts).collect(), 0, 300, 3_000, 10_000)
    }

    #[test]
    fn whoever_says_no_is_followed_at_once() {
        let mut race = race(3);
        for host in 0..3 {
            assert_eq!(race.step(host as u64), Step::Ask { host, until: 3_000 + host as u64 });
            assert!(matches!(race.step(host as u64), Step::Wait(_)));
            race.missed(host as u64 + 1);
        }
        assert_eq!(race.step(3), Step::AllSaidNo);
    }

    #[test]
    fn the_last_of_ten_is_asked_in_time_when_nine_are_silent() {
        let mut race = race(10);
        let mut now = 0;
        let mut ends: Vec<(Millis, usize)> = Vec::new();
        let asked_last = loop {
            match race.step(now) {
                Step::Ask { host: 9, .. } => break now,
                Step::Ask { host, until } => ends.push((until, host)),
                Step::Wait(until) => {
                    let next = ends.iter().map(|(end, _)| *end).min().unwrap();
                    now = until.min(next);
                    if ends.iter().any(|(end, _)| *end == now) {
                        ends.retain(|(end, _)| *end > now);
                        race.missed(now);
                    }
                }
                step => panic!("{step:?} at {now}"),
            }
        };
        // Eight at once, one every 300 ms; the ninth and tenth when the first two have had their time.
        assert_eq!(asked_last, 3_300);
    }

    #[test]
    fn nobody_is_waited_for_beyond_the_deadline() {
        let mut race = race(1);
        assert_eq!(race.step(9_000), Step::Ask { host: 0, until: 10_000 });
        assert_eq!(race.step(9_000), Step::Wait(10_000));
        assert_eq!(race.step(10_000), Step::TooLate);
        let mut none = Race::new(Vec::new(), 0, 1, 1, 1);
        assert_eq!(none.step(0), Step::AllSaidNo);
    }
}
