//! Parts of the cluster that go away and come back. A test program of its own: nobody else can use the
//! cluster at that time.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cloverleaf_testkit as testkit;
use testkit::client::get;
use testkit::kubernetes::{CLOVERLEAF_IMAGE, Cluster, Image, Namespace};
use testkit::wait_until;

/// From an applied pod to one that is ready.
const POD_WITHIN: Duration = Duration::from_secs(60);
/// From a node's start to its pods running again, the kubelet's backing off included.
const BACK_WITHIN: Duration = Duration::from_secs(90);
const CONNECTED_WITHIN: Duration = Duration::from_millis(500);
const ECHO_PORT: u16 = 8000;

/// Where the echo is; `None` while it has no address.
fn place(namespace: &Namespace) -> Option<SocketAddr> {
    let pod = namespace.get(&["pod", "echo"]).ok()?;
    let ip = pod["status"]["podIP"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, ECHO_PORT))
}

fn answers(place: SocketAddr) -> bool {
    TcpStream::connect_timeout(&place, CONNECTED_WITHIN).is_ok()
        && get(place, "a.test", "/").status == 200
}

#[test]
fn what_goes_away_comes_back() {
    let Some(cluster) = Cluster::for_test().filter(|cluster| cluster.is_ours()) else { return };
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("cloverleaf");
    assert!(program.is_file(), "build the program first: `cargo build -p cloverleaf`");
    cluster.load_image(&Image::cloverleaf(&program).unwrap()).unwrap();
    let namespace = cluster.namespace("outage").unwrap();
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: echo }}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers:
    - name: echo
      image: {CLOVERLEAF_IMAGE}
      args: [echo, --listen, "0.0.0.0:{ECHO_PORT}"]
"#
    );
    namespace.apply(&pod).unwrap();
    namespace.wait("condition=Ready", &["pod/echo"], POD_WITHIN).unwrap();
    let before = place(&namespace).unwrap();
    assert!(answers(before));

    cluster.stop_api_server().unwrap();
    assert!(!cluster.access().ready());
    assert!(answers(before), "pods need no API server");
    cluster.start_api_server().unwrap();
    assert_eq!(place(&namespace), Some(before));

    cluster.stop_node(2).unwrap();
    assert!(!answers(before));
    cluster.start_node(2).unwrap();
    let back = wait_until(BACK_WITHIN, || place(&namespace).is_some_and(answers));
    assert!(back, "{:?}", namespace.kubectl(&["describe", "pod", "echo"], None));
    assert!(cluster.stop_node(9).is_err());
}
