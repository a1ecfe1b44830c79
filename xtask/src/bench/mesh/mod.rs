//! `cargo xtask bench mesh`: cluster ports beside HAProxy and Envoy, each as a chain of two: one on the client's host,
//! one on the pod's.
//!
//! Hosts are network namespaces. The proxies of all hosts share one core, clients and pods the other; the programs take
//! turns in every round. [`load`] has the clients and pods, [`hops`] the proxies, [`figures`] what comes out. Start at
//! [`main`].

mod figures;
mod hops;
mod load;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use figures::{Results, Row};
use hops::{Contender, Hops, Reach};
use load::{Field, Window};

use super::{
    measure,
    peers::Proxy,
    process::LOAD_CORE,
    programs, report,
    rows::{self, Columns},
};
use crate::sh;

const PAGE: &str = "bench/mesh.md";
const BEGIN: &str = "<!-- figures: written by cargo xtask bench mesh --save -->";
const SHORT_CLIENTS: usize = 8;
/// A connection takes two descriptors of a proxy, and one is kept free for a host that is just being asked: more do not
/// go into a hard limit of 20,000.
const IDLE_CONNECTIONS: usize = 6_000;
/// They pay for what every later one uses too.
const IDLE_WARM_UP: usize = 200;
const SETTLE: Duration = Duration::from_millis(700);
/// Nine silent hosts, the client's own, and the one with the pod.
const SILENT_HOSTS: u8 = 11;
const LATER_CONNECTIONS: usize = 200;
const RATE_A_SECOND: u32 = 1_000;
const RATE_FOR: Duration = Duration::from_secs(30);

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Mesh {
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Only these programs
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cloverleaf,haproxy,envoy")]
    proxies: Vec<Proxy>,
    /// Another cloverleaf, measured beside this one: an older build
    #[arg(long)]
    against: Option<PathBuf>,
    /// Seconds of load that count, for each case, program and round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds; the middle one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Write bench/mesh.md
    #[arg(long)]
    save: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Case {
    /// One stream as fast as it goes
    #[value(name = "bulk-1")]
    Bulk1,
    /// Sixteen at a time
    #[value(name = "bulk-16")]
    Bulk16,
    /// Sixteen at a time to the pods of nine hosts
    #[value(name = "bulk-16-ten")]
    Bulk16Ten,
    /// Connect, a byte there and back, close
    Short,
    /// The same to the pods of nine hosts
    ShortTen,
    /// Requests through a gateway straight to a pod on another host (Cloverleaf only)
    Gateway,
    /// The same by the pod's cluster port (Cloverleaf only)
    #[value(name = "via-mesh")]
    ViaMesh,
    /// Thousands of idle connections
    Idle,
    /// From start to ready with the whole default range (Cloverleaf only)
    Start,
    /// A pod on the last of ten hosts, nine of them silent (Cloverleaf only)
    Silent,
    /// 1,000 connections a second for 30 s (Cloverleaf only)
    Rate,
}

const ALL: [Case; 11] = [
    Case::Bulk1,
    Case::Bulk16,
    Case::Bulk16Ten,
    Case::Short,
    Case::ShortTen,
    Case::Gateway,
    Case::ViaMesh,
    Case::Idle,
    Case::Start,
    Case::Silent,
    Case::Rate,
];

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Bulk1 => "bulk-1",
            Case::Bulk16 => "bulk-16",
            Case::Bulk16Ten => "bulk-16-ten",
            Case::Short => "short",
            Case::ShortTen => "short-ten",
            Case::Gateway => "gateway",
            Case::ViaMesh => "via-mesh",
            Case::Idle => "idle",
            Case::Start => "start",
            Case::Silent => "silent",
            Case::Rate => "rate",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Case::Bulk1 => "One stream, client → proxy → proxy → pod",
            Case::Bulk16 => "Sixteen streams",
            Case::Bulk16Ten => "Sixteen streams to the pods of nine hosts",
            Case::Short => "Short connections: connect, a byte there and back, close",
            Case::ShortTen => "Short connections to the pods of nine hosts",
            Case::Gateway => "Requests through a gateway straight to a pod on another host",
            Case::ViaMesh => "The same by the pod's cluster port (`via: mesh`)",
            Case::Idle => "6,000 idle connections",
            Case::Start => "Start with the whole default range",
            Case::Silent => "A pod on the last of ten hosts, nine of them silent",
            Case::Rate => "1,000 connections a second for 30 s",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Case::Bulk1 | Case::Bulk16 | Case::Bulk16Ten => {
                &["CPU-s a GB, all hops", "GB a second"]
            }
            Case::Short | Case::ShortTen => &[
                "CPU µs a connection, all hops",
                "connections a CPU-second",
                "connections a second",
            ],
            Case::Gateway | Case::ViaMesh => {
                &["CPU µs a request, all hops", "requests a CPU-second", "requests a second"]
            }
            Case::Idle => &["KB a connection, client's host", "KB a connection, pod's host"],
            Case::Start => &["ready after, ms", "RSS, MB"],
            Case::Silent => &[
                "first connection, ms",
                "later ones, median, ms",
                "later ones, slowest, ms",
                "best case (one host), median, ms",
            ],
            Case::Rate => &["connections", "descriptors more", "threads more", "RSS more, MB"],
        }
    }

    /// Whether it is asked of Cloverleaf alone.
    fn is_own(self) -> bool {
        use Case::{Gateway, Rate, Silent, Start, ViaMesh};
        matches!(self, Gateway | ViaMesh | Start | Silent | Rate)
    }

    fn hosts(self) -> u8 {
        match self {
            Case::Bulk16Ten | Case::ShortTen => 10,
            _ => 2,
        }
    }
}

