//! Refresh with MOBILITY-TICKET: the client has another five-tuple now (RFC 8016 §3.2.2).
//!
//! The allocation moves to the shard that the client has come to at once; the client is still
//! reached where it was until it sends data from where it is. Where that is another shard, that
//! one keeps a stub, and passes on what comes from there.

use std::net::SocketAddr;

use super::{Reject, Request};
use crate::stun::attribute::{Lifetime, MobilityTicket, RequestedAddressFamily};
use crate::stun::{AddressFamily, Code};
use crate::turn::Now;
use crate::turn::allocation::{AllocationId, FiveTuple, RelayedAddress};
use crate::turn::answer::Answer;
use crate::turn::event::{CloseReason, Event};
use crate::turn::mobility::{Claim, Claimed, Moved, PendingResume, Refused};
use crate::turn::server::Server;
use crate::turn::verdict::Verdict;

impl Server {
    /// RFC 8016 §3.2.2, up to the answer.
    pub(in crate::turn) fn resume(
        &mut self,
        request: &Request<'_>,
        answer: &Answer,
        reply: &mut Vec<u8>,
    ) -> Result<Verdict, Reject> {
        let MobilityTicket(ticket) = request.message.read()?.ok_or(Code::BadRequest)?;
        let sealer = self.sealer.as_ref().ok_or(Code::MobilityForbidden)?;
        let ticket = sealer.open(ticket).ok_or(Code::BadRequest)?;
        let relay = self.policy.relay_address(ticket.address.into());
        let relay = relay.ok_or(Code::AllocationMismatch)?;
        let family = request.message.read::<RequestedAddressFamily>()?;
        if family.is_some_and(|RequestedAddressFamily(family)| family != AddressFamily::of(relay)) {
            return Err(Reject::Code(Code::PeerAddressFamilyMismatch));
        }
        let lifetime = request.message.read::<Lifetime>()?;
        let claim = Claim {
            ticket,
            relayed: RelayedAddress(SocketAddr::new(relay, ticket.port)),
            from: request.from,
            username: request.user.name.clone(),
            transaction_id: request.message.transaction_id(),
        };
        if let Some(id) = self.allocations.id_of_relayed(claim.relayed) {
            self.end_expired(id, request.now);
        }
        let Some(id) = self.allocations.id_of_relayed(claim.relayed) else {
            self.check_vacant(&claim.from)?;
            let answer = answer.clone();
            return Ok(Verdict::Resume(PendingResume { claim, answer, lifetime }));
        };
        let allocation = self.allocations.get(id).ok_or(Code::AllocationMismatch)?;
        let claimed =
            claim.check(allocation, request.now.instant).map_err(|refused| refused.code())?;
        if claimed == Claimed::Anew {
            self.check_vacant(&claim.from)?;
            self.follow(id, &claim, lifetime, request.now);
        }
        self.confirm_resumption(answer, id, reply);
        Ok(Verdict::Resumed(id))
    }

    /// A five-tuple has one allocation at most.
    fn check_vacant(&self, from: &FiveTuple) -> Result<(), Reject> {
        match self.allocations.id_of_client(from) {
            Some(_) => Err(Reject::Code(Code::AllocationMismatch)),
            None => Ok(()),
        }
    }

    /// Lets go of an allocation that another shard has a good claim on. What still comes from where
    /// its client was belongs there from now on.
    pub fn release(&mut self, claim: &Claim, now: Now) -> Result<(AllocationId, Moved), Refused> {
        let id = self.allocations.id_of_relayed(claim.relayed).ok_or(Refused::Gone)?;
        self.end_expired(id, now);
        let allocation = self.allocations.get(id).ok_or(Refused::Gone)?;
        if claim.check(allocation, now.instant)? == Claimed::Again {
            return Err(Refused::Useless);
        }
        let allocation = self.allocations.remove(id).ok_or(Refused::Gone)?;
        self.stats.allocation_left(allocation.client.transport);
        if !allocation.is_away() {
            self.stubs.insert(allocation.client, allocation.relayed);
        }
        self.events.push_back(Event::Left { id, relayed: allocation.relayed });
        Ok((id, Moved(Box::new(allocation))))
    }

