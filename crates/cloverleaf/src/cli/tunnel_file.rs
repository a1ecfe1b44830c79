//! The YAML file of a tunnel's end, or of `forward`: its flags as keys in camelCase, in a section for each command.
//! What stands on the command line goes before the file.
//!
//! Each value is checked where it stands, by the flag's own parser. Must not know what the flags mean. Start at
//! [`parse`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use config::{FlagSection, Setting};
use model::{Diagnostic, Diagnostics, Place, TunnelServers};

use super::{Cli, SERVER, TunnelCommand};

/// The sections, and the commands whose flags they have.
const SECTIONS: [(&str, &str); 3] =
    [("tunnelServer", "server"), ("tunnelAgent", "agent"), ("tunnelForward", "forward")];

/// Flags that a file cannot have.
const NOT_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// The command line, with the file that it names.
///
/// # Errors
/// What is wrong with the file. A command line that is wrong ends the process, as clap does.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, Diagnostics> {
    let cli = Cli::parse_from(&arguments);
    let super::Command::Tunnel(command) = &cli.command else { return Ok(cli) };
    let (file, name) = match command {
        TunnelCommand::Server(args) => (&args.common.config, "server"),
        TunnelCommand::Agent(args) => (&args.common.config, "agent"),
        TunnelCommand::Forward(args) => (&args.config, "forward"),
    };
    let Some(file) = file else { return Ok(cli) };
    let of_file = flags_of(file, name)?;
    // The program, `tunnel` and the command come first: nothing else may.
    const COMMAND_WORDS: usize = 3;
    let (words, given) = arguments.split_at(COMMAND_WORDS.min(arguments.len()));
    Ok(Cli::parse_from(words.iter().chain(&of_file).chain(given)))
}

/// The flags of a command in a file.
fn flags_of(file: &Path, command: &str) -> Result<Vec<OsString>, Diagnostics> {
    let section = SECTIONS.iter().find(|(_, name)| *name == command).map_or("", |(name, _)| name);
    let one = |problem: String| {
        let place = Place::whole(file.display().to_string());
        let expected = format!("the section {section}");
        Diagnostics(vec![Diagnostic::error(place, "", problem).expected(expected)])
    };
    if let Err(error) = std::fs::File::open(file) {
        return Err(one(format!("cannot be read: {error}")));
    }
    let sections = sections(file).ok_or_else(|| one("no file of a tunnel".to_owned()))??;
    let found = sections.iter().find(|found| found.name == section);
    arguments(found.ok_or_else(|| one("nothing for this command".to_owned()))?, base(file))
}

