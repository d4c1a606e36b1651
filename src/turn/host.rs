//! Where the server runs, which may change while it does: the machine's addresses, and what a NAT in
//! front of it makes of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::allocation::AllocationId;
use super::event::Event;
use super::policy;
use super::server::Server;

impl Server {
    /// Tells what addresses the machine has now: peers there are this machine, and those that
    /// clients have there already are taken from them.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpAddr>, broadcasts: Vec<Ipv4Addr>) {
        if self.policy.set_own_addresses(addresses, broadcasts) {
            self.ask_again_for_all();
        }
    }

    /// Tells what the NAT in front of the machine does now, and what relayed addresses show from
    /// here on. Those allocated before keep what they show, and are found as such no more: nobody
    /// can reach them there.
    pub fn set_aliases(&mut self, aliases: Vec<policy::Alias>, relay_addresses: Vec<IpAddr>) {
        if self.policy.set_aliases(aliases, relay_addresses) {
            self.ask_again_for_all();
        }
    }

    /// Asks the policy, which has changed, about all that it has let through before.
    fn ask_again_for_all(&mut self) {
        for id in self.allocations.ids() {
            self.ask_again(id);
        }
    }

    /// The same for one allocation: here, and not for each packet.
    pub(super) fn ask_again(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let removed = allocation.ask_again(&self.policy);
        self.stats.peer_connections -= removed.connections as u64;
        let unpermitted = removed.ips.into_iter().map(|peer| Event::Unpermitted { id, peer });
        self.events.extend(unpermitted);
        self.events.extend(removed.peers.into_iter().map(|peer| Event::Parted { id, peer }));
    }

    /// Whether `address` could be one of our own relayed addresses.
    #[must_use]
    pub fn may_relay_at(&self, address: SocketAddr) -> bool {
        self.policy.is_relayed(address)
    }
}
