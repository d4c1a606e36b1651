//! What is measured: one line of the table each.

use std::fmt;

use hairpin::load::{Mode, Pattern, Transport};

use crate::measure::{
    cpu_per_allocation, cpu_per_packet, highest_rate, latency, memory, uclient_echo,
    uclient_to_each_other,
};
use crate::scale;
use crate::server::Contender;

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub generator_core: usize,
    pub server_core: usize,
    /// A smoke test: everything once and short, with figures that mean nothing.
    pub quick: bool,
    /// Files and sockets that a process of this machine may have open, where that is limited.
    pub descriptors: Option<u64>,
}

/// Allocations of a smoke test.
const QUICK: u32 = 50;
/// Descriptors of a server, or of the generator, that are no client's.
const SPARE_DESCRIPTORS: u64 = 500;

impl Scene {
    /// As many allocations as are wanted, or as the descriptors of a process leave room for.
    pub fn room_for(&self, allocations: u32) -> u32 {
        if self.quick {
            return allocations.min(QUICK);
        }
        let room = self.descriptors.map(|all| all.saturating_sub(SPARE_DESCRIPTORS));
        let room = room.and_then(|room| u32::try_from(room).ok()).unwrap_or(u32::MAX);
        allocations.min(room.max(QUICK))
    }
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for what it is.
    None,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::None => Ok(()),
        }
    }
}

/// What a measurement has shown.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub value: f64,
    /// The generator could do no more, and the server may: it is a lower bound.
    pub at_least: bool,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value, at_least: false }
    }
}

/// Measures once.
pub type Probe = Box<dyn FnMut() -> Figure>;

pub struct Line {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
    /// Rounds that count; one before them is thrown away, unless each has a server of its own.
    pub rounds: usize,
    /// None where the contender cannot do it.
    pub prepare: fn(&Line, &Scene, &Contender) -> Option<Probe>,
    /// Only measured where it is named, or `--scale` is.
    pub scale: bool,
    pub what: What,
}

/// What differs between lines of the same kind.
#[derive(Clone, Copy, Debug)]
pub struct What {
    pub pattern: Pattern,
    pub transport: Transport,
    pub mode: Mode,
    pub flows: u32,
    pub burst: u32,
    pub rate: u64,
    pub size: usize,
    /// Held at the same time, or 0 where that does not matter.
    pub allocations: u32,
    pub together: bool,
    pub one_by_one: bool,
}

const BURSTS: What = What {
    pattern: Pattern::ToPeer,
    transport: Transport::Udp,
    mode: Mode::Channel,
    flows: 10,
    burst: 8,
    rate: 80_000,
    size: 1000,
    allocations: 0,
    together: true,
    one_by_one: false,
};
const SINGLE: What = What { flows: 1000, burst: 1, rate: 40_000, together: false, ..BURSTS };
const ALONE: What = What { one_by_one: true, ..BURSTS };
const STREAM: What = What { pattern: Pattern::Echo, rate: 20_000, ..BURSTS };
const SMALL: What = What { size: 100, ..BURSTS };
const LARGE: What = What { size: 1400, ..BURSTS };
/// Bursts that arrive one at a time.
const SPREAD: What = What { together: false, ..BURSTS };
const ONE_FLOW: What = What { flows: 1, ..SPREAD };
const ONE_FLOW_SINGLE: What = What { burst: 1, rate: 40_000, ..ONE_FLOW };
const BINDING: What = What { pattern: Pattern::Binding, flows: 64, ..SINGLE };
const FEW: What = What { flows: scale::FEW, ..SINGLE };

const HALF: Goal = Goal::AtMost(0.5);

/// Every line of the table, in its order.
pub fn all() -> Vec<Line> {
    let groups = [packets(), sizes_and_flows(), limits(), allocations(), others(), many()];
    groups.into_iter().flatten().collect()
}

const fn at(pattern: Pattern, what: What) -> What {
    What { pattern, ..what }
}

const fn over(transport: Transport, what: What) -> What {
    What { transport, ..what }
}

const fn with(allocations: u32, what: What) -> What {
    What { allocations, ..what }
}

fn cpu(name: &'static str, title: &'static str, goal: Goal, what: What) -> Line {
    let (unit, rounds, prepare) = ("ns", 9, cpu_per_packet as _);
    Line { name, title, unit, goal, rounds, prepare, scale: false, what }
}

