//! `cargo xtask bench kubernetes`: thousands of Ingresses in a real API server, and two controllers that serve them.
//!
//! Everything runs in a network namespace that ends with this process: endpoints need addresses that are not
//! loopback's. Each proxy has core 0 for itself, the API server and everything else has core 1. The objects and
//! their changes are made by the example `crowd` of the crate `kubernetes`. Start at [`main`].

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use testkit::kubernetes::{Binaries, ControlPlane};

use super::{
    idle, measure,
    peers::Proxy,
    process::{LOAD_CORE, PROXY_CORE, Server},
    programs, report,
};
use crate::{cluster, sh};

/// Traefik takes classes of no other controller; Cloverleaf is told to take the same.
const CONTROLLER: &str = "traefik.io/ingress-controller";
const CLASS: &str = "crowd";
/// All of it is local to the namespace.
const NETWORK: &str = "10.254.0.1/16";
const LIVE: [&str; 2] = ["10.254.0.1", "10.254.0.2"];
const ENDPOINT_PORT: u16 = 8080;
/// Where the proxy listens.
const PORT: u16 = 18080;
const READY_WITHIN: Duration = Duration::from_secs(180);
/// After the last route is served, until memory is read.
const SETTLE: Duration = Duration::from_secs(5);
const PAGE: &str = "bench/kubernetes.md";
const BEGIN: &str = "<!-- figures: written by cargo xtask bench kubernetes --save -->";

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Kubernetes {
    /// Ingresses, each with a Service of its own
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    ingresses: u32,
    /// Endpoints of each Service
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    endpoints: u32,
    /// Changes of endpoints a second, during the last part
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    rate: u32,
    /// Seconds of the last part
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=120))]
    seconds: u32,
    /// Rounds; the middle one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Write bench/kubernetes.md
    #[arg(long)]
    save: bool,
    /// In the network namespace already
    #[arg(long, hide = true)]
    inside: bool,
}

/// What one round of one proxy gave.
#[derive(Debug, Clone, Default)]
struct Round {
    /// From the start of the process until the last Ingress is served.
    ready_s: f64,
    cpu_ready_s: f64,
    resident_mb: f64,
    /// From the end of the write of an endpoint until it answers.
    latency_p50_ms: f64,
    latency_p90_ms: f64,
    /// Of one core, while endpoints change.
    churn_cpu_percent: f64,
    resident_after_mb: f64,
}

pub(crate) fn main(options: &Kubernetes) -> Result<()> {
    let proxies = [Proxy::Cloverleaf, Proxy::Traefik];
    let programs = programs::ready(&proxies)?;
    sh::run(&mut sh::cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "cloverleaf-kubernetes",
        "--example",
        "crowd",
        "--target-dir",
        "target",
    ]))?;
    let binaries = cluster::programs()?;
    if !options.inside {
        return inside();
    }
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "add", NETWORK, "dev", "lo"]] {
        sh::capture(Command::new("ip").args(arguments))?;
    }
    let own = std::process::id().to_string();
    sh::capture(Command::new("taskset").args(["-p", "-c", LOAD_CORE, &own]))?;
    let bench = Bench::open(options, &binaries, &programs[&Proxy::Cloverleaf])?;
    let mut results = Vec::new();
    for proxy in proxies {
        results.push((proxy, programs::version(proxy, &programs[&proxy])?, Vec::new()));
    }
    for round in 1..=options.rounds {
        for (proxy, _, rounds) in &mut results {
            let figures = bench.round(*proxy, &programs[proxy])?;
            println!("round {round}/{} {:11} {figures:?}", options.rounds, proxy.name());
            rounds.push(figures);
        }
    }
    let table = table(options, &results)?;
    println!("\n{table}");
    if options.save { report::put_figures(PAGE, BEGIN, &table) } else { Ok(()) }
}

/// The same command in a network namespace of its own.
fn inside() -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let mut again = Command::new("unshare");
    again.arg("--net").arg(own).args(std::env::args_os().skip(1)).arg("--inside");
    sh::run(&mut again).context("in a network namespace, for which root is needed")
}

struct Bench<'o> {
    options: &'o Kubernetes,
    folder: PathBuf,
    crowd: PathBuf,
    control_plane: ControlPlane,
    ticks_a_second: f64,
    _endpoints: Vec<Server>,
}

impl<'o> Bench<'o> {
    fn open(options: &'o Kubernetes, binaries: &Binaries, cloverleaf: &Path) -> Result<Self> {
        let folder = sh::root().join("bench/out/run/kubernetes");
        fs::create_dir_all(&folder).context("make bench/out/run/kubernetes")?;
        let mut endpoints = Vec::new();
        for address in LIVE {
            let mut echo = Command::new(cloverleaf);
            echo.args(["echo", "--listen", &format!("{address}:{ENDPOINT_PORT}")]);
            let log = folder.join(format!("echo-{address}.log"));
            endpoints.push(Server::spawn(&echo, LOAD_CORE, &log)?);
        }
        let control_plane = ControlPlane::start(binaries, &Default::default())?;
        let bench = Bench {
            options,
            folder,
            crowd: sh::root().join("target/release/examples/crowd"),
            control_plane,
            ticks_a_second: measure::ticks_a_second()?,
            _endpoints: endpoints,
        };
        println!("making {} Ingresses", options.ingresses);
        let start = Instant::now();
        let mut populate = bench.crowd("populate");
        populate.args(["--class", CLASS, "--controller", CONTROLLER, "--live", LIVE[0]]);
        populate.args(["--ingresses", &options.ingresses.to_string()]);
        populate.args(["--endpoints", &options.endpoints.to_string()]);
        sh::capture(&mut populate)?;
        println!("made after {:.0} s", start.elapsed().as_secs_f64());
        Ok(bench)
    }