pub(crate) fn main(options: &Mesh) -> Result<()> {
    let contenders = contenders(options)?;
    // Everything that is not a proxy stays away from their core, this program too.
    let own = std::process::id().to_string();
    sh::capture(Command::new("taskset").args(["-p", "-c", LOAD_CORE, &own]))?;
    sh::capture(Command::new("prlimit").args(["--pid", &own, "--nofile=20000:"]))?;
    let folder = sh::root().join("bench/out/run/mesh");
    fs::create_dir_all(&folder).context("make bench/out/run/mesh")?;
    let bench = Bench { options, folder, ticks_a_second: measure::ticks_a_second()? };
    let cases = if options.cases.is_empty() { &ALL[..] } else { &options.cases };
    let mut results = Results::new();
    for case in cases {
        let rows = bench.case(*case, &contenders)?;
        println!("\n{}", figures::table(*case, &rows));
        results.insert(*case, rows);
    }
    let targets = figures::targets(&results);
    println!("{targets}");
    if !options.save {
        return Ok(());
    }
    let tables = results.iter().map(|(case, rows)| figures::table(*case, rows));
    let tables = tables.collect::<Vec<_>>().join("\n");
    let conditions = report::conditions(options.seconds, options.rounds)?;
    let text = format!("{conditions}.\n\n### Targets\n\n{targets}\n{tables}");
    report::put_figures(PAGE, BEGIN, &text)
}

fn contenders(options: &Mesh) -> Result<Vec<Contender>> {
    let mut programs: BTreeMap<Proxy, PathBuf> = programs::ready(&options.proxies)?;
    let mut contenders = Vec::new();
    for proxy in &options.proxies {
        let Some(program) = programs.remove(proxy) else { continue };
        let version = programs::version(*proxy, &program)?;
        contenders.push(Contender {
            name: proxy.name().to_owned(),
            proxy: *proxy,
            program,
            version,
        });
    }
    if let Some(program) = &options.against {
        let program = program.canonicalize().context("the program of --against")?;
        let version = programs::version(Proxy::Cloverleaf, &program)?;
        let name = "before".to_owned();
        contenders.push(Contender { name, proxy: Proxy::Cloverleaf, program, version });
    }
    Ok(contenders)
}

struct Bench<'o> {
    options: &'o Mesh,
    folder: PathBuf,
    ticks_a_second: f64,
}

