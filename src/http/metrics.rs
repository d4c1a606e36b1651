//! The counters of all shards as Prometheus text. Keeps nothing between two scrapes.
//!
//! Families are built as values, without a registry: one that lives for a single scrape would only
//! ask for each name and label a second time.

mod signaling;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::signaling::Counts;
use super::{Connections, PortCounts, Snapshot, Tls};
use crate::stun::Code;
use crate::turn::allocation::Transport;
use crate::turn::stats::{self, Direction, DropReason, RequestMethod, Stats, Traffic};

/// Writes what one scrape shows.
pub(super) fn render(
    snapshot: &Snapshot,
    signaling: Option<&Counts>,
) -> prometheus::Result<String> {
    let shards = snapshot.shards.as_slice();
    let mut families = vec![build_info(), draining(snapshot.draining)];
    families.extend(allocations(shards));
    families.push(requests(shards));
    families.extend(relayed(shards));
    families.push(dropped(shards));
    families.push(peer_connections(shards));
    families.push(relay_ports(snapshot.relay_ports));
    families.extend(connections(&snapshot.connections));
    families.extend(snapshot.tls.iter().flat_map(certificates));
    families.extend(signaling.into_iter().flat_map(signaling::families));
    families.extend(process());
    // The encoder takes no family without rows.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

fn build_info() -> MetricFamily {
    gauges(
        "hairpin_build_info",
        "Always 1; the label is the version that runs.",
        vec![gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1)],
    )
}

fn draining(draining: bool) -> MetricFamily {
    gauges(
        "hairpin_draining",
        "1 while the server makes no new allocations because it is about to stop, otherwise 0.",
        vec![gauge(&[], draining.into())],
    )
}

fn allocations(shards: &[Stats]) -> [MetricFamily; 5] {
    let live = Transport::ALL.iter().map(|&transport| {
        let labels = [("transport", transport.label())];
        gauge(&labels, total(shards, |shard| shard.allocations[transport as usize]))
    });
    let refused = Code::ALL.into_iter().map(|code| {
        let answered = |shard: &Stats| {
            let by = |&transport| shard.answered(RequestMethod::Allocate, transport, Some(code));
            Transport::ALL.iter().map(by).sum()
        };
        counter(&[("code", &code.number().to_string())], total(shards, answered))
    });
    [
        gauges(
            "hairpin_allocations",
            "Live allocations, by the transport between client and server.",
            live.collect(),
        ),
        counters(
            "hairpin_allocations_total",
            "Allocations opened since start, live and closed ones.",
            vec![counter(&[], total(shards, |shard| shard.allocations_opened))],
        ),
        counters(
            "hairpin_allocation_errors_total",
            "Allocate requests answered with an error, by STUN error code. 401 includes the \
             challenge that every client's first request is answered with.",
            refused.collect(),
        ),
        histogram(
            "hairpin_allocation_duration_seconds",
            "How long closed allocations had lived, in seconds. Live ones are not in it.",
            shards,
            |shard| &shard.allocation_duration,
        ),
        histogram(
            "hairpin_allocation_relayed_bytes",
            "What closed allocations had relayed, in bytes of application data, both directions \
             together. Live ones are not in it.",
            shards,
            |shard| &shard.allocation_relayed,
        ),
    ]
}

fn requests(shards: &[Stats]) -> MetricFamily {
    let mut rows = Vec::new();
    for &method in RequestMethod::ALL {
        for &transport in Transport::ALL {
            for code in std::iter::once(None).chain(Code::ALL.map(Some)) {
                let count = total(shards, |shard| shard.answered(method, transport, code));
                // Success is shown from the start, so that a rate sees the first request too.
                if count == 0 && code.is_some() {
                    continue;
                }
                let code = code.map_or(200, Code::number).to_string();
                let labels = [
                    ("method", method.label()),
                    ("transport", transport.label()),
                    ("code", code.as_str()),
                ];
                rows.push(counter(&labels, count));
            }
        }
    }
    counters(
        "hairpin_requests_total",
        "STUN and TURN requests answered, by method, client transport and outcome: 200 is \
         success, the rest are STUN error codes. What gets no answer is in \
         hairpin_dropped_packets_total.",
        rows,
    )
}

