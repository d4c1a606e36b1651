//! What stands in for sockets: few ports, a quota for each user, reservations, and binds that fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hairpin::turn::{AllocateError, AllocationId};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::model::{PORTS, Port, QUOTA, RELAY_V4, RELAY_V6};

/// RFC 8656 §7.2.
const HOLD_MS: u64 = 30_000;

#[derive(Debug)]
pub(crate) struct Driver {
    free: Vec<SocketAddr>,
    pub(crate) used: BTreeMap<SocketAddr, (AllocationId, String)>,
    /// By token.
    reserved: BTreeMap<[u8; 8], Reserved>,
    quota: BTreeMap<String, usize>,
    total: usize,
}

/// Ports for an allocation, one of each family at most.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) ports: Vec<SocketAddr>,
    /// Of the next port.
    pub(crate) token: Option<[u8; 8]>,
}

/// Why there are none, and the code of the answer the client must get.
pub(crate) type Refusal = (AllocateError, u16);

#[derive(Debug)]
struct Reserved {
    port: SocketAddr,
    user: String,
    until: u64,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let free: Vec<SocketAddr> = [RELAY_V4, RELAY_V6]
            .iter()
            .flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip.parse().unwrap(), port)))
            .collect();
        let total = free.len();
        let (used, reserved, quota) = Default::default();
        Self { free, used, reserved, quota, total }
    }

    /// Takes what is asked for out of the pool, as far as it is there.
    pub(crate) fn take(
        &mut self,
        user: &str,
        wish: Port,
        ms: u64,
        rng: &mut StdRng,
    ) -> Result<Taken, Refusal> {
        self.expire(ms);
        if wish != Port::Both {
            let (port, token) = self.take_one(user, wish, 0, ms, rng)?;
            return Ok(Taken { ports: vec![port], token });
        }
        let first = self.take_one(user, Port::Any { v6: false }, 0, ms, rng);
        let taken = usize::from(first.is_ok());
        let second = self.take_one(user, Port::Any { v6: true }, taken, ms, rng);
        let ports: Vec<_> = [first, second].iter().flatten().map(|&(port, _)| port).collect();
        match ports.is_empty() {
            true => Err(first.unwrap_err()),
            false => Ok(Taken { ports, token: None }),
        }
    }

    /// One port, where the quota has room for `taken` besides it, and the next one in reserve where
    /// that is asked for.
    fn take_one(
        &mut self,
        user: &str,
        wish: Port,
        taken: usize,
        ms: u64,
        rng: &mut StdRng,
    ) -> Result<(SocketAddr, Option<[u8; 8]>), Refusal> {
        const NONE: Refusal = (AllocateError::NoCapacity, 508);
        let (v6, even, pair) = match wish {
            Port::Both => unreachable!("that is two"),
            Port::Any { v6 } => (v6, false, false),
            Port::Even { v6 } => (v6, true, false),
            Port::Pair { v6 } => (v6, true, true),
            Port::Reserved(token) => {
                let reserved = self.reserved.get(&token).filter(|own| own.user == user);
                let port = reserved.ok_or(NONE)?.port;
                self.reserved.remove(&token);
                // It counts again when it is settled.
                self.count_down(user);
                return Ok((port, None));
            }
        };
        let held = self.quota.get(user).copied().unwrap_or(0);
        if held + taken + 1 + usize::from(pair) > QUOTA {
            return Err((AllocateError::QuotaReached, 486));
        }
        let next = |port: SocketAddr| SocketAddr::new(port.ip(), port.port() + 1);
        let suits = |port: SocketAddr| {
            port.is_ipv6() == v6
                && (!even || port.port().is_multiple_of(2))
                && (!pair || self.free.contains(&next(port)))
        };
        let fitting: Vec<_> = self.free.iter().copied().filter(|&port| suits(port)).collect();
        if fitting.is_empty() || rng.random_bool(0.05) {
            return Err(NONE);
        }
        let port = fitting[rng.random_range(0..fitting.len())];
        self.free.retain(|&other| other != port);
        if !pair {
            return Ok((port, None));
        }
        let token = rng.random();
        self.free.retain(|&other| other != next(port));
        let reserved = Reserved { port: next(port), user: user.to_owned(), until: ms + HOLD_MS };
        self.reserved.insert(token, reserved);
        *self.quota.entry(user.to_owned()).or_default() += 1;
        Ok((port, Some(token)))
    }

    /// The ports belong to allocations now, or go back, and with them what was reserved.
    pub(crate) fn settle(&mut self, taken: Taken, ids: &[AllocationId], user: &str) {
        if ids.is_empty() {
            self.free.extend(taken.ports);
            self.end(|own, _| Some(own) == taken.token.as_ref());
            return;
        }
        assert_eq!(ids.len(), taken.ports.len());
        for (port, &id) in taken.ports.into_iter().zip(ids) {
            assert!(self.used.insert(port, (id, user.to_owned())).is_none());
            *self.quota.entry(user.to_owned()).or_default() += 1;
        }
    }

    /// The allocation of this port has closed.
    pub(crate) fn release(&mut self, port: SocketAddr) -> AllocationId {
        let (id, user) = self.used.remove(&port).expect("what closes was open");
        self.count_down(&user);
        self.free.push(port);
        id
    }

    fn expire(&mut self, ms: u64) {
        self.end(|_, reserved| reserved.until <= ms);
    }

    /// Ends reservations.
    fn end(&mut self, over: impl Fn(&[u8; 8], &Reserved) -> bool) {
        let ended: Vec<_> = self.reserved.extract_if(.., |token, own| over(token, own)).collect();
        for (_, Reserved { port, user, .. }) in ended {
            self.free.push(port);
            self.count_down(&user);
        }
    }

    fn count_down(&mut self, user: &str) {
        let held = self.quota.get_mut(user).unwrap();
        *held = held.checked_sub(1).expect("a quota is never negative");
    }

    pub(crate) fn port_of(&self, wanted: AllocationId) -> SocketAddr {
        *self.used.iter().find(|(_, (id, _))| *id == wanted).expect("a live allocation").0
    }

    pub(crate) fn free(&self) -> &[SocketAddr] {
        &self.free
    }

    pub(crate) fn reserved(&self) -> usize {
        self.reserved.len()
    }

    /// Ports, and the quota on this side.
    pub(crate) fn check(&mut self, ms: u64, held_by: impl Fn(&str) -> usize) {
        self.expire(ms);
        let all = self.free.len() + self.used.len() + self.reserved.len();
        assert_eq!(all, self.total, "ports: every port is somewhere");
        for (user, &held) in &self.quota {
            let reserved = self.reserved.values().filter(|own| own.user == *user).count();
            assert_eq!(held, held_by(user) + reserved, "quota: what is held by {user}");
        }
    }
}
