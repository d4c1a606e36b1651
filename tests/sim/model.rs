//! The reference: what a TURN server must do, in vectors and linear scans.

use std::net::{IpAddr, SocketAddr};

use crate::driver::Taken;
use crate::wire::Txid;

pub(crate) const DEFAULT_LIFETIME: u64 = 600;
pub(crate) const MAX_LIFETIME: u64 = 3600;
pub(crate) const PERMISSION_MS: u64 = 300_000;
pub(crate) const NONCE_SECS: i64 = 3600;
pub(crate) const QUOTA: usize = 3;
/// Few, so that they are reached.
pub(crate) const PERMISSIONS: usize = 2;
pub(crate) const CHANNELS: usize = 2;
pub(crate) const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_009;
pub(crate) const LISTENER: &str = "203.0.113.5:3478";
pub(crate) const RELAY_V4: &str = "203.0.113.5";
pub(crate) const RELAY_V6: &str = "2606:4700::5";

/// Both clocks: milliseconds since the start, and seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) ms: u64,
    pub(crate) unix: i64,
}

/// An intact request, as its sender meant it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) from: SocketAddr,
    pub(crate) id: Txid,
    pub(crate) user: &'static str,
    pub(crate) password_is_right: bool,
    pub(crate) nonce_minted: i64,
    /// Whether the nonce was another client's.
    pub(crate) nonce_is_stolen: bool,
    /// Whether it carries an attribute nobody knows.
    pub(crate) unknown: bool,
    pub(crate) operation: Operation,
}

/// What an Allocate asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Port {
    Any {
        v6: bool,
    },
    Even {
        v6: bool,
    },
    Pair {
        v6: bool,
    },
    Reserved([u8; 8]),
    /// Any port of each family.
    Both,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Allocate {
        lifetime: Option<u32>,
        port: Port,
        mobile: bool,
    },
    /// Of the family named, or of all that there are.
    Refresh {
        lifetime: Option<u32>,
        v6: Option<bool>,
    },
    Resume {
        lifetime: Option<u32>,
        ticket: Ticket,
    },
    Permit {
        peers: Vec<SocketAddr>,
    },
    Bind {
        number: u16,
        peer: SocketAddr,
    },
}

/// A ticket, and what it means.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) bytes: Vec<u8>,
    pub(crate) serial: u64,
    pub(crate) generation: u32,
}

/// For so long a Refresh that has moved an allocation is answered again.
const RETRANSMITTED_MS: u64 = 40_000;

#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub(crate) serial: u64,
    pub(crate) generation: u32,
    /// Where the client is expected.
    pub(crate) next: Option<SocketAddr>,
    /// The Refresh that moved it last, and when.
    resumed: Option<(Txid, u64)>,
    pub(crate) client: SocketAddr,
    pub(crate) relay: SocketAddr,
    /// Of the next port.
    pub(crate) token: Option<[u8; 8]>,
    pub(crate) user: &'static str,
    pub(crate) id: Txid,
    pub(crate) expires: u64,
    pub(crate) permissions: Vec<(IpAddr, u64)>,
    pub(crate) channels: Vec<(u16, SocketAddr, u64)>,
}

impl Allocation {
    pub(crate) fn is_at(&self, client: SocketAddr) -> bool {
        self.client == client || self.next == Some(client)
    }

    /// The code, or none where it moves.
    fn claimed(&self, request: &Request, ticket: &Ticket, ms: u64) -> Option<u16> {
        if self.user != request.user {
            return Some(441);
        }
        let again = self.resumed.is_some_and(|(id, at)| {
            id == request.id
                && ms - at < RETRANSMITTED_MS
                && ticket.generation + 1 == self.generation
        });
        if again && self.next.unwrap_or(self.client) == request.from {
            return Some(0);
        }
        (ticket.generation != self.generation || self.is_at(request.from)).then_some(400)
    }

    pub(crate) fn permits(&self, ip: IpAddr, ms: u64) -> bool {
        self.permissions.iter().any(|&(other, expires)| other == ip && expires > ms)
    }

