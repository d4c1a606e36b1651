//! One thread under way: sends each burst when it is due, reads whatever arrives, counts both.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{self, JoinSet};
use tokio::time;

use crate::net::clock;
use crate::net::egress::{Egress, Route};
use crate::net::sys::{AwaitedSocket, Socket};

use super::flows::Flows;
use super::port::Port;
use super::schedule::Schedule;
use super::stamp::{Stamp, Template};
use super::tally::{Ledger, Tally};
use super::{Order, Pattern, SIZE_MAX, Transport};

/// Packets sent before what has arrived is looked at.
const TURN_PACKETS: u64 = 256;
/// Timers of the runtime are good to a millisecond; what is due sooner is waited for awake.
const AWAKE: Duration = Duration::from_millis(2);
/// Silence after which what has not arrived counts as lost.
const QUIET: Duration = Duration::from_millis(400);
/// The same where packets still trickle in.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// A generator that is too slow gives up after this many times the time it was to take.
const OVERTIME: u32 = 2;

/// What all threads agree on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    pub(super) order: Order,
    pub(super) start: Instant,
    pub(super) tag: u32,
}

/// A sending or receiving socket of a thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Client(usize),
    Peer(usize),
}

/// Sends the load, and waits for the last packet of it.
pub(super) async fn drive(flows: Rc<Flows>, schedule: Schedule, departure: Departure) -> Tally {
    let road = Rc::new(Road::new(flows, schedule, departure));
    let mut readers = JoinSet::new();
    for source in road.receivers() {
        let road = Rc::clone(&road);
        readers.spawn_local(async move { road.read(source).await });
    }
    Sender::new(Rc::clone(&road), schedule, departure).send_all().await;
    road.drain().await;
    // Ends with the readers dropped, and so nobody else has the ledger.
    drop(readers);
    road.ledger.replace(Ledger::new(schedule, 0, departure.start, 0)).tally
}

/// What senders and readers share.
struct Road {
    flows: Rc<Flows>,
    ledger: RefCell<Ledger>,
    echo: RefCell<Egress<Source>>,
    /// Counts whatever happens, to tell idle turns from busy ones.
    happened: Cell<u64>,
    /// Clients whose connection has not taken everything.
    stuck: RefCell<Vec<usize>>,
}

impl Road {
    fn new(flows: Rc<Flows>, schedule: Schedule, departure: Departure) -> Self {
        let own = flows.share.flows as usize;
        let ledger = Ledger::new(schedule, own, departure.start, departure.tag);
        Self {
            flows,
            ledger: RefCell::new(ledger),
            echo: RefCell::new(Egress::new()),
            happened: Cell::new(0),
            stuck: RefCell::new(Vec::new()),
        }
    }

    fn receivers(&self) -> Vec<Source> {
        let clients = (0..self.flows.clients.len()).map(Source::Client);
        let peers = (0..self.flows.peers.len()).map(Source::Peer);
        match self.flows.shape.pattern {
            Pattern::ToPeer => peers.collect(),
            Pattern::Echo => clients.chain(peers).collect(),
            Pattern::RelayToRelay => clients.skip(1).step_by(2).collect(),
            Pattern::ToClient | Pattern::Binding | Pattern::Allocate => clients.collect(),
        }
    }

    async fn read(&self, source: Source) {
        loop {
            let outcome = match source {
                Source::Peer(at) => self.read_udp(&self.flows.peers[at].0, source).await,
                Source::Client(at) => match &self.flows.clients[at].port {
                    Port::Udp(socket) => self.read_udp(socket, source).await,
                    Port::Stream(stream) => match stream.readable().await {
                        Ok(()) => stream.read().and_then(|()| {
                            let now = clock::now().instant;
                            stream.messages(|message| self.arrived(source, message, now))
                        }),
                        Err(error) => Err(error),
                    },
                },
            };
            // What it would have delivered counts as lost.
            if outcome.is_err() {
                return;
            }
            task::yield_now().await;
        }
    }

