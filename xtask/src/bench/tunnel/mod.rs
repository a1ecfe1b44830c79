//! `cargo xtask bench tunnel`: what a connection through a tunnel costs, beside one without it.
//!
//! Clients speak through Konnectivity's own library (`tests/konnectivity/load`), over mutual TLS, to our server, which
//! has our agent connect to the targets; in one case it is Cloverleaf at both sides. All of it shares two cores, as it
//! did where the original was measured: its figures stand beside ours and are not of the same run. [`case`] says what
//! is asked, [`reading`] which figures come of it, [`field`] has the hosts and targets, [`ends`] the server and the
//! agent, [`relay`] both in Go, of the same run, [`load`] runs clients, [`original`] has the
//! original's figures and [`figures`] what comes out. Start at [`main`].

mod awake;
mod case;
mod ends;
mod field;
mod figures;
mod load;
mod original;
mod rathole;
mod reading;
mod relay;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use case::Case;
use ends::{Ends, Programs};
use field::Field;
use figures::{CaseResult, Results};
use load::Runner;

use super::{measure, peers::Proxy, programs, report, rows};
use crate::sh;

const PAGE: &str = "bench/tunnel.md";
const BEGIN: &str = "<!-- figures: written by cargo xtask bench tunnel --save -->";
/// Everything shares them: the ends of the tunnel, clients, targets and this program.
const CORES: &str = "0,1";

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Tunnel {
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Only these ways of getting to a target
    #[arg(long, value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Measure this cloverleaf instead of building one
    #[arg(long)]
    program: Option<PathBuf>,
    /// Another cloverleaf, measured beside this one: an older build
    #[arg(long)]
    against: Option<PathBuf>,
    /// Seconds of load that count, for each case, way and round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Rounds; the middle one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Before each load wait so many seconds at most for other work on the machine to end
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=120))]
    wait_for_quiet: u64,
    /// Write bench/tunnel.md's figures from all results so far
    #[arg(long)]
    save: bool,
}

/// How a client gets to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Way {
    /// Without a tunnel
    Direct,
    /// The official client, a connection to the server for each connection to a target
    Grpc,
    /// The official client, all connections over one to the server
    GrpcReuse,
    /// CONNECT
    HttpConnect,
    /// No client of a tunnel: `tunnel forward` in front
    Forward,
    /// The same with rathole at both ends
    Rathole,
    /// As `grpc`, with a server and an agent in Go that move packets and do nothing else
    GoRelay,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Grpc => "grpc",
            Way::GrpcReuse => "grpc-reuse",
            Way::HttpConnect => "http-connect",
            Way::Forward => "forward",
            Way::Rathole => "rathole",
            Way::GoRelay => "go-relay",
        }
    }

    /// Whether our programs are on the way.
    fn is_ours(self) -> bool {
        !matches!(self, Way::Direct | Way::Rathole | Way::GoRelay)
    }
}

pub(crate) fn main(options: &Tunnel) -> Result<()> {
    let cases = if options.cases.is_empty() { &case::ALL[..] } else { &options.cases };
    let bench = Bench::new(options, cases)?;
    // What is started stays on the same cores and may have as many connections.
    let own = std::process::id().to_string();
    sh::capture(Command::new("taskset").args(["-p", "-a", "-c", CORES, &own]))?;
    sh::capture(Command::new("prlimit").args(["--pid", &own, "--nofile=20000:"]))?;
    let file = sh::root().join("bench/out/tunnel.json");
    let mut results: Results = report::read(&file)?;
    let mut failed = 0;
    for case in cases {
        let result = bench.case(*case)?;
        failed += result.failed.len();
        results.cases.insert(case.name().to_owned(), result);
        report::write(&file, &results)?;
        println!("\n{}", figures::table(*case, &results));
    }
    println!("{}", figures::targets(&results));
    if options.save {
        report::put_figures(PAGE, BEGIN, &figures::page(&results))?;
        println!("wrote {PAGE}");
    }
    ensure!(failed == 0, "{failed} loads failed, see above");
    Ok(())
}

struct Bench<'o> {
    options: &'o Tunnel,
    folder: PathBuf,
    /// Konnectivity's client.
    client: PathBuf,
    /// Ours, and an older one of ours.
    builds: Vec<Build>,
    rathole: Option<PathBuf>,
    ticks_a_second: f64,
}

/// A cloverleaf.
struct Build {
    /// What its rows are called beside the way.
    suffix: &'static str,
    program: PathBuf,
    version: String,
    /// An older one may be without `tunnel forward`.
    forwards: bool,
}

