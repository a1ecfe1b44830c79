//! Several replicas: all serve, one writes.

use testkit::{Cloverleaf, wait_until};

use crate::support::{SOON, control, gateway, ingress, service};

#[test]
fn one_of_two_leads_and_the_other_takes_over() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("replicas").unwrap();
    let _one = service(&namespace, "one", "from one");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let replica = |name: &str, address: &str| {
        gateway(control.access())
            .arg(format!("--watch-namespace={}", namespace.name()))
            .arg(format!("--publish-address={address}"))
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", namespace.name())
            .start()
    };
    let leads = |gateway: &Cloverleaf| gateway.metric("cloverleaf_kubernetes_leader") == Some(1.0);
    let address = || {
        let found = namespace.get(&["ingress", "web"]).unwrap();
        found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
    };
    let mut first = replica("first", "192.0.2.1");
    assert!(wait_until(SOON, || leads(&first)), "the first does not lead");
    let second = replica("second", "192.0.2.2");
    assert!(wait_until(SOON, || address().as_deref() == Some("192.0.2.1")));
    assert!(!leads(&second) && leads(&first));
    for replica in [&first, &second] {
        assert_eq!(replica.get("web.test", "/").text(), "from one");
    }
    first.terminate();
    // Given back: nobody waits for it to run out.
    assert!(wait_until(SOON, || leads(&second)), "the second does not lead");
    assert!(wait_until(SOON, || address().as_deref() == Some("192.0.2.2")));
    let lease = namespace.get(&["lease", "cloverleaf"]).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "second");
    assert_eq!(first.wait_exit(SOON * 2), Some(0));
}
