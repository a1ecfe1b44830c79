//! `cargo xtask bench gateway`: Cloverleaf beside other proxies, on this machine, over loopback only.
//!
//! Each proxy has one core for itself; the load and the backend share the other. The proxies take turns in
//! every round, so that a machine that gets slower for a while is fair to all. This file holds the order of
//! things; `case` says what is asked, `peers` how each proxy is set up, `load`, `idle` and `reload` how it
//! is asked, `measure` what it used, `results` what follows from it, `report` and `svg` how it looks.

mod case;
mod hosts;
mod idle;
mod kubernetes;
mod load;
mod measure;
mod mesh;
mod peers;
mod process;
mod programs;
mod reload;
mod report;
mod results;
mod rows;
mod svg;
mod tunnel;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use case::Case;
use peers::{Plan, Proxy};
use process::{LOAD_CORE, PROXY_CORE, Server, free_port};
use results::{CaseResult, Figures, Load, Row};

use crate::sh;

/// Load before the part that counts: pools fill, caches warm.
const WARM_UP_SECONDS: u64 = 1;
const WARM_UP_ATTEMPTS: u64 = 4;
/// Memory that 64 busy clients need, and some spare.
const BUSY_CLIENTS: usize = 1024;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// The HTTP gateway beside nginx, HAProxy, Envoy, Traefik and Caddy
    Gateway(Gateway),
    /// Thousands of Ingresses, beside Traefik
    Kubernetes(kubernetes::Kubernetes),
    /// Cluster ports beside HAProxy and Envoy, each chained twice
    Mesh(mesh::Mesh),
    /// Tunnels, with the official client in front and with ours
    Tunnel(tunnel::Tunnel),
    #[command(hide = true)]
    Hold(idle::Hold),
}

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Gateway {
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Only these proxies
    #[arg(long, value_enum, value_delimiter = ',')]
    proxies: Vec<Proxy>,
    /// Seconds of load that count, for each case, proxy and round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds; the middle one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Write bench/README.md's figures and bench/gateway.svg from all results so far
    #[arg(long)]
    save: bool,
}

pub(crate) fn main(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Gateway(options) => gateway(options),
        Bench::Kubernetes(options) => kubernetes::main(options),
        Bench::Mesh(options) => mesh::main(options),
        Bench::Tunnel(options) => tunnel::main(options),
        Bench::Hold(options) => idle::hold(options),
    }
}

fn gateway(options: &Gateway) -> Result<()> {
    let chosen =
        |all: &[Case]| if options.cases.is_empty() { all.to_vec() } else { options.cases.clone() };
    let cases = chosen(&case::ALL);
    let proxies =
        if options.proxies.is_empty() { peers::ALL.to_vec() } else { options.proxies.clone() };
    let programs = programs::ready(&proxies)?;
    // Everything that is not the proxy stays away from its core, this program too.
    let own = std::process::id().to_string();
    sh::capture(Command::new("taskset").args(["-p", "-c", LOAD_CORE, &own]))?;
    let bench = Workshop::open(programs)?;
    let file = sh::root().join("bench/out/gateway.json");
    let mut results: results::Results = report::read(&file)?;
    for case in cases {
        let rows = bench.case(case, &proxies, options)?;
        let conditions = report::conditions(options.seconds, options.rounds)?;
        results.cases.insert(case.name().to_owned(), CaseResult { conditions, rows });
        report::write(&file, &results)?;
        println!("\n{}", report::table(case, &results));
    }
    println!("{}", report::targets(&results));
    if options.save {
        report::save(&results)?;
    }
    Ok(())
}

/// What all measurements share: the backend, a certificate, the programs.
struct Workshop {
    folder: PathBuf,
    programs: BTreeMap<Proxy, PathBuf>,
    versions: BTreeMap<Proxy, String>,
    upstream: u16,
    ticks_a_second: f64,
    _backend: Server,
}

impl Workshop {
    fn open(programs: BTreeMap<Proxy, PathBuf>) -> Result<Workshop> {
        let folder = sh::root().join("bench/out/run");
        let backend_folder = folder.join("backend");
        fs::create_dir_all(&backend_folder).context("make bench/out/run")?;
        programs::certificate(&folder)?;
        let upstream = free_port()?;
        let nginx = crate::env::which("nginx").context("nginx is not installed")?;
        let mut command = Command::new(nginx);
        peers::backend(&mut command, &backend_folder, upstream)?;
        let backend = Server::start(&command, LOAD_CORE, upstream, &folder.join("backend.log"))
            .context("start the backend")?;
        let versions = programs
            .iter()
            .map(|(proxy, program)| Ok((*proxy, programs::version(*proxy, program)?)))
            .collect::<Result<_>>()?;
        let ticks_a_second = measure::ticks_a_second()?;
        Ok(Workshop { folder, programs, versions, upstream, ticks_a_second, _backend: backend })
    }

