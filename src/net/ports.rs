//! The relay ports of the process: random, each with one owner, and rested before reuse.
//!
//! The invariant: `free + used + reserved + cooling` is the size of the range, always.

mod reservations;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::clock;
use super::quota::QuotaLease;
use crate::stun::attribute::ReservationToken;
use reservations::{Reservations, Reserved};

/// How long a released port rests while others are free, so that late packets for its last owner
/// do not meet the next one.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long the second port of a pair waits for its owner: the least that RFC 8656 §7.2 allows.
const RESERVATION_HOLD: Duration = Duration::from_secs(30);

/// The ports of one relay address. Shared by all shards, behind a lock that only opening and
/// closing an allocation take.
#[derive(Debug)]
pub struct PortPool {
    address: IpAddr,
    /// What peers see in its place.
    advertised: ArcSwap<IpAddr>,
    first: u16,
    /// For each port of the range, one more than the shard that holds it; 0 is nobody, [`TCP`] an
    /// allocation for TCP of any shard. Read on the
    /// data path, hence not behind the lock; a stale answer loses a packet, as any late one is.
    holders: Box<[AtomicUsize]>,
    state: Mutex<State>,
}

/// Holds a port for connections, which find their shard by themselves.
const TCP: usize = usize::MAX;

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
    first: u16,
    /// What each port of the range is.
    states: Box<[PortState]>,
    /// Even ports, then odd ones.
    free: [Vec<u16>; 2],
    used: usize,
    reserved: Reservations,
    /// Released ports with the end of their rest, oldest first.
    cooling: VecDeque<(Instant, u16)>,
    rng: StdRng,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PortState {
    Free,
    /// Used or reserved.
    Held,
    Cooling,
}

/// How many ports are in which state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortCounts {
    /// Ready to be taken.
    pub free: usize,
    /// Held by a [`PortLease`].
    pub used: usize,
    /// Waiting for who knows their token.
    pub reserved: usize,
    /// Released not long ago; taken only when no port is free.
    pub cooling: usize,
}

