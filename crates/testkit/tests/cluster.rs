//! The Kubernetes for tests, itself tested: control planes of one's own, and the machine's cluster with
//! nodes, DNS and Services.
//!
//! What needs the programs of a cluster, or root, is left out where they are missing, and says so; with
//! `CI=true` it fails.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cloverleaf_testkit as testkit;
use testkit::client::get;
use testkit::kubernetes::{
    Access, Binaries, CLOVERLEAF_IMAGE, Cluster, ControlPlane, Image, Namespace, Options,
    TOOLS_IMAGE,
};
use testkit::wait_until;

const CONTROL_PLANE_WITHIN: Duration = Duration::from_secs(10);
/// From an applied Deployment to pods that are ready; it takes about two seconds.
const PODS_WITHIN: Duration = Duration::from_secs(60);
/// From a ready pod to a rule in kube-proxy.
const SERVICE_WITHIN: Duration = Duration::from_secs(20);
/// The port of the echo in the manifests here.
const ECHO_PORT: u16 = 8000;

fn control_plane(options: &Options) -> Option<ControlPlane> {
    let binaries = Binaries::for_test()?;
    let start = Instant::now();
    let control = ControlPlane::start(&binaries, options).unwrap();
    let took = start.elapsed();
    eprintln!("control plane: {took:.1?}, {} MiB", control.memory_bytes() >> 20);
    assert!(took < CONTROL_PLANE_WITHIN, "{took:?}");
    Some(control)
}

#[test]
fn two_control_planes_stand_side_by_side() {
    let Some(first) = control_plane(&Options::default()) else { return };
    let second = control_plane(&Options::default()).unwrap();
    first.kubectl(&["create", "configmap", "only-here"], None).unwrap();
    let missing = second.kubectl(&["get", "configmap", "only-here"], None).unwrap_err();
    assert!(missing.to_string().contains("NotFound"), "{missing}");
    let address = first.address();
    drop(first);
    assert!(TcpStream::connect(address).is_err(), "a dropped one is gone");
    assert!(second.access().ready());
}

#[test]
fn an_api_server_comes_back_with_its_objects() {
    let Some(mut control) = control_plane(&Options::default()) else { return };
    control
        .access()
        .apply(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#)
        .unwrap();
    let address = control.address();
    control.stop_api_server().unwrap();
    assert!(TcpStream::connect(address).is_err());
    let gone = control.kubectl(&["get", "configmap", "a"], None).unwrap_err();
    assert!(gone.to_string().contains("refused"), "{gone}");
    control.start_api_server().unwrap();
    assert_eq!(control.address(), address);
    control.kubectl(&["get", "configmap", "a"], None).unwrap();
}

fn refused(who: &Access, arguments: &[&str]) {
    let error = who.kubectl(arguments, None).unwrap_err();
    assert!(error.to_string().contains("Forbidden"), "{error}");
}

#[test]
fn others_have_the_rights_that_they_are_given_and_no_more() {
    let Some(control) = control_plane(&Options::default()) else { return };
    let read = ["get", "services", "-A"];
    control.kubectl(&["create", "serviceaccount", "reader"], None).unwrap();
    let account = control.access().as_service_account("default", "reader").unwrap();
    let user = control.as_user("jane", None).unwrap();
    refused(&account, &read);
    refused(&user, &read);
    let role = ["create", "clusterrole", "reader", "--verb=get,list,watch", "--resource=services"];
    control.kubectl(&role, None).unwrap();
    for (name, subject) in [("a", "--serviceaccount=default:reader"), ("b", "--user=jane")] {
        let bind = ["create", "clusterrolebinding", name, "--clusterrole=reader", subject];
        control.kubectl(&bind, None).unwrap();
    }
    for who in [&account, &user] {
        // The authorizer hears of roles by a watch.
        let may = wait_until(CONTROL_PLANE_WITHIN, || who.kubectl(&read, None).is_ok());
        assert!(may);
        refused(who, &["get", "secrets", "-A"]);
        refused(who, &["delete", "service", "kubernetes"]);
    }
}

#[test]
fn a_controller_manager_makes_service_accounts() {
    let options = Options { controller_manager: true, scheduler: true, ..Options::default() };
    let Some(control) = control_plane(&options) else { return };
    let made = "jsonpath={.metadata.name}=default";
    control.access().wait(made, &["serviceaccount/default"], CONTROL_PLANE_WITHIN).unwrap();
}

/// The cluster, with the program's image in it.
fn cluster() -> Option<&'static Cluster> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = Instant::now();
    let cluster = Cluster::for_test()?;
    let loaded = LOADED.get_or_init(|| {
        eprintln!("cluster: {:.1?}, {} MiB", start.elapsed(), cluster.memory_bytes() >> 20);
        let start = Instant::now();
        let load = || {
            cluster.load_image(&Image::cloverleaf(&program())?)?;
            cluster.load_image(&Image::tools()?)
        };
        load().map_err(|error| format!("{error}"))?;
        eprintln!("images: {:.1?}", start.elapsed());
        Ok(())
    });
    loaded.as_ref().unwrap();
    Some(cluster)
}

