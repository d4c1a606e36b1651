//! Draining: nobody new comes in, who is there may finish.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Running;
use crate::net::clock;

/// How often to look whether anybody is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two lines in the log about who is left.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// A drain under way.
pub(super) struct Drain {
    deadline: Instant,
    looks: Interval,
    /// When the log was last told how many are left, and how many.
    told: (Instant, usize),
}

impl Drain {
    /// Lets nobody in from now on.
    pub(super) async fn begin(running: &Running, signal: &str, at_most: Duration) -> Self {
        running.drain().await;
        let now = clock::now().instant;
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let left = running.allocations();
        info!(
            signal,
            allocations = left,
            at_most_seconds = at_most.as_secs(),
            "draining; a second signal stops at once"
        );
        Self { deadline: now + at_most, looks, told: (now, left) }
    }

    /// Waits until nobody is left, or the time is over. May be dropped and called again.
    pub(super) async fn ended(&mut self, running: &Running) {
        loop {
            let (left, now) = (running.allocations(), clock::now().instant);
            if left == 0 {
                info!("drained; stopping");
                return;
            }
            if now >= self.deadline {
                warn!(allocations = left, "still not drained; stopping");
                return;
            }
            let (when, what) = self.told;
            if now.saturating_duration_since(when) >= TELL_INTERVAL && what != left {
                info!(allocations = left, "draining");
                self.told = (now, left);
            }
            self.looks.tick().await;
        }
    }
}
