//! Which of a tunnel's servers is used: the one that was of use last; where it cannot be reached, the next.
//!
//! Must not know how one is reached, nor what for. Start at [`Servers::first_of_use`].

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{TunnelServer, TunnelServers};

use super::server::ServerError;

/// How long one is tried where there is another. Less than whoever waits for a connection usually does.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);

/// See the module. Shared by all threads.
#[derive(Debug)]
pub(super) struct Servers {
    all: TunnelServers,
    /// An index into them.
    of_use: AtomicUsize,
}

/// One that is being tried. Dropped before that is over, the next one is of use: a wait that was given up says as
/// much as an error.
struct Trial<'s> {
    servers: &'s Servers,
    at: usize,
    over: bool,
}

impl Servers {
    pub(super) fn new(all: TunnelServers) -> Self {
        Self { all, of_use: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &TunnelServers {
        &self.all
    }

    /// What an attempt gives with the first server that it succeeds with, and which one that is; each is tried once,
    /// for [`ATTEMPT_MAX`] but the last, for which whoever calls has a bound. Dropped, it is the next one's turn.
    ///
    /// # Errors
    /// That of the last attempt.
    pub(super) async fn first_of_use<'s, T, F>(
        &'s self,
        attempt: impl Fn(&'s TunnelServer) -> F,
    ) -> Result<(T, &'s TunnelServer), ServerError>
    where
        F: Future<Output = Result<T, ServerError>>,
    {
        let servers = self.all.all();
        let mut at = self.of_use.load(Ordering::Relaxed);
        let mut left = servers.len();
        loop {
            let server = &servers[at];
            left -= 1;
            let mut trial = Trial { servers: self, at, over: false };
            let within = if left > 0 { ATTEMPT_MAX } else { Duration::MAX };
            let tried = tokio::time::timeout(within, attempt(server)).await;
            trial.over = true;
            match tried.unwrap_or(Err(ServerError::Timeout)) {
                Ok(found) => {
                    if self.of_use.swap(at, Ordering::Relaxed) != at {
                        tracing::info!(%server, "connections go through this server from now on");
                    }
                    return Ok((found, server));
                }
                Err(error) if left > 0 => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, %server, "a server is of no use; trying the next");
                }
                Err(error) => return Err(error),
            }
            at = self.after(at);
        }
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) % self.all.all().len()
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.over {
            let Self { servers, at, .. } = self;
            let (next, relaxed) = (servers.after(*at), Ordering::Relaxed);
            // Unless it is another one's turn already.
            let _ = servers.of_use.compare_exchange(*at, next, relaxed, relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn servers() -> Servers {
        Servers::new(TunnelServers::parse("a:1,b:1,c:1").unwrap())
    }

    /// Which were tried, and which one it was, where these are there and those never answer.
    async fn tried(servers: &Servers, there: &[&str], silent: &[&str]) -> (String, Option<String>) {
        let tried = Mutex::new(String::new());
        let attempt = async |server: &TunnelServer| {
            let name = server.to_string().replace(":1", "");
            tried.lock().unwrap().push_str(&name);
            if silent.contains(&&*name) {
                std::future::pending::<()>().await;
            }
            if there.contains(&&*name) { Ok(name) } else { Err(ServerError::Closed) }
        };
        let found = servers.first_of_use(attempt);
        let found = found.await.ok().map(|(name, _)| name);
        (tried.into_inner().unwrap(), found)
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_of_use_last_comes_first_and_each_is_tried_once() {
        let servers = servers();
        for (there, order, found) in [
            (&["a", "b", "c"][..], "a", Some("a")),
            (&["b", "c"], "ab", Some("b")),
            (&["a", "b", "c"], "b", Some("b")),
            (&[], "bca", None),
            (&["a"], "bca", Some("a")),
        ] {
            let expected = (order.to_owned(), found.map(str::to_owned));
            assert_eq!(tried(&servers, there, &[]).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_takes_a_bounded_time_and_the_last_as_long_as_the_caller_has()
    {
        let servers = servers();
        let start = tokio::time::Instant::now();
        let expected = ("ab".to_owned(), Some("b".to_owned()));
        assert_eq!(tried(&servers, &["b"], &["a"]).await, expected);
        assert_eq!(start.elapsed(), ATTEMPT_MAX);
        let all = tried(&servers, &[], &["a", "b", "c"]);
        assert!(tokio::time::timeout(ATTEMPT_MAX * 10, all).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_makes_it_the_next_ones_turn() {
        let servers = servers();
        let short = ATTEMPT_MAX / 2;
        let given_up = tokio::time::timeout(short, tried(&servers, &["b"], &["a"])).await;
        assert!(given_up.is_err());
        assert_eq!(tried(&servers, &["b"], &["a"]).await, ("b".to_owned(), Some("b".to_owned())));
    }
}
