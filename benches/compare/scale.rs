//! Many allocations at once: what they cost while they are opened, held, and when they expire.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hairpin::load::{Fleet, Mode, Order, Pattern, Report};
use hairpin::net::clock;

use crate::lines::{Line, Probe, Scene};
use crate::measure::{Bed, WARM};
use crate::server::{Contender, Lab, Server};

/// Allocations beside which as many as the line says are held: those that send.
pub const FEW: u32 = 10;

/// A second between storms for the servers' own timers.
const CALM: Duration = Duration::from_secs(1);
/// The client that watches begins so long before the first allocation expires, and ends so long after
/// the last one.
const MARGIN: Duration = Duration::from_secs(2);
/// How long allocations live that are to expire: time to open and to renew so many, at a rate that the
/// slowest server keeps up with, and what the watching client needs.
const OPENED_PER_SECOND: u64 = 500;
const LIFETIME_BASE_SECS: u64 = 10;
/// Echoes per second of the client that watches, and their size: the server hardly notices.
const WATCHED_RATE: u64 = 1000;
const WATCHED_SIZE: usize = 100;

/// What opening allocations took, each.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub wall_us: f64,
    pub cpu_ns: f64,
    pub bytes: f64,
}

/// What their end took.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// Of the server, for each.
    pub cpu_ns: f64,
    /// The longest that the watching client waited for an echo.
    pub stall_us: f64,
}

/// Several lines show figures of one measurement: by contender, allocations and round.
type Seen<T> = Mutex<BTreeMap<(String, u32, usize), T>>;

static OPENINGS: Seen<Opening> = Mutex::new(BTreeMap::new());
static EXPIRIES: Seen<Expiry> = Mutex::new(BTreeMap::new());

/// Shows one figure of measurements that other lines may have made already.
fn shared<T: Copy + 'static>(
    seen: &'static Seen<T>,
    line: &Line,
    scene: &Scene,
    contender: &Contender,
    measure: fn(&Line, &Scene, &Contender, u32) -> T,
    show: fn(T) -> f64,
) -> Option<Probe> {
    if !contender.scales() {
        return None;
    }
    let (line, scene, contender) = (Line { ..*line }, *scene, contender.clone());
    let allocations = scene.room_for(line.what.allocations);
    let mut rounds = 0..;
    Some(Box::new(move || {
        let key = (contender.name().to_owned(), allocations, rounds.next().unwrap_or_default());
        let known = seen.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let measured = known.unwrap_or_else(|| measure(&line, &scene, &contender, allocations));
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, measured);
        show(measured).into()
    }))
}

pub fn time_to_open(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    shared(&OPENINGS, line, scene, contender, opening, |opening| opening.wall_us)
}

pub fn cpu_to_open(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    shared(&OPENINGS, line, scene, contender, opening, |opening| opening.cpu_ns)
}

pub fn memory(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    shared(&OPENINGS, line, scene, contender, opening, |opening| opening.bytes)
}

pub fn cpu_to_expire(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    shared(&EXPIRIES, line, scene, contender, expiry, |expiry| expiry.cpu_ns)
}

pub fn stall(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    shared(&EXPIRIES, line, scene, contender, expiry, |expiry| expiry.stall_us)
}

/// With the challenge that each client has to get first, and a channel each.
fn opening(line: &Line, scene: &Scene, contender: &Contender, allocations: u32) -> Opening {
    let server = contender.start_in(scene.server_core, Lab::SCALE);
    let warm = line.fleet(scene, &server, WARM);
    let (before, begin) = (server.usage(), clock::now().instant);
    let fleet = line.fleet(scene, &server, allocations);
    let (wall, after) = (clock::now().instant - begin, server.usage());
    drop((fleet, warm));
    let each = f64::from(allocations);
    Opening {
        wall_us: wall.as_nanos() as f64 / 1000.0 / each,
        cpu_ns: after.cpu.saturating_sub(before.cpu).as_nanos() as f64 / each,
        bytes: after.resident.saturating_sub(before.resident) as f64 / each,
    }
}

