//! What agents may claim, where a policy says so.

use std::path::PathBuf;

use testkit::certs::Wanted;
use testkit::wait_until;

use crate::support::{Agent, Tunnel, WITHIN, echo, round_trip};

const REFUSED: &str = "cloverleaf_tunnel_refused_agents_total{reason=\"not_allowed\"}";
const READY: &str = "konnectivity_network_proxy_server_ready_backend_connections";

const POLICY: &str = "
agents:
  - commonName: one
    agentIds: [one]
    host: [localhost, '*.one']
  - dnsName: two
    host: [two]
    defaultRoute: true
";

struct Stage {
    tunnel: Tunnel,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, POLICY).unwrap();
        let flag = format!("--agent-policy={}", file.display());
        let strategies = "--proxy-strategies=destHost,defaultRoute";
        let tunnel = Tunnel::server("http-connect", &[&flag, strategies]);
        Self { tunnel, file, _folder: folder }
    }

    fn agent(&self, wanted: &Wanted, flags: &[&str]) -> Agent {
        self.tunnel.agent_showing(&self.tunnel.authority.issue(wanted), flags)
    }

    /// An agent that calls itself so is refused, is told so, and why is logged.
    fn is_refused(&self, wanted: &Wanted, flags: &[&str], why: &str) {
        let before = self.tunnel.metric(REFUSED);
        let agent = self.agent(wanted, flags);
        assert!(wait_until(WITHIN, || self.tunnel.metric(REFUSED) > before), "{flags:?}");
        assert!(agent.process.wait_log("gRPC status 7"), "{flags:?}");
        let log = self.tunnel.server.log();
        let line = log.lines().rev().find(|line| line.contains("an agent was refused")).unwrap();
        assert!(line.contains("127.0.0.1:") && line.contains(why), "{flags:?}: {line}");
        // What others may do is not told.
        assert!(!agent.process.log().contains(why), "{flags:?}");
    }

    fn replace(&self, policy: &str) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, policy).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }
}

#[test]
fn an_agent_that_lies_about_its_identifiers_is_refused() {
    let stage = Stage::set();
    let one = Wanted::client("agent").common_name("one");
    for (flags, why) in [
        (&["--agent-id=one", "--agent-identifiers=host=two"][..], "two"),
        (&["--agent-id=one", "--agent-identifiers=host=localhost&host=two"], "two"),
        (&["--agent-id=one", "--agent-identifiers=ipv4=two"], "ipv4"),
        (&["--agent-id=one", "--agent-identifiers=default-route=true"], "default-route"),
        (&["--agent-id=two", "--agent-identifiers=host=localhost"], "call itself"),
    ] {
        stage.is_refused(&one, flags, why);
    }
    stage.is_refused(
        &Wanted::client("agent").common_name("three"),
        &["--agent-id=one"],
        "no rule means this agent",
    );
    assert_eq!(
        stage.tunnel.metric(
            "konnectivity_network_proxy_server_ready_backends{proxy_strategy=\"destHost\"}"
        ),
        0.0
    );
    let good =
        stage.agent(&one, &["--agent-id=one", "--agent-identifiers=host=localhost&host=eu.one"]);
    let two = Wanted::peer(&["two"]);
    let route = stage.agent(&two, &["--agent-identifiers=default-route=true"]);
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 1.0));
    let default =
        "konnectivity_network_proxy_server_ready_backends{proxy_strategy=\"defaultRoute\"}";
    assert!(wait_until(WITHIN, || stage.tunnel.metric(default) == 1.0));
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    let port = echo().port();
    let mut stream = stage.tunnel.connected(format!("localhost:{port}"));
    round_trip(&mut stream).unwrap();
    assert_eq!((good.metric(open), route.metric(open)), (1.0, 0.0));
}

#[test]
fn a_new_policy_sends_agents_away_and_a_bad_one_changes_nothing() {
    let stage = Stage::set();
    let agent = stage.agent(
        &Wanted::client("agent").common_name("one"),
        &["--agent-id=one", "--agent-identifiers=host=a.one"],
    );
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 1.0));
    stage.replace("agents: [{commonName: one, hosts: [a.one]}]");
    let stays = || stage.tunnel.server.log().contains("the last good one stays");
    assert!(wait_until(WITHIN, stays));
    assert_eq!((stage.tunnel.metric(READY), stage.tunnel.metric(REFUSED)), (1.0, 0.0));
    // What it does not touch goes on.
    stage.replace(&format!("{POLICY}  - commonName: three\n"));
    assert!(stage.tunnel.server.wait_log("a new agent policy"));
    assert_eq!((stage.tunnel.metric(READY), stage.tunnel.metric(REFUSED)), (1.0, 0.0));
    stage.replace("agents: [{commonName: one, host: [b.one]}]");
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 0.0));
    assert!(stage.tunnel.server.wait_log("sent away"));
    // It comes back as soon as it may.
    assert!(agent.process.wait_log("gRPC status 7"));
    stage.replace(POLICY);
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 1.0));
}