impl Bench<'_> {
    fn case(&self, case: Case, contenders: &[Contender]) -> Result<Vec<Row>> {
        println!("\n=== {}: {} ===", case.name(), case.title());
        let asked = |one: &&Contender| !case.is_own() || one.proxy == Proxy::Cloverleaf;
        let asked: Vec<&Contender> = contenders.iter().filter(asked).collect();
        let row = |one: &&Contender| Row {
            name: one.name.clone(),
            version: one.version.clone(),
            columns: Columns::default(),
        };
        let mut rows: Vec<Row> = asked.iter().map(row).collect();
        let field = match case {
            Case::Silent => Field::open(SILENT_HOSTS, [SILENT_HOSTS])?,
            _ => Field::open(case.hosts(), 2..=case.hosts())?,
        };
        // It takes half a minute and is about what is left, not about how fast.
        let rounds = if case == Case::Rate { 1 } else { self.options.rounds };
        for round in 1..=rounds {
            for (one, row) in asked.iter().zip(&mut rows) {
                let figures = match self.round(case, one, &field) {
                    // Another that does not stand the case has no figure in it; ours has to.
                    Err(error) if one.proxy != Proxy::Cloverleaf => {
                        println!("round {round}/{rounds} {:11} failed: {error:#}", one.name);
                        continue;
                    }
                    figures => figures
                        .with_context(|| format!("{}, {}, round {round}", case.name(), one.name))?,
                };
                let shown: Vec<String> = figures.iter().copied().map(rows::number).collect();
                println!("round {round}/{rounds} {:11} {}", one.name, shown.join("  "));
                row.columns.push(&figures);
            }
        }
        rows.retain(|row| !row.columns.is_empty());
        Ok(rows)
    }

    /// The figures of one program in one round, in the order of [`Case::columns`].
    fn round(&self, case: Case, one: &Contender, field: &Field) -> Result<Vec<f64>> {
        match case {
            Case::Start => return self.start(one, field),
            Case::Silent => return self.silent(one, field),
            Case::Gateway => return self.requests(one, field, Reach::Straight),
            Case::ViaMesh => return self.requests(one, field, Reach::ViaMesh),
            _ => {}
        }
        let hosts: Vec<u8> = (1..=case.hosts()).collect();
        let hops = Hops::start(one, field, &hosts, &self.folder)?;
        let cpu = || hops.cpu();
        let duration = Duration::from_secs(self.options.seconds);
        let figures = match case {
            Case::Bulk1 => field.bulk(1, duration, &cpu).map(|window| self.bytes(&window)),
            Case::Bulk16 | Case::Bulk16Ten => {
                field.bulk(16, duration, &cpu).map(|window| self.bytes(&window))
            }
            Case::Short | Case::ShortTen => {
                field.short(SHORT_CLIENTS, duration, &cpu).map(|window| self.each(&window))
            }
            Case::Idle => idle(field, &hops),
            Case::Rate => rate(field, &hops),
            Case::Gateway | Case::ViaMesh | Case::Start | Case::Silent => unreachable!("above"),
        };
        figures.with_context(|| hops.last_words())
    }

    fn requests(&self, one: &Contender, field: &Field, reach: Reach) -> Result<Vec<f64>> {
        let hops = Hops::gateway(one, field, reach, &self.folder)?;
        let duration = Duration::from_secs(self.options.seconds);
        let window = field.requests(SHORT_CLIENTS, duration, &|| hops.cpu());
        window.map(|window| self.each(&window)).with_context(|| hops.last_words())
    }

    fn cpu_seconds(&self, window: &Window) -> f64 {
        (window.ticks.user + window.ticks.system) as f64 / self.ticks_a_second
    }

    fn bytes(&self, window: &Window) -> Vec<f64> {
        let gigabytes = window.count as f64 / 1e9;
        vec![self.cpu_seconds(window) / gigabytes, gigabytes / window.seconds]
    }

    fn each(&self, window: &Window) -> Vec<f64> {
        let (count, cpu) = (window.count as f64, self.cpu_seconds(window));
        vec![cpu * 1e6 / count, count / cpu, count / window.seconds]
    }

    fn start(&self, one: &Contender, field: &Field) -> Result<Vec<f64>> {
        let (server, took) = hops::start_timed(one, field, &self.folder.join(&one.name))?;
        let resident = measure::resident_bytes(server.pid());
        Ok(vec![milliseconds(took), resident as f64 / 1e6])
    }

    /// Each round begins with nothing known of the hosts.
    fn silent(&self, one: &Contender, field: &Field) -> Result<Vec<f64>> {
        let silent = 2..SILENT_HOSTS;
        silent.clone().for_each(|host| field.network.cut(host));
        let figures = self.with_silent(one, field);
        silent.for_each(|host| field.network.mend(host));
        let (first, later, best) = figures?;
        let slowest = later.iter().copied().fold(0.0, f64::max);
        let median = |times: &[f64]| rows::median(times).context("no connection");
        Ok(vec![first, median(&later)?, slowest, median(&best)?])
    }

    /// The first connection, later ones, and connections where there is only the one host; all in milliseconds.
    fn with_silent(&self, one: &Contender, field: &Field) -> Result<(f64, Vec<f64>, Vec<f64>)> {
        let folder = |name: &str| self.folder.join(format!("{}-{name}", one.name));
        let _pods = hops::start(one, field, SILENT_HOSTS, &folder("pods"))?;
        let times = |count| -> Result<Vec<f64>> {
            Ok(field.latencies(count)?.into_iter().map(milliseconds).collect())
        };
        let (first, later) = {
            let (_server, _) = hops::start_timed(one, field, &folder("first"))?;
            let first = times(1)?;
            (first, times(LATER_CONNECTIONS)?)
        };
        let (_server, _) = hops::start_timed(one, field, &folder("best"))?;
        alone(&folder("best"), field)?;
        times(1)?;
        Ok((first.first().copied().unwrap_or_default(), later, times(LATER_CONNECTIONS)?))
    }
}

