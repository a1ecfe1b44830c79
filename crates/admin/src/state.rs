//! The shape of `/state`: written by a role, read by `cloverleaf status`, the dashboard and scripts.
//!
//! The structs are the only definition: their fields are the JSON's keys. Counters count from the
//! start of the process; readers make rates of them. Must not know where the figures come from.

use serde::{Deserialize, Serialize};

/// Most rules that are shown: the busiest.
pub const RULES_MAX: usize = 1_000;
/// Most upstreams that are shown: the busiest.
pub const UPSTREAMS_MAX: usize = 1_000;
/// Most configuration problems that are shown: the first.
pub const PROBLEMS_MAX: usize = 100;

/// All that `/state` says.
///
/// Keys that a reader does not know are passed over, and those that are missing are read as 0 or
/// empty, so that `status` and a running program need not be of one version. Only the first two and
/// `listeners` must be there: without them it is somebody else's JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Of the program.
    pub version: String,
    /// When the process began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// How long ago that was.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// How many configurations have been served, this one included.
    #[serde(default)]
    pub generation: u64,
    /// What `/readyz` says.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default)]
    pub not_ready_reasons: Vec<String>,
    /// Where the configuration comes from and whether it is good.
    #[serde(default)]
    pub config: ConfigState,
    /// In the order of the configuration; those that are draining last.
    pub listeners: Vec<ListenerState>,
    /// Busiest first, at most [`UPSTREAMS_MAX`].
    #[serde(default)]
    pub upstreams: Vec<UpstreamState>,
    /// How many upstreams there are, shown or not.
    #[serde(default)]
    pub upstreams_total: usize,
    /// Busiest first, at most [`RULES_MAX`].
    #[serde(default)]
    pub rules: Vec<RuleState>,
    /// How many rules there are, shown or not.
    #[serde(default)]
    pub rules_total: usize,
    /// Of all requests that a rule took.
    #[serde(default)]
    pub latency: Latency,
    /// The cluster that routes come from; `null` where they come from a file.
    #[serde(default)]
    pub kubernetes: Option<KubernetesState>,
}

/// A cluster that routes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesState {
    /// The API server's address.
    pub server: String,
    /// Every watch is up.
    pub connected: bool,
    /// This process is the one of several replicas that writes to the cluster.
    pub leader: bool,
    /// What is served is the state on disk.
    pub from_state: bool,
    /// Rules made of objects, those of http and https listeners counted apart where they differ.
    pub rules: usize,
    /// Upstreams made of objects.
    pub upstreams: usize,
    /// Certificates that objects brought.
    pub certificates: usize,
    /// When a change of objects was last served, in seconds since 1970; `null` before that.
    pub last_change_unix_seconds: Option<u64>,
    /// Things that are wrong with objects.
    pub problems: usize,
    /// The first [`PROBLEMS_MAX`] of them: the object as place, the reason as key.
    pub objects_with_problems: Vec<Problem>,
    /// What is watched.
    pub watches: Vec<WatchState>,
}

/// One watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchState {
    /// The objects' kind.
    pub kind: String,
    /// Where; empty for everywhere.
    pub namespace: String,
    /// Everything has been listed once.
    pub listed: bool,
    /// It is followed now.
    pub connected: bool,
    /// Objects known.
    pub objects: usize,
    /// How often it had to begin again.
    pub restarts: u64,
    /// Why it is not followed now; may be empty.
    pub error: String,
}

/// Where the configuration comes from and whether it is good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigState {
    /// The file's path, or what else the source is called.
    pub source: String,
    /// Whether what the source says now is what is served.
    pub valid: bool,
    /// When it was last read because it had changed; `null` before that.
    pub last_reload_unix_seconds: Option<u64>,
    /// `ok` or `invalid`; empty before the first reload.
    pub last_reload_result: String,
    /// What was wrong with it when it was last read, the first [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with the configuration: [`model::Diagnostic`] as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: String,
    /// `file:line:column`, or what else names it.
    pub place: String,
    /// The key's path; may be empty.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// The offending value; may be empty.
    pub value: String,
    /// What was expected; may be empty.
    pub expected: String,
}