    async fn read_udp(&self, socket: &AwaitedSocket, source: Source) -> std::io::Result<()> {
        socket.readable().await?;
        let mut batch = self.flows.common.batch.borrow_mut();
        socket.recv(&mut batch)?;
        let now = clock::now().instant;
        let bytes = batch.bytes();
        let echoes = self.flows.shape.pattern == Pattern::Echo;
        let mut echo = self.echo.borrow_mut();
        for datagram in batch.datagrams() {
            match source {
                Source::Peer(_) if echoes => {
                    let route = Route {
                        socket: source,
                        to: datagram.from,
                        from: None,
                        dont_fragment: false,
                        traffic_class: 0,
                    };
                    echo.push(route, &[], datagram.range(), 0);
                }
                _ => self.arrived(source, &bytes[datagram.range()], now),
            }
        }
        self.happened.set(self.happened.get() + batch.len() as u64);
        // One that cannot leave counts as lost.
        echo.flush(bytes, |source| self.socket(source), |_| ());
        Ok(())
    }

    fn arrived(&self, source: Source, packet: &[u8], now: Instant) {
        let stamp = match source {
            Source::Client(_) => Stamp::read_from_server(packet),
            Source::Peer(_) => Stamp::read(packet),
        };
        let Some(stamp) = stamp else { return };
        self.happened.set(self.happened.get() + 1);
        self.ledger.borrow_mut().arrived(stamp, now);
    }

    fn socket(&self, source: Source) -> Option<&Socket> {
        match source {
            Source::Peer(at) => Some(&self.flows.peers.get(at)?.0),
            Source::Client(at) => match &self.flows.clients.get(at)?.port {
                Port::Udp(socket) => Some(socket),
                Port::Stream(_) => None,
            },
        }
    }

    /// Gives connections what they did not take before.
    fn push_on(&self) {
        self.stuck.borrow_mut().retain(|&at| match &self.flows.clients[at].port {
            Port::Stream(stream) => matches!(stream.flush(), Ok(false)),
            Port::Udp(_) => false,
        });
    }

