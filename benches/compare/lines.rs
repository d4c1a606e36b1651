//! What is measured: one line of the table each.

use std::process::{Command, Stdio};
use std::time::Duration;

use hairpin::load::{
    Core, Fleet, Mode, Order, Pattern, RATE_MAX, Report, Search, Shape, Transport, Trial, Trust,
};

use crate::server::{Contender, Server};

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub generator_core: usize,
    pub server_core: usize,
    /// A smoke test: everything once and short, with figures that mean nothing.
    pub quick: bool,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for what it is.
    None,
}

/// Measures once.
pub type Probe = Box<dyn FnMut() -> f64>;

pub struct Line {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
    /// Rounds that count; one before them is thrown away.
    pub rounds: usize,
    /// None where the contender cannot do it.
    pub prepare: fn(&Line, &Scene, &Contender) -> Option<Probe>,
    what: What,
}

/// What differs between lines of the same kind.
#[derive(Clone, Copy, Debug)]
struct What {
    pattern: Pattern,
    transport: Transport,
    mode: Mode,
    flows: u32,
    burst: u32,
    rate: u64,
    together: bool,
    one_by_one: bool,
}

const BURSTS: What = What {
    pattern: Pattern::ToPeer,
    transport: Transport::Udp,
    mode: Mode::Channel,
    flows: 10,
    burst: 8,
    rate: 80_000,
    together: true,
    one_by_one: false,
};
const SINGLE: What = What { flows: 1000, burst: 1, rate: 40_000, together: false, ..BURSTS };
const ALONE: What = What { one_by_one: true, ..BURSTS };
const STREAM: What = What { pattern: Pattern::Echo, rate: 20_000, ..BURSTS };
const SIZE: usize = 1000;

