//! Cloverleaf as a peer: one worker, no admin port, hosts as rules.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::Plan;

const FILE: &str = "cloverleaf.yaml";

/// Where the file lies in a proxy's folder.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    let file = plan.write(FILE, &file(plan.port, plan.upstream, plan.certificate, plan.hosts))?;
    command.arg("gateway").arg("-c").arg(file).args(["--workers", "1", "--admin-address", "off"]);
    Ok(())
}

/// One listener and one upstream, and a rule for each host or one for all.
pub(crate) fn file(
    port: u16,
    upstream: u16,
    certificate: Option<&Path>,
    hosts: &[String],
) -> String {
    let mut text = format!("listeners:\n  - name: front\n    address: 127.0.0.1:{port}\n");
    if let Some(folder) = certificate {
        let folder = folder.display();
        let _ = write!(
            text,
            "    tls:
      minVersion: \"1.3\"
      certificates:
        - {{ certificate: {folder}/cert.pem, key: {folder}/key.pem }}
"
        );
    }
    let _ = write!(
        text,
        "upstreams:
  - name: backend
    host: 127.0.0.1
    port: {upstream}
timeouts: {{ idle: 5m }}
shutdown: {{ grace: 0s, drain: 1s }}
rules:
"
    );
    for host in hosts {
        let _ = writeln!(text, "  - {{ host: {host}, path: /, upstream: backend }}");
    }
    if hosts.is_empty() {
        text.push_str("  - { path: /, upstream: backend }\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use config::Overrides;

    use super::*;

    #[test]
    fn the_file_is_what_the_gateway_takes() {
        let hosts = [crate::bench::case::rule_host(0), crate::bench::case::rule_host(1)];
        for hosts in [&hosts[..], &[]] {
            let text = file(8080, 9090, None, hosts);
            let folder = Path::new("");
            let (config, found) = config::parse(&text, FILE, folder, &Overrides::default());
            assert!(config.is_some() && found.0.is_empty(), "{text}\n{found:?}");
        }
    }
}
