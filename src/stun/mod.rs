//! The wire: STUN messages and ChannelData, bytes to values and back.
//!
//! Owns the formats of RFC 8489 and RFC 8656 §17–§18 and nothing else: no state, no IO, no clock.
//! Nothing here panics on any input; indexing and unchecked arithmetic are denied to keep it so.
#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod address;
pub mod attribute;
pub mod builder;
pub mod channel;
pub mod classic;
pub mod error;
pub mod framing;
pub mod integrity;
pub mod message;
pub mod reflexive;
#[cfg(test)]
mod wire;

pub use address::AddressFamily;
pub use builder::Builder;
pub use channel::{ChannelData, ChannelNumber, ChannelRange};
pub use classic::ClassicRequest;
pub use error::{Code, Malformed, ParseError};
pub use integrity::{Integrity, Key};
pub use message::{Class, Message, Method, TransactionId};
