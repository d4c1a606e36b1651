//! When a busy shard looks for what has arrived.
//!
//! To be woken costs a shard more than to relay a small datagram: the kernel switches threads, and
//! a core that sleeps must be told. Where many clients send single datagrams, each would cost a
//! wake-up. So a shard that is woken often for little waits a moment before it looks again, and
//! then finds several. Where wake-ups bring bursts, or are few, there is nothing to gain, and it
//! never waits.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use super::clock;

/// The most that waiting adds to the latency of a message.
const WAIT_MAX: Duration = Duration::from_micros(200);
/// Messages that a wait should bring; more would add latency and save little.
const WANTED: u32 = 8;
/// Messages in a wake-up that are a burst already.
const BURST: u32 = 3;
/// With fewer expected in [`WAIT_MAX`], to wait costs about what it saves.
const WORTH_WAITING: u128 = 4;
/// Wake-ups are watched for so long without waiting before there is a decision, ...
const WATCH: Duration = Duration::from_millis(1);
/// ... which holds for so long.
const HOLD: Duration = Duration::from_millis(50);

thread_local! {
    /// A shard is a thread.
    static PACE: RefCell<Pace> = const { RefCell::new(Pace::new()) };
}

/// Counts what this thread's shard has received.
pub(super) fn received(messages: usize) {
    PACE.with_borrow_mut(|pace| pace.received = pace.received.saturating_add(messages as u32));
}

/// To be called where the shard has nothing left to do, before it asks the kernel for more.
pub(super) fn before_park() {
    if let Some(wait) = PACE.with_borrow_mut(|pace| pace.park(clock::now().instant)) {
        thread::sleep(wait);
    }
}

/// What a shard knows of its wake-ups.
#[derive(Debug)]
struct Pace {
    /// Messages since it last parked.
    received: u32,
    stance: Stance,
}

#[derive(Debug)]
enum Stance {
    New,
    Watching { since: Instant, wakes: u32, messages: u32 },
    Waiting { until: Instant, wait: Duration },
}

impl Pace {
    const fn new() -> Self {
        Self { received: 0, stance: Stance::New }
    }

    /// How long to wait, if at all, before looking for more.
    fn park(&mut self, now: Instant) -> Option<Duration> {
        let received = std::mem::take(&mut self.received);
        match &mut self.stance {
            Stance::Waiting { until, wait } if received > 1 && now < *until => Some(*wait),
            Stance::Watching { since, wakes, messages } => {
                *wakes = wakes.saturating_add(1);
                *messages = messages.saturating_add(received);
                let watched = now.saturating_duration_since(*since);
                if watched < WATCH {
                    return None;
                }
                let wait = wait_for(watched, *wakes, *messages);
                self.stance = match wait {
                    Some(wait) => Stance::Waiting { until: now + HOLD, wait },
                    None => watching(now),
                };
                wait
            }
            Stance::New | Stance::Waiting { .. } => {
                self.stance = watching(now);
                None
            }
        }
    }
}

fn watching(now: Instant) -> Stance {
    Stance::Watching { since: now, wakes: 0, messages: 0 }
}

/// How long to wait where so many wake-ups brought so many messages.
fn wait_for(watched: Duration, wakes: u32, messages: u32) -> Option<Duration> {
    let expected = u128::from(messages) * WAIT_MAX.as_nanos() / watched.as_nanos().max(1);
    let brings_bursts = messages >= wakes.saturating_mul(BURST);
    let worth_it = expected >= WORTH_WAITING && !brings_bursts;
    worth_it.then(|| (watched * WANTED / messages.max(1)).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    /// Parks after each wake-up of so many messages, one every `gap`; returns the waits.
    fn waits(
        pace: &mut Pace,
        begin: Instant,
        gap: Duration,
        wakes: u32,
        each: u32,
    ) -> Vec<Duration> {
        (0..wakes)
            .filter_map(|wake| {
                pace.received = each;
                pace.park(begin + gap * wake)
            })
            .collect()
    }

    #[test]
    fn many_single_messages_are_waited_for_and_never_long() {
        for gap in [2, 5, 25, 49] {
            let begin = clock::now().instant;
            let waits = waits(&mut Pace::new(), begin, MICROSECOND * gap, 2000 / gap, 1);
            let expected = (MICROSECOND * gap * WANTED).min(WAIT_MAX);
            let first = waits.first().expect("it waits after watching");
            assert!(*first <= expected && *first >= expected * 9 / 10, "{first:?} {expected:?}");
        }
    }

    #[test]
    fn waiting_holds_while_it_brings_something_and_ends_to_watch_again() {
        let begin = clock::now().instant;
        let mut pace = Pace::new();
        pace.stance = Stance::Waiting { until: begin + HOLD, wait: MICROSECOND * 160 };
        let held = waits(&mut pace, begin, MICROSECOND * 160, 1000, 8).len();
        assert_eq!(held, 313, "50 ms in steps of 160 µs, from the first");
    }

    #[test]
    fn few_messages_and_bursts_are_not_waited_for() {
        for (gap, each) in [(51, 1), (1000, 1), (1_000_000, 1), (100, 8), (80, 3), (10, 0)] {
            let begin = clock::now().instant;
            let waits = waits(&mut Pace::new(), begin, MICROSECOND * gap, 500, each);
            assert!(waits.is_empty(), "{each} every {gap} µs");
        }
    }

    #[test]
    fn silence_ends_the_waiting() {
        let begin = clock::now().instant;
        let mut pace = Pace::new();
        pace.stance = Stance::Waiting { until: begin + HOLD, wait: WAIT_MAX };
        pace.received = 1;
        assert_eq!(pace.park(begin), None);
        assert!(matches!(pace.stance, Stance::Watching { .. }));
    }
}
