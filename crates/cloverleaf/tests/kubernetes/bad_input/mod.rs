//! What tenants get wrong, on a real API server: each broken object hears of it by an Event, the operator by a
//! line in the log, and the neighbours are served all the while. What each mistake comes to in detail is held by
//! the tests of the translation. Start with [`Neighbours`].

mod annotations;
mod ingresses;

use std::time::Duration;

use serde_json::Value;
use testkit::client::Failure;
use testkit::kubernetes::{Access, Namespace};
use testkit::{Cloverleaf, Load, Port, Target, Work, wait_until};

use crate::support::{SOON, Server, gateway_at, ingress, own_class, pod, service};

/// Every so often each neighbour is asked.
const ASKED_EVERY: Duration = Duration::from_millis(10);
/// Events are sent at a bounded pace once the first hundred are out.
const ALL_SAID_WITHIN: Duration = Duration::from_secs(60);

/// Something broken: the object that hears of it, the reason, a part of the message, and what a request for a
/// host and path comes to.
struct Broken {
    object: String,
    reason: &'static str,
    says: &'static str,
    asked: Option<(String, &'static str, Answer)>,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Status(u16),
    /// Closed without a word.
    Nothing,
}

/// A gateway for one class and one label, and those that are served by it: an Ingress, and with the source of Pods
/// an annotated Pod.
struct Neighbours {
    gateway: Cloverleaf,
    https: Port,
    load: Vec<Load>,
    label: String,
    class: String,
    _servers: [Server; 2],
    /// Its name is the class and the label's value.
    _namespace: Namespace,
}

impl Neighbours {
    fn start(access: &Access, name: &str, sources: &[&str]) -> Self {
        let namespace = access.namespace(name).unwrap();
        own_class(&namespace);
        let class = namespace.name().to_owned();
        let label = format!("test.cloverleaf/routable={class}");
        let web = service(&namespace, "web", "from the Ingress");
        let spec = ingress("web", "ingress.test", "/", "web");
        namespace.apply(&of_class(&spec, &class)).unwrap();
        let app = Server::start("from the Pod");
        routable(access, &namespace, &label, r#"{"pod.test": {}}"#);
        pod(
            &namespace,
            &label,
            "app",
            r#"[{"basePath": "/", "containerPort": "PORT"}]"#,
            app.address(),
        );
        let https = Port::reserve();
        let gateway = gateway_at(access, &https)
            .arg(format!("--kubernetes-sources={}", sources.join(",")))
            .arg(format!("--controller-name=test/{class}"))
            .arg("--publish-address=192.0.2.5")
            .env("POD_NAMESPACE", &class)
            .env("ROUTABLE_LABEL_SELECTOR", &label)
            .start();
        let load = sources.iter().map(|source| {
            let host = if *source == "ingress" { "ingress.test" } else { "pod.test" };
            let target = Target { address: gateway.address(), host: host.to_owned() };
            Load::start(host, &target, 1, Work::Get(ASKED_EVERY))
        });
        let load = load.collect();
        Self { gateway, https, load, label, class, _servers: [web, app], _namespace: namespace }
    }

    /// Waits until each has been said: by an Event on its object and a line in the log.
    fn all_are_said(&self, access: &Access, all: &[Broken]) {
        let mut missing = Vec::new();
        let said = wait_until(ALL_SAID_WITHIN, || {
            let (events, log) = (events(access), self.gateway.stderr());
            let lacks = |broken: &&Broken| !broken.has_event(&events) || !broken.is_logged(&log);
            missing = all.iter().filter(lacks).map(Broken::to_string).collect();
            missing.is_empty()
        });
        assert!(said, "not said: {missing:#?}\n{:#?}\n{}", events(access), self.gateway.stderr());
    }

    /// What a request on a connection of its own comes to.
    fn answer(&self, host: &str, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        match self.gateway.connect().request(request) {
            Ok(response) => Answer::Status(response.status),
            Err(Failure::Closed) => Answer::Nothing,
            Err(failure) => panic!("{host}{path}: {failure}"),
        }
    }

    fn all_answer(&self, all: &[Broken]) {
        for (host, path, answer) in all.iter().filter_map(|broken| broken.asked.as_ref()) {
            assert_eq!(self.answer(host, path), *answer, "{host}{path}");
        }
    }

    /// Everything broken is gone, and nothing is left of it.
    fn all_is_mended(&self) {
        let problems = "cloverleaf_kubernetes_problems";
        let mended = wait_until(SOON, || self.gateway.metric(problems) == Some(0.0));
        assert!(mended, "{}", self.gateway.admin_get("/state").1);
        assert!(self.gateway.stderr().contains("\"mended: "));
    }

    /// From beginning to end.
    fn were_served(self) {
        for load in self.load {
            let report = load.stop();
            eprintln!("{report}");
            assert!(report.failed == 0 && report.done > 0, "{report}");
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.object, self.reason, self.says)
    }
}

impl Broken {
    fn has_event(&self, events: &[Value]) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events.iter().any(|event| {
            let about = &event["regarding"];
            let namespace = about["namespace"].as_str().map(|n| format!("{n}/"));
            let (kind, name) = (text(&about["kind"]), text(&about["name"]));
            format!("{kind} {}{name}", namespace.unwrap_or_default()) == self.object
                && event["reason"] == self.reason
                && event["type"] == "Warning"
                && text(&event["note"]).contains(self.says)
        })
    }

    fn is_logged(&self, log: &str) -> bool {
        let object = format!("\"object\":\"{}\"", self.object);
        let reason = format!("\"reason\":\"{}\"", self.reason);
        log.lines().any(|line| {
            line.contains("\"WARN\"") && line.contains(&object) && line.contains(&reason)
        })
    }
}

fn events(access: &Access) -> Vec<Value> {
    let all = access.get(&["events.events.k8s.io", "-A"]).unwrap();
    all["items"].as_array().cloned().unwrap_or_default()
}

fn of_class(ingress: &str, class: &str) -> String {
    ingress.replace("ingressClassName: cloverleaf", &format!("ingressClassName: {class}"))
}

/// Makes a namespace routable, with these hosts, and able to have Pods.
fn routable(access: &Access, namespace: &Namespace, label: &str, hosts: &str) {
    let name = namespace.name();
    // Made by the controller manager elsewhere; there is none here.
    namespace.kubectl(&["create", "serviceaccount", "default"], None).unwrap();
    let annotation = format!("github.com/30x.dispatcher.hosts={hosts}");
    access.kubectl(&["annotate", "namespace", name, &annotation], None).unwrap();
    access.kubectl(&["label", "namespace", name, label], None).unwrap();
}
