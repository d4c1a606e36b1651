//! How much each user, and all of them, may hold: process-wide, so that it does not matter on
//! which shard a client lands.
//!
//! The invariant: an account's count is the number of its live [`QuotaLease`]s.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use crate::turn::AllocateError;
use crate::turn::limits::Meter;

/// The process's accounts, behind a lock that only opening and closing an allocation take.
#[derive(Debug)]
pub struct Quotas {
    limits: Limits,
    state: Mutex<State>,
}

/// 0 in any of these is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Allocations of one user.
    pub allocations_per_user: usize,
    /// Allocations in all.
    pub allocations: usize,
    /// Bytes per second of one user, both directions together.
    pub user_bandwidth: u64,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<Box<str>, Account>,
    allocations: usize,
    /// Accounts that had no allocation left at some time, oldest first.
    idle: VecDeque<Box<str>>,
}

#[derive(Debug)]
struct Account {
    allocations: usize,
    /// Whether it waits to be forgotten.
    is_idle: bool,
    bandwidth: Option<Arc<Bandwidth>>,
}

impl Quotas {
    /// No accounts yet.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Takes one allocation from the user's share and from the whole.
    pub fn take(self: &Arc<Self>, account: &str) -> Result<QuotaLease, AllocateError> {
        let mut state = self.lock();
        state.forget_idle(clock::now().instant);
        let held = state.accounts.get(account).map_or(0, |account| account.allocations);
        if is_reached(held, self.limits.allocations_per_user) {
            return Err(AllocateError::QuotaReached);
        }
        if is_reached(state.allocations, self.limits.allocations) {
            return Err(AllocateError::NoCapacity);
        }
        state.allocations += 1;
        let name: Box<str> = account.into();
        let account = state.accounts.entry(name.clone()).or_insert_with(|| Account {
            allocations: 0,
            is_idle: false,
            bandwidth: Bandwidth::new(self.limits.user_bandwidth, clock::now().instant),
        });
        account.allocations += 1;
        let bandwidth = account.bandwidth.clone();
        drop(state);
        Ok(QuotaLease { quotas: Arc::clone(self), account: name, bandwidth })
    }

    /// Allocations of all users.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.lock().allocations
    }

    fn release(&self, name: &str) {
        let mut state = self.lock();
        state.allocations -= 1;
        let Some(account) = state.accounts.get_mut(name) else { return };
        account.allocations -= 1;
        if account.allocations == 0 && !std::mem::replace(&mut account.is_idle, true) {
            state.idle.push_back(name.into());
            state.forget_idle(clock::now().instant);
        }
    }

    /// No code that holds the lock can leave the state half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes accounts without allocations, oldest first, as far as none of them still owes
    /// bandwidth: with a new account the user would get a new burst.
    fn forget_idle(&mut self, now: Instant) {
        while let Some(name) = self.idle.front() {
            let account = self.accounts.get(name);
            if account.is_some_and(|account| account.owes(now)) {
                return;
            }
            let Some(name) = self.idle.pop_front() else { return };
            match self.accounts.get_mut(&name) {
                Some(account) if account.allocations > 0 => account.is_idle = false,
                _ => drop(self.accounts.remove(&name)),
            }
        }
    }
}

impl Account {
    /// Whether the user, without an allocation now, is ahead of the rate.
    fn owes(&self, now: Instant) -> bool {
        self.allocations == 0 && self.bandwidth.as_ref().is_some_and(|meter| meter.owes(now))
    }
}

fn is_reached(held: usize, limit: usize) -> bool {
    limit != 0 && held >= limit
}

/// One allocation's place in the accounts, given back when dropped.
pub struct QuotaLease {
    quotas: Arc<Quotas>,
    account: Box<str>,
    bandwidth: Option<Arc<Bandwidth>>,
}

impl QuotaLease {
    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The user's bandwidth, where it is limited.
    #[must_use]
    pub fn meter(&self) -> Option<Arc<dyn Meter>> {
        self.bandwidth().map(|bandwidth| bandwidth as Arc<dyn Meter>)
    }

    /// The same, for what can wait.
    pub(super) fn bandwidth(&self) -> Option<Arc<Bandwidth>> {
        self.bandwidth.clone()
    }
}

impl Drop for QuotaLease {
    fn drop(&mut self) {
        self.quotas.release(&self.account);
    }
}

impl fmt::Debug for QuotaLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaLease").field("account", &self.account).finish_non_exhaustive()
    }
}

/// How far a user may run ahead of the rate: a key frame must pass in one go.
const BURST: Duration = Duration::from_secs(1);

/// One user's budget, the generic cell rate algorithm in one number. Shards share it without a
/// lock: relaxed order is enough, since nothing else depends on the number.
#[derive(Debug)]
pub(super) struct Bandwidth {
    nanos_per_byte: f64,
    epoch: Instant,
    /// Nanoseconds since `epoch` up to which the budget is spent.
    spent_until: AtomicU64,
}

impl Bandwidth {
    fn new(bytes_per_second: u64, epoch: Instant) -> Option<Arc<Self>> {
        (bytes_per_second != 0).then(|| {
            Arc::new(Self {
                nanos_per_byte: 1e9 / bytes_per_second as f64,
                epoch,
                spent_until: AtomicU64::new(0),
            })
        })
    }
}

