//! What a tunnel's ends have to do with a cluster's API server: tokens of agents are checked there, servers keep Leases
//! there, and agents count them.
//!
//! Flags become options here, and everything that runs is started. What is asked and decided is in `kubernetes`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kubernetes::servers::NAME_PREFIX;
use kubernetes::servers::{CountOptions, CountStats, Counter, KeepOptions, KeepStats, Keeper};
use kubernetes::tokens::{ExpectedToken, TokenRefused, TokenReviewer};
use kubernetes::{Budget, Cluster};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tunnel::agent::CountSource;
use tunnel::server::admission::{Question, ServiceAccount, TokenError};

use crate::UsageError;
use crate::cli::{AgentClusterArgs, ServerClusterArgs};

/// Agents that wait for their token to be checked; further ones are refused.
const QUESTIONS_MAX: usize = 256;
/// Checks under way at a time.
const REVIEWS_MAX: usize = 16;
/// How long the end of the Lease may take.
const LEASE_END_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest name of an object (RFC 1123 subdomain).
const NAME_BYTES_MAX: usize = 253;

/// What the server's flags ask for.
#[derive(Debug)]
pub(super) struct ServerPlan {
    tokens: Option<ExpectedToken>,
    lease: Option<KeepOptions>,
    budget: Arc<Budget>,
}

impl ServerPlan {
    /// Checks the flags. `server` is the server's name, `asks_certificates` whether agents must show one.
    pub(super) fn new(
        args: &ServerClusterArgs,
        server: &str,
        asks_certificates: bool,
    ) -> Result<Self, UsageError> {
        let tokens = expected_token(args)?;
        if tokens.is_some() && asks_certificates {
            let text = "flag --cluster-ca-cert: not beside --agent-namespace: agents show either a certificate or a \
                        token";
            return Err(UsageError(text.to_owned()));
        }
        let burst = args.kubeconfig_burst;
        let budget = Budget::new(args.kubeconfig_qps, burst)
            .map_err(|error| UsageError(format!("flag --kubeconfig-qps: {error}")))?;
        let lease = args.enable_lease_controller.then(|| lease(args, server)).transpose()?;
        Ok(Self { tokens, lease, budget: Arc::new(budget) })
    }

    /// Whether agents must show a token.
    pub(super) fn asks_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Starts what was asked for. Dropped, nothing has happened.
    pub(super) async fn start(self, kubeconfig: &str) -> Result<ServerCluster, UsageError> {
        let mut running = ServerCluster::default();
        if self.tokens.is_none() && self.lease.is_none() {
            return Ok(running);
        }
        let cluster = connect(kubeconfig).await?;
        if let Some(expected) = self.tokens {
            let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
            let reviewer = TokenReviewer::new(&cluster, expected.clone(), self.budget.clone());
            net::task::spawn("tokens", check_tokens(Arc::new(reviewer), expected, asked));
            running.tokens = Some(ask);
        }
        if let Some(options) = self.lease {
            let keeper = Keeper::new(&cluster, options, self.budget);
            let stats = keeper.stats();
            let (stop, stopped) = watch::channel(false);
            let task = net::task::spawn("lease", keeper.run(stopped));
            running.lease = Some(Lease { stats, stop, task });
        }
        Ok(running)
    }
}

/// All three flags or none.
fn expected_token(args: &ServerClusterArgs) -> Result<Option<ExpectedToken>, UsageError> {
    let flags = [
        ("--agent-namespace", &args.agent_namespace),
        ("--agent-service-account", &args.agent_service_account),
        ("--authentication-audience", &args.authentication_audience),
    ];
    if flags.iter().all(|(_, value)| value.is_empty()) {
        return Ok(None);
    }
    if let Some((flag, _)) = flags.iter().find(|(_, value)| value.is_empty()) {
        let names = flags.map(|(flag, _)| flag).join(", ");
        return Err(UsageError(format!("flag {flag}: missing, expected all of {names} or none")));
    }
    Ok(Some(ExpectedToken {
        audience: args.authentication_audience.clone(),
        namespace: args.agent_namespace.clone(),
        account: args.agent_service_account.clone(),
    }))
}

