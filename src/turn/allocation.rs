//! Allocations, with the permissions and channels that live and die inside them
//! (RFC 8656 §6, §9, §12).

mod policed;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use slotmap::SlotMap;

use super::connections::PeerConnections;
use super::event::Event;
use super::limits::Meter;
use super::mobility::Mobility;
use super::policy::PeerAddress;
use super::stats::{Direction, DropReason, Traffic};
use crate::stun::attribute::{AddressErrorCode, ReservationToken};
use crate::stun::{AddressFamily, ChannelNumber, TransactionId};

pub use super::five_tuple::{FiveTuple, PeerTransport, Transport};

/// The transport address peers see (RFC 8656 §2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RelayedAddress(pub SocketAddr);

slotmap::new_key_type! {
    /// Names an allocation; never reused for another one.
    pub struct AllocationId;
}

/// Lets datagrams to and from one IP address through, whatever the port (RFC 8656 §9).
#[derive(Clone, Copy, Debug)]
struct Permission {
    ip: IpAddr,
    expires: Instant,
}

/// Ties a number to one peer transport address (RFC 8656 §12).
#[derive(Clone, Copy, Debug)]
struct ChannelBinding {
    number: ChannelNumber,
    peer: PeerAddress,
    expires: Instant,
}

/// The allocation, or the place where one cannot be made, is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

/// The channel number or the peer is bound elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Conflict;

/// One relayed address and all that belongs to it. A dual allocation is two of these: each has its
/// own time to expiry, permissions and channels (RFC 8656 §8.1).
pub(super) struct Allocation {
    pub(super) client: FiveTuple,
    pub(super) relayed: RelayedAddress,
    pub(super) username: Box<str>,
    /// Of the Allocate request, to know its retransmissions (RFC 8656 §7.2).
    pub(super) transaction_id: TransactionId,
    pub(super) opened: Instant,
    pub(super) meter: Option<Arc<dyn Meter>>,
    /// Of the port above, to be told again to retransmissions.
    pub(super) reservation: Option<ReservationToken>,
    /// What could not be had of a dual allocation, for retransmissions too.
    pub(super) missing: Option<AddressErrorCode>,
    /// The other half of a dual allocation (RFC 8656 §7.2), of the other family.
    sibling: Option<AllocationId>,
    /// There where it relays over TCP.
    pub(super) connections: Option<Box<PeerConnections>>,
    /// There where the client has asked for a ticket.
    pub(super) mobility: Option<Box<Mobility>>,
    relayed_data: [Traffic; 2],
    expires: Instant,
    permissions: Vec<Permission>,
    channels: Vec<ChannelBinding>,
}