    /// Waits until everything has arrived, or nothing does any more.
    async fn drain(&self) {
        let begin = clock::now().instant;
        let (mut seen, mut since) = (self.happened.get(), begin);
        loop {
            self.push_on();
            let now = clock::now().instant;
            let happened = self.happened.get();
            if happened != seen {
                (seen, since) = (happened, now);
            }
            let is_over = now - since > QUIET || now - begin > DRAIN_MAX;
            if is_over || self.ledger.borrow().is_complete() {
                return;
            }
            time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The sending side of a flow.
struct Outlet {
    route: Option<Route<Source>>,
    /// The client whose connection carries it, where there is no route.
    client: usize,
    template: Template,
}

struct Sender {
    road: Rc<Road>,
    schedule: Schedule,
    departure: Departure,
    outlets: Vec<Outlet>,
    egress: Egress<Source>,
    filler: Vec<u8>,
}

impl Sender {
    fn new(road: Rc<Road>, schedule: Schedule, departure: Departure) -> Self {
        let order = departure.order;
        let outlets = (0..road.flows.share.flows as usize)
            .filter_map(|flow| outlet(&road.flows, flow, order.size))
            .collect();
        let filler = vec![0x5a; order.size.min(SIZE_MAX)];
        Self { road, schedule, departure, outlets, egress: Egress::new(), filler }
    }

    async fn send_all(&mut self) {
        let start = self.departure.start;
        let deadline = start + self.departure.order.duration * OVERTIME + DRAIN_MAX;
        let (mut next, mut idle) = (0, Duration::ZERO);
        let mut now = clock::now().instant;
        while next < self.schedule.len() && now < deadline {
            let before = self.road.happened.get();
            let sent = self.send_due(&mut next, now);
            self.road.push_on();
            self.wait(next, now).await;
            let later = clock::now().instant;
            if sent == 0 && self.road.happened.get() == before && now >= start {
                idle += later - now;
            }
            now = later;
        }
        let tally = &mut self.road.ledger.borrow_mut().tally;
        tally.sending = now.saturating_duration_since(start);
        tally.idle = Some(idle);
    }

    /// Gives readers their turn until the next burst is due.
    async fn wait(&self, next: u64, now: Instant) {
        if next >= self.schedule.len() {
            return;
        }
        let due = self.departure.start + self.schedule.burst(next).2;
        match due.saturating_duration_since(now).checked_sub(AWAKE) {
            Some(asleep) => time::sleep(asleep).await,
            None => task::yield_now().await,
        }
    }

    /// Sends what is due, and tells how many packets that was.
    fn send_due(&mut self, next: &mut u64, now: Instant) -> u64 {
        let mut sent = 0;
        while *next < self.schedule.len() && sent < TURN_PACKETS {
            let (flow, sequence, due) = self.schedule.burst(*next);
            let due = self.departure.start + due;
            if due > now {
                break;
            }
            self.send_burst(flow, sequence);
            let mut ledger = self.road.ledger.borrow_mut();
            ledger.tally.offered += u64::from(self.schedule.burst_len());
            // Once the turn is long, `now` is long past.
            ledger.tally.lag.record(now - due);
            sent += u64::from(self.schedule.burst_len());
            *next += 1;
        }
        self.flush();
        sent
    }

    fn send_burst(&mut self, flow: u32, first: u32) {
        let tag = self.departure.tag;
        for sequence in first..first + self.schedule.burst_len() {
            let outlet = &mut self.outlets[flow as usize];
            let (filler, padding) = (outlet.template.filler, outlet.template.padding);
            let head = outlet.template.stamped(Stamp { tag, flow, sequence });
            if let Some(route) = outlet.route {
                self.egress.push(route, head, 0..filler, padding);
                if self.departure.order.one_by_one {
                    self.flush();
                }
                continue;
            }
            let client = outlet.client;
            let Port::Stream(stream) = &self.road.flows.clients[client].port else { continue };
            if !stream.queue(head, &self.filler[..filler], padding) {
                self.road.ledger.borrow_mut().tally.unsent += 1;
            }
        }
        let outlet = &self.outlets[flow as usize];
        if outlet.route.is_none() {
            let mut stuck = self.road.stuck.borrow_mut();
            if !stuck.contains(&outlet.client) {
                stuck.push(outlet.client);
            }
        }
    }

    fn flush(&mut self) {
        let road = &self.road;
        self.egress.flush(
            &self.filler,
            |source| road.socket(source),
            |_| road.ledger.borrow_mut().tally.unsent += 1,
        );
    }
}

/// Who sends flow number `flow`, where to, and what.
fn outlet(flows: &Flows, flow: usize, size: usize) -> Option<Outlet> {
    let shape = &flows.shape;
    if shape.pattern == Pattern::ToClient {
        let at = flow % flows.peers.len();
        let to = flows.clients[flow].relayed()?;
        let route = Some(Route {
            socket: Source::Peer(at),
            to,
            from: None,
            dont_fragment: false,
            traffic_class: 0,
        });
        return Some(Outlet { route, client: flow, template: Template::plain(size) });
    }
    let client = if shape.pattern == Pattern::RelayToRelay { flow * 2 } else { flow };
    let target = &flows.common.target;
    let in_stream = target.transport != Transport::Udp;
    let template = match shape.pattern {
        Pattern::Binding => Template::binding(),
        _ => Template::to_peer(shape.mode, flows.peer_of(client)?, size, in_stream),
    };
    let to = target.address;
    let route = (!in_stream).then_some(Route {
        socket: Source::Client(client),
        to,
        from: None,
        dont_fragment: false,
        traffic_class: 0,
    });
    Some(Outlet { route, client, template })
}
