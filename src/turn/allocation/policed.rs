//! What a policy that has changed leaves of an allocation.

use std::net::{IpAddr, SocketAddr};

use super::Allocation;
use crate::turn::policy::{Forbidden, Policy, Port};

/// What an allocation had and has no more.
#[derive(Debug, Default)]
pub(in crate::turn) struct Removed {
    /// Of permissions.
    pub(in crate::turn) ips: Vec<IpAddr>,
    /// Of channels and connections.
    pub(in crate::turn) peers: Vec<SocketAddr>,
    /// How many connections there are among them.
    pub(in crate::turn) connections: usize,
}

impl Allocation {
    /// Takes away what the policy lets through no more. Where it has come to know a peer as one
    /// of our own relayed addresses, the channel leads there.
    pub(in crate::turn) fn ask_again(&mut self, policy: &Policy) -> Removed {
        let mut removed = Removed::default();
        self.permissions.retain(|permission| {
            let is_admitted = policy.admit(SocketAddr::new(permission.ip, 0), Port::Any).is_ok();
            if !is_admitted {
                removed.ips.push(permission.ip);
            }
            is_admitted
        });
        self.channels.retain_mut(|channel| {
            let address = channel.peer.address();
            match policy.admit(address, Port::Exact) {
                Ok(peer) => channel.peer = peer,
                Err(Forbidden) => {
                    removed.peers.push(address);
                    return false;
                }
            }
            true
        });
        if let Some(connections) = &mut self.connections {
            let ended =
                connections.retain(|peer| policy.admit(peer, Port::Exact) != Err(Forbidden));
            removed.connections = ended.len();
            removed.peers.extend(ended);
        }
        removed
    }
}
