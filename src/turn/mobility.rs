//! Mobility: an allocation follows its client to another five-tuple (RFC 8016).
//!
//! The client proves by a ticket which allocation it means. A ticket names it for this process
//! alone and is sealed with a key made at each start, shared by the shards and by nobody else: an
//! allocation does not outlive its process, so no other one has any use for the ticket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::allocation::{Allocation, FiveTuple, RelayedAddress};
use super::server::Answer;
use crate::stun::attribute::Lifetime;
use crate::stun::{Code, TransactionId};

/// How long the retransmissions of a Refresh that has moved an allocation are known as such: as
/// long as a client may send them (RFC 8489 §6.2.1), which is more than the 30 seconds that
/// RFC 8016 §3.2.2 asks for.
const RETRANSMITTED_FOR: Duration = Duration::from_secs(40);
/// Family, address and port, serial and generation.
const STATE_LEN: usize = 1 + 16 + 2 + 8 + 4;

/// What the tickets of all shards are sealed with.
#[derive(Clone)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What a ticket says: which allocation, and which of its tickets this one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket {
    pub(super) relayed: RelayedAddress,
    /// Of the allocation. Its port may be another one's by now.
    serial: u64,
    generation: u32,
}

impl Ticket {
    fn to_bytes(self) -> [u8; STATE_LEN] {
        let RelayedAddress(address) = self.relayed;
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; STATE_LEN];
        bytes[0] = u8::from(address.is_ipv6());
        bytes[1..17].copy_from_slice(&ip.octets());
        bytes[17..19].copy_from_slice(&address.port().to_be_bytes());
        bytes[19..27].copy_from_slice(&self.serial.to_be_bytes());
        bytes[27..].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STATE_LEN]) -> Self {
        let [family, ip @ .., p0, p1, s0, s1, s2, s3, s4, s5, s6, s7, g0, g1, g2, g3] = *bytes;
        let ip = IpAddr::from(<[u8; 16]>::from(ip));
        let ip = if family == 0 { ip.to_canonical() } else { ip };
        Self {
            relayed: RelayedAddress(SocketAddr::new(ip, u16::from_be_bytes([p0, p1]))),
            serial: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        }
    }
}

/// Seals tickets and opens them.
pub(super) struct Sealer(LessSafeKey);

impl Sealer {
    pub(super) fn new(Key(key): &Key) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are what it takes");
        Self(LessSafeKey::new(key))
    }

    /// The bytes of MOBILITY-TICKET. `nonce` is random: 2^32 tickets would be far too many for one
    /// key, and far more than a process ever seals.
    pub(super) fn seal(&self, ticket: Ticket, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mut sealed = ticket.to_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .expect("a ticket is short");
        [&nonce[..], &sealed].concat()
    }

    /// `None` for what this process has not sealed.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Ticket> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() != STATE_LEN + AES_256_GCM.tag_len() {
            return None;
        }
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let state = self.0.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        Some(Ticket::from_bytes(<&[u8; STATE_LEN]>::try_from(&*state).ok()?))
    }
}

/// What a mobile allocation remembers.
#[derive(Debug)]
pub(super) struct Mobility {
    serial: u64,
    /// Of the ticket that is good.
    generation: u32,
    /// Where the client has gone to; it is still reached where it was, until it sends data from
    /// there.
    pub(super) next: Option<FiveTuple>,
    /// The Refresh that came last with a ticket.
    resumed: Option<(TransactionId, Instant)>,
    /// The client's connection has ended, and no other one has come.
    pub(super) is_away: bool,
}

impl Mobility {
    pub(super) fn new(serial: u64) -> Self {
        Self { serial, generation: 0, next: None, resumed: None, is_away: false }
    }

    pub(super) fn ticket(&self, relayed: RelayedAddress) -> Ticket {
        Ticket { relayed, serial: self.serial, generation: self.generation }
    }

    /// From now on another ticket is good.
    pub(super) fn resumed(&mut self, id: TransactionId, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        self.resumed = Some((id, now));
    }
}

/// Somebody authentic shows a ticket from some five-tuple.
#[derive(Clone, Debug)]
pub struct Claim {
    pub(super) ticket: Ticket,
    pub(super) from: FiveTuple,
    pub(super) username: Box<str>,
    pub(super) transaction_id: TransactionId,
}

/// What follows from a claim that is good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Claimed {
    /// The allocation moves.
    Anew,
    /// It has moved, and the answer may have been lost.
    Again,
}

