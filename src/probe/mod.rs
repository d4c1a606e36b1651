//! A client that looks at the network and at servers: what `hairpin nat` and `hairpin doctor` say.
//!
//! It speaks through the `stun` and `turn` crates, which share no line with this server, so that
//! its verdict is never the server agreeing with itself. Transactions are its own: `turn::client`
//! hides codes, ends at the first packet it did not expect, and knows UDP alone.

pub mod doctor;
pub mod message;
pub mod nat;
pub mod resolve;
pub mod scope;
pub mod stream;