    pub(crate) fn live_channels(&self, ms: u64) -> Vec<(u16, SocketAddr)> {
        let live = self.channels.iter().filter(|&&(.., expires)| expires > ms);
        live.map(|&(number, peer, _)| (number, peer)).collect()
    }

    fn permit(&mut self, ips: &[IpAddr], ms: u64) -> bool {
        let mut wanted: Vec<IpAddr> =
            self.permissions.iter().filter(|&&(_, end)| end > ms).map(|&(ip, _)| ip).collect();
        wanted.extend(ips);
        wanted.sort();
        wanted.dedup();
        if wanted.len() > PERMISSIONS {
            return false;
        }
        self.permissions.retain(|(ip, end)| *end > ms && !ips.contains(ip));
        let mut ips = ips.to_vec();
        ips.sort();
        ips.dedup();
        self.permissions.extend(ips.into_iter().map(|ip| (ip, ms + PERMISSION_MS)));
        true
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    /// Longer or shorter than a permission's lifetime, so that each ends first in some run.
    pub(crate) channel_ms: u64,
    pub(crate) allocations: Vec<Allocation>,
    /// Allocations ever made.
    pub(crate) serials: u64,
}

impl Model {
    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, ms: u64) {
        self.allocations.retain(|allocation| allocation.expires > ms);
    }