impl Allocation {
    /// An allocation without permissions or channels.
    pub(super) fn new(
        client: FiveTuple,
        relayed: RelayedAddress,
        username: Box<str>,
        transaction_id: TransactionId,
        opened: Instant,
        lifetime: Duration,
    ) -> Self {
        Self {
            client,
            relayed,
            username,
            transaction_id,
            opened,
            meter: None,
            reservation: None,
            missing: None,
            sibling: None,
            connections: None,
            mobility: None,
            relayed_data: [Traffic::default(); 2],
            expires: opened + lifetime,
            permissions: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// The family of the relayed address.
    pub(super) fn family(&self) -> AddressFamily {
        AddressFamily::of(self.relayed.0.ip())
    }

    /// What it speaks with its peers.
    pub(super) fn peer_transport(&self) -> PeerTransport {
        match self.connections {
            None => PeerTransport::Udp,
            Some(_) => PeerTransport::Tcp,
        }
    }

    /// What is left of the lifetime.
    pub(super) fn time_to_expiry(&self, now: Instant) -> Duration {
        self.expires.saturating_duration_since(now)
    }

    /// Whether a live permission covers `ip`.
    pub(super) fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.iter().any(|permission| permission.ip == ip && permission.expires > now)
    }

    /// Whether permissions for all of `ips`, each of which is there once, would find room.
    pub(super) fn make_room(
        &mut self,
        ips: &[IpAddr],
        now: Instant,
        most: usize,
    ) -> Result<(), Full> {
        self.permissions.retain(|permission| permission.expires > now);
        let mut count = self.permissions.len();
        for ip in ips {
            let is_new = !self.permissions.iter().any(|permission| permission.ip == *ip);
            count += usize::from(is_new);
            // At once: a datagram holds thousands of addresses, each compared with all of these.
            if is_new && exceeds(count, most) {
                return Err(Full);
            }
        }
        Ok(())
    }

    /// Installs or refreshes permissions for all of `ips`, or, beyond `most`, for none. Returns when
    /// they end.
    pub(super) fn permit(
        &mut self,
        ips: &[IpAddr],
        now: Instant,
        lifetime: Duration,
        most: usize,
    ) -> Result<Instant, Full> {
        self.make_room(ips, now, most)?;
        let expires = now + lifetime;
        for &ip in ips {
            match self.permissions.iter_mut().find(|permission| permission.ip == ip) {
                Some(permission) => permission.expires = expires,
                None => push(&mut self.permissions, Permission { ip, expires }),
            }
        }
        Ok(expires)
    }

    /// Whether the pair could be bound: neither half may be bound to another one
    /// (RFC 8656 §12.2).
    pub(super) fn check_channel(
        &self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(), Conflict> {
        let conflicts = self.channels.iter().any(|channel| {
            channel.expires > now && (channel.number == number) != (channel.peer.address() == peer)
        });
        if conflicts { Err(Conflict) } else { Ok(()) }
    }

    /// Whether this channel would find room.
    pub(super) fn check_room(
        &self,
        number: ChannelNumber,
        now: Instant,
        most: usize,
    ) -> Result<(), Full> {
        let others = |channel: &&ChannelBinding| channel.expires > now && channel.number != number;
        let count = self.channels.iter().filter(others).count() + 1;
        if exceeds(count, most) { Err(Full) } else { Ok(()) }
    }

    /// Binds, or binds again, a pair that [`Allocation::check_channel`] found free and
    /// [`Allocation::check_room`] found room for.
    pub(super) fn bind_channel(
        &mut self,
        number: ChannelNumber,
        peer: PeerAddress,
        now: Instant,
        lifetime: Duration,
    ) -> Instant {
        self.channels.retain(|channel| channel.expires > now);
        let expires = now + lifetime;
        match self.channels.iter_mut().find(|channel| channel.number == number) {
            Some(channel) => channel.expires = expires,
            None => push(&mut self.channels, ChannelBinding { number, peer, expires }),
        }
        expires
    }

    /// The peer a live channel leads to.
    pub(super) fn peer_of(&self, number: u16, now: Instant) -> Option<PeerAddress> {
        self.channels
            .iter()
            .find(|channel| channel.number.number() == number && channel.expires > now)
            .map(|channel| channel.peer)
    }

    /// The live channel that leads to exactly this transport address (RFC 8656 §12.5).
    pub(super) fn channel_of(&self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        self.channels
            .iter()
            .find(|channel| channel.peer.address() == peer && channel.expires > now)
            .map(|channel| channel.number)
    }

    /// Passes a datagram to or from `peer`, if there is a permission and bandwidth for it.
    pub(super) fn admit(
        &mut self,
        direction: Direction,
        peer: IpAddr,
        bytes: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.charge(peer, bytes, now)?;
        self.relayed_data[direction as usize].add(bytes);
        Ok(())
    }

    /// The same for what is about `peer` and none of its data.
    pub(super) fn charge(
        &self,
        peer: IpAddr,
        bytes: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.permits(peer, now) {
            return Err(DropReason::NoPermission);
        }
        if self.meter.as_ref().is_some_and(|meter| !meter.admit(bytes, now)) {
            return Err(DropReason::Bandwidth);
        }
        Ok(())
    }

    /// The events of all permissions and channels.
    pub(super) fn bindings(&self, id: AllocationId) -> impl Iterator<Item = Event> {
        let permitted = self
            .permissions
            .iter()
            .map(move |&Permission { ip: peer, expires }| Event::Permitted { id, peer, expires });
        let bound = self.channels.iter().map(move |&ChannelBinding { number, peer, expires }| {
            Event::ChannelBound { id, number, peer, expires }
        });
        permitted.chain(bound)
    }

    /// What went this way so far.
    pub(super) fn relayed(&self, direction: Direction) -> Traffic {
        match &self.connections {
            None => self.relayed_data[direction as usize],
            Some(connections) => connections.relayed(direction),
        }
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation")
            .field("client", &self.client)
            .field("relayed", &self.relayed)
            .finish_non_exhaustive()
    }
}

/// Grows from one element by doubling, where a `Vec` starts with four: nearly all allocations have
/// one peer, and there may be very many allocations.
fn push<T>(list: &mut Vec<T>, element: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(1));
    }
    list.push(element);
}