impl PortPool {
    /// All of `ports` on `address`, free. Random choices follow from `seed`, and so do the tokens
    /// of reservations: it must be unknown to others.
    #[must_use]
    pub fn new(address: IpAddr, ports: RangeInclusive<u16>, seed: [u8; 32]) -> Arc<Self> {
        let first = *ports.start();
        let holders = ports.clone().map(|_| AtomicUsize::new(0)).collect();
        let state = State {
            first,
            states: vec![PortState::Free; ports.len()].into(),
            free: ports.partition(is_even).into(),
            used: 0,
            reserved: Reservations::default(),
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

    /// The shard that holds a port for datagrams.
    #[must_use]
    pub fn holder(&self, port: u16) -> Option<usize> {
        self.held(port).filter(|&held| held != TCP)?.checked_sub(1)
    }

    /// Whether somebody holds a port for connections.
    #[must_use]
    pub fn speaks_tcp(&self, port: u16) -> bool {
        self.held(port) == Some(TCP)
    }

    fn held(&self, port: u16) -> Option<usize> {
        let index = usize::from(port.checked_sub(self.first)?);
        Some(self.holders.get(index)?.load(Ordering::Relaxed))
    }

    fn set_held(&self, port: u16, held: usize) {
        self.holders[usize::from(port - self.first)].store(held, Ordering::Relaxed);
    }

    /// How many ports like this can be taken without waking one from its rest.
    #[must_use]
    pub fn free(&self, parity: Parity, now: Instant) -> usize {
        let mut state = self.lock();
        state.wake(now);
        state.free_of(parity)
    }

    /// A random free port (RFC 6056); where none is free, the one that has rested longest.
    #[must_use]
    pub fn take(self: &Arc<Self>, parity: Parity, now: Instant) -> Option<PortLease> {
        let mut state = self.lock();
        state.wake(now);
        let port = state.pick(parity).or_else(|| state.pick_resting(parity))?;
        state.used += 1;
        Some(self.lease(port))
    }

    /// An even port and the next one (RFC 8656 §7.2), random among the free pairs; where there is
    /// none, among those that are free or rest.
    #[must_use]
    pub fn take_pair(self: &Arc<Self>, now: Instant) -> Option<[PortLease; 2]> {
        let mut state = self.lock();
        state.wake(now);
        let even = state.find_pair()?;
        for port in [even, even + 1] {
            state.withdraw(port);
        }
        state.used += 2;
        Some([even, even + 1].map(|port| self.lease(port)))
    }

    /// Keeps `port` for who of the same account claims it within `RESERVATION_HOLD`, and `quota`
    /// with it: what is reserved counts as what is allocated.
    pub fn reserve(
        self: &Arc<Self>,
        port: PortLease,
        quota: QuotaLease,
        now: Instant,
    ) -> Reservation {
        let mut state = self.lock();
        let token = state.new_token();
        state.used -= 1;
        let until = now + RESERVATION_HOLD;
        state.reserved.insert(token, Reserved { port: port.retain(), quota, until });
        drop(state);
        Reservation { pool: Arc::clone(self), token, kept: false }
    }

    /// The port, and the place in the quota, that are reserved under `token` for `account`.
    #[must_use]
    pub fn claim(
        self: &Arc<Self>,
        token: ReservationToken,
        account: &str,
        now: Instant,
    ) -> Option<(PortLease, QuotaLease)> {
        let mut state = self.lock();
        state.wake(now);
        let Reserved { port, quota, .. } = state.reserved.claim(token, account)?;
        state.used += 1;
        Some((self.lease(port), quota))
    }

    fn cancel(&self, token: ReservationToken) {
        let mut state = self.lock();
        if let Some(Reserved { port, .. }) = state.reserved.remove(token) {
            state.set_free(port);
        }
    }

    /// Ends the reservations whose time is over, so that they hold no quota.
    pub fn expire(&self, now: Instant) {
        self.lock().wake(now);
    }

    /// How many ports are in which state.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let mut state = self.lock();
        state.wake(clock::now().instant);
        state.counts()
    }

    fn lease(self: &Arc<Self>, port: u16) -> PortLease {
        PortLease { pool: Arc::clone(self), port, retained: false }
    }

    fn release(&self, port: u16, now: Instant) {
        let mut state = self.lock();
        state.used -= 1;
        state.cool(port, now);
    }

    /// No code that holds the lock can leave the state half changed, so a poisoned one is fine.
    /// Who holds it may take the lock of the quotas, and never the other way round.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Frees the ports that have rested enough, and those that nobody has claimed.
    fn wake(&mut self, now: Instant) {
        while let Some(&(_, port)) = self.cooling.front().filter(|(rested, _)| *rested <= now) {
            self.cooling.pop_front();
            self.set_free(port);
        }
        while let Some(reserved) = self.reserved.pop_expired(now) {
            // Nobody has ever sent to it: it need not rest.
            self.set_free(reserved.port);
        }
    }

    fn counts(&self) -> PortCounts {
        PortCounts {
            free: self.free.iter().map(Vec::len).sum(),
            used: self.used,
            reserved: self.reserved.len(),
            cooling: self.cooling.len(),
        }
    }

    fn free_of(&self, parity: Parity) -> usize {
        let [even, odd] = self.free.each_ref().map(Vec::len);
        match parity {
            Parity::Any => even + odd,
            Parity::Even => even,
        }
    }

    fn set_free(&mut self, port: u16) {
        self.free[usize::from(!is_even(&port))].push(port);
        self.set(port, PortState::Free);
    }

    fn cool(&mut self, port: u16, now: Instant) {
        self.cooling.push_back((now + COOL_DOWN, port));
        self.set(port, PortState::Cooling);
    }

    fn set(&mut self, port: u16, state: PortState) {
        self.states[usize::from(port - self.first)] = state;
    }

    /// What a port is; none outside of the range.
    fn get(&self, port: u16) -> Option<PortState> {
        self.states.get(usize::from(port.checked_sub(self.first)?)).copied()
    }

    fn pick(&mut self, parity: Parity) -> Option<u16> {
        let count = self.free_of(parity);
        if count == 0 {
            return None;
        }
        let index = self.rng.random_range(0..count);
        let port = match index.checked_sub(self.free[0].len()) {
            None => self.free[0].swap_remove(index),
            Some(index) => self.free[1].swap_remove(index),
        };
        self.set(port, PortState::Held);
        Some(port)
    }

    fn pick_resting(&mut self, parity: Parity) -> Option<u16> {
        let suits = |port| parity == Parity::Any || is_even(port);
        let index = self.cooling.iter().position(|(_, port)| suits(port))?;
        let (_, port) = self.cooling.remove(index)?;
        self.set(port, PortState::Held);
        Some(port)
    }

    fn find_pair(&mut self) -> Option<u16> {
        let size = self.states.len();
        let start = self.rng.random_range(0..size.max(1));
        let from = |at: usize| self.first + (at % size) as u16;
        let pair = |suits: fn(PortState) -> bool| {
            let is_suited = |port| self.get(port).is_some_and(suits);
            let evens = (start..start + size).map(from).filter(is_even);
            evens.into_iter().find(|&even| is_suited(even) && is_suited(even + 1))
        };
        pair(|state| state == PortState::Free).or_else(|| pair(|state| state != PortState::Held))
    }

    /// One that nobody has, nor can guess.
    fn new_token(&mut self) -> ReservationToken {
        loop {
            let mut token = ReservationToken([0; 8]);
            self.rng.fill_bytes(&mut token.0);
            if !self.reserved.contains(token) {
                return token;
            }
        }
    }

    /// Takes this very port out of where it waits.
    fn withdraw(&mut self, port: u16) {
        let free = &mut self.free[usize::from(!is_even(&port))];
        if let Some(at) = free.iter().position(|&other| other == port) {
            free.swap_remove(at);
        }
        self.cooling.retain(|&(_, other)| other != port);
        self.set(port, PortState::Held);
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
    /// Whether the pool keeps the port for somebody.
    retained: bool,
}

impl PortLease {
    /// Lets other shards find the one that has bound the port.
    pub fn hold(&self, shard: usize) {
        self.pool.set_held(self.port, shard + 1);
    }

    /// Lets all shards know that connections may be made to the port.
    pub fn hold_for_tcp(&self) {
        self.pool.set_held(self.port, TCP);
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

    /// The pool the port is of.
    #[must_use]
    pub fn pool(&self) -> Arc<PortPool> {
        Arc::clone(&self.pool)
    }

    /// Ends the lease without giving the port back.
    fn retain(mut self) -> u16 {
        self.retained = true;
        self.port
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if self.retained {
            return;
        }
        self.pool.set_held(self.port, 0);
        self.pool.release(self.port, clock::now().instant);
    }
}

/// A reserved port that nobody knows of yet. Free again when dropped, unless it is kept.
#[derive(Debug)]
#[must_use = "dropping it ends the reservation"]
pub struct Reservation {
    pool: Arc<PortPool>,
    token: ReservationToken,
    kept: bool,
}

impl Reservation {
    /// What it is claimed by.
    #[must_use]
    pub fn token(&self) -> ReservationToken {
        self.token
    }

    /// Leaves it to who knows the token.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.pool.cancel(self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::super::quota::{self, Quotas};
    use super::*;

    fn pool(ports: RangeInclusive<u16>) -> Arc<PortPool> {
        PortPool::new(IpAddr::from([127, 0, 0, 1]), ports, [7; 32])
    }

    impl PortPool {
        /// Without ending anything first.
        fn state_counts(&self) -> PortCounts {
            self.lock().counts()
        }
    }

    fn counts(free: usize, used: usize, cooling: usize) -> PortCounts {
        PortCounts { free, used, reserved: 0, cooling }
    }

    fn quotas() -> Arc<Quotas> {
        Quotas::new(quota::Limits { allocations_per_user: 2, ..quota::Limits::default() })
    }

    /// A reservation for alice, and the lower port of the pair.
    fn reserved(pool: &Arc<PortPool>, quotas: &Arc<Quotas>, now: Instant) -> (u16, Reservation) {
        let [even, odd] = pool.take_pair(now).unwrap();
        let (first, second) = (even.address().port(), odd.address().port());
        assert_eq!((first % 2, first + 1), (0, second));
        (first, pool.reserve(odd, quotas.take("alice").unwrap(), now))
    }

    #[test]
    fn reserved_port_waits_for_its_token_and_account() {
        let (pool, quotas, now) = (pool(50_000..=50_009), quotas(), clock::now().instant);
        let (even, reservation) = reserved(&pool, &quotas, now);
        let token = reservation.token();
        reservation.keep();
        let reserved = PortCounts { reserved: 1, ..counts(8, 0, 1) };
        assert_eq!(pool.counts(), reserved);
        assert!(pool.claim(token, "bob", now).is_none());
        assert!(pool.claim(ReservationToken([0; 8]), "alice", now).is_none());
        let last_moment = now + RESERVATION_HOLD - Duration::from_millis(1);
        let (port, _quota) = pool.claim(token, "alice", last_moment).unwrap();
        assert_eq!(port.address().port(), even + 1);
        assert!(pool.claim(token, "alice", now).is_none(), "once");
    }

    #[test]
    fn unclaimed_reservation_gives_back_port_and_quota() {
        let (pool, quotas, now) = (pool(50_000..=50_001), quotas(), clock::now().instant);
        let (_, reservation) = reserved(&pool, &quotas, now);
        let token = reservation.token();
        reservation.keep();
        let _other = quotas.take("alice").unwrap();
        assert!(quotas.take("alice").is_err(), "what is reserved counts");
        let over = now + RESERVATION_HOLD;
        pool.expire(over - Duration::from_millis(1));
        assert!(quotas.take("alice").is_err());
        pool.expire(over);
        assert!(quotas.take("alice").is_ok());
        assert!(pool.claim(token, "alice", over).is_none());
        assert_eq!(pool.counts().reserved, 0);
        assert!(RESERVATION_HOLD >= Duration::from_secs(30), "RFC 8656 §7.2");
        let both = [(); 2].map(|()| pool.take(Parity::Any, over).unwrap().address().port());
        assert_ne!(both[0], both[1]);
    }

    #[test]
    fn reservation_that_is_not_kept_is_undone() {
        let (pool, quotas, now) = (pool(50_000..=50_009), quotas(), clock::now().instant);
        let (_, reservation) = reserved(&pool, &quotas, now);
        let token = reservation.token();
        drop(reservation);
        assert_eq!(pool.counts(), counts(9, 0, 1));
        assert!(pool.claim(token, "alice", now).is_none());
        assert!((0..2).all(|_| quotas.take("alice").is_ok()));
    }

    #[test]
    fn pairs_are_found_among_single_ports_and_among_resting_ones() {
        let pool = pool(50_000..=50_009);
        let now = clock::now().instant;
        let mut all: Vec<_> = (0..10).map(|_| pool.take(Parity::Any, now).unwrap()).collect();
        all.sort_by_key(|lease| lease.address().port());
        assert!(pool.take_pair(now).is_none());
        // 50003, 50004, and the pair 50006: only one of them begins with an even port.
        for index in [7, 6, 4, 3] {
            drop(all.remove(index));
        }
        let pair = pool.take_pair(now).unwrap();
        assert_eq!(pair.each_ref().map(|lease| lease.address().port()), [50_006, 50_007]);
        assert!(pool.take_pair(now).is_none());
        assert_eq!(pool.counts(), counts(0, 8, 2));
    }

    #[test]
    fn range_that_ends_with_an_even_port_has_no_pair_there() {
        for (range, pairs) in [(50_001..=50_002, 0), (65_535..=65_535, 0), (65_533..=65_535, 1)] {
            let pool = pool(range);
            let now = clock::now().instant;
            let found: Vec<_> = std::iter::from_fn(|| pool.take_pair(now)).collect();
            assert_eq!(found.len(), pairs);
        }
    }

    /// The invariant, whatever happens in whatever order.
    #[test]
    fn no_port_is_lost_or_held_twice() {
        const PORTS: RangeInclusive<u16> = 50_000..=50_020;
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (pool, mut now) = (pool(PORTS), clock::now().instant);
            let quotas = Quotas::new(quota::Limits::default());
            let (mut leases, mut tokens) = (Vec::new(), Vec::new());
            for _ in 0..2_000 {
                match rng.random_range(0..6) {
                    0 => leases.extend(pool.take(Parity::Any, now)),
                    1 => leases.extend(pool.take(Parity::Even, now)),
                    2 if !leases.is_empty() => {
                        drop(leases.swap_remove(rng.random_range(0..leases.len())));
                    }
                    3 => {
                        let Some([even, odd]) = pool.take_pair(now) else { continue };
                        let reservation = pool.reserve(odd, quotas.take("alice").unwrap(), now);
                        tokens.push(reservation.token());
                        leases.push(even);
                        if rng.random_bool(0.8) {
                            reservation.keep();
                        }
                    }
                    4 if !tokens.is_empty() => {
                        let token = tokens.swap_remove(rng.random_range(0..tokens.len()));
                        leases.extend(pool.claim(token, "alice", now).map(|(port, _)| port));
                    }
                    _ => now += Duration::from_secs(rng.random_range(0..20)),
                }
                let PortCounts { free, used, reserved, cooling } = pool.state_counts();
                assert_eq!(free + used + reserved + cooling, PORTS.len());
                assert_eq!(used, leases.len());
                let ports: BTreeSet<_> =
                    leases.iter().map(|lease: &PortLease| lease.address().port()).collect();
                assert_eq!(ports.len(), leases.len(), "no port twice");
            }
        }
    }

    #[test]
    fn every_port_has_one_owner_and_counts_add_up() {
        let pool = pool(50_000..=50_099);
        let now = clock::now().instant;
        let leases: Vec<_> = (0..100).map(|_| pool.take(Parity::Any, now).unwrap()).collect();
        let ports: BTreeSet<_> = leases.iter().map(|lease| lease.address().port()).collect();
        assert_eq!(ports, (50_000..=50_099).collect());
        assert!(pool.take(Parity::Any, now).is_none());
        assert_eq!(pool.counts(), counts(0, 100, 0));
        drop(leases);
        assert_eq!(pool.counts(), counts(0, 0, 100));
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
        assert_eq!(pool.counts(), counts(0, 2, 0));
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
        assert_eq!(pool.counts(), counts(10, 10, 0));
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
        assert!(!pool.speaks_tcp(port));
        lease.hold_for_tcp();
        assert_eq!((pool.holder(port), pool.speaks_tcp(port)), (None, true));
        drop(lease);
        assert_eq!((pool.holder(port), pool.speaks_tcp(port)), (None, false));
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
        // Nor do they come in equal steps, whatever their size.
        let steps: HashSet<i32> =
            ports.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(16_384)).collect();
        assert!(steps.len() > 450, "{} of 499 steps differ", steps.len());
    }
}
