//! Where the server runs, which may change while it does: the machine's addresses, and what a NAT in
//! front of it makes of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::policy;
use super::server::Server;

impl Server {
    /// Tells what addresses the machine has now: peers there are this machine.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpAddr>, broadcasts: Vec<Ipv4Addr>) {
        self.policy.set_own_addresses(addresses, broadcasts);
    }

    /// Tells what the NAT in front of the machine does now, and what relayed addresses show from
    /// here on. Those allocated before keep what they show, and are found as such no more: nobody
    /// can reach them there.
    pub fn set_aliases(&mut self, aliases: Vec<policy::Alias>, relay_addresses: Vec<IpAddr>) {
        self.policy.set_aliases(aliases, relay_addresses);
    }

    /// Whether `address` could be one of our own relayed addresses.
    #[must_use]
    pub fn may_relay_at(&self, address: SocketAddr) -> bool {
        self.policy.is_relayed(address)
    }
}
