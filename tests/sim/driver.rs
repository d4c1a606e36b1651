//! What stands in for sockets: few ports, a quota for each user, and binds that fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hairpin::turn::{AllocateError, AllocationId};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::model::{PORTS, QUOTA, RELAY_V4, RELAY_V6};

#[derive(Debug)]
pub(crate) struct Driver {
    free: Vec<SocketAddr>,
    pub(crate) used: BTreeMap<SocketAddr, (AllocationId, String)>,
    quota: BTreeMap<String, usize>,
    total: usize,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let free: Vec<SocketAddr> = [RELAY_V4, RELAY_V6]
            .iter()
            .flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip.parse().unwrap(), port)))
            .collect();
        let total = free.len();
        Self { free, used: BTreeMap::new(), quota: BTreeMap::new(), total }
    }

    /// Takes a port out of the pool; the code is that of the answer the client must get.
    pub(crate) fn take(
        &mut self,
        user: &str,
        v6: bool,
        rng: &mut StdRng,
    ) -> Result<SocketAddr, (AllocateError, u16)> {
        if self.quota.get(user).copied().unwrap_or(0) >= QUOTA {
            return Err((AllocateError::QuotaReached, 486));
        }
        let fitting: Vec<usize> =
            (0..self.free.len()).filter(|&at| self.free[at].is_ipv6() == v6).collect();
        if fitting.is_empty() || rng.random_bool(0.05) {
            return Err((AllocateError::NoCapacity, 508));
        }
        Ok(self.free.swap_remove(fitting[rng.random_range(0..fitting.len())]))
    }

    /// The port belongs to an allocation now, or goes back.
    pub(crate) fn settle(&mut self, port: SocketAddr, id: Option<AllocationId>, user: &str) {
        match id {
            Some(id) => {
                assert!(self.used.insert(port, (id, user.to_owned())).is_none());
                *self.quota.entry(user.to_owned()).or_default() += 1;
            }
            None => self.free.push(port),
        }
    }

    /// The allocation of this port has closed.
    pub(crate) fn release(&mut self, port: SocketAddr) -> AllocationId {
        let (id, user) = self.used.remove(&port).expect("what closes was open");
        let held = self.quota.get_mut(&user).unwrap();
        *held = held.checked_sub(1).expect("a quota is never negative");
        self.free.push(port);
        id
    }

    pub(crate) fn port_of(&self, wanted: AllocationId) -> SocketAddr {
        *self.used.iter().find(|(_, (id, _))| *id == wanted).expect("a live allocation").0
    }

    pub(crate) fn free(&self) -> &[SocketAddr] {
        &self.free
    }

    /// Ports, and the quota on this side.
    pub(crate) fn check(&self, held_by: impl Fn(&str) -> usize) {
        assert_eq!(self.free.len() + self.used.len(), self.total, "ports: every port is somewhere");
        for (user, &held) in &self.quota {
            assert_eq!(held, held_by(user), "quota: what is held by {user}");
        }
    }
}
