//! A network in virtual time: one client machine, a NAT, and an RFC 5780 server with two addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use hairpin::probe::nat::{Filtering, Mapping};
use stun::addr::MappedAddress;
use stun::attributes::{
    ATTR_CHANGE_REQUEST, ATTR_OTHER_ADDRESS, ATTR_PADDING, ATTR_RESPONSE_ORIGIN, ATTR_RESPONSE_PORT,
};
use stun::error_code::ErrorCode;
use stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use stun::xoraddr::XorMappedAddress;

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(20);
const FRAGMENT_BYTES: usize = 1400;

/// What a NAT does with a datagram for a mapped address from behind itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hairpin {
    Off,
    On,
    InternalSource,
}

/// A NAT in the terms of RFC 4787, or with `translates` false a firewall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nat {
    pub(crate) translates: bool,
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
    pub(crate) keeps_ports: bool,
    pub(crate) hairpin: Hairpin,
    pub(crate) lifetime: Duration,
    pub(crate) fragments: bool,
}

/// A NAT at work.
#[derive(Debug)]
struct Gateway {
    nat: Nat,
    bindings: Vec<Binding>,
    next_port: u16,
}

#[derive(Clone, Debug)]
struct Binding {
    internal: SocketAddr,
    /// What the mapping depends on.
    key: Option<(std::net::IpAddr, Option<u16>)>,
    external: SocketAddr,
    sent_to: Vec<SocketAddr>,
    used: Duration,
}

impl Nat {
    pub(crate) fn new(mapping: Mapping, filtering: Filtering) -> Self {
        Self {
            translates: true,
            mapping,
            filtering,
            keeps_ports: false,
            hairpin: Hairpin::Off,
            lifetime: Duration::from_secs(120),
            fragments: true,
        }
    }
}

impl Gateway {
    /// The source of a datagram on its other side.
    fn outbound(&mut self, from: SocketAddr, to: SocketAddr, now: Duration) -> SocketAddr {
        self.expire(now);
        let key = match self.nat.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some((to.ip(), None)),
            Mapping::AddressAndPortDependent => Some((to.ip(), Some(to.port()))),
        };
        let known = self.bindings.iter().position(|it| it.internal == from && it.key == key);
        let index = known.unwrap_or_else(|| {
            let external = self.external(from);
            self.bindings.push(Binding {
                internal: from,
                key,
                external,
                sent_to: vec![],
                used: now,
            });
            self.bindings.len() - 1
        });
        let binding = &mut self.bindings[index];
        binding.sent_to.push(to);
        binding.used = now;
        binding.external
    }

    fn external(&mut self, from: SocketAddr) -> SocketAddr {
        if !self.nat.translates {
            return from;
        }
        let kept = SocketAddr::new(public().ip(), from.port());
        if self.nat.keeps_ports && self.bindings.iter().all(|binding| binding.external != kept) {
            return kept;
        }
        self.next_port += 1;
        SocketAddr::new(public().ip(), self.next_port)
    }

    /// Who gets a datagram that comes to its other side.
    fn inbound(&mut self, from: SocketAddr, to: SocketAddr, now: Duration) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.nat.filtering;
        let admits = |binding: &&Binding| match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                binding.sent_to.iter().any(|sent| sent.ip() == from.ip())
            }
            Filtering::AddressAndPortDependent => binding.sent_to.contains(&from),
        };
        // Only what is sent keeps a binding: RFC 4787 §4.3, REQ-6 as the least.
        self.bindings.iter().filter(|it| it.external == to).find(admits).map(|it| it.internal)
    }

    fn expire(&mut self, now: Duration) {
        let lifetime = self.nat.lifetime;
        self.bindings.retain(|binding| now < binding.used + lifetime);
    }
}

/// What the server can and will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) answers: bool,
    pub(crate) other: Option<SocketAddr>,
    pub(crate) change: Change,
    pub(crate) response_port: bool,
    /// Whether its second address answers.
    pub(crate) second: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Does,
    Ignores,
    Refuses,
    Loses,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            answers: true,
            other: Some(other()),
            change: Change::Does,
            response_port: true,
            second: true,
        }
    }
}

pub(crate) fn server() -> SocketAddr {
    "198.51.100.1:3478".parse().unwrap()
}

pub(crate) fn other() -> SocketAddr {
    "198.51.100.2:3479".parse().unwrap()
}

/// The NAT's own address; its port means nothing.
fn public() -> SocketAddr {
    "203.0.113.9:1".parse().unwrap()
}

