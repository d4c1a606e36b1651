//! What became of the packets: each counts once, and its delay from when it was meant to leave.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::schedule::Schedule;
use super::stamp::Stamp;

/// Packets of a flow that may arrive in any order and still be told from duplicates.
const WINDOW: u32 = u128::BITS;

/// The counts of a drive.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Packets that came to their turn, sent or not.
    pub(super) offered: u64,
    /// Those of them that the sockets of this side did not take.
    pub(super) unsent: u64,
    /// Those that arrived, duplicates not counted.
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    /// Those that arrived behind a later one.
    pub(super) reordered: u64,
    /// From when a packet was meant to leave to when it was read (so a server that holds up the
    /// generator cannot hide it).
    pub(super) latency: Histogram,
    /// How late the generator itself was.
    pub(super) lag: Histogram,
    /// Time in which there was nothing to send and nothing arrived, of those who look awake.
    pub(super) idle: Option<Duration>,
    /// From the start to the last packet sent.
    pub(super) sending: Duration,
    /// Why the first of those that failed did, where somebody said.
    pub(super) failure: Option<String>,
}

impl Tally {
    /// Adds another thread's.
    pub(super) fn merge(&mut self, other: Self) {
        self.offered += other.offered;
        self.unsent += other.unsent;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.latency.merge(&other.latency);
        self.lag.merge(&other.lag);
        self.idle = self
            .idle
            .max(other.idle)
            .map(|_| self.idle.unwrap_or_default() + other.idle.unwrap_or_default());
        self.sending = self.sending.max(other.sending);
        self.failure = self.failure.take().or(other.failure);
    }
}

/// Puts arrivals into a tally.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) tally: Tally,
    schedule: Schedule,
    start: Instant,
    tag: u32,
    windows: Vec<Window>,
}

impl Ledger {
    pub(super) fn new(schedule: Schedule, flows: usize, start: Instant, tag: u32) -> Self {
        let windows = vec![Window::default(); flows];
        Self { tally: Tally::default(), schedule, start, tag, windows }
    }

    /// Takes note of a packet that was read at `now`.
    pub(super) fn arrived(&mut self, stamp: Stamp, now: Instant) {
        if stamp.tag != self.tag || stamp.sequence >= self.schedule.packets_per_flow() {
            return;
        }
        let Some(window) = self.windows.get_mut(stamp.flow as usize) else { return };
        match window.see(stamp.sequence) {
            Seen::Before => {
                self.tally.duplicates += 1;
                return;
            }
            Seen::Late => self.tally.reordered += 1,
            Seen::Next => {}
        }
        self.tally.delivered += 1;
        let due = self.start + self.schedule.due(stamp.flow, stamp.sequence);
        self.tally.latency.record(now.saturating_duration_since(due));
    }

    /// Whether everything that left has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.tally.delivered + self.tally.unsent >= self.tally.offered
    }
}

/// Which of the latest packets of a flow have been seen.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// One more than the highest number.
    end: u32,
    /// Bit 0 is the highest number.
    seen: u128,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Next,
    Late,
    Before,
}

impl Window {
    fn see(&mut self, sequence: u32) -> Seen {
        if sequence >= self.end {
            let ahead = sequence - self.end + 1;
            self.seen = self.seen.checked_shl(ahead).unwrap_or_default() | 1;
            self.end = sequence + 1;
            return Seen::Next;
        }
        let behind = self.end - 1 - sequence;
        // Beyond the window nobody can tell; a server that holds back so many is not one that
        // sends twice.
        if behind >= WINDOW {
            return Seen::Late;
        }
        let bit = 1 << behind;
        let seen = if self.seen & bit == 0 { Seen::Late } else { Seen::Before };
        self.seen |= bit;
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Plan;
    use crate::net::clock;

    fn ledger() -> (Ledger, Instant) {
        let plan = Plan {
            rate: 1000,
            flows: 2,
            burst: 1,
            duration: Duration::from_secs(2),
            together: false,
        };
        let start = clock::now().instant;
        (Ledger::new(Schedule::of(plan, 0, 2), 2, start, 5), start)
    }

    fn stamp(flow: u32, sequence: u32) -> Stamp {
        Stamp { tag: 5, flow, sequence }
    }

    #[test]
    fn a_packet_counts_once_in_whatever_order() {
        let (mut ledger, start) = ledger();
        for sequence in [0, 2, 1, 1, 0, 300, 299, 172, 173, 173] {
            ledger.arrived(stamp(1, sequence), start);
        }
        let Tally { delivered, duplicates, reordered, .. } = ledger.tally;
        assert_eq!((delivered, duplicates, reordered), (7, 3, 4));
    }

    #[test]
    fn strangers_do_not_count() {
        let (mut ledger, start) = ledger();
        ledger.arrived(Stamp { tag: 4, ..stamp(0, 0) }, start);
        ledger.arrived(stamp(2, 0), start);
        ledger.arrived(stamp(0, u32::MAX), start);
        assert_eq!(ledger.tally.delivered, 0);
    }

    /// Coordinated omission: a packet that left late because everything stood still was late.
    #[test]
    fn delay_is_from_when_it_was_meant_to_leave() {
        let (mut ledger, start) = ledger();
        // Flow 1, number 3: 1 ms behind flow 0, and 2 ms for each number.
        ledger.arrived(stamp(1, 3), start + Duration::from_millis(7 + 50));
        assert_eq!(ledger.tally.latency.max(), Duration::from_millis(50));
    }

    #[test]
    fn it_is_complete_when_all_that_left_has_arrived() {
        let (mut ledger, start) = ledger();
        ledger.tally.offered = 3;
        ledger.tally.unsent = 1;
        ledger.arrived(stamp(0, 0), start);
        assert!(!ledger.is_complete());
        ledger.arrived(stamp(0, 1), start);
        assert!(ledger.is_complete());
    }
}