impl<'o> Bench<'o> {
    fn new(options: &'o Tunnel, cases: &[Case]) -> Result<Bench<'o>> {
        let own = match &options.program {
            Some(program) => program.canonicalize().context("the program of --program")?,
            None => programs::program(Proxy::Cloverleaf)?,
        };
        let mut builds = vec![Build::new("", own)?];
        if let Some(program) = &options.against {
            let program = program.canonicalize().context("the program of --against")?;
            builds.push(Build::new(", before", program)?);
        }
        let wanted = |way| options.ways.is_empty() || options.ways.contains(&way);
        let rathole = match cases.contains(&Case::Forward) && wanted(Way::Rathole) {
            true => rathole::program().inspect_err(|error| println!("no rathole: {error:#}")).ok(),
            false => None,
        };
        let folder = sh::root().join("bench/out/run/tunnel");
        fs::create_dir_all(&folder).context("make bench/out/run/tunnel")?;
        let (client, ticks_a_second) = (programs::konnectivity_load()?, measure::ticks_a_second()?);
        Ok(Bench { options, folder, client, builds, rathole, ticks_a_second })
    }

    fn turns(&self, case: Case) -> Vec<Turn<'_>> {
        let wanted = |way: &Way| self.options.ways.is_empty() || self.options.ways.contains(way);
        let ways = case.ways().iter().filter(|way| wanted(way));
        let turns = ways.flat_map(|way| {
            let builds = if way.is_ours() { &self.builds[..] } else { &self.builds[..1] };
            builds.iter().map(move |build| Turn { way: *way, build })
        });
        let had = |turn: &Turn<'_>| match turn.way {
            Way::Forward => turn.build.forwards,
            Way::Rathole => self.rathole.is_some(),
            _ => true,
        };
        turns.filter(had).collect()
    }

    fn case(&self, case: Case) -> Result<CaseResult> {
        println!("\n=== {}: {} ===", case.name(), case.title());
        let conditions = report::conditions(self.options.seconds, self.options.rounds)?;
        let version = self.builds[0].version.clone();
        let mut result = CaseResult { conditions, version, ..CaseResult::default() };
        let field = Field::open(case.hosts(), &self.client, &self.folder)?;
        for round in 1..=self.options.rounds {
            for turn in self.turns(case) {
                // The others are worth measuring all the same.
                if let Err(error) = self.round(case, &turn, &field, &mut result) {
                    println!("{} {} failed: {error:#}", case.name(), turn.name());
                    let cause = error.root_cause().to_string();
                    let cause = cause.lines().next_back().unwrap_or_default();
                    result.failed.push(format!("{}, round {round}: {cause}", turn.name()));
                }
            }
        }
        Ok(result)
    }

    /// All that a case asks of one way, of ends that are started for it.
    fn round(
        &self,
        case: Case,
        turn: &Turn<'_>,
        field: &Field,
        result: &mut CaseResult,
    ) -> Result<()> {
        let (way, through) = (turn.way, turn.name());
        let folder = self.folder.join(through.replace(", ", "-"));
        let programs =
            Programs { cloverleaf: &turn.build.program, rathole: self.rathole.as_deref() };
        let ends = Ends::start(way, field, &programs, &folder)?;
        let (seconds, ticks_a_second) = (self.options.seconds, self.ticks_a_second);
        let runner = Runner { field, ends: &ends, seconds, ticks_a_second };
        for asked in case.asked() {
            runner.wait_for_quiet(Duration::from_secs(self.options.wait_for_quiet))?;
            let seen = runner
                .run(&asked)
                .with_context(|| format!("{}; {}", asked.what, ends.last_words()))?;
            result.foreign.extend(seen.foreign_cores);
            for (what, figures) in reading::read(case, &asked, &seen, way)? {
                let shown: Vec<String> = figures.iter().copied().map(rows::number).collect();
                println!("{} {what:24} {through:20} {}", case.name(), shown.join("  "));
                result.push(what, &through, &figures);
            }
        }
        Ok(())
    }
}

/// A way, and whose programs are on it.
struct Turn<'b> {
    way: Way,
    build: &'b Build,
}

impl Turn<'_> {
    /// What its rows are called.
    fn name(&self) -> String {
        format!("{}{}", self.way.name(), self.build.suffix)
    }
}

impl Build {
    fn new(suffix: &'static str, program: PathBuf) -> Result<Build> {
        let version = programs::version(Proxy::Cloverleaf, &program)?;
        let forwards = forwards(&program)?;
        Ok(Build { suffix, program, version, forwards })
    }
}

/// Whether a cloverleaf has `tunnel forward`.
fn forwards(program: &Path) -> Result<bool> {
    let mut help = Command::new(program);
    let said = help.args(["tunnel", "forward", "--help"]).output().context("ask for its help")?;
    Ok(said.status.success())
}
