//! Why a load could not be run, in one line.

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;

use crate::stun::Method;

/// Why a load could not be run.
#[derive(Debug)]
pub enum Error {
    /// The URI is none.
    Uri(String),
    /// The name has no address.
    Unresolved {
        /// The name.
        host: String,
        /// Why not.
        error: io::Error,
    },
    /// A load at a public address was not asked for.
    Public {
        /// What has the address.
        what: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// No connection, or nothing listens.
    Unreachable {
        /// The server.
        address: SocketAddr,
        /// Over what.
        over: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Nobody answered.
    NoAnswer {
        /// The server.
        address: SocketAddr,
        /// What was asked.
        method: Method,
    },
    /// Somebody answered, but with something else.
    NotStun {
        /// Who.
        address: SocketAddr,
    },
    /// The TLS handshake failed.
    Tls {
        /// The server.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Neither roots to trust nor the wish to trust anybody.
    NoRoots,
    /// The file of roots is none.
    Roots(String),
    /// The server answered with an error.
    Refused {
        /// What was asked.
        method: Method,
        /// The code.
        code: u16,
        /// The server's words.
        reason: String,
    },
    /// A success response without what it must have, or one that is not authentic.
    Malformed {
        /// What was asked.
        method: Method,
    },
    /// The server has closed the connection.
    Closed,
    /// No socket, thread or core of this machine.
    Local {
        /// What could not be had.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The server's process cannot be looked at.
    Process {
        /// Its number.
        pid: u32,
        /// Why not.
        error: io::Error,
    },
}

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(message) | Self::Roots(message) => f.write_str(message),
            Self::Unresolved { host, error } => write!(f, "cannot resolve {host}: {error}"),
            Self::Public { what, address } => write!(
                f,
                "{what} {address} is neither a loopback nor a private address: a load is for \
                 servers of your own; --yes-really if this is one"
            ),
            Self::Unreachable { address, over, error } => {
                write!(f, "cannot reach {address} over {over}: {error}")
            }
            Self::NoAnswer { address, method } => write!(
                f,
                "no answer from {address} to {method:?}: it is down, filtered, or limits how many \
                 it answers"
            ),
            Self::NotStun { address } => {
                write!(f, "what answers on {address} is no STUN or TURN server")
            }
            Self::Tls { address, error } => write!(f, "TLS with {address} failed: {error}"),
            Self::NoRoots => f.write_str(
                "TLS needs --ca with the certificates to trust (such as \
                 /etc/ssl/certs/ca-certificates.crt), or --insecure",
            ),
            Self::Refused { method, code, reason } => {
                let gap = if reason.is_empty() { "" } else { " " };
                write!(f, "the server refuses {method:?} with {code}{gap}{reason}{}", hint(*code))
            }
            Self::Malformed { method } => {
                write!(f, "the server's response to {method:?} is malformed or not authentic")
            }
            Self::Closed => f.write_str("the server has closed the connection"),
            Self::Local { what, error } => write!(f, "no {what} on this machine: {error}"),
            Self::Process { pid, error } => write!(f, "cannot look at process {pid}: {error}"),
        }
    }
}

/// What is behind most refusals with this code.
fn hint(code: u16) -> &'static str {
    match code {
        401 => ": wrong user or password",
        403 => ": it does not let clients reach this peer (hairpin: peers.allow)",
        486 => ": too many allocations for one user (hairpin: limits.allocations_per_user)",
        508 => ": it has no relay ports left",
        _ => "",
    }
}
