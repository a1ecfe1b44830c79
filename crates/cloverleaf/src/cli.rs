//! The command line: what can be asked for, with which flags. Parsed, nothing resolved.
//!
//! Must not read the environment; that is [`crate::env`]'s.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One cluster proxy, from L3 to L7.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP and HTTPS from a YAML file
    Gateway(GatewayArgs),
    /// Serve a test upstream that answers with what it received
    Echo(EchoArgs),
    /// Print everything that is wrong with a file, or what it would serve
    Check(CheckArgs),
    /// Say which listener, rule, upstream and endpoint a request takes, and why not the others
    Explain(ExplainArgs),
    /// Show what a running gateway is doing
    Status(StatusArgs),
    /// Print a shell's completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags win over environment variables, those over the file.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Where the admin port listens, or `off` [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<String>,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Wait for the file to appear and be valid instead of refusing to start
    #[arg(long)]
    pub(crate) wait_for_config: bool,
}

/// Where the configuration comes from, and what is said in its place.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The YAML file [environment: CONF_FILE; default: ./config.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The port of the file's only listener [environment: PORT]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Head, idle, connect and response timeout in seconds [environment: TIMEOUT]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<String>,
    /// A directory with cert.pem and key.pem: serve HTTPS [environment: CERT_PATH]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cert_path: Option<PathBuf>,
    /// Verify no upstream's certificate [environment: TLS_SKIP_VERIFY]
    #[arg(long)]
    pub(crate) tls_skip_verify: bool,
    /// Log more, and answer /.nanoproxy/config [environment: DEBUG]
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The request, as 'GET http://host:port/path'; the method may be left out
    #[arg(value_name = "REQUEST")]
    pub(crate) request: String,
    /// A header field of the request; Host in place of the URL's host
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The listener that it comes in at, if scheme and port of the URL do not tell
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The admin port of the gateway
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9180")]
    pub(crate) admin_address: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For a person
    #[default]
    Text,
    /// For a program
    Json,
}

/// The arguments as clap takes them: `-config` is `NanoProxy`'s spelling of `--config`.
pub(crate) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    given
        .map(|argument| match argument.to_str() {
            Some("-config") => "--config".into(),
            Some(text) if text.starts_with("-config=") => format!("-{text}").into(),
            _ => argument,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_spelling_of_config_works() {
        for spelling in [
            &["-c", "x"][..],
            &["-config", "x"],
            &["--config", "x"],
            &["-config=x"],
            &["--config=x"],
        ] {
            let given = ["cloverleaf", "gateway"].iter().chain(spelling).map(OsString::from);
            let Command::Gateway(args) = Cli::parse_from(arguments(given)).command else {
                panic!()
            };
            assert_eq!(args.source.config, Some(PathBuf::from("x")), "{spelling:?}");
        }
    }
}
