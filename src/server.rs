//! The supervisor: starts the shards and the admin plane, and stops them.
//!
//! A placeholder for the command line to build against, to be replaced whole.

use std::fmt::{self, Display};
use std::net::SocketAddr;

use crate::config::Config;

/// What a server that is ready listens on; where the settings say port 0, the ports it got.
#[derive(Debug)]
pub struct Running {
    /// STUN and TURN.
    pub listen: Vec<SocketAddr>,
    /// The admin plane.
    pub http: Vec<SocketAddr>,
}

/// Why the server could not start, or had to stop.
#[derive(Debug)]
pub struct Error;

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this build has no server yet")
    }
}

/// Runs the server until it is told to stop; calls `ready` once every listener is bound.
///
/// # Errors
/// Where a listener cannot be bound.
pub fn run(_config: Config, _ready: impl FnOnce(&Running)) -> Result<(), Error> {
    Err(Error)
}