/// The development build of the program, beside this test.
fn program() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    let file = folder.ancestors().nth(2).unwrap().join("cloverleaf");
    assert!(file.is_file(), "build the program first: `cargo build -p cloverleaf`");
    file
}

fn echo(namespace: &Namespace, replicas: u32) {
    let manifest = format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: echo }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: echo }} }}
  template:
    metadata: {{ labels: {{ app: echo }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: {CLOVERLEAF_IMAGE}
          args: [echo, --listen, "0.0.0.0:{ECHO_PORT}"]
          readinessProbe: {{ httpGet: {{ path: /, port: {ECHO_PORT} }}, periodSeconds: 1 }}
          securityContext: {{ readOnlyRootFilesystem: true, runAsNonRoot: true }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{ matchLabels: {{ app: echo }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: echo }}
spec:
  selector: {{ app: echo }}
  ports: [{{ port: 80, targetPort: {ECHO_PORT} }}]
"#
    );
    namespace.apply(&manifest).unwrap();
    let start = Instant::now();
    namespace.wait("condition=Available", &["deployment/echo"], PODS_WITHIN).unwrap();
    eprintln!("{replicas} pods: {:.1?}", start.elapsed());
}

fn address(text: &serde_json::Value) -> IpAddr {
    text.as_str().unwrap().parse().unwrap()
}

#[test]
fn nodes_are_ready() {
    let Some(cluster) = cluster() else { return };
    let nodes = cluster.access().get(&["nodes"]).unwrap();
    let nodes = nodes["items"].as_array().unwrap();
    assert!(!nodes.is_empty());
    for node in nodes {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "True", "{ready}");
    }
}

#[test]
fn pods_and_services_answer() {
    let Some(cluster) = cluster() else { return };
    let namespace = cluster.namespace("answer").unwrap();
    echo(&namespace, 2);
    if !cluster.is_reachable() {
        return;
    }
    let pods = namespace.get(&["pods", "-l", "app=echo"]).unwrap();
    let pods = pods["items"].as_array().unwrap();
    let mut nodes: Vec<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    if cluster.is_ours() {
        assert_eq!(nodes, [Some("node1"), Some("node2")]);
    }
    for pod in pods {
        let answer =
            get(SocketAddr::new(address(&pod["status"]["podIP"]), ECHO_PORT), "a.test", "/pod");
        assert_eq!(answer.status, 200);
    }
    let service = namespace.get(&["service", "echo"]).unwrap();
    let service = SocketAddr::new(address(&service["spec"]["clusterIP"]), 80);
    assert!(wait_until(SERVICE_WITHIN, || TcpStream::connect(service).is_ok()));
    assert_eq!(get(service, "a.test", "/service").status, 200);
}

#[test]
fn names_of_services_are_known_in_pods() {
    let Some(cluster) = cluster() else { return };
    let namespace = cluster.namespace("names").unwrap();
    echo(&namespace, 1);
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: shell }}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{ name: shell, image: "{TOOLS_IMAGE}", command: [sleep, "600"] }}]
"#
    );
    namespace.apply(&pod).unwrap();
    namespace.wait("condition=Ready", &["pod/shell"], PODS_WITHIN).unwrap();
    let name = format!("echo.{}.svc.cluster.local", namespace.name());
    let answer = namespace.kubectl(&["exec", "shell", "--", "nslookup", &name], None).unwrap();
    let service = namespace.get(&["service", "echo"]).unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    assert!(answer.contains(address), "{answer}");
    // And the Service answers there. This nc goes away at the end of its input.
    let request = format!(
        "(printf 'GET /n HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n'; sleep 1) | nc -w 5 {address} 80"
    );
    let answer = namespace.kubectl(&["exec", "shell", "--", "sh", "-c", &request], None).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}
