//! The state as tables. Pure: the same state and width give the same text.

use std::fmt::Write as _;

use admin::State;
use admin::state::{ByClass, ConfigState, HealthState, KubernetesState, Latency, Problem};

use super::table::{Align, Table, visible};

/// Most rules in the table: the busiest.
const RULES_SHOWN_MAX: usize = 20;

/// Tables of at most `width` characters, where that is possible.
pub(super) fn render(state: &State, width: usize) -> String {
    let mut text = summary(state);
    section(&mut text, "LISTENERS", &listeners(state).render(width), state.listeners.len());
    section(&mut text, "UPSTREAMS", &upstreams(state).render(width), state.upstreams.len());
    more(&mut text, state.upstreams_total, state.upstreams.len());
    let shown = state.rules.len().min(RULES_SHOWN_MAX);
    section(&mut text, "BUSIEST RULES", &rules(state, shown).render(width), shown);
    more(&mut text, state.rules_total, shown);
    let _ = write!(text, "\nLATENCY\n  {}\n", latency(&state.latency));
    if let Some(cluster) = &state.kubernetes {
        let _ = write!(text, "\nKUBERNETES\n{}", kubernetes(cluster, now(state), width));
    }
    text
}

fn kubernetes(cluster: &KubernetesState, now: u64, width: usize) -> String {
    let is = |is: bool, yes: &str, no: &str| if is { yes.to_owned() } else { no.to_owned() };
    let changed = match cluster.last_change_unix_seconds {
        None => "nothing served yet".to_owned(),
        Some(at) => format!("last change {} ago", age(now.saturating_sub(at))),
    };
    let mut text = format!(
        "  {}, {}, {}, {changed}\n  {} rules, {} upstreams, {} certificates, {} problems\n",
        visible(&cluster.server),
        is(cluster.connected, "connected", "not connected"),
        is(cluster.leader, "leader", "not leader"),
        cluster.rules,
        cluster.upstreams,
        cluster.certificates,
        cluster.problems
    );
    if cluster.from_state {
        text.push_str("  the state on disk is served\n");
    }
    let mut table = Table::new(&[
        ("KIND", Align::Left),
        ("NAMESPACE", Align::Left),
        ("OBJECTS", Align::Right),
        ("RESTARTS", Align::Right),
        ("WATCH", Align::Left),
    ]);
    for watch in &cluster.watches {
        let state = match (&*watch.error, watch.connected) {
            ("", true) => "up".to_owned(),
            ("", false) => "starting".to_owned(),
            (error, _) => error.to_owned(),
        };
        table.row(vec![
            watch.kind.clone(),
            is(watch.namespace.is_empty(), "all", &watch.namespace),
            watch.objects.to_string(),
            watch.restarts.to_string(),
            state,
        ]);
    }
    text += &table.render(width);
    for problem in &cluster.objects_with_problems {
        let _ = writeln!(text, "  {}", diagnostic(problem));
    }
    more_problems(&mut text, cluster);
    text
}

fn more_problems(text: &mut String, cluster: &KubernetesState) {
    let more = cluster.problems.saturating_sub(cluster.objects_with_problems.len());
    if more > 0 {
        let _ = writeln!(text, "  and {more} problems more");
    }
}

fn section(text: &mut String, title: &str, table: &str, rows: usize) {
    let _ = write!(text, "\n{title}\n{}", if rows == 0 { "  none\n" } else { table });
}

fn more(text: &mut String, total: usize, shown: usize) {
    if total > shown {
        let _ = writeln!(text, "  and {} less busy", total - shown);
    }
}

fn summary(state: &State) -> String {
    let mut text = format!(
        "cloverleaf {}, up {}, {}\n",
        visible(&state.version),
        age(state.uptime_seconds),
        if state.ready { "ready" } else { "not ready" }
    );
    for reason in &state.not_ready_reasons {
        let _ = writeln!(text, "  {}", visible(reason));
    }
    let _ = writeln!(text, "{}", configuration(&state.config, state.generation, now(state)));
    for problem in &state.config.problems {
        let _ = writeln!(text, "  {}", diagnostic(problem));
    }
    text
}