    /// All rounds of a case; the middle round of each proxy.
    fn case(&self, case: Case, proxies: &[Proxy], options: &Gateway) -> Result<Vec<Row>> {
        println!("\n=== {}: {} ===", case.name(), case.title());
        let mut rounds: BTreeMap<Proxy, Vec<Figures>> = BTreeMap::new();
        for round in 1..=options.rounds {
            for proxy in proxies.iter().copied() {
                let figures = match case.not_run(proxy) {
                    Some(reason) => Figures::NotRun(reason.to_owned()),
                    None => self
                        .measure(case, proxy, options.seconds)
                        .unwrap_or_else(|error| Figures::NotRun(format!("failed: {error:#}"))),
                };
                if !matches!(figures, Figures::NotRun(_)) || round == 1 {
                    let shown = report::one_line(&figures);
                    println!(
                        "{} round {round}/{} {:11} {shown}",
                        case.name(),
                        options.rounds,
                        proxy.name()
                    );
                }
                rounds.entry(proxy).or_default().push(figures);
            }
        }
        let row = |(proxy, rounds): (Proxy, Vec<Figures>)| {
            let measured: Vec<Figures> = rounds
                .iter()
                .filter(|figures| !matches!(figures, Figures::NotRun(_)))
                .cloned()
                .collect();
            let figures = results::median(if measured.is_empty() { rounds } else { measured })?;
            let version = self.versions[&proxy].clone();
            Some(Row { proxy: proxy.name().to_owned(), version, figures })
        };
        Ok(rounds.into_iter().filter_map(row).collect())
    }

    /// One proxy, started for this measurement alone.
    fn measure(&self, case: Case, proxy: Proxy, seconds: u64) -> Result<Figures> {
        let folder = self.folder.join(proxy.name());
        fs::create_dir_all(&folder).context("make a folder for the proxy")?;
        let port = free_port()?;
        let hosts: Vec<String> = (0..case.rules()).map(case::rule_host).collect();
        let plan = Plan {
            folder: &folder,
            port,
            upstream: self.upstream,
            certificate: case.tls().then_some(self.folder.as_path()),
            hosts: &hosts,
            clients: if case == Case::Idle { idle::CONNECTIONS + 100 } else { BUSY_CLIENTS },
        };
        let command = proxy.command(&self.programs[&proxy], &plan)?;
        let log = folder.join("log");
        let server = Server::start(&command, PROXY_CORE, port, &log)?;
        let figures = match case {
            Case::Idle => {
                let (bytes_each, resident_bytes) = idle::run(&server, port)?;
                Ok(Figures::Idle { bytes_each, resident_bytes })
            }
            Case::Reload => {
                let file = peers::cloverleaf_path(&folder);
                reload::run(port, self.upstream, &file, seconds, &folder).map(Figures::Reload)
            }
            _ => self.load(case, &server, port, seconds, &folder).map(Figures::Load),
        };
        figures.with_context(|| match server.last_words() {
            words if words.is_empty() => "it said nothing".to_owned(),
            words => format!("it said: {words}"),
        })
    }

    fn load(
        &self,
        case: Case,
        server: &Server,
        port: u16,
        seconds: u64,
        folder: &Path,
    ) -> Result<Load> {
        // A proxy may accept connections before it has its routes: only a warm-up without errors ends the
        // warm-up.
        for attempt in 1.. {
            match load::run(case, port, WARM_UP_SECONDS, folder) {
                Ok(_) => break,
                Err(error) if attempt == WARM_UP_ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
        let before = measure::cpu(server.pid());
        let seen = load::run(case, port, seconds, folder)?;
        let used = measure::cpu(server.pid()) - before;
        let a_request =
            |ticks: u64| ticks as f64 / self.ticks_a_second * 1e6 / seen.requests as f64;
        Ok(Load {
            user_us: a_request(used.user),
            system_us: a_request(used.system),
            requests_a_second: seen.requests_a_second,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            resident_bytes: measure::resident_bytes(server.pid()),
        })
    }
}