/// Why an allocation stays where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// 437: it is gone.
    Gone,
    /// 441: it is another user's.
    OtherUser,
    /// 400: the ticket is used up, or the client is where it was.
    Useless,
}

impl Refused {
    pub(super) fn code(self) -> Code {
        match self {
            Self::Gone => Code::AllocationMismatch,
            Self::OtherUser => Code::WrongCredentials,
            Self::Useless => Code::BadRequest,
        }
    }
}

impl Claim {
    /// Where the client has come to.
    #[must_use]
    pub fn from(&self) -> FiveTuple {
        self.from
    }

    /// The allocation's relayed address.
    #[must_use]
    pub fn relayed(&self) -> RelayedAddress {
        self.ticket.relayed
    }

    /// RFC 8016 §3.2.2, except that whose the allocation is comes before where it is.
    pub(super) fn check(&self, allocation: &Allocation, now: Instant) -> Result<Claimed, Refused> {
        let mobility = allocation.mobility.as_deref().ok_or(Refused::Gone)?;
        if mobility.serial != self.ticket.serial || allocation.time_to_expiry(now).is_zero() {
            return Err(Refused::Gone);
        }
        if allocation.username != self.username {
            return Err(Refused::OtherUser);
        }
        let latest = mobility.next.unwrap_or(allocation.client);
        let previous = self.ticket.generation.wrapping_add(1) == mobility.generation;
        let repeats = mobility.resumed.is_some_and(|(id, at)| {
            id == self.transaction_id
                && now.saturating_duration_since(at) < RETRANSMITTED_FOR
                && latest == self.from
        });
        if previous && repeats {
            return Ok(Claimed::Again);
        }
        let is_reached_there = !mobility.is_away && allocation.client == self.from;
        if self.ticket.generation != mobility.generation
            || is_reached_there
            || mobility.next == Some(self.from)
        {
            return Err(Refused::Useless);
        }
        Ok(Claimed::Anew)
    }
}

/// A claim on an allocation that another shard may have. Whoever drops it leaves the client
/// without an answer, to try again.
#[derive(Debug)]
#[must_use = "the client waits for Server::resumed"]
pub struct PendingResume {
    pub(super) claim: Claim,
    pub(super) answer: Answer,
    pub(super) lifetime: Option<Lifetime>,
}

impl PendingResume {
    /// What to ask the shard that has the allocation for.
    #[must_use]
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// Which allocation that is.
    #[must_use]
    pub fn relayed(&self) -> RelayedAddress {
        self.claim.ticket.relayed
    }
}

/// An allocation, with its permissions and channels, on its way from one shard to another.
#[derive(Debug)]
#[must_use = "it is in no table"]
pub struct Moved(pub(super) Box<Allocation>);

impl Moved {
    /// Where its client is reached.
    #[must_use]
    pub fn client(&self) -> FiveTuple {
        self.0.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(address: &str) -> Ticket {
        let relayed = RelayedAddress(address.parse().unwrap());
        Ticket { relayed, serial: 0x0123_4567_89AB_CDEF, generation: 7 }
    }

    #[test]
    fn a_sealed_ticket_opens_and_tells_nothing() {
        let sealer = Sealer::new(&Key([7; 32]));
        for address in ["203.0.113.5:50000", "[2606:4700::5]:50001", "[::ffff:1.2.3.4]:5"] {
            let ticket = ticket(address);
            let sealed = sealer.seal(ticket, [1; NONCE_LEN]);
            assert_eq!(sealer.open(&sealed), Some(ticket));
            assert!(sealed.len() < 100, "{} bytes", sealed.len());
            let inside = ticket.serial.to_be_bytes();
            assert!(!sealed.windows(4).any(|four| four == &inside[..4]));
            assert_ne!(sealer.seal(ticket, [2; NONCE_LEN])[NONCE_LEN..], sealed[NONCE_LEN..]);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_and_key_is_refused() {
        let sealer = Sealer::new(&Key([7; 32]));
        let sealed = sealer.seal(ticket("203.0.113.5:50000"), [1; NONCE_LEN]);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&flipped), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(sealer.open(&sealed[..length]), None, "{length} bytes");
        }
        assert_eq!(sealer.open(&[&sealed[..], &[0]].concat()), None);
        assert_eq!(Sealer::new(&Key([8; 32])).open(&sealed), None, "another process");
    }
}