/// A ratio in itself.
fn ratio(
    name: &'static str,
    title: &'static str,
    goal: Goal,
    prepare: fn(&Line, &Scene, &Contender) -> Option<Probe>,
    what: What,
) -> Line {
    Line { name, title, unit: "×", goal, rounds: 5, prepare, scale: false, what }
}

fn packets() -> Vec<Line> {
    use Pattern::{RelayToRelay, ToClient};
    vec![
        cpu(
            "to-peer",
            "CPU per packet, 10 flows, bursts of 8 × 1000 B, client to peer",
            HALF,
            BURSTS,
        ),
        cpu("to-client", "the same, peer to client", HALF, at(ToClient, BURSTS)),
        cpu("relay", "the same, relay to relay", Goal::AtMost(0.25), at(RelayToRelay, BURSTS)),
        cpu("to-peer-spread", "the same spread in time, client to peer", Goal::None, SPREAD),
        cpu(
            "to-client-spread",
            "the same spread in time, peer to client",
            Goal::None,
            at(ToClient, SPREAD),
        ),
        cpu("to-peer-alone", "the same sent without GSO, client to peer", Goal::None, ALONE),
        cpu(
            "to-client-alone",
            "the same sent without GSO, peer to client",
            Goal::None,
            at(ToClient, ALONE),
        ),
        cpu(
            "relay-alone",
            "the same sent without GSO, relay to relay",
            Goal::None,
            at(RelayToRelay, ALONE),
        ),
        cpu(
            "send",
            "the same in Send indications, client to peer",
            Goal::None,
            What { mode: Mode::Send, ..BURSTS },
        ),
    ]
}

fn sizes_and_flows() -> Vec<Line> {
    use Pattern::ToClient;
    let few = |name, title, what| Line { rounds: 5, ..cpu(name, title, Goal::None, what) };
    vec![
        few("to-peer-100", "the same with 100 bytes, client to peer", SMALL),
        few("to-client-100", "the same with 100 bytes, peer to client", at(ToClient, SMALL)),
        few("to-peer-1400", "the same with 1,400 bytes, client to peer", LARGE),
        few("to-client-1400", "the same with 1,400 bytes, peer to client", at(ToClient, LARGE)),
        few("one-flow", "CPU per packet, 1 flow of bursts, client to peer", ONE_FLOW),
        few(
            "one-flow-to-client",
            "CPU per packet, 1 flow of bursts, peer to client",
            at(ToClient, ONE_FLOW),
        ),
        few(
            "one-flow-single",
            "CPU per packet, 1 flow of single packets, client to peer",
            ONE_FLOW_SINGLE,
        ),
        cpu(
            "flows-to-peer",
            "CPU per packet, 1,000 flows of single packets, client to peer",
            Goal::AtMost(0.8),
            SINGLE,
        ),
        cpu(
            "flows-to-client",
            "CPU per packet, 1,000 flows of single packets, peer to client",
            Goal::AtMost(0.8),
            at(ToClient, SINGLE),
        ),
    ]
}

fn limits() -> Vec<Line> {
    let highest = |name, title, goal, what| Line {
        unit: "/s",
        rounds: 3,
        prepare: highest_rate,
        ..cpu(name, title, goal, what)
    };
    vec![
        highest(
            "highest",
            "highest lossless rate, 10 flows, bursts of 8",
            Goal::AtLeast(1.8),
            SPREAD,
        ),
        highest(
            "highest-single",
            "highest lossless rate, 10 flows of single packets",
            Goal::None,
            What { burst: 1, ..SPREAD },
        ),
        Line {
            unit: "µs",
            // A machine that stops for a moment spoils the p99 of a whole round.
            rounds: 25,
            prepare: latency,
            ..cpu("latency", "p99 latency at half of coturn's highest rate", HALF, SPREAD)
        },
        highest(
            "binding",
            // Single ones, and bursts without GSO, show what the generator can do.
            "Binding requests per second without loss, in bursts of 8",
            Goal::AtLeast(1.5),
            What { rate: SPREAD.rate, burst: 8, ..BINDING },
        ),
        highest(
            "binding-alone",
            "Binding requests per second, in bursts of 8 without GSO",
            Goal::None,
            What { rate: SPREAD.rate, burst: 8, one_by_one: true, ..BINDING },
        ),
        cpu("binding-cpu", "CPU per Binding request", Goal::None, BINDING),
    ]
}

