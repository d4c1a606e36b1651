//! When each packet is meant to leave, which does not depend on what the server does.

use std::time::Duration;

/// Packets at a steady rate: each flow sends a burst in each period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Between two bursts of a flow.
    period: Duration,
    /// Between the bursts of a flow and the next flow.
    stagger: Duration,
    /// The number of the first flow of this thread among all flows.
    first: u32,
    /// Flows of this thread.
    flows: u32,
    burst: u32,
    /// Bursts of each flow.
    bursts: u32,
}

/// What all threads together are to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Packets per second of all flows together.
    pub(super) rate: u64,
    pub(super) flows: u32,
    pub(super) burst: u32,
    pub(super) duration: Duration,
    /// All flows send at the same moment, instead of one after the other.
    pub(super) together: bool,
}

impl Schedule {
    /// The part of a thread that has `flows` flows from number `first` on.
    pub(super) fn of(plan: Plan, first: u32, flows: u32) -> Self {
        let packets_per_period = u64::from(plan.flows) * u64::from(plan.burst);
        let period = Duration::from_secs(packets_per_period).div_f64(plan.rate.max(1) as f64);
        let stagger = if plan.together { Duration::ZERO } else { period / plan.flows.max(1) };
        let bursts = plan.duration.as_secs_f64() / period.as_secs_f64().max(1e-9);
        Self { period, stagger, first, flows, burst: plan.burst, bursts: (bursts as u32).max(1) }
    }

    /// Bursts of all flows of the thread.
    pub(super) fn len(&self) -> u64 {
        u64::from(self.bursts) * u64::from(self.flows)
    }

    /// The flow of burst number `at`, the number of its first packet in the flow, and when it is
    /// to leave, from the start on. Later numbers are never due earlier.
    pub(super) fn burst(&self, at: u64) -> (u32, u32, Duration) {
        let flow = (at % u64::from(self.flows)) as u32;
        let round = (at / u64::from(self.flows)) as u32;
        (flow, round * self.burst, self.due(flow, round * self.burst))
    }

    /// Packets of each flow: their numbers are below it.
    pub(super) fn packets_per_flow(&self) -> u32 {
        self.bursts.saturating_mul(self.burst)
    }

    /// Packets of a burst.
    pub(super) fn burst_len(&self) -> u32 {
        self.burst
    }

    /// When a packet is to leave, from the start on.
    pub(super) fn due(&self, flow: u32, sequence: u32) -> Duration {
        let round = u64::from(sequence / self.burst);
        let nanos = self.period.as_nanos() as u64 * round;
        Duration::from_nanos(nanos) + self.stagger * (self.first + flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { rate: 8_000, flows: 4, burst: 2, duration: Duration::from_secs(3), together: false };

    #[test]
    fn all_flows_together_send_at_the_rate() {
        let schedule = Schedule::of(PLAN, 0, 4);
        assert_eq!(schedule.len() * 2, 24_000);
        let (_, _, last) = schedule.burst(schedule.len() - 1);
        assert!(
            last < PLAN.duration && last > PLAN.duration - Duration::from_millis(2),
            "{last:?}"
        );
    }

    #[test]
    fn bursts_are_evenly_spaced_and_each_packet_knows_its_time() {
        let schedule = Schedule::of(PLAN, 0, 4);
        let spacing = Duration::from_micros(250);
        for at in 0..100 {
            let (flow, sequence, due) = schedule.burst(at);
            assert_eq!(due, spacing * at as u32, "burst {at}");
            assert_eq!((flow, sequence), (at as u32 % 4, at as u32 / 4 * 2));
            assert_eq!(schedule.due(flow, sequence + 1), due, "one burst leaves at once");
        }
    }

    #[test]
    fn threads_share_one_schedule() {
        let whole = Schedule::of(PLAN, 0, 4);
        let halves = [Schedule::of(PLAN, 0, 2), Schedule::of(PLAN, 2, 2)];
        assert_eq!(whole.len(), halves[0].len() + halves[1].len());
        assert_eq!(whole.due(3, 6), halves[1].due(1, 6));
    }

    #[test]
    fn together_means_the_same_moment() {
        let schedule = Schedule::of(Plan { together: true, ..PLAN }, 0, 4);
        let dues: Vec<_> = (0..8).map(|at| schedule.burst(at).2.as_millis()).collect();
        assert_eq!(dues, [0, 0, 0, 0, 1, 1, 1, 1]);
    }

    #[test]
    fn the_shortest_load_is_one_burst_of_each_flow() {
        let plan = Plan { rate: 1, duration: Duration::from_millis(1), ..PLAN };
        assert_eq!(Schedule::of(plan, 0, 4).len(), 4);
    }
}
