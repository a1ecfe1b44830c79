//! A real kube-apiserver whose way to the nodes is the tunnel: an EgressSelectorConfiguration, our server beside it,
//! our agents on the nodes from deploy/konnectivity, let in by their service account's tokens.
//!
//! It is one more API server of the cluster, so that other tests keep theirs. What has come through the tunnel is told
//! by who connects: an agent, from a node's address, and not the API server from its own.

mod stage;

use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use testkit::client;
use testkit::kubernetes::Access;
use testkit::wait_until;

use crate::support::{PODS_WITHIN, SERVED_WITHIN, nodes};
use stage::{AGENTS, Beside, Mode, Stage};

/// How long connections of a server that is asked to end may go on.
const GRACE: Duration = Duration::from_secs(8);

#[test]
fn an_api_server_reaches_its_cluster_through_the_tunnel() {
    let Some(stage) = Stage::set() else { return };
    let mut first = stage.server(Mode::Grpc, "first");
    let api = stage.api_server(6444, &first);
    let access = api.access();
    // Nobody is there to go through, and there is no other way.
    let refused = stage.logs(access).unwrap_err();
    assert!(refused.contains("No agent available"), "{refused}");
    stage.start_agents();
    assert!(wait_until(PODS_WITHIN, || first.metric(AGENTS) == 2.0), "{}", stage.story(&first));
    everything_works(&stage, access);

    let load = Load::start(&stage, access);
    stage.kill_an_agent();
    assert!(wait_until(PODS_WITHIN, || first.metric(AGENTS) == 1.0), "{}", stage.story(&first));
    load.goes_on();
    assert!(wait_until(PODS_WITHIN, || first.metric(AGENTS) == 2.0), "{}", stage.story(&first));

    // A new server takes the first one's place when agents have come to it, which find it by its Lease.
    let mut second = stage.server(Mode::Grpc, "second");
    assert!(wait_until(PODS_WITHIN, || second.metric(AGENTS) == 2.0), "{}", stage.story(&second));
    let forward = Forward::start(&stage, access);
    second.take_the_place_of(&first);
    first.terminate();
    load.goes_on();
    // What goes through the old one may come to its end.
    assert!(forward.serves(), "{}", stage.story(&first));
    drop(forward);
    assert_eq!(first.wait_exit(), Some(0));
    load.goes_on();
    let failed = load.stop();
    // One request may be under way where an agent is killed, and one where the old server's time is over.
    assert!(failed.len() <= 2, "{failed:#?}");
    everything_works(&stage, access);
    assert_eq!(stage.leases(), ["konnectivity-proxy-server-second"]);
    assert!(second.metric("konnectivity_network_proxy_server_dial_duration_seconds_count") > 0.0);
    second.terminate();
    assert_eq!(second.wait_exit(), Some(0));
    drop(api);

    // The other protocol, over TCP with certificates at both ends.
    let third = stage.server(Mode::HttpConnect, "third");
    assert!(wait_until(PODS_WITHIN, || third.metric(AGENTS) == 2.0), "{}", stage.story(&third));
    let api = stage.api_server(6445, &third);
    everything_works(&stage, api.access());
}

#[test]
fn agents_with_tokens_of_no_use_are_refused() {
    let Some(stage) = Stage::set() else { return };
    let server = stage.server(Mode::Grpc, "strict");
    let namespace = stage.namespace.name();
    stage.namespace.kubectl(&["create", "serviceaccount", "other"], None).unwrap();
    let token = |account: &str, audience: &str| {
        let audience = format!("--audience={audience}");
        let token = stage.namespace.kubectl(&["create", "token", account, &audience], None);
        token.unwrap().trim().to_owned()
    };
    let other = format!("system:serviceaccount:{namespace}:other");
    for (reason, token, why) in [
        ("bad_token", token("konnectivity-agent", "them"), "audience"),
        ("other_account", token("other", stage::AUDIENCE), other.as_str()),
        ("bad_token", "garbage".to_owned(), "not accepted"),
    ] {
        let refused = format!("cloverleaf_tunnel_refused_agents_total{{reason=\"{reason}\"}}");
        let before = server.metric(&refused);
        let agent = stage.agent_with(&token);
        let counted = || server.metric(&refused) > before;
        assert!(wait_until(SERVED_WITHIN, counted), "{reason}: {}", stage.story(&server));
        let log = server.log();
        let line = log.lines().rev().find(|line| line.contains("an agent was refused")).unwrap();
        assert!(line.contains(why) && line.contains("10.200.0.1:"), "{line}");
        assert!(!log.contains(&token), "{reason}: the token is in the log");
        assert_eq!(server.metric(AGENTS), 0.0);
        drop(agent);
    }
}

