//! The role `controller`: a cluster's objects, translated for a gateway beside it, or shown.
//!
//! Wiring only; [`written`] is the file and what lies beside it.

mod written;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use admin::metrics::Family;
use admin::{Readiness, State};

use config::Config;
use kubernetes::Output;
use model::Upstream;
use serde_json::json;
use tokio::sync::watch;

use super::lifecycle::start_admin;
use super::signals::Signals;
use crate::UsageError;
use crate::cli::{self, ControllerArgs, SourceArgs};
use crate::cluster::merge::Merge;
use crate::cluster::once::compile_problems;
use crate::cluster::view::ClusterView;
use crate::cluster::{ClusterSetup, once};
use crate::commands::check::serves;
use crate::commands::explain::algorithm;
use crate::commands::{diagnostics_json, print};
use crate::source::Source;
use written::Written;

/// Writes until told to stop, or prints and ends.
pub(crate) fn run(args: ControllerArgs) -> anyhow::Result<ExitCode> {
    let source = Source::resolve(&SourceArgs::default())?;
    let setup = ClusterSetup::resolve(&args.cluster, source.overrides.tls_skip_verify)?;
    setup.warnings().iter().for_each(|warning| eprintln!("{warning}"));
    let base = setup.base(&source.overrides, None);
    if args.dry_run {
        return dry_run(&args, setup, base);
    }
    let Some(file) = args.write.clone().or_else(|| source.named_by_environment()) else {
        return Err(UsageError("expected --write FILE, CONF_FILE or --dry-run".to_owned()).into());
    };
    crate::logging::start(args.debug || source.overrides.debug);
    let source = source.with_process_flags(args.admin_address.as_deref(), None)?;
    let base = Config { admin: source.overrides.admin.unwrap_or_default(), ..base };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(args, setup, base, file))
}

/// Writes the file whenever it changes, until told to stop.
async fn follow(
    args: ControllerArgs,
    setup: ClusterSetup,
    base: Config,
    file: PathBuf,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let (cluster, options) = setup.connect(&args.report, None).await?;
    let (stop, stopped) = watch::channel(false);
    let mut objects = kubernetes::Source::start(&cluster, options);
    let view = ClusterView::new(objects.health.clone(), cluster.server());
    let provider =
        Arc::new(Provider { view, ready: AtomicBool::new(false), started: SystemTime::now() });
    start_admin(base.admin, provider.clone(), stopped)?;
    eprintln!("cloverleaf controller {}: writing {}", env!("CARGO_PKG_VERSION"), file.display());
    let mut merge = Merge::default();
    let mut writer = Written::new(file);
    loop {
        tokio::select! {
            changed = objects.output.changed() => if changed.is_err() { break },
            _ = signals.stop() => break,
        }
        let Some(output) = objects.output.borrow_and_update().clone() else { continue };
        let base = base.clone();
        let job = move || {
            let outcome = write(&base, &mut merge, &mut writer, &output);
            (merge, writer, outcome, output)
        };
        let outcome;
        let output;
        (merge, writer, outcome, output) = tokio::task::spawn_blocking(job).await?;
        if let Err(error) = &outcome {
            tracing::error!(error = format!("{error:#}"), "what was written before stays");
        } else {
            provider.ready.store(true, Ordering::Release);
        }
        provider.view.served(outcome.is_ok(), output.changed_at.elapsed(), &output);
    }
    provider.ready.store(false, Ordering::Release);
    objects.stop().await;
    stop.send_replace(true);
    Ok(ExitCode::SUCCESS)
}

/// Writes what an output comes to, if it is another than before.
fn write(
    base: &Config,
    merge: &mut Merge,
    writer: &mut Written,
    output: &Output,
) -> anyhow::Result<()> {
    let mut config = merge.apply(base, &output.translation);
    let wrong = compile_problems(&mut config, &output.translation);
    if wrong.iter().any(|problem| problem.severity == model::Severity::Error) {
        let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        anyhow::bail!("not served: {}", said.join("; "));
    }
    let routes = &output.translation;
    // Without certificates one listener does, and which one it is, the gateway's own flags say.
    let listeners = !routes.certificates.is_empty()
        || routes.default_certificate.is_some()
        || routes.rules != routes.tls_rules;
    writer.write(&config.snapshot, listeners)
}

/// A controller, for the admin port.
struct Provider {
    view: ClusterView,
    ready: AtomicBool,
    started: SystemTime,
}

impl admin::Provider for Provider {
    fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::Acquire) {
            return Readiness::Ready;
        }
        let missing = self.view.missing();
        let usual = vec!["nothing has been written yet".to_owned()];
        Readiness::NotReady(if missing.is_empty() { usual } else { missing })
    }

    fn metrics(&self) -> Vec<Family> {
        self.view.families()
    }

    fn config(&self) -> serde_json::Value {
        json!({})
    }

    fn state(&self) -> serde_json::Value {
        let unix = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ready = self.readiness();
        let state = State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_seconds: unix.as_secs(),
            uptime_seconds: self.started.elapsed().unwrap_or_default().as_secs(),
            ready: ready == Readiness::Ready,
            not_ready_reasons: match ready {
                Readiness::Ready => Vec::new(),
                Readiness::NotReady(reasons) => reasons,
            },
            kubernetes: Some(self.view.state()),
            ..State::default()
        };
        state.to_json()
    }
}

/// Prints what would be served; exit code 2 where a manifest is none.
fn dry_run(args: &ControllerArgs, setup: ClusterSetup, base: Config) -> anyhow::Result<ExitCode> {
    let looked = if args.manifests.is_empty() {
        once::look(setup, base)?
    } else {
        once::read(setup, base, &args.manifests)?
    };
    let snapshot = &looked.config.snapshot;
    match args.output {
        cli::Output::Json => print(&format!(
            "{:#}\n",
            json!({
                "problems": diagnostics_json(&looked.found),
                "serves": config::snapshot_json(snapshot),
            })
        )),
        cli::Output::Text => {
            let mut out = String::new();
            for problem in &looked.found.0 {
                let _ = writeln!(out, "{problem}");
            }
            serves(&mut out, snapshot, usize::MAX);
            snapshot.upstreams.iter().for_each(|upstream| endpoints(&mut out, upstream));
            print(&out);
        }
    }
    let failed = looked.found.has_errors();
    Ok(if failed { ExitCode::from(crate::EXIT_USAGE) } else { ExitCode::SUCCESS })
}

fn endpoints(out: &mut String, upstream: &Upstream) {
    let tls = if upstream.tls.is_some() { ", TLS" } else { "" };
    let _ = writeln!(out, "upstream {} ({}{tls}):", upstream.name, algorithm(upstream));
    for endpoint in &upstream.endpoints {
        let _ = writeln!(out, "  {} weight {}", endpoint.target, endpoint.weight);
    }
    if upstream.endpoints.is_empty() {
        let _ = writeln!(out, "  none: 503");
    }
}