fn relayed(shards: &[Stats]) -> [MetricFamily; 2] {
    let rows = |count: fn(Traffic) -> u64| {
        let mut rows = Vec::new();
        for &direction in Direction::ALL {
            for &transport in Transport::ALL {
                let labels = [("direction", direction.label()), ("transport", transport.label())];
                let relayed = |shard: &Stats| count(shard.relayed(direction, transport));
                rows.push(counter(&labels, total(shards, relayed)));
            }
        }
        rows
    };
    [
        counters(
            "hairpin_relay_bytes_total",
            "Application data relayed, in bytes without TURN, UDP and IP headers, by direction \
             and client transport. Moves while sessions run.",
            rows(|traffic| traffic.bytes),
        ),
        counters(
            "hairpin_relay_packets_total",
            "Datagrams of application data relayed, by direction and client transport; of \
             connections with peers, the portions they were read in. Moves while sessions run.",
            rows(|traffic| traffic.packets),
        ),
    ]
}

fn dropped(shards: &[Stats]) -> MetricFamily {
    let rows = DropReason::ALL.iter().map(|&reason| {
        counter(&[("reason", reason.label())], total(shards, |shard| shard.dropped(reason)))
    });
    counters(
        "hairpin_dropped_packets_total",
        "Packets from clients and peers that were neither relayed nor answered, by reason.",
        rows.collect(),
    )
}

fn peer_connections(shards: &[Stats]) -> MetricFamily {
    gauges(
        "hairpin_peer_connections",
        "Connections between relayed addresses that speak TCP and their peers: being opened, \
         waiting for the client, or open.",
        vec![gauge(&[], total(shards, |shard| shard.peer_connections))],
    )
}

fn relay_ports(ports: PortCounts) -> MetricFamily {
    let PortCounts { free, used, reserved, cooling } = ports;
    let rows = [("free", free), ("used", used), ("reserved", reserved), ("cooling", cooling)];
    gauges(
        "hairpin_relay_ports",
        "Ports of the relay range, by state: free to take, used by an allocation, reserved next to \
         one, or cooling after one until late packets are gone.",
        rows.map(|(state, count)| gauge(&[("state", state)], count as u64)).into(),
    )
}

fn connections(connections: &Connections) -> [MetricFamily; 2] {
    let Connections { live, refused } = connections;
    let rows = |counts: &[(&str, u64)], name, row: fn(&[(&str, &str)], u64) -> Metric| {
        counts.iter().map(|&(label, count)| row(&[(name, label)], count)).collect()
    };
    [
        gauges(
            "hairpin_connections",
            "Open connections of clients over TCP, by what they speak: http is HTTP on the ports \
             of TURN. One that has not said yet what it speaks is tcp.",
            rows(live, "transport", gauge),
        ),
        counters(
            "hairpin_connections_refused_total",
            "Connections closed before they came to anything, by reason: over a limit, junk, a \
             failed handshake, or nothing in time.",
            rows(refused, "reason", counter),
        ),
    ]
}

fn certificates(tls: &Tls) -> [MetricFamily; 2] {
    let not_after = tls.not_after.iter().enumerate();
    let reloads = [("success", tls.reloads), ("failure", tls.failed_reloads)];
    [
        gauges(
            "hairpin_tls_certificate_not_after_seconds",
            "When each certificate that serves expires, in seconds since 1970; the label counts \
             the certificates of the configuration from 0 on.",
            not_after
                .map(|(index, &secs)| gauge(&[("certificate", &index.to_string())], secs))
                .collect(),
        ),
        counters(
            "hairpin_tls_reloads_total",
            "Certificates read again because their files had changed or a signal came: success \
             replaced the old one, failure left it in place.",
            reloads.map(|(result, count)| counter(&[("result", result)], count)).into(),
        ),
    ]
}

/// The operating system's view of the process.
#[cfg(target_os = "linux")]
fn process() -> Vec<MetricFamily> {
    use prometheus::core::Collector;
    use prometheus::process_collector::ProcessCollector;

    ProcessCollector::for_self().collect()
}

/// The operating system's view of the process: the `prometheus` crate reads it on Linux only.
#[cfg(not(target_os = "linux"))]
fn process() -> Vec<MetricFamily> {
    Vec::new()
}

fn total(shards: &[Stats], count: impl Fn(&Stats) -> u64) -> u64 {
    shards.iter().map(count).sum()
}

