//! The program: reads flags and environment, starts a role or runs a command, and turns the outcome into an exit
//! code.
//!
//! [`cli`] says what can be asked for, [`roles`] has one file for each thing that serves (wiring only), [`commands`]
//! one for each thing that answers and ends. Must hold no proxying of its own.

mod cli;
mod cluster;
mod commands;
mod env;
mod logging;
mod roles;
mod source;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::tunnel_file::parse(cli::arguments(std::env::args_os()));
    match cli.map_err(|wrong| UsageError(wrong.to_string()).into()).and_then(dispatch) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cloverleaf: {error:#}");
            if error.is::<UsageError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// The user asked for something that cannot be done as asked: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

fn dispatch(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        cli::Command::Gateway(args) => roles::gateway::run(args),
        cli::Command::Controller(args) => roles::controller::run(args),
        cli::Command::Mesh(args) => roles::mesh::run(args),
        cli::Command::Tunnel(cli::TunnelCommand::Server(args)) => roles::tunnel::server(&args),
        cli::Command::Tunnel(cli::TunnelCommand::Agent(args)) => roles::tunnel::agent(&args),
        cli::Command::Tunnel(cli::TunnelCommand::Forward(args)) => roles::tunnel::forward(&args),
        cli::Command::Echo(args) => roles::echo(args.listen),
        cli::Command::Check(args) => commands::check::run(&args),
        cli::Command::Explain(args) => commands::explain::run(&args),
        cli::Command::Status(args) => {
            commands::status::run(args.admin_address, args.output == cli::Output::Json)?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Completions { shell } => {
            commands::completions(shell);
            Ok(ExitCode::SUCCESS)
        }
    }
}
