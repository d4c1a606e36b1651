//! A drive in numbers.

use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::tally::Tally;
use super::{Order, Usage};

/// How much longer than planned sending may take before the generator counts as too slow: a
/// twentieth, and what a machine's hiccup takes.
const OVERTIME: f64 = 1.05;
const HICCUP: Duration = Duration::from_millis(50);

/// What became of a drive. Packets are requests for Binding requests, and allocations where those
/// are loaded.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets that came to their turn; all of them are either delivered or lost.
    pub offered: u64,
    /// Packets that arrived, each counted once.
    pub delivered: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Those of the lost ones that the generator's own sockets did not take.
    pub unsent: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Packets that arrived behind a later one of their flow.
    pub reordered: u64,
    /// From the start to the last packet sent.
    pub seconds: f64,
    /// Offered packets by that time.
    pub offered_per_second: f64,
    /// Delivered packets by that time.
    pub delivered_per_second: f64,
    /// From when a packet was meant to leave to when it arrived.
    pub latency: Latency,
    /// What the generator needed for it.
    pub generator: Generator,
    /// What the server needed for it, where its process is known.
    pub server: Option<ServerUsage>,
    /// Why the first of the allocations that failed did.
    pub failure: Option<String>,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// The average.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// The 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// The generator's own part: whether it can be trusted to have measured something else.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// Of one core. It waits awake for what is due soon, so this is no sign of an overload.
    pub cpu_percent: f64,
    /// Of its threads' time, that in which there was something to do; unknown for allocations, in
    /// which it sleeps.
    pub busy_percent: Option<f64>,
    /// How late packets left: the 99th percentile.
    pub lag_p99_us: f64,
    /// It could not keep up with the rate.
    pub too_slow: bool,
}

/// What the server's process used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerUsage {
    /// CPU time for each delivered packet.
    pub cpu_ns_per_packet: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

/// Readings before and after a drive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readings {
    pub(super) own: [Option<Usage>; 2],
    pub(super) server: [Option<Usage>; 2],
    /// Between the two.
    pub(super) wall: Duration,
    pub(super) threads: usize,
}

impl Report {
    pub(super) fn new(order: &Order, tally: Tally, readings: Readings) -> Self {
        let seconds = tally.sending.as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds.max(1e-9);
        let own_cpu = used(readings.own).unwrap_or_default();
        let threads = readings.threads.max(1) as f64;
        let busy = |idle: Duration| 1.0 - idle.as_secs_f64() / threads / seconds.max(1e-9);
        let percent = |cpu: Duration| 100.0 * cpu.as_secs_f64() / readings.wall.as_secs_f64();
        let generator = Generator {
            cpu_percent: percent(own_cpu),
            busy_percent: tally.idle.map(|idle| (100.0 * busy(idle)).clamp(0.0, 100.0)),
            lag_p99_us: micros(tally.lag.quantile(0.99)),
            too_slow: tally.sending > order.duration.mul_f64(OVERTIME) + HICCUP,
        };
        let server = used(readings.server).zip(readings.server[1]).map(|(cpu, last)| ServerUsage {
            cpu_ns_per_packet: cpu.as_nanos() as f64 / tally.delivered.max(1) as f64,
            cpu_percent: percent(cpu),
            resident_bytes: last.resident,
        });
        Self {
            offered: tally.offered,
            delivered: tally.delivered,
            lost: tally.offered.saturating_sub(tally.delivered),
            unsent: tally.unsent,
            duplicates: tally.duplicates,
            reordered: tally.reordered,
            seconds,
            offered_per_second: per_second(tally.offered),
            delivered_per_second: per_second(tally.delivered),
            latency: Latency::of(&tally.latency),
            generator,
            server,
            failure: tally.failure,
        }
    }

    /// Lost packets in percent of the offered ones.
    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        100.0 * self.lost as f64 / self.offered.max(1) as f64
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let quantile = |part| micros(histogram.quantile(part));
        Self {
            mean_us: micros(histogram.mean()),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

fn used([before, after]: [Option<Usage>; 2]) -> Option<Duration> {
    Some(after?.cpu.saturating_sub(before?.cpu))
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            rate: 100,
            burst: 1,
            size: 100,
            duration: Duration::from_secs(2),
            together: false,
            one_by_one: false,
        }
    }

    fn readings() -> Readings {
        let at = |millis, resident| Some(Usage { cpu: Duration::from_millis(millis), resident });
        let (own, server) = ([at(0, 0), at(1000, 0)], [at(500, 1), at(900, 7)]);
        Readings { own, server, wall: Duration::from_secs(2), threads: 2 }
    }

    #[test]
    fn counts_add_up_and_rates_are_by_time() {
        let tally = Tally {
            offered: 200,
            unsent: 10,
            delivered: 150,
            idle: Some(Duration::from_secs(1)),
            sending: Duration::from_secs(2),
            ..Tally::default()
        };
        let report = Report::new(&order(), tally, readings());
        assert_eq!((report.lost, report.loss_percent()), (50, 25.0));
        assert_eq!((report.offered_per_second, report.delivered_per_second), (100.0, 75.0));
        assert_eq!(report.generator.cpu_percent, 50.0);
        assert_eq!(report.generator.busy_percent, Some(75.0));
        let server = report.server.unwrap();
        assert_eq!((server.cpu_percent, server.resident_bytes), (20.0, 7));
        assert_eq!(server.cpu_ns_per_packet.round(), 2_666_667.0);
    }

    #[test]
    fn a_generator_that_takes_longer_is_too_slow() {
        let took = |millis| {
            let sending = Duration::from_millis(millis);
            Report::new(&order(), Tally { sending, ..Tally::default() }, readings())
        };
        assert!(!took(2100).generator.too_slow);
        assert!(took(2200).generator.too_slow);
    }

    #[test]
    fn nothing_at_all_is_a_report_too() {
        let none = Readings { own: [None; 2], server: [None; 2], ..readings() };
        let report = Report::new(&order(), Tally::default(), none);
        assert!(report.server.is_none() && report.loss_percent() == 0.0);
        assert!(serde_json::to_string(&report).unwrap().contains("\"offered\":0"));
    }
}