impl Server {
    /// What it sends back: from, to, payload.
    fn handle(
        &self,
        from: SocketAddr,
        at: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut request = Message::new();
        request.unmarshal_binary(bytes).unwrap();
        assert_eq!(request.typ, BINDING_REQUEST);
        if !self.answers || (at.ip() == other().ip() && !self.second) {
            return None;
        }
        let refuse = |code: u16| {
            let mut refusal = Message::new();
            let code = Box::new(ErrorCode(code));
            refusal
                .build(&[Box::new(BINDING_ERROR), Box::new(request.transaction_id), code])
                .unwrap();
            Some((at, from, refusal.raw))
        };
        let flags = request.get(ATTR_CHANGE_REQUEST).map_or(0, |value| value[3]);
        let source = match self.change {
            Change::Refuses if flags != 0 => return refuse(420),
            Change::Loses if flags != 0 => return None,
            Change::Ignores => at,
            _ => SocketAddr::new(
                if flags & 4 == 0 { at.ip() } else { elsewhere(at).ip() },
                if flags & 2 == 0 { at.port() } else { elsewhere(at).port() },
            ),
        };
        let mut to = from;
        if let Ok(port) = request.get(ATTR_RESPONSE_PORT) {
            if !self.response_port {
                return refuse(420);
            }
            to.set_port(u16::from_be_bytes([port[0], port[1]]));
        }
        let mut response = Message::new();
        let mapped = XorMappedAddress { ip: from.ip(), port: from.port() };
        response
            .build(&[Box::new(BINDING_SUCCESS), Box::new(request.transaction_id), Box::new(mapped)])
            .unwrap();
        put(&mut response, ATTR_RESPONSE_ORIGIN, source);
        if let Some(other) = self.other {
            put(&mut response, ATTR_OTHER_ADDRESS, other);
        }
        if request.contains(ATTR_PADDING) {
            response.add(ATTR_PADDING, &[0; 1600]);
        }
        Some((source, to, response.raw))
    }
}

fn put(message: &mut Message, kind: stun::attributes::AttrType, address: SocketAddr) {
    let address = MappedAddress { ip: address.ip(), port: address.port() };
    address.add_to_as(message, kind).unwrap();
    let _: &dyn Setter = &address;
}

fn elsewhere(at: SocketAddr) -> SocketAddr {
    let ip = if at.ip() == server().ip() { other().ip() } else { server().ip() };
    let port = if at.port() == server().port() { other().port() } else { server().port() };
    SocketAddr::new(ip, port)
}

/// A datagram that reaches a local socket: its address, the sender, the payload.
pub(crate) type Arrival = (SocketAddr, SocketAddr, Vec<u8>);

/// All of it.
#[derive(Debug)]
pub(crate) struct Network {
    gateway: Gateway,
    server: Server,
    /// Whether the first transmission of each request is lost, and those it has seen.
    pub(crate) loses_first: bool,
    seen: HashSet<Vec<u8>>,
    /// By time and order.
    flying: BTreeMap<(Duration, u64), Arrival>,
    order: u64,
}

impl Network {
    pub(crate) fn new(nat: Nat, server: Server) -> Self {
        let gateway = Gateway { nat, bindings: Vec::new(), next_port: 20_000 };
        Self {
            gateway,
            server,
            loses_first: false,
            seen: HashSet::new(),
            flying: BTreeMap::new(),
            order: 0,
        }
    }

    /// A local socket sends.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Duration) {
        if bytes.len() > FRAGMENT_BYTES && !self.gateway.nat.fragments {
            return;
        }
        let source = self.gateway.outbound(from, to, now);
        if self.seen.insert(bytes.to_vec()) && self.loses_first {
            return;
        }
        if to.ip() == public().ip() {
            return self.hairpin(from, source, to, bytes, now);
        }
        let Some((source, to, response)) = self.server.handle(source, to, bytes) else { return };
        if let Some(internal) = self.gateway.inbound(source, to, now + LATENCY) {
            self.fly(now + LATENCY * 2, (internal, source, response));
        }
    }

    fn hairpin(
        &mut self,
        internal: SocketAddr,
        external: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        now: Duration,
    ) {
        let source = match self.gateway.nat.hairpin {
            Hairpin::Off => return,
            Hairpin::On => external,
            Hairpin::InternalSource => internal,
        };
        if let Some(receiver) = self.gateway.inbound(external, to, now) {
            self.fly(now + LATENCY, (receiver, source, bytes.to_vec()));
        }
    }

    fn fly(&mut self, at: Duration, arrival: Arrival) {
        self.order += 1;
        self.flying.insert((at, self.order), arrival);
    }

    /// When the next datagram arrives.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    /// What has arrived by now.
    pub(crate) fn arrive(&mut self, now: Duration) -> Option<Arrival> {
        let first = self.flying.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }
}
