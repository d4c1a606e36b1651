//! The admin plane: metrics and health, on its own thread, never on the data path.

use std::net::SocketAddr;

/// Where the admin plane listens.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Addresses of the HTTP listener.
    pub listen: Vec<SocketAddr>,
}