impl From<&model::Diagnostic> for Problem {
    fn from(diagnostic: &model::Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.as_str().to_owned(),
            place: diagnostic.place.to_string(),
            key: diagnostic.key.clone(),
            problem: diagnostic.problem.clone(),
            value: diagnostic.value.clone(),
            expected: diagnostic.expected.clone(),
        }
    }
}

/// One listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerState {
    /// As in the metrics.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// `http` or `https`.
    pub protocol: String,
    /// `serving` or `draining`.
    pub state: String,
    /// Client connections now.
    pub connections_open: u64,
    /// Client connections accepted.
    pub connections_total: u64,
    /// Requests answered.
    pub requests: ByClass,
    /// Bytes read from clients.
    pub received_bytes: u64,
    /// Bytes written to clients.
    pub sent_bytes: u64,
    /// `WebSockets` and other upgraded connections now.
    pub upgrades_open: u64,
    /// Requests answered before routing, as malformed or too slow.
    pub refused_requests: u64,
    /// TLS handshakes that failed.
    pub tls_handshakes_failed: u64,
}

/// Requests by the class of their final status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ByClass {
    /// 1xx: in practice 101.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 2xx
    #[serde(rename = "2xx")]
    pub success: u64,
    /// 3xx
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 4xx
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 5xx
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

impl ByClass {
    /// From counts in the order 1xx to 5xx.
    #[must_use]
    pub fn from_counts(counts: [u64; 5]) -> Self {
        let [informational, success, redirection, client_error, server_error] = counts;
        Self { informational, success, redirection, client_error, server_error }
    }

    /// Counts in the order 1xx to 5xx.
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        [self.informational, self.success, self.redirection, self.client_error, self.server_error]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// One upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamState {
    /// As in the metrics.
    pub name: String,
    /// How an endpoint is chosen: `roundRobin`, `leastRequests` or `clientAddress`.
    pub algorithm: String,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// In the order of the configuration.
    pub endpoints: Vec<EndpointState>,
    /// Requests sent again.
    pub retries: u64,
}

impl UpstreamState {
    /// Requests sent to its endpoints.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.endpoints.iter().fold(0, |sum, e| sum.saturating_add(e.requests))
    }
}

/// One endpoint of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointState {
    /// `address:port` or `name:port`.
    pub target: String,
    /// Its share beside the others'.
    pub weight: u32,
    /// What its health check found; `null` without one.
    pub health: Option<HealthState>,
    /// Requests sent to it.
    pub requests: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections kept for the next request now.
    pub idle_connections: u64,
    /// Of another host of a mesh: `tls`, `plain` or `unknown`, and why not `tls`; empty where that is no question.
    pub security: String,
}

/// What an endpoint's health check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthState {
    /// It gets requests.
    pub up: bool,
    /// Since when, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// Why the last check that failed did; empty where none has.
    pub last_error: String,
}

/// One rule, at one listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleState {
    /// The listener's name.
    pub listener: String,
    /// As in the metrics.
    pub name: String,
    /// The name of the upstream its requests go to.
    pub upstream: String,
    /// Requests answered.
    pub requests: ByClass,
    /// From the complete request head to the last byte of the response.
    pub latency: Latency,
}

/// How long requests took: counts in buckets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Upper bound in seconds, finite and rising, and how many requests fell into this bucket alone
    /// (not cumulative). What [`Self::count`] has beyond their sum took longer than the last bound.
    pub buckets: Vec<(f64, u64)>,
    /// All of them added up.
    pub sum_seconds: f64,
    /// How many there were.
    pub count: u64,
}