/// Where the operator sets no limit: as many as there are channel numbers. Each is compared with on
/// the way of a packet.
const UNLIMITED_MAX: usize = 4096;

/// `most` of 0 is no limit but [`UNLIMITED_MAX`].
fn exceeds(count: usize, most: usize) -> bool {
    count > if most == 0 { UNLIMITED_MAX } else { most }
}

/// The one table: allocations, found by handle, by client and by relayed address, and in the
/// order they expire. Only here do the four views change, and always together.
#[derive(Debug)]
pub(super) struct Allocations {
    slots: SlotMap<AllocationId, Allocation>,
    /// Clients choose the keys, hence a keyed hash.
    by_client: HashMap<FiveTuple, AllocationId, RandomState>,
    by_relayed: HashMap<RelayedAddress, AllocationId, RandomState>,
    deadlines: BTreeSet<(Instant, AllocationId)>,
}

impl Allocations {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            slots: SlotMap::with_key(),
            by_client: HashMap::with_hasher(hasher.clone()),
            by_relayed: HashMap::with_hasher(hasher),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes in an allocation; its client and its relayed address have none yet.
    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let (client, relayed, expires) =
            (allocation.client, allocation.relayed, allocation.expires);
        let is_away = allocation.is_away();
        let id = self.slots.insert(allocation);
        if !is_away {
            self.by_client.insert(client, id);
        }
        self.by_relayed.insert(relayed, id);
        self.deadlines.insert((expires, id));
        id
    }

    /// Takes in the other half of a dual allocation.
    pub(super) fn insert_sibling(&mut self, of: AllocationId, allocation: Allocation) {
        let (relayed, expires) = (allocation.relayed, allocation.expires);
        let id = self.slots.insert(Allocation { sibling: Some(of), ..allocation });
        self.by_relayed.insert(relayed, id);
        self.deadlines.insert((expires, id));
        if let Some(first) = self.slots.get_mut(of) {
            first.sibling = Some(id);
        }
    }

    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        let allocation = self.slots.remove(id)?;
        match allocation.sibling.and_then(|other| Some((other, self.slots.get_mut(other)?))) {
            Some((other, sibling)) => {
                sibling.sibling = None;
                self.by_client.insert(allocation.client, other);
            }
            None if allocation.is_away() => {}
            None => drop(self.by_client.remove(&allocation.client)),
        }
        if let Some(next) = allocation.next() {
            self.by_client.remove(&next);
        }
        self.by_relayed.remove(&allocation.relayed);
        self.deadlines.remove(&(allocation.expires, id));
        Some(allocation)
    }

    /// Sets the time to expiry (RFC 8656 §8.2).
    pub(super) fn refresh(&mut self, id: AllocationId, expires: Instant) {
        let Some(allocation) = self.slots.get_mut(id) else { return };
        self.deadlines.remove(&(allocation.expires, id));
        self.deadlines.insert((expires, id));
        allocation.expires = expires;
    }

    /// The client of a mobile allocation is found at `next` too, which has none yet.
    pub(super) fn expect_at(&mut self, id: AllocationId, next: FiveTuple) {
        self.expect_nowhere(id);
        let mobility = self.slots.get_mut(id).and_then(|own| own.mobility.as_mut());
        if let Some(mobility) = mobility {
            mobility.next = Some(next);
            self.by_client.insert(next, id);
        }
    }

    /// The client of a mobile allocation is found only where it is reached.
    pub(super) fn expect_nowhere(&mut self, id: AllocationId) {
        let mobility = self.slots.get_mut(id).and_then(|own| own.mobility.as_mut());
        if let Some(next) = mobility.and_then(|mobility| mobility.next.take()) {
            self.by_client.remove(&next);
        }
    }

    /// The client is reached where it was only expected, and found nowhere else. Returns both.
    pub(super) fn switch(&mut self, id: AllocationId) -> Option<(FiveTuple, FiveTuple)> {
        let allocation = self.slots.get_mut(id)?;
        let mobility = allocation.mobility.as_mut()?;
        let new = mobility.next.take()?;
        let was_away = std::mem::take(&mut mobility.is_away);
        let old = std::mem::replace(&mut allocation.client, new);
        if !was_away {
            self.by_client.remove(&old);
        }
        Some((old, new))
    }

    /// The client is reached nowhere.
    pub(super) fn set_away(&mut self, id: AllocationId) {
        let Some(allocation) = self.slots.get_mut(id) else { return };
        let Some(mobility) = &mut allocation.mobility else { return };
        mobility.is_away = true;
        self.by_client.remove(&allocation.client);
    }

    pub(super) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(id)
    }

    pub(super) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.slots.get_mut(id)
    }

    /// The other half of a dual allocation.
    pub(super) fn sibling(&self, id: AllocationId) -> Option<AllocationId> {
        self.slots.get(id)?.sibling
    }

    /// `id`, and the other half of what it is a half of.
    pub(super) fn halves(&self, id: AllocationId) -> impl Iterator<Item = AllocationId> + use<> {
        [Some(id), self.sibling(id)].into_iter().flatten()
    }

    /// The half with a relayed address of this family.
    pub(super) fn of_family(
        &self,
        id: AllocationId,
        family: AddressFamily,
    ) -> Option<AllocationId> {
        self.halves(id).find(|&half| self.get(half).is_some_and(|own| own.family() == family))
    }

    /// For datagrams, which no allocation for TCP relays: expired is gone, however late the timer
    /// that removes it.
    pub(super) fn live(&self, id: AllocationId, now: Instant) -> Option<&Allocation> {
        self.slots.get(id).filter(|own| own.expires > now && own.connections.is_none())
    }

    /// The same, to change it.
    pub(super) fn live_mut(&mut self, id: AllocationId, now: Instant) -> Option<&mut Allocation> {
        self.slots
            .get_mut(id)
            .filter(|allocation| allocation.expires > now && allocation.connections.is_none())
    }

    /// Whether its time is over.
    pub(super) fn has_expired(&self, id: AllocationId, now: Instant) -> bool {
        self.slots.get(id).is_some_and(|own| own.expires <= now)
    }

    pub(super) fn id_of_client(&self, client: &FiveTuple) -> Option<AllocationId> {
        self.by_client.get(client).copied()
    }

    pub(super) fn id_of_relayed(&self, relayed: RelayedAddress) -> Option<AllocationId> {
        self.by_relayed.get(&relayed).copied()
    }

    /// Every one there is.
    pub(super) fn ids(&self) -> Vec<AllocationId> {
        self.slots.keys().collect()
    }

    /// The one that expires next.
    pub(super) fn next_deadline(&self) -> Option<(Instant, AllocationId)> {
        self.deadlines.first().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
