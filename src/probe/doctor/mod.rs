//! Why a STUN or TURN server works or does not: each step from the name to bytes through the relay.

mod cause;
mod checkup;
mod client;
mod denied;
mod dtls;
mod relaying;
mod report;
mod tls;
mod traffic;
mod uri;
mod wire;

pub use checkup::{Credentials, Doing, Options, examine};
pub use report::{Report, State, Step, Visit};
pub use tls::Trust;
pub use uri::{Transport, Uri};