/// All that an API server asks of the network of its cluster.
fn everything_works(stage: &Stage, access: &Access) {
    let logs = stage.logs(access).unwrap_or_else(|error| panic!("logs: {error}"));
    assert!(logs.contains("echo"), "{logs:?}");
    let exec =
        ["-n", stage.namespace.name(), "exec", stage.pod(), "--", "/cloverleaf", "--version"];
    let version = access.kubectl(&exec, None).unwrap_or_else(|error| panic!("exec: {error}"));
    assert!(version.starts_with("cloverleaf "), "{version:?}");
    assert!(Forward::start(stage, access).serves(), "port-forward");

    stage.hook.forget();
    let create = |label: &str| {
        let manifest = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {label}, labels: {{egress: {label}}}}}}}"
        );
        let arguments = ["-n", stage.namespace.name(), "create", "--dry-run=server", "-f", "-"];
        access.kubectl(&arguments, Some(&manifest)).map_err(|error| error.to_string())
    };
    // A configuration of webhooks is known a moment after it was made.
    let mut refused = String::new();
    let asked = || match create("refused") {
        Ok(_) => false,
        Err(error) => {
            refused = error;
            refused.contains("refused by the test")
        }
    };
    assert!(wait_until(SERVED_WITHIN, asked), "webhook: {refused}");
    create("allowed").unwrap_or_else(|error| panic!("webhook: {error}"));
    let path = format!("/apis/{}/v1/answers", stage.group());
    let mut answer = String::new();
    let answered = || match access.kubectl(&["get", "--raw", &path], None) {
        Ok(text) => {
            answer = text;
            true
        }
        Err(error) => {
            answer = error.to_string();
            false
        }
    };
    assert!(wait_until(SERVED_WITHIN, answered), "aggregated API: {answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["kind"], "AnswerList");
    // Agents have asked, and not the API server by itself.
    let nodes = nodes(access);
    let askers: Vec<IpAddr> = stage.hook.askers("/hook");
    assert!(!askers.is_empty() && askers.iter().all(|ip| nodes.contains(ip)), "{askers:?}");
    assert!(stage.hook.askers(&path).iter().any(|ip| nodes.contains(ip)));
}

/// A `kubectl port-forward` that runs.
struct Forward {
    kubectl: std::process::Child,
    port: testkit::Port,
}

impl Forward {
    fn start(stage: &Stage, access: &Access) -> Self {
        let port = testkit::Port::reserve();
        let ports = format!("{port}:{}", stage::ECHO_PORT);
        let pod = format!("pod/{}", stage.pod());
        let kubectl = access
            .command()
            .args(["-n", stage.namespace.name(), "port-forward", &pod, &ports])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let forward = Self { kubectl, port };
        assert!(wait_until(SERVED_WITHIN, || forward.serves()), "port-forward");
        forward
    }

    fn serves(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.port.address()) else { return false };
        let asked = b"GET / HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n";
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        stream.write_all(asked).is_ok()
            && std::io::Read::read_to_string(&mut stream, &mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Logs asked for again and again, on connections that the API server keeps as it likes.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<std::sync::atomic::AtomicUsize>,
    asking: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(stage: &Stage, access: &Access) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (namespace, pod) = (stage.namespace.name(), stage.pod());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log");
        let (access, stopped, counted) = (access.clone(), stop.clone(), done.clone());
        let asking = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match access.kubectl(&["get", "--raw", &path], None) {
                    Ok(_) => _ = counted.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            failed
        });
        Self { stop, done, asking }
    }

    /// Some more requests are answered.
    fn goes_on(&self) {
        let enough = self.done.load(Ordering::Relaxed) + 5;
        assert!(wait_until(PODS_WITHIN, || self.done.load(Ordering::Relaxed) >= enough));
    }

    /// What went wrong.
    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }
}

impl Beside {
    /// A metric of its health port; 0 while there is none.
    fn metric(&self, name: &str) -> f64 {
        let page = client::get(self.health(), "localhost", "/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}
