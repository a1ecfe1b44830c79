//! `cargo xtask test`: installs what the tests need, runs every part, prints the time of each and closes
//! with the sum of all. A part that fails does not stop the next one.
//!
//! It knows the order and the sum; how a tool is had is in `tools`, how libtest's output is counted in
//! `libtest`.

mod libtest;
pub(crate) mod tools;

use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use libtest::Tally;
use testkit::{
    helm::HELM_VARIABLE, konnectivity::KONNECTIVITY_VARIABLE, kubernetes::FOLDER_VARIABLE,
};

use crate::{cluster, env, sh};

/// What may be chosen on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only this part; may be repeated
    #[arg(long = "only", value_name = "PART", value_enum)]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Fmt,
    Tidy,
    Clippy,
    Generated,
    Helm,
    Build,
    Test,
    Doc,
    Deny,
}

/// In the order in which they run: what fails fast comes first.
const PARTS: [Part; 9] = [
    Part::Fmt,
    Part::Tidy,
    Part::Clippy,
    Part::Generated,
    Part::Helm,
    Part::Build,
    Part::Test,
    Part::Doc,
    Part::Deny,
];

impl Part {
    fn title(self) -> &'static str {
        match self {
            Part::Fmt => "fmt",
            Part::Tidy => "tidy",
            Part::Clippy => "clippy",
            Part::Generated => "generated",
            Part::Helm => "helm",
            Part::Build => "build",
            Part::Test => "test",
            Part::Doc => "doc",
            Part::Deny => "deny",
        }
    }

    fn run(self) -> Result<Tally> {
        match self {
            Part::Fmt => one(sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))),
            Part::Tidy => one(crate::tidy::main()),
            Part::Clippy => one(sh::run(&mut sh::cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]))),
            Part::Generated => one(crate::generate::check()),
            Part::Helm => one(crate::helm::check()),
            Part::Build => {
                one(sh::run(&mut sh::cargo(&["test", "--workspace", "--locked", "--no-run"])))
            }
            Part::Test => workspace_tests(),
            Part::Doc => one(sh::run(
                sh::cargo(&[
                    "doc",
                    "--workspace",
                    "--no-deps",
                    "--locked",
                    "--document-private-items",
                ])
                // The pages are for those who work on it, so they may link to what is private.
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
            )),
            Part::Deny => one(deny()),
        }
    }
}

/// Run the parts. The sum is the last line, whatever happened; the exit code says whether anything failed.
pub(crate) fn main(options: &Options) -> ExitCode {
    let chosen = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let mut sum = Tally::default();
    let mut lines = Vec::new();
    for part in PARTS.into_iter().filter(chosen) {
        println!("\n=== {} ===", part.title());
        let start = Instant::now();
        let tally = part.run().unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", part.title());
            Tally { failed: 1, ..Tally::default() }
        });
        lines.push(summary(part, tally, start.elapsed()));
        sum = sum + tally;
    }
    println!("\n{}\n{sum}", lines.join("\n"));
    if sum.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn summary(part: Part, tally: Tally, time: Duration) -> String {
    let mark = if tally.failed == 0 { "ok" } else { "FAILED" };
    format!("{:10} {:>7.1} s  {mark:6}  {tally}", part.title(), time.as_secs_f64())
}

/// A part that is one check.
fn one(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally { passed: 1, ..Tally::default() })
}

/// Unit, integration and documentation tests of every crate, counted from what libtest prints.
fn workspace_tests() -> Result<Tally> {
    /// All tests together take about a minute once they are built; building is a part of its own.
    const LIMIT: Duration = Duration::from_secs(30 * 60);
    let mut command =
        sh::cargo_within(LIMIT, &["test", "--workspace", "--locked", "--no-fail-fast"]);
    match tools::h2spec() {
        Ok(file) => _ = command.env("H2SPEC", file),
        // With CI=true the test that needs it fails by itself; elsewhere it says that it was left out.
        Err(error) => eprintln!("h2spec is not to be had, its test cannot run: {error:#}"),
    }
    match tools::helm() {
        Ok(file) => _ = command.env(HELM_VARIABLE, file),
        Err(error) => eprintln!("helm is not to be had, its tests cannot run: {error:#}"),
    }
    match tools::konnectivity() {
        Ok(file) => _ = command.env(KONNECTIVITY_VARIABLE, file),
        Err(error) => {
            eprintln!("Konnectivity's client is not to be had, its tests cannot run: {error:#}");
        }
    }
    let cluster = cluster::for_tests();
    if let Some(binaries) = &cluster.binaries {
        command.env(FOLDER_VARIABLE, binaries.folder());
    }
    if env::ci() {
        command.env("CI", "true");
    }
    println!("$ {}", sh::shown(&command));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().expect("piped above")).lines() {
        let line = line.context("read the output of cargo test")?;
        println!("{line}");
        tally = tally + Tally::of_line(&line).unwrap_or_default();
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && tally.failed == 0 {
        // It did not get as far as counting: a build error, or a test binary that died.
        tally.failed = 1;
    }
    Ok(tally)
}

/// Licences, banned crates and sources. The advisories stand in a git repository and are left to those who
/// reach it.
fn deny() -> Result<()> {
    let tool = tools::cargo_deny()?;
    println!(
        "advisories are not checked here: `cargo deny check advisories` needs a clone of their repository"
    );
    let mut command = Command::new(tool);
    command.args(["--locked", "check", "bans", "licenses", "sources"]).current_dir(sh::root());
    sh::run(&mut command)
}
