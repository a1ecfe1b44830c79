//! Whether an endpoint can serve, judged by its checks in a row. Sans-io: somebody else asks the endpoint.
//!
//! A new endpoint begins as one that can, and its first check decides alone. So HAProxy does it, too, and
//! the other ways are worse in a roll-out: began it as one that cannot (`nginx_upstream_check`), every start
//! of the gateway and every new pod, which its cluster has already found ready, would be a gap of `rise`
//! intervals; had it `fall` checks to fail first, a pod that never served would get requests for that
//! long, though nobody has ever seen it serve. Envoy waits for the first check and lets it decide alone.

/// One endpoint's standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    rise: u32,
    fall: u32,
    up: bool,
    /// A check has been made.
    judged: bool,
    /// Checks in a row that spoke against `up`.
    against: u32,
}

impl Health {
    /// An endpoint that is believed to be up, or down, until its first check decides. `rise` successes in
    /// a row lift one that is down, `fall` failures in a row take one down that is up; 0 counts as 1.
    #[must_use]
    pub fn new(up: bool, rise: u32, fall: u32) -> Self {
        Self { rise, fall, up, judged: false, against: 0 }
    }

    /// Whether it can serve.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Notes a check's outcome; gives the new standing where it changes it.
    pub fn note(&mut self, passed: bool) -> Option<bool> {
        let first = !std::mem::replace(&mut self.judged, true);
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.up { self.fall } else { self.rise };
        if !first && self.against < needed {
            return None;
        }
        self.up = passed;
        self.against = 0;
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// What becomes of checks (`+` passed, `-` failed): the standing after each, `U` or `D`.
    fn standings(up: bool, rise: u32, fall: u32, checks: &str) -> String {
        let mut health = Health::new(up, rise, fall);
        let after = |check: char| {
            let before = health.is_up();
            let change = health.note(check == '+');
            assert_eq!(change.is_some(), before != health.is_up());
            assert!(change.is_none_or(|up| up == health.is_up()));
            if health.is_up() { 'U' } else { 'D' }
        };
        checks.chars().map(after).collect()
    }

    #[test]
    fn runs_decide_and_the_first_check_alone() {
        let cases = [
            (true, 2, 3, "+--+---+-++", "UUUUUUDDDDU"),
            // Never seen to serve: down at once, and up after `rise`.
            (true, 2, 3, "-+-++--", "DDDDUUU"),
            (true, 1, 1, "+-+--+", "UDUDDU"),
            (true, 3, 2, "++-+--+++", "UUUUUDDDU"),
            // Taken over from another check as one that is down.
            (false, 3, 2, "+-+--", "UUUUD"),
            (false, 2, 2, "-+++", "DDUU"),
            (true, 0, 0, "+-+", "UDU"),
        ];
        for (up, rise, fall, checks, wanted) in cases {
            assert_eq!(standings(up, rise, fall, checks), wanted, "{checks} {rise} {fall}");
        }
    }

    /// Beside a naive reading of the words: up after `rise` in a row, down after `fall` in a row.
    #[test]
    fn seeded_runs_are_as_the_words_say() {
        for seed in 0..512 {
            let mut rng = Rng::new(seed);
            let (rise, fall) = (1 + rng.below(5) as u32, 1 + rng.below(5) as u32);
            let flaky = 1 + rng.below(9);
            let mut health = Health::new(true, rise, fall);
            let mut seen: Vec<bool> = Vec::new();
            let mut up = true;
            for step in 0..500 {
                let passed = rng.below(10) >= flaky;
                seen.push(passed);
                let last = |count: u32| seen.iter().rev().take(count as usize);
                let whole = |count: u32| seen.len() >= count as usize;
                if seen.len() == 1 {
                    up = passed;
                } else if up && whole(fall) && last(fall).all(|p| !p) {
                    up = false;
                } else if !up && whole(rise) && last(rise).all(|p| *p) {
                    up = true;
                }
                health.note(passed);
                assert_eq!(health.is_up(), up, "seed {seed}, step {step}");
            }
        }
    }
}
