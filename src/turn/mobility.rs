//! Mobility: an allocation follows its client to another five-tuple (RFC 8016).
//!
//! The client proves by a ticket which allocation it means. A ticket names it for this process
//! alone and is sealed with a key made at each start, shared by the shards and by nobody else: an
//! allocation does not outlive its process, so no other one has any use for the ticket.

use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::allocation::{Allocation, FiveTuple, RelayedAddress};
use super::answer::Answer;
use super::policy::RELAY_ADDRESSES_MAX;
use crate::stun::attribute::Lifetime;
use crate::stun::{Code, TransactionId};

/// How long the retransmissions of a Refresh that has moved an allocation are known as such: as
/// long as a client may send them (RFC 8489 §6.2.1), which is more than the 30 seconds that
/// RFC 8016 §3.2.2 asks for.
const RETRANSMITTED_FOR: Duration = Duration::from_secs(40);
/// Bytes of a ticket's content.
const STATE_LEN: usize = 8;
/// With the tag, in base64. Text, and this short, because coturn's client keeps no other.
const TICKET_LEN: usize = (STATE_LEN + 16) / 3 * 4;
/// The generations that fit in, beside the number of the relay address.
const GENERATIONS: u16 = 1 << 12;
const _: () = assert!(RELAY_ADDRESSES_MAX * GENERATIONS as usize == 1 << u16::BITS);

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
    /// Of the relayed address: which of the server's, below [`RELAY_ADDRESSES_MAX`].
    pub(super) address: u8,
    pub(super) port: u16,
    /// Of the allocation. Its port may be another one's by now.
    serial: u32,
    generation: u16,
}

impl Ticket {
    fn to_bytes(self) -> [u8; STATE_LEN] {
        let [p0, p1] = self.port.to_be_bytes();
        let [s0, s1, s2, s3] = self.serial.to_be_bytes();
        let address = u16::from(self.address) * GENERATIONS;
        let [g0, g1] = (address | self.generation).to_be_bytes();
        [p0, p1, s0, s1, s2, s3, g0, g1]
    }

    fn from_bytes([p0, p1, s0, s1, s2, s3, g0, g1]: [u8; STATE_LEN]) -> Self {
        let last = u16::from_be_bytes([g0, g1]);
        Self {
            address: (last / GENERATIONS) as u8,
            port: u16::from_be_bytes([p0, p1]),
            serial: u32::from_be_bytes([s0, s1, s2, s3]),
            generation: last % GENERATIONS,
        }
    }
}

/// Seals tickets and opens them: AES-256-GCM-SIV, which takes one nonce for all (RFC 8452 §1). What
/// it then tells is that two tickets are the same, which they are only if their contents are.
pub(super) struct Sealer(LessSafeKey);

impl Sealer {
    pub(super) fn new(Key(key): &Key) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("32 bytes are what it takes");
        Self(LessSafeKey::new(key))
    }

    /// The value of MOBILITY-TICKET.
    pub(super) fn seal(&self, ticket: Ticket) -> String {
        let mut sealed = ticket.to_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .expect("a ticket is short");
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// `None` for what this process has not sealed.
    pub(super) fn open(&self, value: &[u8]) -> Option<Ticket> {
        if value.len() != TICKET_LEN {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let state = self.0.open_in_place(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some(Ticket::from_bytes((&*state).try_into().ok()?))
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// What a mobile allocation remembers.
#[derive(Debug)]
pub(super) struct Mobility {
    serial: u32,
    /// Of the ticket that is good.
    generation: u16,
    /// Where the client has gone to; it is still reached where it was, until it sends data from
    /// there.
    pub(super) next: Option<FiveTuple>,
    /// The Refresh that came last with a ticket.
    resumed: Option<(TransactionId, Instant)>,
    /// The client's connection has ended, and no other one has come.
    pub(super) is_away: bool,
}

impl Mobility {
    pub(super) fn new(serial: u32) -> Self {
        Self { serial, generation: 0, next: None, resumed: None, is_away: false }
    }

    /// `address` is the number of the relay address, below [`RELAY_ADDRESSES_MAX`].
    pub(super) fn ticket(&self, address: u8, port: u16) -> Ticket {
        Ticket { address, port, serial: self.serial, generation: self.generation }
    }

    /// From now on another ticket is good.
    pub(super) fn resumed(&mut self, id: TransactionId, now: Instant) {
        self.generation = after(self.generation);
        self.resumed = Some((id, now));
    }
}

/// The generations begin again where they end: nobody has kept the first ticket until then.
fn after(generation: u16) -> u16 {
    (generation + 1) % GENERATIONS
}

/// Somebody authentic shows a ticket from some five-tuple.
#[derive(Clone, Debug)]
pub struct Claim {
    pub(super) ticket: Ticket,
    pub(super) relayed: RelayedAddress,
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
        self.relayed
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
        let previous = after(self.ticket.generation) == mobility.generation;
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
        self.claim.relayed
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

    const TICKET: Ticket = Ticket { address: 0, port: 50_000, serial: 0x0123_4567, generation: 7 };
    const LAST_ADDRESS: u8 = RELAY_ADDRESSES_MAX as u8 - 1;

    #[test]
    fn a_sealed_ticket_opens_and_tells_nothing() {
        let sealer = Sealer::new(&Key([7; 32]));
        let mut seen = Vec::new();
        for ticket in [
            TICKET,
            Ticket { address: 1, ..TICKET },
            Ticket { address: LAST_ADDRESS, ..TICKET },
            Ticket { address: LAST_ADDRESS, generation: GENERATIONS - 1, ..TICKET },
            Ticket { port: 50_001, ..TICKET },
            Ticket { serial: u32::MAX, generation: GENERATIONS - 1, ..TICKET },
            Ticket { generation: after(GENERATIONS - 1), ..TICKET },
        ] {
            let sealed = sealer.seal(ticket);
            assert_eq!(sealer.open(sealed.as_bytes()), Some(ticket));
            assert_eq!((sealed.len(), sealed.is_ascii()), (32, true), "for coturn's client");
            assert!(!seen.iter().any(|other: &String| other[..4] == sealed[..4]));
            seen.push(sealed);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_and_key_is_refused() {
        let sealer = Sealer::new(&Key([7; 32]));
        let sealed = sealer.seal(TICKET).into_bytes();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&flipped), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(sealer.open(&sealed[..length]), None, "{length} bytes");
        }
        assert_eq!(sealer.open(&[&sealed[..], b"A"].concat()), None);
        assert_eq!(Sealer::new(&Key([8; 32])).open(&sealed), None, "another process");
    }
}
