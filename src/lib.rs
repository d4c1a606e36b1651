//! hairpin, a STUN and TURN server.
//!
//! | module | what it owns |
//! |---|---|
//! | [`stun`] | the wire: STUN messages and ChannelData, bytes to values and back |
//! | [`turn`] | the protocol: one server's state, as a function of bytes, time and randomness |
//! | [`signal`] | signaling: a hub of peers and rooms, as a function of messages and time |
//! | [`net`] | the sockets: threads, system calls, the clock, ports and quotas |
//! | [`http`] | the admin plane: metrics and health |
//! | [`probe`] | a client of its own that examines networks and servers |
//! | [`config`] | settings from TOML, validated |
//! | [`logging`] | the log's form |
//! | [`load`] | the load generator: clients and peers, on a schedule, and what became of it |
//! | [`server`] | the supervisor: starts and stops all of it |
//! | [`cli`] | the command line |
//!
//! Arrows go one way: `cli → server → {net, http} → turn → stun`; `probe` knows none of them but the
//! clock. ARCHITECTURE.md draws the way of a packet.

pub mod cli;
pub mod config;
pub mod http;
pub mod load;
pub mod logging;
pub mod net;
pub mod probe;
pub mod server;
pub mod signal;
pub mod stun;
pub mod turn;