    /// Takes back a [`PendingResume`] with the allocation, or with the reason why not, and writes
    /// the response. Returns the allocation, which has arrived whatever the response says.
    pub fn resumed(
        &mut self,
        pending: PendingResume,
        moved: Result<Moved, Refused>,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Option<AllocationId> {
        let PendingResume { claim, mut answer, lifetime } = pending;
        answer.now = now;
        let Moved(mut allocation) = match moved {
            Ok(moved) => moved,
            Err(refused) => {
                self.refuse(&answer, &Reject::Code(refused.code()), reply);
                return None;
            }
        };
        // Asked for where it was, and not here: RFC 8016 has one place for it to go to next.
        if let Some(mobility) = &mut allocation.mobility {
            mobility.next = None;
        }
        self.stubs.remove(&allocation.client);
        self.stats.allocation_arrived(allocation.client.transport);
        let id = self.allocations.insert(*allocation);
        self.tell_all_of(id);
        // The shard it comes from may have looked at what the machine is at another time.
        self.ask_again(id);
        match self.check_vacant(&claim.from) {
            Ok(()) => {
                self.follow(id, &claim, lifetime, now);
                self.confirm_resumption(&answer, id, reply);
            }
            // Allocated while the shards were talking.
            Err(reject) => self.refuse(&answer, &reject, reply),
        }
        Some(id)
    }

    /// The events a second data path missed.
    fn tell_all_of(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.get(id) else { return };
        self.events.push_back(Event::Arrived {
            id,
            client: allocation.client,
            relayed: allocation.relayed,
            username: allocation.username.clone(),
        });
        self.events.extend(allocation.bindings(id));
    }

    /// The client is reached there as soon as it sends data, or at once where it is reached
    /// nowhere else.
    fn follow(&mut self, id: AllocationId, claim: &Claim, lifetime: Option<Lifetime>, now: Now) {
        if lifetime == Some(Lifetime(0)) {
            return self.close(id, CloseReason::Deleted, now);
        }
        let granted = self.config.limits.lifetime(lifetime);
        self.allocations.refresh(id, now.instant + granted);
        self.allocations.expect_at(id, claim.from);
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let is_away = allocation.is_away();
        if let Some(mobility) = &mut allocation.mobility {
            mobility.resumed(claim.transaction_id, now.instant);
        }
        let relayed = allocation.relayed;
        self.events.push_back(Event::Resumed { id, client: claim.from, relayed });
        if is_away {
            self.switch(id);
        }
    }

    /// Success: LIFETIME, and the ticket that is good now. Of one that was deleted, LIFETIME 0.
    fn confirm_resumption(&mut self, answer: &Answer, id: AllocationId, reply: &mut Vec<u8>) {
        let left = self.allocations.get(id).map(|own| own.time_to_expiry(answer.now.instant));
        let lifetime = Lifetime(left.unwrap_or_default().as_millis().div_ceil(1000) as u32);
        let ticket = self.ticket(id);
        let ticket = ticket.as_ref().map(|ticket| MobilityTicket(ticket.as_bytes()));
        self.succeed(answer, reply, |builder| builder.put(&lifetime).put_some(ticket.as_ref()));
    }

    /// The ticket of a mobile allocation.
    pub(in crate::turn) fn ticket(&self, id: AllocationId) -> Option<String> {
        let allocation = self.allocations.get(id)?;
        let RelayedAddress(relayed) = allocation.relayed;
        let address = u8::try_from(self.policy.relay_index(relayed.ip())?).ok()?;
        let ticket = allocation.mobility.as_ref()?.ticket(address, relayed.port());
        Some(self.sealer.as_ref()?.seal(ticket))
    }

    /// The client has sent data from where it was expected: where it was it is reached no more.
    pub(in crate::turn) fn switch(&mut self, id: AllocationId) {
        let Some((old, new)) = self.allocations.switch(id) else { return };
        self.stats.allocation_left(old.transport);
        self.stats.allocation_arrived(new.transport);
        self.events.push_back(Event::Switched { id, client: new });
    }

    /// Ends the allocation of a client whose connection has ended (RFC 8656 §2.1), unless it is
    /// mobile: then it waits for the client to come back. Returns which allocation it was where
    /// another shard has it, and must be told.
    pub fn client_gone(&mut self, client: FiveTuple, now: Now) -> Option<RelayedAddress> {
        let Some(id) = self.allocations.id_of_client(&client) else {
            return self.stubs.remove(&client);
        };
        let allocation = self.allocations.get(id)?;
        if allocation.mobility.is_none() {
            while let Some(id) = self.allocations.id_of_client(&client) {
                self.close(id, CloseReason::Disconnected, now);
            }
        } else if allocation.next() == Some(client) {
            self.allocations.expect_nowhere(id);
        } else if allocation.next().is_some() {
            self.switch(id);
        } else {
            self.allocations.set_away(id);
        }
        None
    }

    /// Whether a client's packets belong to another shard, to the one with this relayed address.
    pub(in crate::turn) fn stub(&self, from: &FiveTuple) -> Option<RelayedAddress> {
        // Nearly always: nobody is on the move.
        if self.stubs.is_empty() { None } else { self.stubs.get(from).copied() }
    }

    /// Passes on no more of what comes from there.
    pub fn forget(&mut self, client: &FiveTuple) {
        self.stubs.remove(client);
    }

    /// Whether what comes from this client is for this allocation.
    #[must_use]
    pub fn leads_to(&self, client: &FiveTuple, id: AllocationId) -> bool {
        self.allocations.id_of_client(client) == Some(id)
    }

    /// Whether this client's allocation is here. One that has expired is nowhere.
    pub fn is_home_of(&mut self, client: &FiveTuple, now: Now) -> bool {
        self.end_expired_of(client, now);
        self.allocations.id_of_client(client).is_some()
    }
}

impl crate::turn::allocation::Allocation {
    /// Where the client has gone to, if it is still reached elsewhere.
    pub(in crate::turn) fn next(&self) -> Option<FiveTuple> {
        self.mobility.as_ref()?.next
    }

    /// Whether this is where the client has gone to.
    pub(in crate::turn) fn is_expected_at(&self, from: &FiveTuple) -> bool {
        self.mobility.as_ref().is_some_and(|mobility| mobility.next.as_ref() == Some(from))
    }

    /// Whether there is no way to the client now.
    pub(in crate::turn) fn is_away(&self) -> bool {
        self.mobility.as_ref().is_some_and(|mobility| mobility.is_away)
    }
}