/// By the program's own clock, in seconds since 1970.
fn now(state: &State) -> u64 {
    state.started_unix_seconds.saturating_add(state.uptime_seconds)
}

fn configuration(config: &ConfigState, generation: u64, now: u64) -> String {
    let source = if config.source.is_empty() { "nowhere" } else { &config.source };
    let valid =
        if config.valid { "is what is served" } else { "is not served: the last good one is" };
    let reload = match config.last_reload_unix_seconds {
        None => "not reloaded yet".to_owned(),
        Some(at) => {
            let ago = age(now.saturating_sub(at));
            format!("last reload {ago} ago: {}", visible(&config.last_reload_result))
        }
    };
    format!("configuration {generation}; {} {valid}; {reload}", visible(source))
}

/// As `check` prints it.
fn diagnostic(p: &Problem) -> String {
    let key = if p.key.is_empty() { String::new() } else { format!("{}: ", p.key) };
    let found = (!p.value.is_empty()).then(|| format!("found {:?}", p.value));
    let expected = (!p.expected.is_empty()).then(|| format!("expected {}", p.expected));
    let detail: Vec<String> = found.into_iter().chain(expected).collect();
    let detail =
        if detail.is_empty() { String::new() } else { format!(" ({})", detail.join(", ")) };
    visible(&format!("{}: {}: {key}{}{detail}", p.place, p.severity, p.problem))
}

fn listeners(state: &State) -> Table {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ADDRESS", Align::Left),
        ("PROTOCOL", Align::Left),
        ("STATE", Align::Left),
        ("OPEN", Align::Right),
        ("UPGRADED", Align::Seldom),
        ("1XX", Align::Seldom),
        ("2XX", Align::Right),
        ("3XX", Align::Right),
        ("4XX", Align::Right),
        ("5XX", Align::Right),
        ("REFUSED", Align::Seldom),
        ("TLS FAILED", Align::Seldom),
        ("RECEIVED", Align::Right),
        ("SENT", Align::Right),
    ]);
    for l in &state.listeners {
        let words = [&l.name, &l.address, &l.protocol, &l.state].map(String::clone);
        let open = [l.connections_open, l.upgrades_open].map(|n| n.to_string());
        let failed = [l.refused_requests, l.tls_handshakes_failed].map(|n| n.to_string());
        let moved = [l.received_bytes, l.sent_bytes].map(bytes);
        table.row(
            words.into_iter().chain(open).chain(classes(&l.requests)).chain(failed).chain(moved),
        );
    }
    table
}

fn classes(requests: &ByClass) -> [String; 5] {
    requests.counts().map(|n| n.to_string())
}

fn upstreams(state: &State) -> Table {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ENDPOINT", Align::Left),
        ("WEIGHT", Align::Right),
        ("REQUESTS", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("IDLE", Align::Right),
        ("FAILED TO CONNECT", Align::Seldom),
        ("RETRIES", Align::Seldom),
        ("HOW", Align::Left),
        ("HEALTH", Align::Note),
        ("SECURITY", Align::Note),
    ]);
    let now = now(state);
    for u in &state.upstreams {
        let how = if u.tls { format!("{}, tls", u.algorithm) } else { u.algorithm.clone() };
        if u.endpoints.is_empty() {
            let empty = std::iter::repeat_n(String::new(), 5);
            let start = [u.name.clone(), "no endpoints".to_owned()];
            table.row(start.into_iter().chain(empty).chain([u.retries.to_string(), how.clone()]));
        }
        for (i, e) in u.endpoints.iter().enumerate() {
            // What belongs to the upstream stands in its first line alone.
            let once = |text: &str| if i == 0 { text.to_owned() } else { String::new() };
            table.row([
                once(&u.name),
                e.target.clone(),
                e.weight.to_string(),
                e.requests.to_string(),
                e.in_flight.to_string(),
                e.idle_connections.to_string(),
                e.connect_failures.to_string(),
                once(&u.retries.to_string()),
                once(&how),
                e.health.as_ref().map(|found| health(found, now)).unwrap_or_default(),
                e.security.clone(),
            ]);
        }
    }
    table
}

