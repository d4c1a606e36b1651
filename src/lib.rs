//! hairpin, a STUN and TURN server.
pub mod stun;
