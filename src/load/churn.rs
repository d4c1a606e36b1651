//! Allocations instead of packets: each client makes one, deletes it, and begins anew.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;

use crate::net::clock;

use super::Error;
use super::client::Client;
use super::drive::Departure;
use super::flows::Flows;
use super::schedule::Schedule;
use super::tally::Tally;

/// What the clients of a thread share.
struct Round {
    flows: Rc<Flows>,
    departure: Departure,
    /// When each allocation is to begin; none: as soon as a client is free.
    schedule: Option<Schedule>,
    next: Cell<u64>,
    tally: RefCell<Tally>,
}

/// Opens and deletes allocations until the time is over. Packets are allocations here: one that
/// fails is lost.
pub(super) async fn churn(
    flows: Rc<Flows>,
    schedule: Option<Schedule>,
    departure: Departure,
) -> Tally {
    let clients = flows.share.flows as usize;
    let (next, tally) = (Cell::new(0), RefCell::default());
    let round = Rc::new(Round { flows, departure, schedule, next, tally });
    let mut working = JoinSet::new();
    for at in 0..clients {
        let round = Rc::clone(&round);
        working.spawn_local(async move { round.work(at).await });
    }
    while working.join_next().await.is_some() {}
    let mut tally = round.tally.take();
    tally.sending = clock::now().instant.saturating_duration_since(departure.start);
    tally
}

impl Round {
    async fn work(&self, at: usize) {
        let end = self.departure.start + self.departure.order.duration;
        while let Some(due) = self.due() {
            time::sleep_until((self.departure.start + due).into()).await;
            let now = clock::now().instant;
            if now >= end {
                return;
            }
            // Without a schedule a client cannot be late.
            let begin = if self.schedule.is_some() { self.departure.start + due } else { now };
            self.tally.borrow_mut().lag.record(now - begin);
            self.tally.borrow_mut().offered += 1;
            let outcome = self.once(at).await;
            let mut tally = self.tally.borrow_mut();
            match outcome {
                Ok(opened) => {
                    tally.delivered += 1;
                    tally.latency.record(opened.saturating_duration_since(begin));
                }
                Err(error) => {
                    tally.failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    /// When the next allocation is to begin, from the start on.
    fn due(&self) -> Option<Duration> {
        let next = self.next.replace(self.next.get() + 1);
        match &self.schedule {
            None => Some(Duration::ZERO),
            Some(schedule) => (next < schedule.len()).then(|| schedule.burst(next).2),
        }
    }

    /// One allocation from its first request to its deletion; tells when it could be used.
    async fn once(&self, at: usize) -> Result<std::time::Instant, Error> {
        let flows = &self.flows;
        let client = Client::allocated(&flows.common, flows.local(at)).await?;
        client.admit(flows.shape.mode, flows.peers[0].1).await?;
        let opened = clock::now().instant;
        client.refresh(0).await?;
        Ok(opened)
    }
}
