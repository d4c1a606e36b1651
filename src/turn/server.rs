//! The server.

use super::{auth, limits, policy};

/// What the operator decides about the protocol core.
#[derive(Clone, Debug)]
pub struct Config {
    /// Credentials and challenges.
    pub auth: auth::Config,
    /// Which peers may be reached.
    pub policy: policy::Config,
    /// Caps and lifetimes.
    pub limits: limits::Config,
    /// Sent as SOFTWARE in authenticated and Binding responses where set.
    pub software: Option<String>,
}
