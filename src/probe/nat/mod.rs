//! What the NATs between this machine and a server do: RFC 5780, in the terms of RFC 4787.

mod discovery;
mod lifetime;
mod run;
mod tcp;
mod transaction;
mod verdict;

pub use discovery::{Discovery, Facts, Reply, SOCKETS, Trial};
pub use lifetime::{Lifetime, LifetimeSearch, Method};
pub use run::{Options, Outcome, Progress, examine};
pub use tcp::Tcp;
pub use transaction::{SocketIndex, TRANSMISSIONS, Transmit};
pub use verdict::{Filtering, Fragments, Hairpinning, Kind, Mapping, Report, Unknown};