fn health(health: &HealthState, now: u64) -> String {
    let since = age(now.saturating_sub(health.since_unix_seconds));
    match (health.up, health.last_error.as_str()) {
        (true, _) => format!("up {since}"),
        (false, "") => format!("down {since}"),
        (false, error) => format!("down {since}: {error}"),
    }
}

fn rules(state: &State, shown: usize) -> Table {
    let mut table = Table::new(&[
        ("LISTENER", Align::Left),
        ("RULE", Align::Left),
        ("UPSTREAM", Align::Left),
        ("1XX", Align::Seldom),
        ("2XX", Align::Right),
        ("3XX", Align::Right),
        ("4XX", Align::Right),
        ("5XX", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
    ]);
    for rule in state.rules.iter().take(shown) {
        let words = [&rule.listener, &rule.name, &rule.upstream].map(String::clone);
        let times = [0.5, 0.99].map(|q| rule.latency.quantile(q).map_or("-".to_owned(), time));
        table.row(words.into_iter().chain(classes(&rule.requests)).chain(times));
    }
    table
}

fn latency(latency: &Latency) -> String {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| latency.quantile(q));
    match (p50, p90, p99) {
        (Some(p50), Some(p90), Some(p99)) => format!(
            "p50 {}, p90 {}, p99 {}, estimated from the times of {} requests",
            time(p50),
            time(p90),
            time(p99),
            latency.count
        ),
        _ => "no requests yet".to_owned(),
    }
}