    /// Any allocation of a client.
    pub(crate) fn of_client(&self, client: SocketAddr) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| allocation.is_at(client))
    }

    /// The allocation of a client that has this family.
    pub(crate) fn of_family(&mut self, client: SocketAddr, v6: bool) -> Option<&mut Allocation> {
        let mut all = self.allocations.iter_mut();
        all.find(|allocation| allocation.is_at(client) && allocation.relay.is_ipv6() == v6)
    }

    /// The relayed addresses of a client, IPv4 first.
    pub(crate) fn relays_of(&self, client: SocketAddr) -> Vec<SocketAddr> {
        let own = self.allocations.iter().filter(|allocation| allocation.is_at(client));
        let mut relays: Vec<_> = own.map(|allocation| allocation.relay).collect();
        relays.sort();
        relays
    }

    pub(crate) fn of_relay(&self, relay: SocketAddr) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| allocation.relay == relay)
    }

    pub(crate) fn held_by(&self, user: &str) -> usize {
        self.allocations.iter().filter(|allocation| allocation.user == user).count()
    }

    /// Carries out a request. Its error code, or 0; `None` where a port is needed first.
    pub(crate) fn request(&mut self, request: &Request, clock: Clock) -> Option<u16> {
        self.expire(clock.ms);
        let age = clock.unix - request.nonce_minted;
        if request.nonce_is_stolen || !(-60..NONCE_SECS).contains(&age) {
            return Some(438);
        }
        if !request.password_is_right {
            return Some(401);
        }
        if request.unknown {
            return Some(420);
        }
        let channel_ms = self.channel_ms;
        if let Operation::Resume { lifetime, ticket } = &request.operation {
            return Some(self.resume(request, *lifetime, ticket, clock.ms));
        }
        let allocation = self.of_client(request.from);
        if let Operation::Allocate { port, mobile, .. } = request.operation {
            let stays = mobile && port == Port::Both;
            return allocation
                .map(|allocation| repeated(allocation, request))
                .or(stays.then_some(405));
        }
        let Some(allocation) = allocation else { return Some(437) };
        if allocation.user != request.user {
            return Some(441);
        }
        Some(match &request.operation {
            Operation::Allocate { .. } | Operation::Resume { .. } => unreachable!("returned above"),
            Operation::Refresh { lifetime, v6 } => {
                self.refresh(request.from, *lifetime, *v6, clock.ms)
            }
            Operation::Permit { peers } => self.permit(request.from, peers, clock.ms),
            Operation::Bind { number, peer } => {
                self.bind(request.from, (*number, *peer), clock.ms, channel_ms)
            }
        })
    }

    fn refresh(
        &mut self,
        client: SocketAddr,
        lifetime: Option<u32>,
        v6: Option<bool>,
        ms: u64,
    ) -> u16 {
        let is_meant =
            |own: &Allocation| own.is_at(client) && v6.is_none_or(|v6| own.relay.is_ipv6() == v6);
        if !self.allocations.iter().any(is_meant) {
            return 443;
        }
        if lifetime == Some(0) {
            self.allocations.retain(|own| !is_meant(own));
        }
        for own in self.allocations.iter_mut().filter(|own| is_meant(own)) {
            own.expires = ms + granted(lifetime) * 1000;
        }
        0
    }

    fn permit(&mut self, client: SocketAddr, peers: &[SocketAddr], ms: u64) -> u16 {
        if peers.is_empty() {
            return 400;
        }
        if peers.iter().any(|peer| self.of_family(client, peer.is_ipv6()).is_none()) {
            return 443;
        }
        if !peers.iter().all(|&peer| may_permit(peer)) {
            return 403;
        }
        let before = self.allocations.clone();
        for v6 in [false, true] {
            let own = peers.iter().filter(|peer| peer.is_ipv6() == v6);
            let ips: Vec<IpAddr> = own.map(SocketAddr::ip).collect();
            if !ips.is_empty() && !self.of_family(client, v6).unwrap().permit(&ips, ms) {
                self.allocations = before;
                return 508;
            }
        }
        0
    }

    fn bind(
        &mut self,
        client: SocketAddr,
        (number, peer): (u16, SocketAddr),
        ms: u64,
        lifetime: u64,
    ) -> u16 {
        if !(0x4000..=0x4FFF).contains(&number) {
            return 400;
        }
        let all = self.allocations.iter().filter(|own| own.is_at(client));
        let mut live = all.flat_map(|own| own.live_channels(ms));
        if live.any(|(other, to)| (other == number) != (to == peer)) {
            return 400;
        }
        let Some(allocation) = self.of_family(client, peer.is_ipv6()) else { return 443 };
        if !may_reach(peer) {
            return 403;
        }
        let live = allocation.live_channels(ms);
        let is_new = !live.contains(&(number, peer));
        if is_new && live.len() >= CHANNELS || !allocation.permit(&[peer.ip()], ms) {
            return 508;
        }
        allocation.channels.retain(|&(other, _, expires)| expires > ms && other != number);
        allocation.channels.push((number, peer, ms + lifetime));
        0
    }

    /// Ends an Allocate for which the driver looked for a port.
    pub(crate) fn bound(
        &mut self,
        request: &Request,
        clock: Clock,
        taken: Result<&Taken, u16>,
    ) -> u16 {
        self.expire(clock.ms);
        if let Some(allocation) = self.of_client(request.from) {
            return repeated(allocation, request);
        }
        let Operation::Allocate { lifetime, port: wish, .. } = request.operation else {
            unreachable!()
        };
        let Taken { ports, token } = match taken {
            Ok(taken) => taken,
            Err(code) => return code,
        };
        let first = ports[0];
        let (v6, even) = (first.is_ipv6(), first.port().is_multiple_of(2));
        match wish {
            Port::Any { v6: wished } => assert_eq!(v6, wished, "the family that was asked for"),
            Port::Even { v6: wished } | Port::Pair { v6: wished } => {
                assert_eq!((v6, even), (wished, true), "an even port of this family");
            }
            Port::Reserved(_) => assert!(!even, "the upper port of a pair"),
            Port::Both => {}
        }
        assert_eq!(token.is_some(), matches!(wish, Port::Pair { .. }));
        for &relay in ports {
            assert!(self.of_relay(relay).is_none(), "one port, one allocation");
            self.serials += 1;
            self.allocations.push(Allocation {
                serial: self.serials,
                generation: 0,
                next: None,
                resumed: None,
                client: request.from,
                relay,
                token: *token,
                user: request.user,
                id: request.id,
                expires: clock.ms + granted(lifetime) * 1000,
                permissions: Vec::new(),
                channels: Vec::new(),
            });
        }
        0
    }

    fn resume(
        &mut self,
        request: &Request,
        lifetime: Option<u32>,
        ticket: &Ticket,
        ms: u64,
    ) -> u16 {
        let busy = self.of_client(request.from).is_some();
        let found = self.allocations.iter_mut().find(|own| own.serial == ticket.serial);
        let Some(allocation) = found else { return 437 };
        if let Some(code) = allocation.claimed(request, ticket, ms) {
            return code;
        }
        if busy {
            return 437;
        }
        if lifetime == Some(0) {
            self.allocations.retain(|own| own.serial != ticket.serial);
            return 0;
        }
        allocation.expires = ms + granted(lifetime) * 1000;
        allocation.generation += 1;
        allocation.resumed = Some((request.id, ms));
        allocation.next = Some(request.from);
        0
    }

    /// Data has come from where the client is.
    pub(crate) fn switch(&mut self, relay: SocketAddr, client: SocketAddr) {
        let own = self.allocations.iter_mut().find(|own| own.relay == relay).expect("live");
        assert_eq!(own.next.take(), Some(client), "moves: where the client was expected");
        own.client = client;
    }

    /// Where ChannelData goes.
    pub(crate) fn channel_data(
        &mut self,
        from: SocketAddr,
        number: u16,
        ms: u64,
    ) -> Option<SocketAddr> {
        self.expire(ms);
        let mut own = self.allocations.iter().filter(|own| own.is_at(from));
        own.find_map(|own| {
            let (_, peer) =
                own.live_channels(ms).into_iter().find(|&(other, _)| other == number)?;
            own.permits(peer.ip(), ms).then_some(peer)
        })
    }

    /// Whether a Send reaches its peer.
    pub(crate) fn send(&mut self, from: SocketAddr, peer: SocketAddr, ms: u64) -> bool {
        self.expire(ms);
        let own = self.of_family(from, peer.is_ipv6());
        let permitted = own.is_some_and(|own| own.permits(peer.ip(), ms));
        permitted && may_reach(peer)
    }

    /// How a peer's datagram reaches the client: by channel, as Data (0), or not at all.
    pub(crate) fn delivery(&mut self, relay: SocketAddr, peer: SocketAddr, ms: u64) -> Option<u16> {
        self.expire(ms);
        let allocation = self.of_relay(relay).filter(|own| own.permits(peer.ip(), ms))?;
        let channels = allocation.live_channels(ms);
        Some(channels.into_iter().find(|&(_, other)| other == peer).map_or(0, |(number, _)| number))
    }
}

fn repeated(allocation: &Allocation, request: &Request) -> u16 {
    if allocation.id == request.id && allocation.user == request.user { 0 } else { 437 }
}

pub(crate) fn granted(lifetime: Option<u32>) -> u64 {
    u64::from(lifetime.unwrap_or(0)).clamp(DEFAULT_LIFETIME, MAX_LIFETIME)
}

/// The hosts of this world that are public.
const PUBLIC: [&str; 3] = ["8.8.8.8", "9.9.9.9", "2a00::1"];

fn is_public(ip: IpAddr) -> bool {
    PUBLIC.contains(&&ip.to_string()[..])
}

fn is_own(ip: IpAddr) -> bool {
    [RELAY_V4, RELAY_V6].contains(&&ip.to_string()[..])
}

/// Whether packets may go to exactly there.
pub(crate) fn may_reach(peer: SocketAddr) -> bool {
    is_public(peer.ip()) && peer.port() != 0 || is_own(peer.ip()) && PORTS.contains(&peer.port())
}

/// Whether a permission for the address may be had, asked for with this port.
pub(crate) fn may_permit(peer: SocketAddr) -> bool {
    is_public(peer.ip()) || is_own(peer.ip()) && peer.to_string() != LISTENER
}
