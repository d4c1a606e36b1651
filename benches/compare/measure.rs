//! How lines are measured.

use std::process::{Command, Stdio};
use std::time::Duration;

use hairpin::load::{Core, Fleet, Order, RATE_MAX, Report, Search, Shape, Trial, Trust};

use crate::lines::{Figure, Line, Probe, Scene};
use crate::server::{Contender, Server};

/// Loss above which a figure tells about something else, and how often it is then taken again.
const LOSS_PERCENT_MAX: f64 = 0.5;
const ATTEMPTS: usize = 3;
/// Allocations that are opened at once for their cost.
const OPENED: u32 = 1000;
/// Allocations before those by which memory is divided: they pay for what is paid once.
pub const WARM: u32 = 100;

/// A server with its clients: the fleet goes first.
pub struct Bed {
    pub fleet: Fleet,
    pub server: Server,
}

impl Line {
    /// Measures with 1,000 flows where the scene has time for it.
    fn flows(&self, scene: &Scene) -> u32 {
        if scene.quick { self.what.flows.min(20) } else { self.what.flows }
    }

    pub fn order(&self, scene: &Scene) -> Order {
        Order {
            rate: if scene.quick { self.what.rate / 20 } else { self.what.rate },
            burst: self.what.burst,
            size: self.what.size,
            duration: Duration::from_millis(if scene.quick { 200 } else { 2000 }),
            together: self.what.together,
            one_by_one: self.what.one_by_one,
        }
    }

    pub fn bed(&self, scene: &Scene, contender: &Contender, flows: u32) -> Option<Bed> {
        if !contender.speaks(self.what.transport) {
            return None;
        }
        let server = contender.start(scene.server_core);
        Some(Bed { fleet: self.fleet(scene, &server, flows), server })
    }

    pub fn fleet(&self, scene: &Scene, server: &Server, flows: u32) -> Fleet {
        self.try_fleet(scene, server, flows)
            .unwrap_or_else(|error| panic!("{}: {}: {error}", self.name, server.name))
    }

    /// The same where the server may well not do it.
    pub fn try_fleet(
        &self,
        scene: &Scene,
        server: &Server,
        flows: u32,
    ) -> Result<Fleet, hairpin::load::Error> {
        let shape = Shape {
            pattern: self.what.pattern,
            mode: self.what.mode,
            clients: flows,
            threads: vec![Core::Pinned(scene.generator_core)],
            local: server.client_addresses(),
            login: Server::login(),
            public: false,
        };
        let target = server.target(self.what.transport);
        Fleet::open(&target, Some(&Trust::anyone()), shape, |_| ())
    }
}

impl Bed {
    pub fn drive(&mut self, order: Order) -> Report {
        let Self { fleet, server } = self;
        fleet
            .drive(order, Some(server.pid()), |_| ())
            .unwrap_or_else(|error| panic!("{}: {error}", server.name))
    }

    /// CPU time of the server for a packet, in nanoseconds. What is lost costs less than what is
    /// delivered, so a measurement with more than a little of it is made again.
    pub fn cpu(&mut self, order: Order) -> f64 {
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

pub fn cpu_per_packet(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    Some(Box::new(move || bed.cpu(order).into()))
}

pub fn highest_rate(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    let to = if scene.quick { order.rate * 2 } else { RATE_MAX };
    Some(Box::new(move || search(&mut bed, order, to)))
}

/// A rate at which the generator or the search ended says only that the server can do as much.
fn search(bed: &mut Bed, order: Order, to: u64) -> Figure {
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
    let at_least = found.limited_by_generator || found.rate >= to;
    Figure { value: found.rate as f64, at_least }
}

/// The rate is half of the highest of the last coturn, found once for all.
pub fn latency(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    static RATE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let order = line.order(scene);
    let rate = *RATE.get_or_init(|| {
        let all = Contender::all();
        let is_coturn = |contender: &&Contender| matches!(contender, Contender::Coturn { .. });
        let reference = all.iter().rev().find(is_coturn).unwrap_or(&Contender::Hairpin);
        let mut bed = line.bed(scene, reference, line.flows(scene)).expect("all speak UDP");
        let to = if scene.quick { order.rate } else { RATE_MAX };
        let Figure { value, at_least } = search(&mut bed, order, to);
        let rate = (value / 2.0) as u64;
        let more = if at_least { ", or more: the generator was the limit" } else { "" };
        eprintln!("  half of the highest rate of {}: {rate}/s{more}", bed.server.name);
        rate.max(1000)
    });
    let mut bed = line.bed(scene, contender, line.flows(scene))?;
    Some(Box::new(move || bed.drive(Order { rate, ..order }).latency.p99_us.into()))
}

/// With the challenge that each client has to get first.
pub fn cpu_per_allocation(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let server = contender.start(scene.server_core);
    let (line, scene) = (Line { ..*line }, *scene);
    let allocations = if scene.quick { 20 } else { OPENED };
    Some(Box::new(move || {
        let before = server.usage().cpu;
        let fleet = line.fleet(&scene, &server, allocations);
        let used = server.usage().cpu.saturating_sub(before);
        drop(fleet);
        // What it deletes must not be done while the next contender is measured.
        server.wait_until_it_rests();
        (used.as_nanos() as f64 / f64::from(allocations)).into()
    }))
}

/// Memory does not go back, so each round has a server of its own.
pub fn memory(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let (line, scene, contender) = (Line { ..*line }, *scene, contender.clone());
    let allocations = scene.room_for(line.what.allocations);
    Some(Box::new(move || {
        let server = contender.start(scene.server_core);
        let warm = line.fleet(&scene, &server, WARM);
        let before = server.usage().resident;
        let fleet = line.fleet(&scene, &server, allocations);
        let more = server.usage().resident.saturating_sub(before);
        drop((fleet, warm));
        (more as f64 / f64::from(allocations)).into()
    }))
}

pub fn uclient_to_each_other(_: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    uclient(scene, contender, None)
}

pub fn uclient_echo(_: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
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
        received.map_or(f64::NAN, |received| used.as_nanos() as f64 / received as f64).into()
    }))
}
