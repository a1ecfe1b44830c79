//! The project's own tasks, run as `cargo xtask TASK`: the whole test suite, the house rules that a machine
//! can hold, the generated documents, the benchmark against other proxies and the test cluster.
//!
//! It knows the repository and the tools beside it, never the inside of a crate, except for the documents
//! that `config` generates. Start with [`Task`], then the module of the task.

mod bench;
mod cluster;
mod env;
mod generate;
mod helm;
mod sh;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need, run all of them and close with their sum
    Test(test::Options),
    /// Check the rules of STYLE.md that a machine can hold
    Tidy,
    /// Write what is generated: docs/configuration.md, docs/gateway.schema.json and deploy/kubernetes
    Generate(generate::Options),
    /// Measure Cloverleaf beside other proxies
    #[command(subcommand)]
    Bench(bench::Bench),
    /// A real Kubernetes on this machine, for tests and for trying things out
    #[command(subcommand)]
    Cluster(cluster::Action),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Test(options) => return test::main(&options),
        Task::Tidy => tidy::main(),
        Task::Generate(options) => generate::main(&options),
        Task::Bench(bench) => bench::main(&bench),
        Task::Cluster(action) => cluster::main(&action),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