/// Lets allocations expire that were all renewed as fast as the server would, while a client sends.
fn expiry(line: &Line, scene: &Scene, contender: &Contender, allocations: u32) -> Expiry {
    let lifetime_secs = LIFETIME_BASE_SECS + u64::from(allocations) / OPENED_PER_SECOND;
    let lifetime = Duration::from_secs(lifetime_secs);
    let lab = Lab { lifetime_secs: Some(lifetime_secs), ..Lab::SCALE };
    let server = contender.start_in(scene.server_core, lab);
    let (begin, spread, dying) = match renewed(line, scene, &server, allocations) {
        Ok(renewed) => renewed,
        Err(error) => {
            eprintln!("  {}: {error}; {lifetime_secs} s are too short for it", server.name);
            return Expiry { cpu_ns: f64::NAN, stall_us: f64::NAN };
        }
    };
    let held = server.descriptors();
    let until = (begin + lifetime).checked_sub(MARGIN).unwrap_or(begin);
    thread::sleep(until.saturating_duration_since(clock::now().instant));
    let what = crate::lines::What { pattern: Pattern::Echo, mode: Mode::Channel, ..line.what };
    let watching = Line { what, ..*line }.fleet(scene, &server, 1);
    let mut bed = Bed { fleet: watching, server };
    let order = Order {
        rate: WATCHED_RATE,
        burst: 1,
        size: WATCHED_SIZE,
        duration: MARGIN + spread + MARGIN,
        together: false,
        one_by_one: false,
    };
    let storm = bed.drive(order);
    let calm = bed.drive(Order { duration: CALM, ..order });
    // The one that watches has a socket of its own.
    let expired = held.saturating_sub(bed.server.descriptors().saturating_sub(1));
    let name = &bed.server.name;
    if expired < allocations as usize * 99 / 100 {
        eprintln!("  {name}: {expired} of {allocations} allocations have expired in time");
    }
    if storm.lost > 0 {
        eprintln!("  {name}: {} of {} echoes were lost meanwhile", storm.lost, storm.offered);
    }
    drop(dying);
    let cpu = |report: &Report| {
        let per_packet = report.server.map_or(f64::NAN, |server| server.cpu_ns_per_packet);
        per_packet * report.delivered.max(1) as f64
    };
    let watching = cpu(&calm) * storm.seconds / calm.seconds;
    Expiry {
        cpu_ns: (cpu(&storm) - watching).max(0.0) / expired.max(1) as f64,
        stall_us: storm.latency.max_us,
    }
}

type Renewed = (std::time::Instant, Duration, Fleet);

/// Opens allocations and renews them all: when that began, how long it took, and who holds them.
fn renewed(
    line: &Line,
    scene: &Scene,
    server: &Server,
    allocations: u32,
) -> Result<Renewed, hairpin::load::Error> {
    let mut fleet = line.try_fleet(scene, server, allocations)?;
    let begin = clock::now().instant;
    fleet.renew()?;
    Ok((begin, clock::now().instant - begin, fleet))
}

/// CPU per packet of few flows beside many that are silent, over that of the few alone.
pub fn beside_idle(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let allocations = scene.room_for(line.what.allocations);
    let lab = if line.scale { Lab::SCALE } else { Lab::PLAIN };
    if line.scale && !contender.scales() {
        return None;
    }
    let mut few = line.bed(scene, contender, FEW)?;
    let server = contender.start_in(scene.server_core, lab);
    let mut many = Bed { fleet: line.fleet(scene, &server, FEW), server };
    let idle = line.fleet(scene, &many.server, allocations - FEW);
    Some(Box::new(move || {
        let _held = &idle;
        (many.cpu(order) / few.cpu(order)).into()
    }))
}

/// The same where the many send as well.
pub fn all_active(line: &Line, scene: &Scene, contender: &Contender) -> Option<Probe> {
    let order = line.order(scene);
    let mut few = line.bed(scene, contender, FEW)?;
    let mut many = line.bed(scene, contender, scene.room_for(line.what.allocations))?;
    Some(Box::new(move || (many.cpu(order) / few.cpu(order)).into()))
}