fn base(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The sections of a file of a tunnel; `None` where it is another kind of file.
fn sections(file: &Path) -> Option<Result<Vec<FlagSection>, Diagnostics>> {
    config::load_flags(file, &SECTIONS.map(|(section, _)| section))
}

/// What the sections of a file come to, as [`parse`] has it for each; `None` where it is another kind of file.
pub(crate) fn check(file: &Path) -> Option<Result<Vec<Cli>, Diagnostics>> {
    let read = |section: FlagSection| {
        let command = SECTIONS.iter().find(|(name, _)| *name == section.name);
        let words = ["cloverleaf", "tunnel", command.map_or("", |(_, command)| command)];
        let flags = arguments(&section, base(file))?;
        let all = words.iter().map(OsString::from).chain(flags);
        Cli::try_parse_from(all).map_err(|error| {
            let place = Place::whole(file.display().to_string());
            Diagnostics(vec![Diagnostic::error(place, section.name.clone(), error.to_string())])
        })
    };
    let sections = sections(file)?;
    Some(sections.and_then(|sections| sections.into_iter().map(read).collect()))
}

/// A section as arguments; relative paths begin at the file's directory.
fn arguments(section: &FlagSection, base: &Path) -> Result<Vec<OsString>, Diagnostics> {
    let name = SECTIONS.iter().find(|(name, _)| *name == section.name).map_or("", |(_, name)| name);
    let mut cli = Cli::command();
    cli.build();
    let command = cli.find_subcommand("tunnel").and_then(|tunnel| tunnel.find_subcommand(name));
    let Some(command) = command else { return Ok(Vec::new()) };
    let mut found = Diagnostics::default();
    let mut all = Vec::new();
    for setting in &section.settings {
        match as_arguments(setting, command, base) {
            Ok(arguments) => all.extend(arguments),
            Err((problem, expected)) => {
                let key = format!("{}.{}", section.name, setting.key);
                let wrong = Diagnostic::error(setting.place.clone(), key, problem);
                found.push(wrong.value(setting.value.clone()).expected(expected));
            }
        }
    }
    if found.has_errors() { Err(found) } else { Ok(all) }
}

/// One key as arguments, one for each item of a flag that is repeatable; else what is wrong and what was expected. None
/// for a flag that is not set.
fn as_arguments(
    setting: &Setting,
    command: &Command,
    base: &Path,
) -> Result<Vec<OsString>, (String, String)> {
    let flag = kebab(&setting.key);
    let known = command.get_arguments().find(|arg| arg.get_long() == Some(&flag));
    let known = known.filter(|_| !NOT_IN_A_FILE.contains(&flag.as_str()));
    let Some(known) = known else {
        let mut names = command.get_arguments().filter_map(|arg| arg.get_long()).map(camel);
        let near =
            names.find(|name| name.eq_ignore_ascii_case(&setting.key.replace(['-', '_'], "")));
        let expected =
            near.unwrap_or_else(|| "a flag's name in camelCase, as serverPort".to_owned());
        return Err(("unknown key".to_owned(), expected));
    };
    if matches!(known.get_action(), ArgAction::SetTrue) {
        return match setting.value.as_str() {
            "true" => Ok(vec![format!("--{flag}").into()]),
            "false" => Ok(Vec::new()),
            _ => Err(("not a truth".to_owned(), "true or false".to_owned())),
        };
    }
    let values: Vec<&str> = match known.get_action() {
        ArgAction::Append if setting.value.is_empty() => Vec::new(),
        ArgAction::Append => setting.value.split(',').map(str::trim).collect(),
        _ => vec![&setting.value],
    };
    let with_flag = |text: &str| {
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(value(text, known, base));
        argument
    };
    let arguments: Vec<OsString> = values.into_iter().map(with_flag).collect();
    let alone = command.clone().no_binary_name(true).try_get_matches_from(&arguments);
    match alone {
        Err(error) if error.kind() != clap::error::ErrorKind::MissingRequiredArgument => {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            Err(("not a value of this key".to_owned(), why.unwrap_or_default()))
        }
        _ => Ok(arguments),
    }
}

/// Files and sockets are looked for beside the file that names them.
fn value(text: &str, known: &Arg, base: &Path) -> OsString {
    let is_one_of = |names: &[&str]| {
        let own = known.get_value_names().unwrap_or_default();
        own.iter().any(|name| names.contains(&name.as_str()))
    };
    if is_one_of(&["FILE", "PATH"]) && !text.is_empty() {
        return PathBuf::from(base).join(text).into();
    }
    // What cannot be read is complained of as it stands there.
    match TunnelServers::parse(text).filter(|_| is_one_of(&[SERVER])) {
        Some(servers) => servers.from_directory(base).to_string().into(),
        None => text.into(),
    }
}

/// `serverCaCert` as `server-ca-cert`. What is in kebab-case already is no key.
fn kebab(key: &str) -> String {
    let mut flag = String::new();
    for char in key.chars() {
        match char {
            '-' | '_' => return String::new(),
            'A'..='Z' => flag.extend(['-', char.to_ascii_lowercase()]),
            other => flag.push(other),
        }
    }
    flag
}

fn camel(flag: &str) -> String {
    let mut words = flag.split('-');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        key.push_str(&first.to_ascii_uppercase());
        key.push_str(rest);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_key() {
        let mut cli = Cli::command();
        cli.build();
        let tunnel = cli.find_subcommand("tunnel").unwrap();
        for (_, name) in SECTIONS {
            let flags = tunnel.find_subcommand(name).unwrap().get_arguments();
            for flag in flags.filter_map(|arg| arg.get_long()) {
                assert_eq!(kebab(&camel(flag)), flag);
            }
        }
    }
}
