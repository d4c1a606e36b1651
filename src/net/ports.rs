//! The relay ports of the process: random, each with one owner, and rested before reuse.
//!
//! The invariant: `free + used + cooling` is the size of the range, always.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clock;

/// How long a released port rests while others are free, so that late packets for its last owner
/// do not meet the next one.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// The ports of one relay address. Shared by all shards, behind a lock that only opening and
/// closing an allocation take.
#[derive(Debug)]
pub struct PortPool {
    address: IpAddr,
    /// What peers see in its place.
    advertised: ArcSwap<IpAddr>,
    first: u16,
    /// For each port of the range, one more than the shard that holds it; 0 is nobody. Read on the
    /// data path, hence not behind the lock; a stale answer loses a packet, as any late one is.
    holders: Box<[AtomicUsize]>,
    state: Mutex<State>,
}

/// What a port must be like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parity {
    /// Any number will do.
    Any,
    /// An even number, as EVEN-PORT asks (RFC 8656 §7.2).
    Even,
}

#[derive(Debug)]
struct State {
    /// Even ports, then odd ones.
    free: [Vec<u16>; 2],
    used: usize,
    /// Released ports with the end of their rest, oldest first.
    cooling: VecDeque<(Instant, u16)>,
    rng: StdRng,
}

/// How many ports are in which state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortCounts {
    /// Ready to be taken.
    pub free: usize,
    /// Held by a [`PortLease`].
    pub used: usize,
    /// Released not long ago; taken only when no port is free.
    pub cooling: usize,
}

impl PortPool {
    /// All of `ports` on `address`, free. Random choices follow from `seed`.
    #[must_use]
    pub fn new(address: IpAddr, ports: RangeInclusive<u16>, seed: [u8; 32]) -> Arc<Self> {
        let first = *ports.start();
        let holders = ports.clone().map(|_| AtomicUsize::new(0)).collect();
        let state = State {
            free: ports.partition(is_even).into(),
            used: 0,
            cooling: VecDeque::new(),
            rng: StdRng::from_seed(seed),
        };
        let advertised = ArcSwap::from_pointee(address);
        Arc::new(Self { address, advertised, first, holders, state: Mutex::new(state) })
    }

    /// The address the ports belong to.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What peers see: the address itself, or the external one that a NAT shows for it.
    #[must_use]
    pub fn advertised(&self) -> IpAddr {
        **self.advertised.load()
    }

    /// Changes what peers see; what has been bound keeps what it was given.
    pub fn advertise(&self, external: IpAddr) {
        self.advertised.store(Arc::new(external));
    }

    /// The shard that holds a port.
    #[must_use]
    pub fn holder(&self, port: u16) -> Option<usize> {
        let index = usize::from(port.checked_sub(self.first)?);
        self.holders.get(index)?.load(Ordering::Relaxed).checked_sub(1)
    }

    fn set_holder(&self, port: u16, shard: Option<usize>) {
        let holder = &self.holders[usize::from(port - self.first)];
        holder.store(shard.map_or(0, |shard| shard + 1), Ordering::Relaxed);
    }

    /// A random free port (RFC 6056); where none is free, the one that has rested longest.
    #[must_use]
    pub fn take(self: &Arc<Self>, parity: Parity, now: Instant) -> Option<PortLease> {
        let mut state = self.lock();
        state.wake(now);
        let port = state.pick(parity).or_else(|| state.pick_resting(parity))?;
        state.used += 1;
        Some(PortLease { pool: Arc::clone(self), port })
    }

    /// How many ports are in which state.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let state = self.lock();
        let free = state.free.iter().map(Vec::len).sum();
        PortCounts { free, used: state.used, cooling: state.cooling.len() }
    }

    fn release(&self, port: u16, now: Instant) {
        let mut state = self.lock();
        state.used -= 1;
        state.cooling.push_back((now + COOL_DOWN, port));
    }

    /// No code that holds the lock can leave the state half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Frees the ports that have rested enough.
    fn wake(&mut self, now: Instant) {
        while let Some(&(rested, port)) = self.cooling.front() {
            if rested > now {
                return;
            }
            self.cooling.pop_front();
            self.free[usize::from(!is_even(&port))].push(port);
        }
    }

    fn pick(&mut self, parity: Parity) -> Option<u16> {
        let [even, odd] = self.free.each_ref().map(Vec::len);
        let count = match parity {
            Parity::Any => even + odd,
            Parity::Even => even,
        };
        if count == 0 {
            return None;
        }
        let index = self.rng.random_range(0..count);
        Some(match index.checked_sub(even) {
            None => self.free[0].swap_remove(index),
            Some(index) => self.free[1].swap_remove(index),
        })
    }

    fn pick_resting(&mut self, parity: Parity) -> Option<u16> {
        let suits = |port| parity == Parity::Any || is_even(port);
        let index = self.cooling.iter().position(|(_, port)| suits(port))?;
        self.cooling.remove(index).map(|(_, port)| port)
    }
}

