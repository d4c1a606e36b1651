//! Parses the command line, runs it, and turns the outcome into an exit code.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use hairpin::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