fn lease(args: &ServerClusterArgs, server: &str) -> Result<KeepOptions, UsageError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = server.len() + NAME_PREFIX.len() <= NAME_BYTES_MAX
        && server.bytes().next_back().is_some_and(is_letter)
        && server.split('.').all(|label| label.bytes().next().is_some_and(is_letter))
        && server.bytes().all(|byte| is_letter(byte) || matches!(byte, b'-' | b'.'));
    if !is_name {
        return Err(UsageError(format!(
            "flag --server-id: {server:?} cannot stand in the name of a Lease: expected lower-case letters, digits, - \
             and ."
        )));
    }
    let label = args.lease_label.split_once('=').filter(|(key, _)| !key.is_empty());
    let Some((key, value)) = label else {
        let found = &args.lease_label;
        return Err(UsageError(format!("flag --lease-label: found {found:?}, expected key=value")));
    };
    Ok(KeepOptions {
        namespace: args.lease_namespace.clone(),
        server: server.to_owned(),
        label: (key.to_owned(), value.to_owned()),
    })
}

async fn connect(kubeconfig: &str) -> Result<Cluster, UsageError> {
    let file = Some(Path::new(kubeconfig)).filter(|path| !path.as_os_str().is_empty());
    Cluster::connect(file).await.map_err(|error| {
        let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
        UsageError(format!("flag --kubeconfig: {error}{}", why.unwrap_or_default()))
    })
}

/// What runs of it at a server.
#[derive(Debug, Default)]
pub(super) struct ServerCluster {
    /// Where tokens are checked, if agents must show one.
    pub(super) tokens: Option<mpsc::Sender<Question>>,
    lease: Option<Lease>,
}

#[derive(Debug)]
struct Lease {
    stats: Arc<KeepStats>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl ServerCluster {
    /// What keeping a Lease came to; nothing where there is none.
    pub(super) fn lease_stats(&self) -> Arc<KeepStats> {
        self.lease.as_ref().map(|lease| lease.stats.clone()).unwrap_or_default()
    }

    /// Begins to delete the Lease.
    pub(super) fn end(&self) {
        if let Some(lease) = &self.lease {
            lease.stop.send_replace(true);
        }
    }

    /// Waits until that is done, for a while.
    pub(super) async fn ended(&mut self) {
        if let Some(lease) = &mut self.lease {
            let _ = tokio::time::timeout(LEASE_END_TIMEOUT, &mut lease.task).await;
        }
    }
}

/// Answers questions until nobody asks any more.
async fn check_tokens(
    reviewer: Arc<TokenReviewer>,
    expected: ExpectedToken,
    mut asked: mpsc::Receiver<Question>,
) {
    let places = Arc::new(Semaphore::new(REVIEWS_MAX));
    while let Some(question) = asked.recv().await {
        if question.answer.is_closed() {
            continue;
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (reviewer, expected) = (reviewer.clone(), expected.clone());
        drop(net::task::spawn("token", async move {
            let reviewed = reviewer.review(question.token.as_str()).await;
            let account = ServiceAccount { namespace: expected.namespace, name: expected.account };
            let verdict = reviewed.map(|()| account).map_err(|refused| match refused {
                TokenRefused::NotAccepted(why) => TokenError::NotAccepted(why),
                TokenRefused::OtherAccount(who) => TokenError::OtherAccount(who),
                TokenRefused::Unchecked(why) => TokenError::Unchecked(why),
            });
            // Who does not wait any more has been refused.
            let _ = question.answer.send(verdict);
            drop(place);
        }));
    }
}

/// Where an agent's number of servers comes from, and what counting them came to.
pub(super) type Counting = (CountSource, Arc<CountStats>);

/// Starts to count the servers, if an agent's flags ask for that. Dropped, nothing has happened.
pub(super) async fn count_servers(args: &AgentClusterArgs) -> Result<Counting, UsageError> {
    let larger = match args.server_count_source.as_str() {
        "default" | "" => false,
        "max" => true,
        other => {
            return Err(UsageError(format!(
                "flag --server-count-source: found {other:?}, expected default or max"
            )));
        }
    };
    if !args.count_server_leases {
        return Ok((CountSource::Servers, Arc::default()));
    }
    let options = CountOptions {
        namespace: args.lease_namespace.clone(),
        selector: args.lease_label_selector.clone(),
    };
    let (counter, counts) = Counter::new(&connect(&args.kubeconfig).await?, options);
    let stats = counter.stats();
    drop(net::task::spawn("servers", counter.run()));
    let source = if larger { CountSource::Larger(counts) } else { CountSource::Counted(counts) };
    Ok((source, stats))
}