fn time(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn age(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", n as f64 / *size as f64),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin::state::{EndpointState, ListenerState, RuleState, UpstreamState};

    fn state() -> State {
        let latency =
            Latency { buckets: vec![(0.001, 90), (0.25, 9)], sum_seconds: 3.0, count: 100 };
        let endpoint = |target: &str, requests| EndpointState {
            target: target.to_owned(),
            weight: 2,
            requests,
            ..EndpointState::default()
        };
        let mut state = State {
            version: "0.1.0".to_owned(),
            started_unix_seconds: 1_000_000,
            uptime_seconds: 3_725,
            generation: 2,
            ready: true,
            config: ConfigState {
                source: "gateway.yaml".to_owned(),
                valid: false,
                last_reload_unix_seconds: Some(1_003_700),
                last_reload_result: "invalid".to_owned(),
                problems: vec![Problem {
                    severity: "error".to_owned(),
                    place: "gateway.yaml:3:9".to_owned(),
                    key: "upstreams[0].port".to_owned(),
                    problem: "not a port".to_owned(),
                    value: "70000".to_owned(),
                    expected: "a number from 1 to 65535".to_owned(),
                }],
            },
            listeners: vec![ListenerState {
                name: "http".to_owned(),
                address: "0.0.0.0:8080".to_owned(),
                protocol: "http".to_owned(),
                state: "serving".to_owned(),
                connections_open: 12,
                requests: ByClass::from_counts([0, 95, 0, 4, 1]),
                received_bytes: 900,
                sent_bytes: 5 << 20,
                refused_requests: 7,
                ..ListenerState::default()
            }],
            latency: latency.clone(),
            ..State::default()
        };
        state.set_upstreams(vec![
            UpstreamState {
                name: "api".to_owned(),
                algorithm: "round-robin".to_owned(),
                tls: true,
                endpoints: vec![endpoint("10.0.0.1:80", 60), endpoint("10.0.0.2:80", 40)],
                retries: 3,
            },
            UpstreamState {
                name: "gone".to_owned(),
                algorithm: "least-requests".to_owned(),
                ..UpstreamState::default()
            },
        ]);
        state.set_rules(vec![RuleState {
            listener: "http".to_owned(),
            name: "rules[0]".to_owned(),
            upstream: "api".to_owned(),
            requests: ByClass::from_counts([0, 95, 0, 4, 1]),
            latency,
        }]);
        state
    }

    #[test]
    fn the_whole_of_it() {
        let expected = "\
cloverleaf 0.1.0, up 1 h 2 min, ready
configuration 2; gateway.yaml is not served: the last good one is; last reload 25 s ago: invalid
  gateway.yaml:3:9: error: upstreams[0].port: not a port (found \"70000\", expected a number from 1 to 65535)

LISTENERS
  NAME  ADDRESS       PROTOCOL  STATE    OPEN  2XX  3XX  4XX  5XX  REFUSED  RECEIVED     SENT
  http  0.0.0.0:8080  http      serving    12   95    0    4    1        7     900 B  5.0 MiB

UPSTREAMS
  NAME  ENDPOINT      WEIGHT  REQUESTS  IN FLIGHT  IDLE  RETRIES  HOW
  api   10.0.0.1:80        2        60          0     0        3  round-robin, tls
        10.0.0.2:80        2        40          0     0
  gone  no endpoints                                           0  least-requests

BUSIEST RULES
  LISTENER  RULE      UPSTREAM  2XX  3XX  4XX  5XX     P50       P99
  http      rules[0]  api        95    0    4    1  556 µs  250.0 ms

LATENCY
  p50 556 µs, p90 1.0 ms, p99 250.0 ms, estimated from the times of 100 requests
";
        assert_eq!(render(&state(), usize::MAX), expected);
    }

    #[test]
    fn health_is_shown_where_it_is_checked() {
        let mut state = state();
        assert!(!render(&state, usize::MAX).contains("HEALTH"));
        let found = HealthState {
            up: false,
            since_unix_seconds: 1_003_700,
            last_error: "no connection: refused".to_owned(),
        };
        let endpoints = &mut state.upstreams[0].endpoints;
        endpoints[0].health = Some(HealthState { up: true, ..found.clone() });
        endpoints[1].health = Some(found);
        let text = render(&state, usize::MAX);
        for expected in
            ["  HOW               HEALTH\n", "  up 25 s\n", "  down 25 s: no connection: refused\n"]
        {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
    }

    #[test]
    fn an_empty_state_is_no_error() {
        let text = render(&State::default(), 80);
        assert!(text.contains("not ready") && text.contains("not reloaded yet"), "{text}");
        assert!(text.contains("LISTENERS\n  none\n") && text.contains("no requests yet"), "{text}");
    }

    #[test]
    fn many_rules_are_cut_and_counted() {
        let mut state = state();
        state.set_rules(vec![state.rules[0].clone(); 1_500]);
        let text = render(&state, 80);
        assert_eq!(text.matches("rules[0]").count(), RULES_SHOWN_MAX);
        assert!(text.contains("\n  and 1480 less busy\n"), "{text}");
    }

    #[test]
    fn a_cluster_is_shown_with_what_is_wrong_in_it() {
        let mut state = state();
        assert!(!render(&state, 80).contains("KUBERNETES"));
        let problem = Problem {
            severity: "warning".to_owned(),
            place: "Ingress shop/web\u{7}".to_owned(),
            key: "MissingService".to_owned(),
            problem: "no Service cart".to_owned(),
            ..Problem::default()
        };
        state.kubernetes = Some(KubernetesState {
            server: "https://10.96.0.1/".to_owned(),
            connected: true,
            rules: 7,
            last_change_unix_seconds: Some(1_003_720),
            problems: 3,
            objects_with_problems: vec![problem],
            ..KubernetesState::default()
        });
        let text = render(&state, 200);
        for part in [
            "  https://10.96.0.1/, connected, not leader, last change 5 s ago\n",
            "  7 rules, 0 upstreams, 0 certificates, 3 problems\n",
            "  Ingress shop/web\\u{7}: warning: MissingService: no Service cart\n",
            "  and 2 problems more\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn nothing_from_elsewhere_reaches_the_terminal_raw() {
        let mut state = state();
        state.config.problems[0].value = "\u{1b}[31m".to_owned();
        state.config.source = "a\nb".to_owned();
        state.listeners[0].name = "x\r\u{7}".to_owned();
        let text = render(&state, 200);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("a\\nb is not served"), "{text}");
    }

    #[test]
    fn figures() {
        for (seconds, expected) in
            [(0, "0 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(age(seconds), expected);
        }
        for (n, expected) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 41, "2.0 TiB")]
        {
            assert_eq!(bytes(n), expected);
        }
        for (seconds, expected) in [(0.000_25, "250 µs"), (0.25, "250.0 ms"), (2.0, "2.00 s")] {
            assert_eq!(time(seconds), expected);
        }
    }
}
