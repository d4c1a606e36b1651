//! The command line: one file per subcommand.

mod bench;
mod check;
mod credentials;
mod doctor;
mod holder;
mod nat;
mod serve;
mod terminal;

use std::fmt::{self, Display};
use std::io::{self, Write};

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::server;

/// A STUN and TURN server: tells clients their public address and relays for those behind NATs.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hairpin serve --dev                      try it on this machine, with user dev, password dev
  hairpin check --config hairpin.toml      what would a server with this file do?
  hairpin serve --config hairpin.toml      run it
  hairpin credentials --user alice --host turn.example.org  for an hour, as iceServers JSON
  hairpin bench turn:127.0.0.1 --user dev --pass dev       what does a server bear?
  hairpin doctor turn:turn.example.org --user alice --pass secret  why does it not work?
  hairpin nat --server stun.example.org    which kind of NAT is this machine behind?

Without --config: ./config.toml, then /etc/hairpin/config.toml, then the defaults.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Credentials(credentials::Credentials),
    Bench(Box<bench::Bench>),
    Doctor(doctor::Doctor),
    Nat(nat::Nat),
}

impl Cli {
    /// Does what was asked for, and writes what there is to read to `out`.
    ///
    /// # Errors
    /// Where it cannot be done; the error is one line for the operator.
    pub fn run(self, out: &mut impl Write) -> Result<(), Error> {
        match self.command {
            Command::Serve(serve) => serve.run(out),
            Command::Check(check) => check.run(out),
            Command::Credentials(credentials) => credentials.run(out),
            Command::Bench(bench) => bench.run(out),
            Command::Doctor(doctor) => doctor.run(out),
            Command::Nat(nat) => nat.run(out),
        }
    }
}

/// Why a command did not do what was asked for.
#[derive(Debug)]
pub enum Error {
    /// The configuration is refused.
    Config(ConfigError),
    /// The command cannot be carried out as it was typed.
    Refused(String),
    /// The server could not start, or had to stop.
    Server(server::Error),
    /// Nobody reads what is printed.
    Output(io::Error),
}

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Refused(message) => f.write_str(message),
            Self::Server(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<server::Error> for Error {
    fn from(error: server::Error) -> Self {
        Self::Server(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dev_and_a_file_exclude_each_other() {
        let dev = ["hairpin", "serve", "--dev"];
        assert!(Cli::try_parse_from(dev).is_ok());
        assert!(Cli::try_parse_from(dev.iter().chain(&["--config", "c.toml"])).is_err());
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
        }
    }
}