fn allocations() -> Vec<Line> {
    vec![
        Line {
            rounds: 15,
            prepare: cpu_per_allocation,
            ..cpu("allocate", "CPU per Allocate and ChannelBind", Goal::AtMost(0.2), BURSTS)
        },
        Line {
            unit: "bytes",
            rounds: 2,
            prepare: memory,
            ..cpu(
                "memory",
                "resident memory per allocation with a channel",
                Goal::AtMost(0.1),
                with(10_000, BURSTS),
            )
        },
        ratio(
            "scale",
            "CPU per packet with 10,000 allocations over that with 10, of which 10 send",
            Goal::AtMost(1.3),
            scale::beside_idle,
            with(10_000, FEW),
        ),
        ratio(
            "scale-active",
            "CPU per packet with 10,000 allocations over that with 10, all send",
            Goal::None,
            scale::all_active,
            with(10_000, FEW),
        ),
    ]
}

fn others() -> Vec<Line> {
    let stream =
        |name, title, transport| cpu(name, title, Goal::AtMost(0.6), over(transport, STREAM));
    let uclient =
        |name, title, prepare| Line { rounds: 3, prepare, ..cpu(name, title, Goal::None, BURSTS) };
    vec![
        stream("tcp", "CPU per round trip over TCP", Transport::Tcp),
        stream("tls", "CPU per round trip over TLS", Transport::Tls),
        uclient(
            "uclient",
            "CPU per message of turnutils_uclient, to each other",
            uclient_to_each_other,
        ),
        uclient(
            "uclient-echo",
            "CPU per message of turnutils_uclient, to turnutils_peer",
            uclient_echo,
        ),
    ]
}

/// What takes many sockets and long.
fn many() -> Vec<Line> {
    let once = |name, title, unit, prepare, allocations| Line {
        unit,
        rounds: 1,
        prepare,
        scale: true,
        ..cpu(name, title, Goal::None, with(allocations, BURSTS))
    };
    let beside = |name, title, allocations| Line {
        scale: true,
        ..ratio(name, title, Goal::AtMost(1.3), scale::beside_idle, with(allocations, FEW))
    };
    let [thousand, ten_thousand, hundred_thousand] = [1_000, 10_000, 100_000];
    vec![
        beside("scale-1k", "CPU per packet with 1,000 allocations over that with 10", thousand),
        beside(
            "scale-100k",
            "CPU per packet with 100,000 allocations over that with 10",
            hundred_thousand,
        ),
        once("open-1k", "time per allocation, opening 1,000", "µs", scale::time_to_open, thousand),
        once(
            "open-10k",
            "time per allocation, opening 10,000",
            "µs",
            scale::time_to_open,
            ten_thousand,
        ),
        once(
            "open-100k",
            "time per allocation, opening 100,000",
            "µs",
            scale::time_to_open,
            hundred_thousand,
        ),
        once(
            "allocate-100k",
            "CPU per Allocate and ChannelBind, opening 100,000",
            "ns",
            scale::cpu_to_open,
            hundred_thousand,
        ),
        once(
            "memory-1k",
            "resident memory per allocation, of 1,000",
            "bytes",
            scale::memory,
            thousand,
        ),
        once(
            "memory-100k",
            "resident memory per allocation, of 100,000",
            "bytes",
            scale::memory,
            hundred_thousand,
        ),
        once(
            "expire-10k",
            "CPU per allocation that expires, of 10,000 at once",
            "ns",
            scale::cpu_to_expire,
            ten_thousand,
        ),
        once("stall-10k", "longest wait for an echo meanwhile", "µs", scale::stall, ten_thousand),
        once(
            "expire-100k",
            "CPU per allocation that expires, of 100,000 at once",
            "ns",
            scale::cpu_to_expire,
            hundred_thousand,
        ),
        once(
            "stall-100k",
            "longest wait for an echo meanwhile",
            "µs",
            scale::stall,
            hundred_thousand,
        ),
    ]
}