impl Bandwidth {
    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// When a stream may be read again; `None` is now.
    pub(super) fn resumes(&self, now: Instant) -> Option<Instant> {
        let ahead = self.spent_until.load(Ordering::Relaxed).saturating_sub(self.nanos(now));
        let excess = Duration::from_nanos(ahead).checked_sub(BURST)?;
        (!excess.is_zero()).then(|| now + excess)
    }

    /// Takes what was read from the budget, whether or not it has so much.
    pub(super) fn spend(&self, bytes: usize, now: Instant) {
        let (now, cost) = (self.nanos(now), self.cost(bytes));
        // Never an error, for it never declines.
        let _ = self.spent_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            Some(spent.max(now).saturating_add(cost))
        });
    }

    fn cost(&self, bytes: usize) -> u64 {
        (bytes as f64 * self.nanos_per_byte) as u64
    }

    fn owes(&self, now: Instant) -> bool {
        self.spent_until.load(Ordering::Relaxed) > self.nanos(now)
    }
}

impl Meter for Bandwidth {
    /// A datagram passes while the budget is not overdrawn, whatever its size: one larger than
    /// the burst could never pass otherwise.
    fn admit(&self, bytes: usize, now: Instant) -> bool {
        let now = self.nanos(now);
        let limit = now.saturating_add(BURST.as_nanos() as u64);
        let cost = self.cost(bytes);
        self.spent_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                (spent <= limit).then(|| spent.max(now).saturating_add(cost))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(allocations_per_user: usize, allocations: usize) -> Arc<Quotas> {
        Quotas::new(Limits { allocations_per_user, allocations, user_bandwidth: 0 })
    }

    #[test]
    fn a_user_over_the_quota_is_refused_and_others_are_not() {
        let quotas = limits(2, 0);
        let held = [quotas.take("alice").unwrap(), quotas.take("alice").unwrap()];
        assert_eq!(quotas.take("alice").unwrap_err(), AllocateError::QuotaReached);
        assert!(quotas.take("bob").is_ok());
        drop(held);
        assert!(quotas.take("alice").is_ok());
    }

    #[test]
    fn the_whole_server_over_its_limit_has_no_capacity() {
        let quotas = limits(0, 2);
        let _held = [quotas.take("alice").unwrap(), quotas.take("bob").unwrap()];
        assert_eq!(quotas.take("carol").unwrap_err(), AllocateError::NoCapacity);
    }

    #[test]
    fn accounts_without_allocations_are_forgotten() {
        let quotas = limits(2, 0);
        for user in 0..1000 {
            drop(quotas.take(&user.to_string()).unwrap());
        }
        let state = quotas.lock();
        assert_eq!((state.accounts.len(), state.allocations), (0, 0));
    }

    #[test]
    fn a_new_allocation_brings_no_new_burst() {
        let quotas = Quotas::new(Limits { user_bandwidth: 100_000, ..Limits::default() });
        let lease = quotas.take("alice").unwrap();
        let meter = lease.meter().unwrap();
        while meter.admit(1000, clock::now().instant) {}
        drop((lease, meter));
        for _ in 0..100 {
            drop(quotas.take("bob").unwrap());
        }
        let again = quotas.take("alice").unwrap().meter().unwrap();
        assert!(!again.admit(1000, clock::now().instant));
        let rested = clock::now().instant + 3 * BURST;
        quotas.lock().forget_idle(rested);
        assert!(quotas.lock().accounts.is_empty(), "what owes nothing is forgotten");
    }

    #[test]
    fn a_stream_waits_until_its_user_is_back_at_the_rate() {
        let quotas = Quotas::new(Limits { user_bandwidth: 100_000, ..Limits::default() });
        let lease = quotas.take("alice").unwrap();
        let bandwidth = lease.bandwidth().unwrap();
        let start = clock::now().instant;
        assert_eq!(bandwidth.resumes(start), None);
        bandwidth.spend(100_000, start);
        assert_eq!(bandwidth.resumes(start), None, "one burst is free");
        bandwidth.spend(200_000, start);
        let resumes = bandwidth.resumes(start).unwrap();
        assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&(resumes - start)));
        assert!(!lease.meter().unwrap().admit(1, start), "datagrams share the budget");
        assert_eq!(bandwidth.resumes(resumes), None);
    }

    #[test]
    fn bandwidth_is_shared_by_the_allocations_of_a_user() {
        let quotas = Quotas::new(Limits { user_bandwidth: 100_000, ..Limits::default() });
        let leases = [quotas.take("alice").unwrap(), quotas.take("alice").unwrap()];
        let meters = leases.each_ref().map(|lease| lease.meter().unwrap());
        let start = clock::now().instant;
        let mut admitted = 0;
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            for meter in &meters {
                admitted += (0..1000).filter(|_| meter.admit(1000, now)).count();
            }
        }
        // Ten seconds of 100 datagrams, and a burst of one second ahead.
        assert!((1000..=1110).contains(&admitted), "{admitted}");
    }
}
