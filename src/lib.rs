//! hairpin, a STUN and TURN server.
pub mod cli;
pub mod config;
pub mod http;
pub mod logging;
pub mod net;
pub mod server;
pub mod stun;
pub mod turn;
