//! Bytes through the relay and back.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::stun::message::METHOD_SEND;
use ::turn::proto::data::Data;
use ::turn::proto::peeraddr::PeerAddress;
use tokio::net::UdpSocket;
use tokio::select;
use tokio::time::sleep_until;

use super::client::{Client, Relayed, channel_data, elapsed};
use crate::net::clock;
use crate::probe::message::{Answer, Request};
use crate::probe::resolve::wildcard;

/// Bytes of a datagram: about what a call's audio has.
const PAYLOAD_BYTES: usize = 160;
/// Between two datagrams: what a call's audio does.
const INTERVAL: Duration = Duration::from_millis(20);
/// Between two attempts from outside.
const ATTEMPT: Duration = Duration::from_millis(200);
/// The channel that is used.
pub(super) const CHANNEL: u16 = 0x4000;

/// What came back of what was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: usize,
    round_trips: Vec<Duration>,
}

impl Tally {
    pub(super) fn of(sent: usize, mut round_trips: Vec<Duration>) -> Self {
        round_trips.sort_unstable();
        Self { sent, round_trips }
    }

    pub(super) fn received(&self) -> usize {
        self.round_trips.len()
    }

    /// The round trip that so many percent do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let last = self.round_trips.len().saturating_sub(1);
        let at = (self.round_trips.len() * percent).div_ceil(100).saturating_sub(1);
        self.round_trips.get(at.min(last)).copied().unwrap_or_default()
    }

    pub(super) fn words(&self) -> String {
        let lost = 100.0 * (self.sent - self.received()) as f64 / self.sent.max(1) as f64;
        let millis = |duration: Duration| format!("{:.1}", duration.as_secs_f64() * 1000.0);
        format!(
            "{} of {} came back, {lost:.0} % lost; round trip {} ms median, {} ms 95 %, {} ms at most",
            self.received(),
            self.sent,
            millis(self.percentile(50)),
            millis(self.percentile(95)),
            millis(self.percentile(100)),
        )
    }
}

/// The other end of the relay.
#[derive(Debug)]
pub(super) enum Far {
    /// A second allocation on the same server.
    Relay(Box<Client>, SocketAddr),
    /// A socket of this machine.
    Own(Own),
}

/// A socket of this machine, and who it is to the server.
#[derive(Debug)]
pub(super) struct Own {
    socket: UdpSocket,
    pub(super) mapped: SocketAddr,
}

impl Own {
    /// Asks the server over UDP; none where that is not answered.
    pub(super) async fn find(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(wildcard(server)).await?;
        let id = rand::random();
        let request = Request::binding(id).bytes();
        let mut buffer = [0; 2048];
        let mut next = clock::now().instant;
        loop {
            select! {
                received = socket.recv_from(&mut buffer) => {
                    let answer = Answer::parse(&buffer[..received?.0]);
                    let answer = answer.filter(|answer| answer.id() == id);
                    if let Some(mapped) = answer.and_then(|answer| answer.mapped()) {
                        return Ok(Self { socket, mapped });
                    }
                }
                () = sleep_until(next.into()) => {
                    socket.send_to(&request, server).await?;
                    next += ATTEMPT;
                }
            }
        }
    }

    async fn recv(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut buffer = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut buffer).await?;
        Ok((buffer[..length].to_vec(), from))
    }
}

impl Far {
    /// What arrives there. May be given up at any time.
    async fn recv(&mut self) -> io::Result<(Vec<u8>, SocketAddr)> {
        match self {
            Self::Own(own) => own.recv().await,
            Self::Relay(client, _) => loop {
                if let Relayed::Data(from, data) = client.relayed().await? {
                    return Ok((data, from));
                }
            },
        }
    }

    async fn send(&mut self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Own(own) => own.socket.send_to(data, to).await.map(|_| ()),
            Self::Relay(client, _) => client.send(&indication(to, data)).await,
        }
    }
}

