//! The controller beside a gateway: the seed's sidecar pattern, over a file; and what it would write, without a
//! cluster.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::kubernetes::Namespace;
use testkit::{Cloverleaf, Gateway, Port, wait_until};

use crate::support::{BINARY, SOON, command, control, expect_answer, ingress, service};

/// Ends with the test.
struct Controller(std::process::Child);

impl Controller {
    /// Writes a file; how it is told which is an argument or a variable.
    fn start(namespace: &Namespace, admin: &Port, told: impl FnOnce(&mut Command)) -> Option<Self> {
        let mut command = Command::new(BINARY);
        command
            .args(["controller", "--read-only"])
            .arg(format!("--kubeconfig={}", control()?.kubeconfig().display()))
            .arg(format!("--watch-namespace={}", namespace.name()))
            .arg(format!("--admin-address={}", admin.address()))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        told(&mut command);
        Some(Self(command.spawn().unwrap()))
    }
}

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
    let Some(controller) = Controller::start(&namespace, &admin, |command| {
        command.env("CONF_FILE", &file);
    }) else {
        return;
    };
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

/// Whoever reads the file, whenever that is, reads one that is whole.
#[test]
fn the_file_is_never_half_written() {
    const CHANGES: usize = 5;
    const PATHS: usize = 500;
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("written").unwrap();
    let _one = service(&namespace, "one", "from one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written.yaml");
    let admin = Port::reserve();
    let controller = Controller::start(&namespace, &admin, |command| {
        command.arg(format!("--write={}", file.display()));
    });
    let many = |change: usize| {
        let paths: Vec<String> = (0..PATHS).map(|n| format!("/{change}/{n}")).collect();
        let manifest = ingress("many", "many.test", "PATH", "one");
        let (head, path) = manifest.split_once("      - ").unwrap();
        let paths = paths.iter().map(|p| format!("      - {}", path.replace("PATH", p)));
        namespace.apply(&format!("{head}{}", paths.collect::<String>())).unwrap();
    };
    let last = format!("/{}/{}", CHANGES - 1, PATHS - 1);
    let looks = std::thread::scope(|scope| {
        let changes = scope.spawn(|| (0..CHANGES).for_each(many));
        let mut looks = 0;
        let came = wait_until(SOON * 2, || {
            let Ok(text) = std::fs::read_to_string(&file) else { return false };
            looks += 1;
            let copy = folder.path().join("read.yaml");
            std::fs::write(&copy, &text).unwrap();
            let (code, said) = command(&["check", copy.to_str().unwrap()]);
            assert_eq!(code, Some(0), "{said}\n{text}");
            let whole = (0..CHANGES).any(|change| {
                let path = |n| text.contains(&format!("/{change}/{n}\n"));
                path(0) && path(PATHS - 1)
            });
            assert!(whole || !text.contains("many.test"), "{text}");
            text.contains(&last)
        });
        changes.join().unwrap();
        assert!(came, "{:?}", std::fs::read_to_string(&file));
        looks
    });
    eprintln!("{looks} looks");
    drop(controller);
}

/// The examples of the dispatcher and an Ingress, from manifests on disk.
#[test]
fn the_dry_run_shows_what_manifests_come_to() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dispatcher");
    let folder = |name: &str| examples.join(name).display().to_string();
    for (name, hosts) in [
        ("one-pod", &["test.k8s.local"][..]),
        ("several-pods", &["shop.k8s.local"]),
        ("paths-and-hosts", &["jeremy-test.example.net", "thoughtspark.example.org"]),
        ("tls", &["plain.dev"]),
    ] {
        let (code, said) =
            command(&["controller", "--dry-run", "--kubernetes-sources", "pods", &folder(name)]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(hosts.iter().all(|host| said.contains(host)), "{name}: {said}");
        // Its Secret is not among the manifests.
        assert_eq!(said.contains("MissingSecret"), name == "tls", "{said}");
        assert!(!said.contains("supersecret"), "{said}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ingress("web", "web.test", "/", "nobody") + "---\n{\n").unwrap();
    let (code, said) = command(&["controller", "--dry-run", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(file.path().to_str().unwrap()), "{said}");
}