fn histogram<const N: usize>(
    name: &str,
    help: &str,
    shards: &[Stats],
    of: fn(&Stats) -> &stats::Histogram<N>,
) -> MetricFamily {
    let mut cumulative = 0;
    let bounds = of(&Stats::default()).bounds.iter().enumerate();
    let buckets = bounds.map(|(at, &bound)| {
        cumulative += total(shards, |shard| of(shard).buckets[at]);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut value = Histogram::default();
    value.set_bucket(buckets.collect());
    value.set_sample_count(total(shards, |shard| of(shard).count));
    value.set_sample_sum(shards.iter().map(|shard| of(shard).sum).sum());
    let mut row = Metric::default();
    row.set_histogram(value);
    family(MetricType::HISTOGRAM, name, help, vec![row])
}

fn counters(name: &str, help: &str, rows: Vec<Metric>) -> MetricFamily {
    family(MetricType::COUNTER, name, help, rows)
}

fn gauges(name: &str, help: &str, rows: Vec<Metric>) -> MetricFamily {
    family(MetricType::GAUGE, name, help, rows)
}

fn family(kind: MetricType, name: &str, help: &str, rows: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(rows);
    family
}

fn counter(labels: &[(&str, &str)], count: u64) -> Metric {
    let mut value = Counter::default();
    value.set_value(count as f64);
    let mut row = labelled(labels);
    row.set_counter(value);
    row
}

fn gauge(labels: &[(&str, &str)], count: u64) -> Metric {
    let mut value = Gauge::default();
    value.set_value(count as f64);
    let mut row = labelled(labels);
    row.set_gauge(value);
    row
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_family_has_one_help_and_one_type_line_before_its_rows() {
        let text = render(&two_shards(), None).unwrap();

        let mut described = BTreeSet::new();
        let mut typed = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(described.insert(name) && !help.is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(typed.insert(name) && described.contains(name), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|suffix| name.strip_suffix(suffix).filter(|of| typed.contains(of)))
                    .unwrap_or(name);
                assert!(typed.contains(family), "{line}");
            }
        }
        assert_eq!(described, typed);
    }

    #[test]
    fn names_are_those_the_design_promises() {
        let text = render(&Snapshot { tls: None, ..two_shards() }, None).unwrap();

        let ours: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .filter(|name| !name.starts_with("process_"))
            .collect();
        let promised = [
            "hairpin_allocation_duration_seconds",
            "hairpin_allocation_errors_total",
            "hairpin_allocation_relayed_bytes",
            "hairpin_allocations",
            "hairpin_allocations_total",
            "hairpin_build_info",
            "hairpin_connections",
            "hairpin_connections_refused_total",
            "hairpin_draining",
            "hairpin_dropped_packets_total",
            "hairpin_peer_connections",
            "hairpin_relay_bytes_total",
            "hairpin_relay_packets_total",
            "hairpin_relay_ports",
            "hairpin_requests_total",
        ];
        assert_eq!(ours, BTreeSet::from(promised));
    }

    #[test]
    fn series_are_sums_over_the_shards() {
        let series = series(&two_shards());

        for (name, value) in [
            (r#"hairpin_allocations{transport="udp"}"#, 1.0),
            ("hairpin_allocations_total", 3.0),
            (r#"hairpin_allocation_errors_total{code="486"}"#, 2.0),
            (r#"hairpin_allocation_errors_total{code="437"}"#, 0.0),
            (r#"hairpin_requests_total{method="binding",transport="udp",code="200"}"#, 2.0),
            (r#"hairpin_requests_total{method="allocate",transport="udp",code="486"}"#, 2.0),
            (r#"hairpin_relay_bytes_total{direction="to_peer",transport="udp"}"#, 1_100.0),
            (r#"hairpin_relay_packets_total{direction="to_peer",transport="udp"}"#, 2.0),
            (r#"hairpin_relay_bytes_total{direction="to_client",transport="udp"}"#, 0.0),
            (r#"hairpin_dropped_packets_total{reason="demux"}"#, 2.0),
            (r#"hairpin_connections{transport="tcp"}"#, 3.0),
            (r#"hairpin_connections{transport="tls"}"#, 0.0),
            (r#"hairpin_connections_refused_total{reason="deadline"}"#, 7.0),
            ("hairpin_draining", 1.0),
            (r#"hairpin_relay_ports{state="free"}"#, 7.0),
            (r#"hairpin_relay_ports{state="used"}"#, 2.0),
            (r#"hairpin_relay_ports{state="reserved"}"#, 3.0),
            (r#"hairpin_relay_ports{state="cooling"}"#, 1.0),
            (concat!(r#"hairpin_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), 1.0),
        ] {
            assert_eq!(series.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn success_and_every_drop_reason_are_shown_before_they_happen() {
        let series = series(&Snapshot::default());

        for method in RequestMethod::ALL {
            let method = method.label();
            let name = format!(
                r#"hairpin_requests_total{{method="{method}",transport="udp",code="200"}}"#
            );
            assert_eq!(series.get(&name), Some(&0.0), "{name}");
        }
        for reason in DropReason::ALL {
            let name = format!(r#"hairpin_dropped_packets_total{{reason="{}"}}"#, reason.label());
            assert_eq!(series.get(&name), Some(&0.0), "{name}");
        }
        let failed = |name: &&String| {
            name.starts_with("hairpin_requests_total") && !name.contains(r#"code="200""#)
        };
        assert_eq!(series.keys().find(failed), None);
    }

    #[test]
    fn histograms_are_cumulative_and_end_in_their_count() {
        let series = series(&two_shards());

        let bucket = |bound: &str| {
            series[&format!(r#"hairpin_allocation_duration_seconds_bucket{{le="{bound}"}}"#)]
        };
        let bounds = ["1", "10", "60", "300", "600", "1800", "3600", "14400", "86400", "+Inf"];
        assert_eq!(bounds.map(bucket), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
        assert_eq!(series["hairpin_allocation_duration_seconds_count"], 2.0);
        assert_eq!(series["hairpin_allocation_duration_seconds_sum"], 90_005.0);
        assert_eq!(series[r#"hairpin_allocation_relayed_bytes_bucket{le="0"}"#], 1.0);
        assert_eq!(series[r#"hairpin_allocation_relayed_bytes_bucket{le="+Inf"}"#], 2.0);
    }

    #[test]
    fn certificates_are_shown_where_there_are_any() {
        let shown = series(&two_shards());

        assert_eq!(
            shown[r#"hairpin_tls_certificate_not_after_seconds{certificate="0"}"#],
            1_800_000_000.0
        );
        assert_eq!(shown[r#"hairpin_tls_certificate_not_after_seconds{certificate="1"}"#], 0.0);
        assert_eq!(shown[r#"hairpin_tls_reloads_total{result="success"}"#], 2.0);
        assert_eq!(shown[r#"hairpin_tls_reloads_total{result="failure"}"#], 1.0);
        let without = series(&Snapshot::default());
        assert!(without.keys().all(|name| !name.starts_with("hairpin_tls_")));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_shown_under_the_usual_names() {
        let series = series(&Snapshot::default());

        assert!(series["process_resident_memory_bytes"] > 0.0);
        assert!(series["process_open_fds"] > 0.0);
        assert!(series.contains_key("process_cpu_seconds_total"));
        assert!(series.contains_key("process_start_time_seconds"));
    }

    fn two_shards() -> Snapshot {
        let udp = Transport::Udp;
        let mut first = Stats::default();
        first.answer(RequestMethod::Binding, udp, None);
        first.answer(RequestMethod::Allocate, udp, Some(Code::AllocationQuotaReached));
        first.relay(Direction::ToPeer, udp, 1_000);
        first.drop(DropReason::Demux);
        first.allocation_opened(udp);
        let mut second = Stats::default();
        second.answer(RequestMethod::Binding, udp, None);
        second.answer(RequestMethod::Allocate, udp, Some(Code::AllocationQuotaReached));
        second.relay(Direction::ToPeer, udp, 100);
        second.drop(DropReason::Demux);
        second.allocation_opened(udp);
        second.allocation_opened(udp);
        second.allocation_closed(udp, Duration::from_secs(5), 0);
        second.allocation_closed(udp, Duration::from_secs(90_000), 20_000_000_000);
        Snapshot {
            shards: vec![first, second],
            relay_ports: PortCounts { free: 7, used: 2, reserved: 3, cooling: 1 },
            tls: Some(Tls { not_after: vec![1_800_000_000, 0], reloads: 2, failed_reloads: 1 }),
            connections: Connections {
                live: vec![("tcp", 3), ("tls", 0)],
                refused: vec![("deadline", 7)],
            },
            draining: true,
        }
    }

    /// Every line that is not a comment, by name and labels; a name seen twice is a failure.
    fn series(snapshot: &Snapshot) -> BTreeMap<String, f64> {
        let text = render(snapshot, None).unwrap();
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let before = series.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} twice");
        }
        series
    }
}
