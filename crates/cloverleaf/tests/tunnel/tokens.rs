//! Agents that show a service account's token, checked by a real API server.

use std::net::TcpListener;
use std::time::Duration;

use testkit::kubernetes::{Access, Binaries, ControlPlane, Options};
use testkit::wait_until;

use crate::support::{Agent, Tunnel, WITHIN, echo, round_trip};

const READY: &str = "konnectivity_network_proxy_server_ready_backend_connections";

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: tunnel }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: server, namespace: tunnel }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: agent, namespace: tunnel }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: agent, namespace: default }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: other, namespace: tunnel }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: tunnel-server }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:auth-delegator' }
subjects: [{ kind: ServiceAccount, name: server, namespace: tunnel }]
";

fn token(access: &Access, account: &str, namespace: &str, audience: &str) -> String {
    let audience = format!("--audience={audience}");
    let arguments = ["create", "token", account, "-n", namespace, &audience];
    access.kubectl(&arguments, None).unwrap().trim().to_owned()
}

/// A server that asks this API server, and files with tokens for its agents.
struct Stage {
    tunnel: Tunnel,
    folder: tempfile::TempDir,
}

impl Stage {
    fn set(kubeconfig: &std::path::Path, more: &[&str]) -> Self {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let flags = [
            &kubeconfig,
            "--agent-namespace=tunnel",
            "--agent-service-account=agent",
            "--authentication-audience=us",
            // Tokens instead of certificates.
            "--cluster-ca-cert=",
        ];
        let flags = [&flags[..], more].concat();
        let tunnel = Tunnel::server("http-connect", &flags);
        Self { tunnel, folder: tempfile::tempdir().unwrap() }
    }

    fn agent(&self, name: &str, token: &str, more: &[&str]) -> Agent {
        let file = self.folder.path().join(name);
        std::fs::write(&file, token).unwrap();
        let flag = format!("--service-account-token-path={}", file.display());
        self.tunnel.agent(&[&[flag.as_str()], more].concat())
    }

    fn refused(&self, reason: &str) -> f64 {
        let name = format!("cloverleaf_tunnel_refused_agents_total{{reason=\"{reason}\"}}");
        self.tunnel.metric(&name)
    }

    /// Refused with that reason, which is counted and logged with the address, and without the token.
    fn is_refused(&self, reason: &str, token: &str, (status, why): (u8, &str), more: &[&str]) {
        let before = self.refused(reason);
        let agent = self.agent("refused", token, more);
        assert!(wait_until(WITHIN, || self.refused(reason) > before), "{reason}: {why}");
        let said = format!("gRPC status {status}");
        assert!(agent.process.wait_log(&said), "{reason}: {why}");
        let log = self.tunnel.server.log();
        let line = log.lines().rev().find(|line| line.contains("an agent was refused")).unwrap();
        assert!(line.contains("127.0.0.1:") && line.contains(why), "{line}");
        for log in [&log, &agent.process.log()] {
            assert!(token.is_empty() || !log.contains(token), "{reason}: the token is in a log");
        }
        assert_eq!(self.tunnel.ready().0, 500);
    }
}

#[test]
fn only_the_service_account_that_may_is_let_in() {
    let Some(binaries) = Binaries::for_test() else { return };
    let mut control = ControlPlane::start(&binaries, &Options::default()).unwrap();
    let access = control.access().clone();
    access.apply(OBJECTS).unwrap();
    let server = access.as_service_account("tunnel", "server").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "agents: [{serviceAccount: tunnel/agent, host: [one]}]").unwrap();
    let policy = format!("--agent-policy={}", policy.display());
    let stage = Stage::set(server.kubeconfig(), &["--kubeconfig-qps=100", &policy]);

    let good = token(&access, "agent", "tunnel", "us");
    let other_audience = token(&access, "agent", "tunnel", "them");
    stage.is_refused("bad_token", &other_audience, (16, "audience"), &[]);
    for (account, namespace) in [("other", "tunnel"), ("agent", "default")] {
        let theirs = token(&access, account, namespace, "us");
        let who = format!("system:serviceaccount:{namespace}:{account}");
        stage.is_refused("other_account", &theirs, (16, &who), &[]);
    }
    // The last character has bits that say nothing.
    let (before, end) = good.split_at(good.len() - 10);
    let forged = format!("{before}{}{}", if end.starts_with('A') { 'B' } else { 'A' }, &end[1..]);
    for garbage in ["garbage", "e30.e30.e30", &forged] {
        stage.is_refused("bad_token", garbage, (16, "the token is not accepted"), &[]);
    }
    stage.is_refused("no_token", "", (16, "authorization"), &[]);
    let liar = &["--agent-identifiers=host=two"];
    stage.is_refused("not_allowed", &good, (7, "host=\\\"two"), liar);
    // One that was deleted since the token was made, as with a pod that is gone.
    access.kubectl(&["delete", "serviceaccount", "agent", "-n", "tunnel"], None).unwrap();
    access.kubectl(&["create", "serviceaccount", "agent", "-n", "tunnel"], None).unwrap();
    let revoked = || {
        let before = stage.refused("bad_token");
        let _agent = stage.agent("revoked", &good, &[]);
        wait_until(Duration::from_secs(3), || stage.refused("bad_token") > before)
    };
    assert!(wait_until(WITHIN, revoked), "a token of an account that is gone is taken");

    let good = token(&access, "agent", "tunnel", "us");
    let waiting = token(&access, "agent", "tunnel", "us");
    assert!(good != waiting);
    let agent = stage.agent("good", &good, &["--agent-identifiers=host=one"]);
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 1.0));
    let echo = echo();
    let mut open = stage.tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    // Without an API server nobody else comes in, and those that are in go on.
    control.stop_api_server().unwrap();
    let second = stage.agent("second", &waiting, &[]);
    assert!(wait_until(WITHIN, || stage.refused("unchecked") > 0.0));
    assert!(second.process.wait_log("gRPC status 14"));
    round_trip(&mut open).unwrap();
    round_trip(&mut stage.tunnel.connected(echo)).unwrap();
    control.start_api_server().unwrap();
    assert!(wait_until(WITHIN, || stage.tunnel.metric(READY) == 2.0));
    drop((agent, second));
}

#[test]
fn an_api_server_that_does_not_answer_holds_nobody_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{ name: c, cluster: {{ server: 'https://{}', insecure-skip-tls-verify: true }} }}]
users: [{{ name: u, user: {{ token: t }} }}]
contexts: [{{ name: x, context: {{ cluster: c, user: u }} }}]
current-context: x
",
        silent.local_addr().unwrap()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let stage = Stage::set(&kubeconfig, &[]);
    let _agents: Vec<_> =
        (0..8).map(|n| stage.agent(&format!("agent{n}"), &format!("t{n}"), &[])).collect();
    assert!(wait_until(WITHIN, || stage.refused("unchecked") >= 8.0));
    // It ends at once all the same.
    let mut stage = stage;
    stage.tunnel.server.signal("TERM");
    assert_eq!(stage.tunnel.server.wait_exit(), Some(0));
}
