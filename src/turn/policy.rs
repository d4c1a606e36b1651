//! Which peers may be reached: one function, deny by default.

use ipnet::IpNet;

/// The operator's exceptions.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Exceptions to the built-in deny list.
    pub allow: Vec<IpNet>,
    /// More to deny; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Nothing but `allow`.
    pub only_allowed: bool,
}