fn indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    Request::indication(METHOD_SEND, rand::random())
        .with(&PeerAddress { ip: peer.ip(), port: peer.port() })
        .with(&Data(data.to_vec()))
        .bytes()
}

/// Sends datagrams over the channel to the far end, which sends them back, until all are back or
/// the time is over. A NAT in front of the far end must know the relay already.
pub(super) async fn echo(
    near: &mut Client,
    far: &mut Far,
    count: usize,
    limit: Duration,
) -> io::Result<Tally> {
    let tag: [u8; 8] = rand::random();
    let start = clock::now().instant;
    let mut next = start;
    let mut sent: Vec<Instant> = Vec::new();
    let mut back: Vec<Option<Duration>> = vec![None; count];
    while back.iter().any(Option::is_none) && elapsed(start) < limit {
        let wakes = if sent.len() < count { next } else { start + limit };
        select! {
            arrived = far.recv() => {
                let (data, from) = arrived?;
                far.send(&data, from).await?;
            }
            arrived = near.relayed() => {
                let Relayed::Channel(data) = arrived? else { continue };
                let Some(index) = index_of(&data, tag).filter(|index| *index < sent.len()) else {
                    continue;
                };
                back[index].get_or_insert_with(|| elapsed(sent[index]));
            }
            () = sleep_until(wakes.into()) => {
                if sent.len() < count {
                    let payload = payload(tag, sent.len());
                    sent.push(clock::now().instant);
                    near.send(&channel_data(CHANNEL, &payload)).await?;
                    next += INTERVAL;
                }
            }
        }
    }
    Ok(Tally::of(sent.len(), back.into_iter().flatten().collect()))
}

fn payload(tag: [u8; 8], index: usize) -> Vec<u8> {
    let mut payload = tag.to_vec();
    payload.extend(u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
    payload.resize(PAYLOAD_BYTES, 0);
    payload
}

fn index_of(payload: &[u8], tag: [u8; 8]) -> Option<usize> {
    let rest = payload.strip_prefix(&tag)?;
    let index = rest.get(..4)?.try_into().ok().map(u32::from_be_bytes)?;
    usize::try_from(index).ok()
}

/// What came through from and to a socket outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    /// Who sent to the relayed address, as the server saw it.
    pub(super) inbound: Option<SocketAddr>,
    /// Whether what the relay sent arrived.
    pub(super) outbound: bool,
}

/// Sends to the relayed address from outside, and back the same way.
pub(super) async fn outside(
    near: &mut Client,
    relayed: SocketAddr,
    own: &Own,
    limit: Duration,
) -> io::Result<Outside> {
    let tag: [u8; 16] = rand::random();
    let start = clock::now().instant;
    let mut next = start;
    let mut seen = Outside { inbound: None, outbound: false };
    while (seen.inbound.is_none() || !seen.outbound) && elapsed(start) < limit {
        select! {
            arrived = own.recv() => seen.outbound |= arrived?.0 == tag,
            arrived = near.relayed() => {
                if let Relayed::Data(from, data) = arrived?
                    && data == tag
                {
                    seen.inbound = Some(from);
                    near.send(&indication(from, &tag)).await?;
                }
            }
            () = sleep_until(next.into()) => {
                own.socket.send_to(&tag, relayed).await?;
                next += ATTEMPT;
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came_back() {
        let tally = Tally::of(25, (1..=20).rev().map(Duration::from_millis).collect());
        assert_eq!(
            tally.words(),
            "20 of 25 came back, 20 % lost; round trip 10.0 ms median, 19.0 ms 95 %, 20.0 ms at most"
        );
        assert_eq!(Tally::default().received(), 0);
        assert!(Tally::default().words().starts_with("0 of 0 came back, 0 % lost"));
    }

    #[test]
    fn payloads_are_recognised() {
        let payload = payload([7; 8], 300);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        assert_eq!(index_of(&payload, [7; 8]), Some(300));
        assert_eq!(index_of(&payload, [8; 8]), None);
        assert_eq!(index_of(b"other", [7; 8]), None);
    }
}
