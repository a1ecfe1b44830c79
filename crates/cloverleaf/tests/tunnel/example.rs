//! `examples/tunnel` as it stands: one command, two clusters that nobody gets into, and what it prints.

use std::process::Command;

use testkit::Network;

#[test]
fn the_example_reaches_both_clusters_and_bears_the_loss_of_one() {
    // Not for its network, but for whether this user may make any.
    let Some(_network) = Network::new(1) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tunnel/run.sh");
    let run = Command::new("sh")
        .args([script, env!("CARGO_BIN_EXE_cloverleaf"), "once"])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let (said, problems) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}\n{problems}");
    let mut parts = said.split("\n\n").map(|part| {
        let of = |address: &str| part.matches(&format!("\"{address}:80\"")).count();
        (of("10.96.0.1"), of("10.96.0.2"))
    });
    for expected in [(0, 0), (2, 2), (1, 1), (4, 0), (1, 1)] {
        assert_eq!(parts.next(), Some(expected), "{said}\n{problems}");
    }
    assert!(problems.contains("10.96.0.1"), "the service could be reached: {problems}");
}
