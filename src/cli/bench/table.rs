//! The outcome of a load as a person reads it.

use std::fmt::Write;

use super::options::{self, Pattern, Settings};
use super::{Opened, Outcome};
use crate::load::{Generator, Latency, Report, ServerUsage};

/// One block of lines, without the last line feed.
pub(super) fn of(outcome: &Outcome, settings: &Settings) -> String {
    let Report { offered, delivered, lost, unsent, duplicates, reordered, .. } = outcome.report;
    let report = &outcome.report;
    let mut lines = Lines(headline(outcome, settings));
    if outcome.opened.allocations > 0 {
        lines.add("opened", &opened(&outcome.opened));
    }
    if let Some(found) = outcome.found {
        let limit = if found.limited_by_generator { ", where the generator ended" } else { "" };
        let what = format!("{}/s without loss{limit}", grouped(found.rate));
        lines.add("highest", &format!("{what} ({} trials)", found.trials));
    }
    let rate = |count, per_second: f64| {
        format!("{:>14} {:>14}/s", grouped(count), grouped(per_second.round() as u64))
    };
    lines.add("offered", &rate(offered, report.offered_per_second));
    lines.add("delivered", &rate(delivered, report.delivered_per_second));
    lines.add("lost", &format!("{:>14} {:>14.3} %", grouped(lost), report.loss_percent()));
    for (name, count) in
        [("not sent", unsent), ("duplicates", duplicates), ("reordered", reordered)]
    {
        if count > 0 {
            lines.add(name, &format!("{:>14}", grouped(count)));
        }
    }
    lines.add("latency", &latency(&report.latency));
    lines.add("generator", &generator(&report.generator));
    if let Some(server) = &report.server {
        lines.add("server", &server_line(server, settings.pattern));
    }
    if let Some(failure) = &report.failure {
        lines.add("first failure", failure);
    }
    lines.0
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, "\n  {name:13} {text}");
    }
}

fn headline(outcome: &Outcome, settings: &Settings) -> String {
    let order = &outcome.order;
    let pattern = options::name(settings.pattern);
    let clients = settings.shape.clients;
    let head =
        format!("{} ({}): {pattern}, {clients} clients", outcome.target, outcome.target.address);
    let seconds = order.duration.as_secs_f64();
    let rate = match order.rate {
        0 => "as fast as they can".to_owned(),
        rate => format!("{}/s", grouped(rate)),
    };
    let what = match settings.pattern {
        Pattern::Allocate | Pattern::Binding => String::new(),
        _ => {
            let together = if order.together { ", all at once" } else { "" };
            let (mode, burst, size) = (options::name(settings.mode), order.burst, order.size);
            format!(", {mode}, bursts of {burst} x {size} bytes{together}")
        }
    };
    format!("{head}{what}, {rate} for {seconds} s")
}

fn opened(opened: &Opened) -> String {
    let Opened { seconds, allocations, server } = opened;
    let per_second = f64::from(*allocations) / seconds.max(1e-9);
    let mut text = format!(
        "{} allocations in {seconds:.2} s ({}/s)",
        grouped(u64::from(*allocations)),
        grouped(per_second as u64)
    );
    if let Some((cpu, bytes)) = server {
        let micros = cpu.as_nanos() as f64 / 1000.0;
        let _ = write!(text, "; the server: {micros:.1} µs CPU, {} bytes each", grouped(*bytes));
    }
    text
}

fn latency(latency: &Latency) -> String {
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = latency;
    let parts =
        [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("p99.9", p999_us), ("max", max_us)];
    parts.map(|(name, us)| format!("{name} {}", time(*us))).join("  ")
}

fn generator(generator: &Generator) -> String {
    let Generator { cpu_percent, busy_percent, lag_p99_us, too_slow } = generator;
    let verdict = if *too_slow { "; IT WAS TOO SLOW FOR THIS RATE" } else { "" };
    let busy =
        busy_percent.map_or_else(String::new, |busy| format!("busy {busy:.0} % of its time, "));
    let lag = time(*lag_p99_us);
    format!("{busy}CPU {cpu_percent:.0} % of a core, p99 lag {lag}{verdict}")
}

fn server_line(server: &ServerUsage, pattern: Pattern) -> String {
    let ServerUsage { cpu_ns_per_packet, cpu_percent, resident_bytes } = server;
    let each = match pattern {
        Pattern::Allocate => "allocation",
        Pattern::Binding => "request",
        Pattern::Echo => "round trip",
        Pattern::ToPeer | Pattern::ToClient | Pattern::RelayToRelay => "packet",
    };
    let mib = *resident_bytes as f64 / f64::from(1 << 20);
    format!(
        "CPU {cpu_percent:.0} % of a core, {} per {each}, {mib:.1} MiB resident",
        time(cpu_ns_per_packet / 1000.0)
    )
}

/// Three digits or so of microseconds, in the unit that suits them.
fn time(micros: f64) -> String {
    match micros {
        ..10.0 => format!("{micros:.2} µs"),
        ..1000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let numbers = [0, 12, 123, 1234, 123_456, 10_000_000].map(grouped);
        assert_eq!(numbers, ["0", "12", "123", "1,234", "123,456", "10,000,000"]);
    }

    #[test]
    fn times_have_their_unit() {
        let times = [0.5, 31.4, 1234.0, 56_789.0, 3_000_000.0].map(time);
        assert_eq!(times, ["0.50 µs", "31 µs", "1.23 ms", "57 ms", "3.00 s"]);
    }
}