impl Latency {
    /// The time in seconds within which a part `q` (0 to 1) of the requests was answered, estimated
    /// by going straight through the bucket it falls into. Beyond the last bound that bound is
    /// given, as Prometheus does. `None` without requests.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let counted: u64 = self.buckets.iter().map(|(_, n)| n).sum();
        let rank = q.clamp(0.0, 1.0) * self.count.max(counted) as f64;
        if rank <= 0.0 {
            return (self.count.max(counted) > 0).then_some(0.0);
        }
        let (mut below, mut lower) = (0.0, 0.0);
        for (upper, n) in &self.buckets {
            let n = *n as f64;
            if below + n >= rank {
                return Some(lower + (upper - lower) * (rank - below) / n);
            }
            below += n;
            lower = *upper;
        }
        Some(lower)
    }
}

/// Why a text is not the state of a program like this one.
#[derive(Debug, thiserror::Error)]
#[error("this is not the state that a Cloverleaf admin port gives")]
pub struct InvalidState(#[from] serde_json::Error);

impl State {
    /// As `/state` gives it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Fails only for maps with keys that are no strings: there are none.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The reverse of [`Self::to_json`].
    ///
    /// # Errors
    /// [`InvalidState`] without the keys that must be there, or where a key has a value of another type.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, InvalidState> {
        Ok(Self::deserialize(value)?)
    }

    /// Sets the rules: the [`RULES_MAX`] with most requests, and how many there were.
    pub fn set_rules(&mut self, mut rules: Vec<RuleState>) {
        self.rules_total = rules.len();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.requests.total()));
        rules.truncate(RULES_MAX);
        self.rules = rules;
    }

    /// Sets the upstreams: the [`UPSTREAMS_MAX`] with most requests, and how many there were.
    pub fn set_upstreams(&mut self, mut upstreams: Vec<UpstreamState>) {
        self.upstreams_total = upstreams.len();
        upstreams.sort_by_key(|upstream| std::cmp::Reverse(upstream.requests()));
        upstreams.truncate(UPSTREAMS_MAX);
        self.upstreams = upstreams;
    }
}

