//! hairpin, a STUN and TURN server.
pub mod http;
pub mod net;
pub mod stun;
pub mod turn;