/// Leaves only the host with the pod in a mesh's file of hosts, and waits until that is so.
fn alone(folder: &Path, field: &Field) -> Result<()> {
    let address = |host| format!("{}:32767\n", field.network.address(host));
    let text = [address(1), address(SILENT_HOSTS)].concat();
    fs::write(folder.join("hosts.conf"), text).context("write hosts.conf")?;
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    let reloaded = testkit::wait_until(load::WITHIN, || log().contains("reloaded"));
    ensure!(reloaded, "hosts.conf was not read again: {}", log());
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Growth of resident memory on the client's host and on the pod's, in KB a connection.
fn idle(field: &Field, hops: &Hops) -> Result<Vec<f64>> {
    let some = field.idle(IDLE_WARM_UP)?;
    thread::sleep(SETTLE);
    let before = hops.resident_bytes();
    let many = field.idle(IDLE_CONNECTIONS - IDLE_WARM_UP)?;
    thread::sleep(SETTLE);
    let growth = hops.resident_bytes().into_iter().zip(before);
    let each =
        growth.map(|(now, before)| now.saturating_sub(before) as f64 / 1e3 / many.len() as f64);
    let each = each.collect();
    drop((some, many));
    field.release();
    Ok(each)
}

/// What a steady stream of connections leaves behind, on the host where it is most.
fn rate(field: &Field, hops: &Hops) -> Result<Vec<f64>> {
    field.paced(RATE_A_SECOND, Duration::from_secs(3))?;
    thread::sleep(SETTLE);
    let before = left(hops)?;
    let begun = Instant::now();
    let count = field.paced(RATE_A_SECOND, RATE_FOR)?;
    ensure!(begun.elapsed() < RATE_FOR * 2, "{count} connections took {:?}", begun.elapsed());
    thread::sleep(SETTLE);
    let mut most = [0.0_f64; 3];
    for (now, before) in left(hops)?.into_iter().zip(before) {
        for (most, (now, before)) in most.iter_mut().zip(now.into_iter().zip(before)) {
            *most = most.max(now - before);
        }
    }
    Ok([vec![count as f64], most.to_vec()].concat())
}

/// Descriptors, threads and megabytes of resident memory of each hop.
fn left(hops: &Hops) -> Result<Vec<[f64; 3]>> {
    let count = |path: String| -> Result<f64> {
        Ok(fs::read_dir(&path).with_context(|| format!("read {path}"))?.count() as f64)
    };
    let one = |pid: u32| -> Result<[f64; 3]> {
        let resident = measure::resident_bytes(pid) as f64 / 1e6;
        Ok([count(format!("/proc/{pid}/fd"))?, count(format!("/proc/{pid}/task"))?, resident])
    };
    hops.servers.iter().map(|server| one(server.pid())).collect()
}
