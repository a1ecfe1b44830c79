//! The controller beside a gateway: the seed's sidecar pattern, over a file.

use std::process::{Command, Stdio};

use testkit::{Cloverleaf, Gateway, Port, wait_until};

use crate::support::{BINARY, SOON, control, expect_answer, ingress, service};

/// Ends with the test.
struct Controller(std::process::Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gateway_beside_it_serves_what_it_writes() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("sidecar").unwrap();
    let _one = service(&namespace, "one", "from one");
    let _two = service(&namespace, "two", "from two");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let gateway = Gateway::new(BINARY, "").without_file().arg("--wait-for-config");
    let file = gateway.dir().join("config.yaml");
    let admin = Port::reserve();
    let mut command = Command::new(BINARY);
    command
        .args(["controller", "--read-only"])
        .arg(format!("--kubeconfig={}", control.kubeconfig().display()))
        .arg(format!("--watch-namespace={}", namespace.name()))
        .arg(format!("--admin-address={}", admin.address()))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CONF_FILE", &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let controller = Controller(command.spawn().unwrap());
    let gateway: Cloverleaf = gateway.start();
    expect_answer(&gateway, "web.test", "/x", (200, "from one"));
    namespace.apply(&ingress("api", "web.test", "/api", "two")).unwrap();
    expect_answer(&gateway, "web.test", "/api", (200, "from two"));
    let ready = || testkit::client::get(admin.address(), "127.0.0.1", "/readyz").status == 200;
    assert!(wait_until(SOON, ready));
    // The gateway does not need it to go on.
    drop(controller);
    assert_eq!(gateway.get("web.test", "/").text(), "from one");
}