impl ConfigState {
    /// Sets the problems: the first [`PROBLEMS_MAX`].
    pub fn set_problems(&mut self, diagnostics: &model::Diagnostics) {
        self.problems = diagnostics.0.iter().take(PROBLEMS_MAX).map(Problem::from).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn full() -> State {
        let latency = Latency { buckets: vec![(0.001, 5), (0.25, 3)], sum_seconds: 1.5, count: 9 };
        State {
            version: "0.1.0".to_owned(),
            started_unix_seconds: 1_700_000_000,
            uptime_seconds: 61,
            generation: 3,
            ready: false,
            not_ready_reasons: vec!["draining".to_owned()],
            config: ConfigState {
                source: "gateway.yaml".to_owned(),
                valid: false,
                last_reload_unix_seconds: Some(1_700_000_050),
                last_reload_result: "invalid".to_owned(),
                problems: vec![Problem { problem: "not a port".to_owned(), ..Problem::default() }],
            },
            listeners: vec![ListenerState {
                requests: ByClass::from_counts([1, 2, 3, 4, u64::MAX]),
                ..ListenerState::default()
            }],
            upstreams: vec![UpstreamState {
                endpoints: vec![EndpointState {
                    weight: 2,
                    health: Some(HealthState { last_error: "gone".into(), ..Default::default() }),
                    ..EndpointState::default()
                }],
                ..UpstreamState::default()
            }],
            upstreams_total: 1,
            rules: vec![RuleState { latency: latency.clone(), ..RuleState::default() }],
            rules_total: 1,
            latency,
            kubernetes: Some(KubernetesState {
                server: "https://10.96.0.1/".to_owned(),
                connected: true,
                last_change_unix_seconds: Some(1_700_000_055),
                problems: 2,
                objects_with_problems: vec![Problem {
                    key: "MissingService".to_owned(),
                    ..Problem::default()
                }],
                watches: vec![WatchState {
                    kind: "Ingress".to_owned(),
                    objects: 3,
                    error: "refused".to_owned(),
                    ..WatchState::default()
                }],
                ..KubernetesState::default()
            }),
        }
    }

    #[test]
    fn json_and_back_is_the_same() {
        for state in [full(), State::default()] {
            let text = state.to_json().to_string();
            let value = serde_json::from_str(&text).unwrap();
            assert_eq!(State::from_json(&value).unwrap(), state);
        }
    }

    #[test]
    fn the_keys_are_these() {
        let json = full().to_json();
        for (pointer, expected) in [
            ("/not_ready_reasons/0", json!("draining")),
            ("/config/problems/0/problem", json!("not a port")),
            ("/listeners/0/requests/1xx", json!(1)),
            ("/listeners/0/requests/5xx", json!(u64::MAX)),
            ("/upstreams/0/endpoints/0/weight", json!(2)),
            (
                "/upstreams/0/endpoints/0/health",
                json!({"up": false, "since_unix_seconds": 0, "last_error": "gone"}),
            ),
            ("/rules/0/latency/buckets/1", json!([0.25, 3])),
            ("/latency/sum_seconds", json!(1.5)),
            ("/kubernetes/objects_with_problems/0/key", json!("MissingService")),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn other_versions_are_read_other_things_are_not() {
        let newer = json!({
            "version": "9", "started_unix_seconds": 1, "new": 1, "config": {"new": []}, "listeners": [{}],
        });
        let state = State::from_json(&newer).unwrap();
        assert_eq!((state.version.as_str(), state.listeners.len()), ("9", 1));
        for other in [
            json!({}),
            json!([]),
            json!("x"),
            json!({"version": "HTTP/1.1", "method": "GET"}),
            json!({"version": "1", "started_unix_seconds": 1, "listeners": 3}),
        ] {
            assert!(State::from_json(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn only_the_busiest_are_kept() {
        let rule = |n: u64| RuleState {
            name: n.to_string(),
            requests: ByClass::from_counts([0, n, 0, 0, 0]),
            ..RuleState::default()
        };
        let mut state = State::default();
        state.set_rules((0..2_000).map(rule).collect());
        assert_eq!((state.rules.len(), state.rules_total), (RULES_MAX, 2_000));
        assert_eq!(
            (state.rules[0].name.as_str(), state.rules[999].name.as_str()),
            ("1999", "1000")
        );
    }

    #[test]
    fn quantiles_go_straight_through_their_bucket() {
        let of = |buckets: &[(f64, u64)], count| Latency {
            buckets: buckets.to_vec(),
            sum_seconds: 0.0,
            count,
        };
        for (latency, q, expected) in [
            (of(&[], 0), 0.5, None),
            (of(&[(0.1, 10)], 10), 0.5, Some(0.05)),
            (of(&[(0.1, 10), (0.2, 10)], 20), 0.75, Some(0.15)),
            (of(&[(0.1, 0), (0.2, 4)], 4), 0.5, Some(0.15)),
            (of(&[(0.1, 1)], 10), 0.99, Some(0.1)),
            (of(&[(0.1, 4)], 0), 1.0, Some(0.1)),
            (of(&[(0.1, 4)], 4), 0.0, Some(0.0)),
        ] {
            let seen = latency.quantile(q);
            let near = match (seen, expected) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            assert!(near, "{latency:?} at {q}: {seen:?}");
        }
    }

    #[test]
    fn a_diagnostic_becomes_text() {
        let place = model::Place::at("a.yaml".into(), 3, 7);
        let mut diagnostics = model::Diagnostics::default();
        diagnostics.push(model::Diagnostic::error(place, "rules[0]", "wrong").value("x"));
        let mut config = ConfigState::default();
        config.set_problems(&diagnostics);
        assert_eq!(config.problems[0].place, "a.yaml:3:7");
        assert_eq!(config.problems[0].severity, "error");
    }
}
