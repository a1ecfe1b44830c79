//! The API server goes away and comes back; what was served goes on.

use std::time::Duration;

use testkit::kubernetes::Namespace;

use crate::support::{
    CLASS, SOON, control, expect_answer, gateway, ingress, own_control, reader, service,
};

/// More than one page of a list holds.
const MANY: u32 = 600;
/// By so much the first changes are earlier than a start.
const EARLIER: Duration = Duration::from_millis(200);

#[test]
fn nothing_is_lost_while_the_api_server_is_gone() {
    const AWAY: Duration = Duration::from_secs(5);
    let Some(mut control) = own_control() else { return };
    control.access().apply(CLASS).unwrap();
    let namespace = control.access().namespace("gone").unwrap();
    let _one = service(&namespace, "one", "from one");
    let _two = service(&namespace, "two", "from two");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let gateway = reader(control.access(), namespace.name());
    control.stop_api_server().unwrap();
    gateway.expect_stderr("API server lost", SOON);
    let begun = std::time::Instant::now();
    while begun.elapsed() < AWAY {
        assert_eq!(gateway.get("web.test", "/").text(), "from one");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.metric("cloverleaf_kubernetes_connected"), Some(0.0));
    assert_eq!(gateway.admin_get("/readyz").0, 200, "it serves");
    control.start_api_server().unwrap();
    namespace.apply(&ingress("more", "more.test", "/", "two")).unwrap();
    expect_answer(&gateway, "more.test", "/", (200, "from two"));
    gateway.expect_stderr("API server back", SOON);
    assert_eq!(gateway.metric("cloverleaf_kubernetes_connected"), Some(1.0));
    let said = gateway.stderr().matches("API server lost").count();
    assert_eq!(said, 1, "one line for an outage: {}", gateway.stderr());
}

#[test]
fn a_start_without_the_api_server_serves_the_state_on_disk() {
    let Some(mut control) = own_control() else { return };
    control.access().apply(CLASS).unwrap();
    let namespace = control.access().namespace("state").unwrap();
    let _one = service(&namespace, "one", "from one");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let start = || {
        gateway(control.access())
            .arg("--read-only")
            .arg(format!("--watch-namespace={}", namespace.name()))
            .arg(format!("--kubernetes-state={}", state.display()))
    };
    let mut first = start().start();
    first.interrupt();
    assert_eq!(first.wait_exit(SOON), Some(0));
    assert!(std::fs::read_to_string(&state).unwrap().contains("web.test"), "saved at the end");
    let (again, damaged) = (start(), start());
    control.stop_api_server().unwrap();
    let again = again.start();
    assert_eq!(again.get("web.test", "/").text(), "from one");
    assert_eq!(again.metric("cloverleaf_kubernetes_from_state"), Some(1.0));
    control.start_api_server().unwrap();
    // What has changed since is found out.
    namespace.kubectl(&["delete", "ingress", "web"], None).unwrap();
    expect_answer(&again, "web.test", "/", (404, ""));
    assert_eq!(again.metric("cloverleaf_kubernetes_from_state"), Some(0.0));
    drop(again);
    // A damaged state is said and does no harm.
    std::fs::write(&state, "{").unwrap();
    control.stop_api_server().unwrap();
    let damaged = damaged.start_unready();
    damaged.expect_stderr("is not a state of this version", SOON);
    let (status, reasons) = damaged.admin_get("/readyz");
    assert!(status == 503 && reasons.contains("Ingress objects"), "{status} {reasons}");
    namespace_and_start(&mut control, &damaged);
}

fn namespace_and_start(
    control: &mut testkit::kubernetes::ControlPlane,
    waiting: &testkit::Cloverleaf,
) {
    control.start_api_server().unwrap();
    let ready = testkit::wait_until(SOON, || waiting.admin_get("/readyz").0 == 200);
    assert!(ready, "not ready though the API server is back");
}

/// More Ingresses than one page of a list holds, `h0.test` and on, all of which lead nowhere.
fn many(namespace: &Namespace) {
    let one = |number| ingress(&format!("i{number}"), &format!("h{number}.test"), "/", "nobody");
    let manifests: Vec<String> = (0..MANY).map(one).collect();
    namespace.apply(&manifests.join("---\n")).unwrap();
}

/// Some of them gone when the API server is back.
#[test]
fn what_vanished_meanwhile_is_noticed() {
    let Some(control) = own_control() else { return };
    control.access().apply(CLASS).unwrap();
    let namespace = control.access().namespace("many").unwrap();
    many(&namespace);
    let gateway = reader(control.access(), namespace.name());
    let objects = "cloverleaf_kubernetes_objects{kind=\"Ingress\"}";
    assert_eq!(gateway.metric(objects), Some(f64::from(MANY)));
    assert_eq!(gateway.get("h599.test", "/").status, 503);
    namespace.kubectl(&["delete", "ingress", "--all", "--wait=false"], None).unwrap();
    expect_answer(&gateway, "h599.test", "/", (404, ""));
    assert_eq!(gateway.get("h0.test", "/").status, 404);
}

/// Neither while it lists, nor between the list and the watch, nor right behind.
#[test]
fn no_change_is_missed_while_it_starts() {
    const STARTS: u32 = 4;
    const CHANGES: u32 = 12;
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("starting").unwrap();
    many(&namespace);
    for start in 0..STARTS {
        let moved = |change: u32| {
            (
                format!("i{}", start * CHANGES + change),
                format!("h{}.test", start * CHANGES + change),
            )
        };
        let patch =
            r#"[{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "/moved"}]"#;
        let change = |change: u32| {
            let arguments = ["patch", "ingress", &moved(change).0, "--type=json", "-p", patch];
            namespace.kubectl(&arguments, None).unwrap();
        };
        let gateway = std::thread::scope(|scope| {
            // Some before, some during, some after.
            let changes = scope.spawn(|| (0..CHANGES).for_each(change));
            std::thread::sleep(EARLIER);
            let gateway = reader(control.access(), namespace.name());
            changes.join().unwrap();
            gateway
        });
        for change in 0..CHANGES {
            expect_answer(&gateway, &moved(change).1, "/", (404, ""));
            expect_answer(&gateway, &moved(change).1, "/moved", (503, ""));
        }
        assert_eq!(gateway.get("h599.test", "/").status, 503);
    }
}