fn is_even(port: &u16) -> bool {
    port.is_multiple_of(2)
}

/// The right to bind one port, given back when dropped: keep it as long as the socket, and drop
/// the socket first.
#[derive(Debug)]
pub struct PortLease {
    pool: Arc<PortPool>,
    port: u16,
}

impl PortLease {
    /// Lets other shards find the one that has bound the port.
    pub fn hold(&self, shard: usize) {
        self.pool.set_holder(self.port, Some(shard));
    }

    /// What peers see.
    #[must_use]
    pub fn advertised(&self) -> SocketAddr {
        SocketAddr::new(self.pool.advertised(), self.port)
    }

    /// What to bind.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pool.address, self.port)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.pool.set_holder(self.port, None);
        self.pool.release(self.port, clock::now().instant);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pool(ports: RangeInclusive<u16>) -> Arc<PortPool> {
        PortPool::new(IpAddr::from([127, 0, 0, 1]), ports, [7; 32])
    }

    #[test]
    fn every_port_has_one_owner_and_counts_add_up() {
        let pool = pool(50_000..=50_099);
        let now = clock::now().instant;
        let leases: Vec<_> = (0..100).map(|_| pool.take(Parity::Any, now).unwrap()).collect();
        let ports: BTreeSet<_> = leases.iter().map(|lease| lease.address().port()).collect();
        assert_eq!(ports, (50_000..=50_099).collect());
        assert!(pool.take(Parity::Any, now).is_none());
        assert_eq!(pool.counts(), PortCounts { free: 0, used: 100, cooling: 0 });
        drop(leases);
        assert_eq!(pool.counts(), PortCounts { free: 0, used: 0, cooling: 100 });
    }

    #[test]
    fn released_port_rests_while_others_are_free() {
        let pool = pool(50_000..=50_001);
        let now = clock::now().instant;
        let first = pool.take(Parity::Any, now).unwrap().address();
        assert_ne!(pool.take(Parity::Any, now).unwrap().address(), first);
        let rested = clock::now().instant + COOL_DOWN;
        let _both =
            [pool.take(Parity::Any, rested).unwrap(), pool.take(Parity::Any, rested).unwrap()];
        assert_eq!(pool.counts(), PortCounts { free: 0, used: 2, cooling: 0 });
    }

    #[test]
    fn resting_port_is_taken_at_once_when_none_is_free() {
        let pool = pool(50_000..=50_000);
        let now = clock::now().instant;
        drop(pool.take(Parity::Any, now).unwrap());
        assert!(pool.take(Parity::Any, now).is_some());
    }

    #[test]
    fn even_ports_are_even_and_do_not_use_up_odd_ones() {
        let pool = pool(50_000..=50_019);
        let now = clock::now().instant;
        let even: Vec<_> = (0..10).map(|_| pool.take(Parity::Even, now).unwrap()).collect();
        assert!(even.iter().all(|lease| lease.address().port() % 2 == 0));
        assert!(pool.take(Parity::Even, now).is_none());
        assert_eq!(pool.counts(), PortCounts { free: 10, used: 10, cooling: 0 });
    }

    #[test]
    fn even_ports_taken_and_released_again_and_again_are_never_lost() {
        let pool = pool(50_000..=50_019);
        let now = clock::now().instant;
        for _ in 0..50 {
            drop(pool.take(Parity::Even, now).unwrap());
        }
        let all: Vec<_> = (0..20).map(|_| pool.take(Parity::Any, now).unwrap()).collect();
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn a_held_port_names_its_shard_until_it_is_released() {
        let pool = pool(50_000..=50_001);
        let lease = pool.take(Parity::Any, clock::now().instant).unwrap();
        let port = lease.address().port();
        assert_eq!(pool.holder(port), None);
        lease.hold(3);
        assert_eq!(pool.holder(port), Some(3));
        assert_eq!([pool.holder(0), pool.holder(49_999), pool.holder(50_002)], [None; 3]);
        drop(lease);
        assert_eq!(pool.holder(port), None);
    }

    #[test]
    fn ports_come_in_no_order() {
        let pool = pool(49_152..=65_535);
        let now = clock::now().instant;
        let leases: Vec<_> = (0..500).map(|_| pool.take(Parity::Any, now).unwrap()).collect();
        let ports: Vec<i32> = leases.iter().map(|lease| lease.address().port().into()).collect();
        let rising = ports.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((175..325).contains(&rising), "{rising} of 499 rise");
        let near = ports.windows(2).filter(|pair| (pair[0] - pair[1]).abs() < 16).count();
        assert!(near < 20, "{near} of 499 are neighbours");
    }
}