    fn crowd(&self, what: &str) -> Command {
        let mut command = Command::new(&self.crowd);
        command.arg("--kubeconfig").arg(self.control_plane.kubeconfig()).arg(what);
        command
    }

    fn round(&self, proxy: Proxy, program: &Path) -> Result<Round> {
        let log = self.folder.join(format!("{}.log", proxy.name()));
        let start = Instant::now();
        let server = Server::spawn(&self.command(proxy, program)?, PROXY_CORE, &log)?;
        let mut figures = Round::default();
        self.measure(&server, start, &mut figures)
            .with_context(|| format!("{}; it said: {}", proxy.name(), server.last_words()))?;
        Ok(figures)
    }

    fn command(&self, proxy: Proxy, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        let kubeconfig = self.control_plane.kubeconfig();
        match proxy {
            Proxy::Cloverleaf => {
                command.args(["gateway", "--kubernetes", "--read-only", "--workers", "1"]);
                command.args(["--controller-name", CONTROLLER, "--admin-address", "off"]);
                command.args(["--port", &PORT.to_string(), "--kubeconfig"]).arg(kubeconfig);
            }
            Proxy::Traefik => {
                command.env("GOMAXPROCS", "1").env("KUBECONFIG", kubeconfig);
                command.args(["--providers.kubernetesingress=true", "--log.level=ERROR"]);
                command.arg("--global.checknewversion=false");
                command.arg("--global.sendanonymoususage=false");
                command.arg(format!("--entrypoints.web.address=:{PORT}"));
            }
            other => bail!("{} is no part of this benchmark", other.name()),
        }
        Ok(command)
    }

    fn measure(&self, server: &Server, start: Instant, figures: &mut Round) -> Result<()> {
        let last = format!("h{}.crowd.test", self.options.ingresses - 1);
        while !is_served(&last) {
            ensure!(start.elapsed() < READY_WITHIN, "not ready within {READY_WITHIN:?}");
            thread::sleep(Duration::from_millis(20));
        }
        let seconds =
            |ticks: measure::Ticks| (ticks.user + ticks.system) as f64 / self.ticks_a_second;
        figures.ready_s = start.elapsed().as_secs_f64();
        figures.cpu_ready_s = seconds(measure::cpu(server.pid()));
        thread::sleep(SETTLE);
        figures.resident_mb = measure::resident_bytes(server.pid()) as f64 / 1e6;
        let mut latency = self.crowd("latency");
        latency.args(["--gateway", &format!("127.0.0.1:{PORT}")]);
        latency.args(["--live", LIVE[0], "--live", LIVE[1]]);
        let mut times: Vec<f64> = sh::capture(&mut latency)?
            .lines()
            .map(|line| line.parse().context("read a time"))
            .collect::<Result<_>>()?;
        times.sort_by(f64::total_cmp);
        ensure!(!times.is_empty(), "no change was measured");
        figures.latency_p50_ms = times[times.len() / 2];
        figures.latency_p90_ms = times[times.len() * 9 / 10];
        let (before, begun) = (measure::cpu(server.pid()), Instant::now());
        let mut churn = self.crowd("churn");
        for (name, value) in [
            ("--ingresses", self.options.ingresses),
            ("--endpoints", self.options.endpoints),
            ("--rate", self.options.rate),
            ("--seconds", self.options.seconds),
        ] {
            churn.args([name, &value.to_string()]);
        }
        sh::capture(&mut churn)?;
        let used = seconds(measure::cpu(server.pid()) - before);
        figures.churn_cpu_percent = 100.0 * used / begun.elapsed().as_secs_f64();
        figures.resident_after_mb = measure::resident_bytes(server.pid()) as f64 / 1e6;
        Ok(())
    }
}

/// Whether a request for the host is answered with 200.
fn is_served(host: &str) -> bool {
    let ask = || -> Result<u16> {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        client.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(client, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        idle::read_reply(&mut client)
    };
    ask().is_ok_and(|status| status == 200)
}

fn table(options: &Kubernetes, results: &[(Proxy, String, Vec<Round>)]) -> Result<String> {
    let conditions = report::conditions(u64::from(options.seconds), u64::from(options.rounds))?;
    let mut lines = vec![
        format!(
            "{} Ingresses with a Service each, {} endpoints, {} changes of endpoints a second; {conditions}.",
            options.ingresses,
            options.ingresses * options.endpoints,
            options.rate
        ),
        String::new(),
        "| | start to ready | CPU until then | memory | an endpoint's change is served after, p50 | p90 | CPU \
         while endpoints change | memory after that |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    let middle = |rounds: &[Round], of: fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    for (proxy, version, rounds) in results {
        lines.push(format!(
            "| {} {version} | {:.2} s | {:.2} s | {:.0} MB | {:.0} ms | {:.0} ms | {:.0} % of a core | {:.0} MB |",
            proxy.name(),
            middle(rounds, |r| r.ready_s),
            middle(rounds, |r| r.cpu_ready_s),
            middle(rounds, |r| r.resident_mb),
            middle(rounds, |r| r.latency_p50_ms),
            middle(rounds, |r| r.latency_p90_ms),
            middle(rounds, |r| r.churn_cpu_percent),
            middle(rounds, |r| r.resident_after_mb),
        ));
    }
    Ok(lines.join("\n"))
}