/// Loss above which a figure tells about something else, and how often it is then taken again.
const LOSS_PERCENT_MAX: f64 = 0.5;
const ATTEMPTS: usize = 3;
/// Allocations that are opened at once for their cost.
const OPENED: u32 = 1000;
/// Allocations by which memory is divided, and those before them that pay for what is paid once.
const RESIDENT: u32 = 10_000;
const WARM: u32 = 100;
/// Allocations of the scale line, few and many.
const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// Every line of the table, in its order.
pub fn all() -> Vec<Line> {
    let cpu = |name, title, goal, what| Line {
        name,
        title,
        unit: "ns",
        goal,
        rounds: 9,
        prepare: cpu_per_packet,
        what,
    };
    let (half, quarter) = (Goal::AtMost(0.5), Goal::AtMost(0.25));
    let at = |pattern, what| What { pattern, ..what };
    let over = |transport| What { transport, ..STREAM };
    use Pattern::{Binding, RelayToRelay, ToClient, ToPeer};
    let line = |name, title, unit, goal, rounds, prepare, what| Line {
        name,
        title,
        unit,
        goal,
        rounds,
        prepare,
        what,
    };
    vec![
        cpu("to-peer", "CPU per packet, client to peer", half, BURSTS),
        cpu("to-client", "CPU per packet, peer to client", half, at(ToClient, BURSTS)),
        cpu("relay", "CPU per packet, relay to relay", quarter, at(RelayToRelay, BURSTS)),
        cpu(
            "to-peer-spread",
            "the same spread in time, client to peer",
            Goal::None,
            What { together: false, ..BURSTS },
        ),
        cpu(
            "to-client-spread",
            "the same spread in time, peer to client",
            Goal::None,
            What { together: false, ..at(ToClient, BURSTS) },
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
            "CPU per packet, Send indications to peers",
            Goal::None,
            What { mode: Mode::Send, ..BURSTS },
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
        line(
            "highest",
            "highest lossless rate, 10 flows, bursts of 8",
            "/s",
            Goal::AtLeast(1.8),
            3,
            highest_rate,
            What { together: false, ..BURSTS },
        ),
        line(
            "highest-single",
            "highest lossless rate, 10 flows of single packets",
            "/s",
            Goal::None,
            3,
            highest_rate,
            What { burst: 1, together: false, ..BURSTS },
        ),
        line(
            "latency",
            "p99 latency at half of coturn's highest rate",
            "µs",
            Goal::AtMost(0.5),
            9,
            latency,
            What { together: false, ..BURSTS },
        ),
        line(
            "allocate",
            "CPU per Allocate and ChannelBind",
            "ns",
            Goal::AtMost(0.2),
            5,
            cpu_per_allocation,
            BURSTS,
        ),
        line(
            "memory",
            "resident memory per allocation with a channel",
            "bytes",
            Goal::AtMost(0.1),
            2,
            memory,
            BURSTS,
        ),
        cpu("tcp", "CPU per round trip over TCP", Goal::AtMost(0.6), over(Transport::Tcp)),
        cpu("tls", "CPU per round trip over TLS", Goal::AtMost(0.6), over(Transport::Tls)),
        line(
            "binding",
            "Binding requests per second without loss",
            "/s",
            Goal::AtLeast(1.5),
            3,
            highest_rate,
            What { pattern: Binding, flows: 64, burst: 1, together: false, ..BURSTS },
        ),
        cpu(
            "binding-cpu",
            "CPU per Binding request",
            Goal::None,
            What { pattern: Binding, flows: 64, ..SINGLE },
        ),
        line(
            "scale",
            "CPU per packet with 10,000 allocations over that with 10, of which 10 send",
            "×",
            Goal::AtMost(1.3),
            5,
            scale_idle,
            What { flows: FEW, ..SINGLE },
        ),
        line(
            "scale-active",
            "CPU per packet with 10,000 allocations over that with 10, all send",
            "×",
            Goal::None,
            5,
            scale_active,
            What { flows: FEW, pattern: ToPeer, ..SINGLE },
        ),
        line(
            "uclient",
            "CPU per message of turnutils_uclient, to each other",
            "ns",
            Goal::None,
            3,
            uclient_to_each_other,
            BURSTS,
        ),
        line(
            "uclient-echo",
            "CPU per message of turnutils_uclient, to turnutils_peer",
            "ns",
            Goal::None,
            3,
            uclient_echo,
            BURSTS,
        ),
    ]
}

/// A server with its clients: the fleet goes first.
struct Bed {
    fleet: Fleet,
    server: Server,
}

impl Line {
    /// Measures with 1,000 flows where the scene has time for it.
    fn flows(&self, scene: &Scene) -> u32 {
        if scene.quick { self.what.flows.min(20) } else { self.what.flows }
    }

    fn order(&self, scene: &Scene) -> Order {
        Order {
            rate: if scene.quick { self.what.rate / 20 } else { self.what.rate },
            burst: self.what.burst,
            size: SIZE,
            duration: Duration::from_millis(if scene.quick { 200 } else { 2000 }),
            together: self.what.together,
            one_by_one: self.what.one_by_one,
        }
    }

    fn bed(&self, scene: &Scene, contender: &Contender, flows: u32) -> Option<Bed> {
        if !contender.speaks(self.what.transport) {
            return None;
        }
        let server = contender.start(scene.server_core);
        Some(Bed { fleet: self.fleet(scene, &server, flows), server })
    }

    fn fleet(&self, scene: &Scene, server: &Server, flows: u32) -> Fleet {
        let shape = Shape {
            pattern: self.what.pattern,
            mode: self.what.mode,
            clients: flows,
            threads: vec![Core::Pinned(scene.generator_core)],
            local: Vec::new(),
            login: Server::login(),
            public: false,
        };
        let target = server.target(self.what.transport);
        Fleet::open(&target, Some(&Trust::anyone()), shape, |_| ())
            .unwrap_or_else(|error| panic!("{}: {}: {error}", self.name, server.name))
    }
}

impl Bed {
    fn drive(&mut self, order: Order) -> Report {
        let Self { fleet, server } = self;
        fleet
            .drive(order, Some(server.pid()), |_| ())
            .unwrap_or_else(|error| panic!("{}: {error}", server.name))
    }

    /// CPU time of the server for a packet, in nanoseconds. What is lost costs less than what is
    /// delivered, so a measurement with more than a little of it is made again.
    fn cpu(&mut self, order: Order) -> f64 {
        let mut report = self.drive(order);
        for _ in 0..ATTEMPTS {
            if report.loss_percent() <= LOSS_PERCENT_MAX {
                break;
            }
            eprintln!("  {}: {:.1} % were lost", self.server.name, report.loss_percent());
            report = self.drive(order);
        }
        report.server.map_or(f64::NAN, |server| server.cpu_ns_per_packet)
    }
}

fn cpu_per_packet(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    Some(Box::new(move || bed.cpu(order)))
}

fn highest_rate(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    let to = if scene.quick { order.rate * 2 } else { RATE_MAX };
    Some(Box::new(move || search(&mut bed, order, to)))
}

fn search(bed: &mut Bed, order: Order, to: u64) -> f64 {
    let search = Search { from: order.rate, to };
    let found = search.run(|rate| {
        let duration = order.duration.min(Duration::from_secs(1));
        let report = bed.drive(Order { rate, duration, ..order });
        Ok::<_, ()>(match report {
            Report { generator, unsent, .. } if generator.too_slow || unsent > 0 => Trial::TooSlow,
            Report { lost: 0, .. } => Trial::Lossless,
            _ => Trial::Lossy,
        })
    });
    let found = found.unwrap_or_else(|()| unreachable!("no trial fails"));
    if found.limited_by_generator {
        eprintln!("  {}: the generator was the limit at {}/s", bed.server.name, found.rate);
    }
    found.rate as f64
}

/// The rate is half of the highest of the last coturn, found once for all.
fn latency(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    static RATE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let order = line.order(scene);
    let rate = *RATE.get_or_init(|| {
        let all = Contender::all();
        let is_coturn = |contender: &&Contender| matches!(contender, Contender::Coturn { .. });
        let reference = all.iter().rev().find(is_coturn).unwrap_or(&Contender::Hairpin);
        let mut bed = line.bed(scene, reference, line.flows(scene)).expect("all speak UDP");
        let to = if scene.quick { order.rate } else { RATE_MAX };
        let rate = (search(&mut bed, order, to) / 2.0) as u64;
        eprintln!("  half of the highest rate of {}: {rate}/s", bed.server.name);
        rate.max(1000)
    });
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    Some(Box::new(move || bed.drive(Order { rate, ..order }).latency.p99_us))
}

/// With the challenge that each client has to get first.
fn cpu_per_allocation(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let server = contender.start(scene.server_core);
    let (line, scene) = (Line { ..*line }, *scene);
    let allocations = if scene.quick { 20 } else { OPENED };
    Some(Box::new(move || {
        let before = server.usage().cpu;
        let fleet = line.fleet(&scene, &server, allocations);
        let used = server.usage().cpu.saturating_sub(before);
        drop(fleet);
        used.as_nanos() as f64 / f64::from(allocations)
    }))
}

/// Memory does not go back, so each round has a server of its own.
fn memory(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let (line, scene, contender) = (Line { ..*line }, *scene, contender.clone());
    let allocations = if scene.quick { 100 } else { RESIDENT };
    Some(Box::new(move || {
        let server = contender.start(scene.server_core);
        let warm = line.fleet(&scene, &server, WARM);
        let before = server.usage().resident;
        let fleet = line.fleet(&scene, &server, allocations);
        let more = server.usage().resident.saturating_sub(before);
        drop((fleet, warm));
        more as f64 / f64::from(allocations)
    }))
}

fn scale_idle(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut few = line.bed(scene, contender, FEW)?;
    let mut many = line.bed(scene, contender, FEW)?;
    let idle = line.fleet(scene, &many.server, many_of(scene) - FEW);
    Some(Box::new(move || {
        let _held = &idle;
        many.cpu(order) / few.cpu(order)
    }))
}

fn scale_active(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut few = line.bed(scene, contender, FEW)?;
    let mut many = line.bed(scene, contender, many_of(scene))?;
    Some(Box::new(move || many.cpu(order) / few.cpu(order)))
}

fn many_of(scene: &Scene) -> u32 {
    if scene.quick { 50 } else { MANY }
}

fn uclient_to_each_other(_: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    uclient(scene, contender, None)
}

fn uclient_echo(_: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    // Beside the servers, which are three apart.
    const PEER_PORT: u16 = 3_998;
    let peer = Command::new("turnutils_peer")
        .args(["-L", "127.0.0.1", "-p", &PEER_PORT.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    uclient(scene, contender, Some(Killed(peer, PEER_PORT)))
}

/// A helper that ends with its measurement.
struct Killed(std::process::Child, u16);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A load that this project did not write: CPU for each message that came back.
fn uclient(scene: &Scene, contender: &Contender, peer: Option<Killed>) -> Option<Probe> {
    let server = contender.start(scene.server_core);
    let (core, messages) = (scene.generator_core, if scene.quick { "20" } else { "1000" });
    let way = match &peer {
        None => vec!["-y".to_owned()],
        Some(Killed(_, port)) => ["-e", "127.0.0.1", "-r"]
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect(),
    };
    Some(Box::new(move || {
        let _held = &peer;
        let before = server.usage().cpu;
        // -s: Send indications, for its channel numbers are those of RFC 5766; -c: no RTCP.
        let output = Command::new("taskset")
            .args(["-c", &core.to_string(), "turnutils_uclient"])
            .args(["-u", "bench", "-w", "bench", "-s", "-c", "-n", messages, "-m", "10"])
            .args(["-l", "1000", "-z", "1", "-p", &server.port.to_string()])
            .args(&way)
            .arg("127.0.0.1")
            .output();
        let used = server.usage().cpu.saturating_sub(before);
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let received = output.ok().and_then(|text| {
            let (_, rest) = text.rsplit_once("tot_recv_msgs=")?;
            let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok().filter(|received| *received > 0)
        });
        received.map_or(f64::NAN, |received| used.as_nanos() as f64 / received as f64)
    }))
}
