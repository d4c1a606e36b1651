//! Mobility (RFC 8016) over real sockets: allocations that follow their clients from shard to shard
//! and from transport to transport.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::external::Known;
use hairpin::turn::mobility::Key;
use rustls::version::TLS13;
use tokio::time::{Instant, sleep};

use super::client::{Client, DEADLINE, Message, Peer, REFRESH, Received};
use super::common::{TestServer, scrape};
use super::datagrams::{Dtls, context};
use super::relay::loopback;
use super::tls::Tls;

const MOBILITY_TICKET: u16 = 0x8030;
const NUMBER: u16 = 0x4000;

/// Four shards: three moves of four go to another one.
fn mobile(config: &mut Config) {
    config.net.threads = 4;
    config.turn.mobility = Some(Key([7; 32]));
}

fn server(fourth: u8) -> TestServer {
    TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(8, fourth), 0)];
        mobile(config);
    })
}

fn ticket_of(message: &Message) -> Vec<u8> {
    assert_eq!(message.code(), 200);
    message.get(MOBILITY_TICKET).expect("a ticket").to_vec()
}

async fn resume(client: &mut Client, ticket: &[u8]) -> Message {
    client.request(REFRESH, |_| vec![(MOBILITY_TICKET, ticket.to_vec())]).await
}

/// Allocates, and binds a channel to `peer`. Returns relayed address and ticket.
async fn allocate(client: &mut Client, peer: &Peer) -> (SocketAddr, Vec<u8>) {
    let allocated = client.allocate_with(&[(MOBILITY_TICKET, Vec::new())]).await;
    let ticket = ticket_of(&allocated);
    assert_eq!(client.bind(NUMBER, peer.address()).await, 200);
    (allocated.relayed(), ticket)
}

/// Both ways through the relay.
async fn passes(client: &mut Client, peer: &Peer, relay: SocketAddr, data: &[u8]) {
    client.send_channel(NUMBER, data).await;
    assert_eq!(peer.recv().await, (relay, data.to_vec()));
    answers(client, peer, relay, data).await;
}

async fn answers(client: &mut Client, peer: &Peer, relay: SocketAddr, data: &[u8]) {
    peer.send(relay, data).await;
    assert_eq!(client.recv().await, Received::Channel(NUMBER, data.to_vec()));
}

/// Make before break: from `old` to `new`.
async fn moves(
    old: &mut Client,
    new: &mut Client,
    peer: &Peer,
    relay: SocketAddr,
    ticket: &[u8],
) -> Vec<u8> {
    let next = ticket_of(&resume(new, ticket).await);
    assert_ne!(next, ticket);
    // The old way works as before, and requests go both ways.
    passes(old, peer, relay, b"old way").await;
    assert_eq!(old.permit(peer.address()).await, 200);
    assert_eq!(new.permit(peer.address()).await, 200);
    answers(old, peer, relay, b"still").await;
    passes(new, peer, relay, b"new way").await;
    answers(new, peer, relay, b"!").await;
    next
}

/// Waits until there are so many allocations, over UDP, TCP, TLS and DTLS.
async fn until_live(server: &TestServer, transports: [f64; 4]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let metrics = scrape(server.http()).await;
        let live = ["udp", "tcp", "tls", "dtls"].map(|transport| {
            metrics.get(&format!(r#"hairpin_allocations{{transport="{transport}"}}"#))
        });
        if live == transports {
            return;
        }
        assert!(Instant::now() < deadline, "{live:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn allocation_follows_its_client_over_shards_and_transports() {
    let server = Tls::start(80, mobile);
    let turn = server.server.turn();
    let peer = Peer::at(turn.ip());
    let mut client = Client::new(turn);
    let (relay, mut ticket) = allocate(&mut client, &peer).await;
    // From each kind to each, twice, so that all pairs of shards are likely.
    for kind in [1, 0, 2, 0, 3, 1, 1, 2, 1, 3, 2, 2, 3, 3, 0, 0].repeat(2) {
        let mut next = match kind {
            0 => Client::new(turn),
            1 => Client::tcp(turn).await,
            2 => server.client(server.config(&[&TLS13], server.trusting())).await,
            _ => Client::within(Dtls::connected(turn.ip(), turn).await),
        };
        let mut live = [0.0; 4];
        live[kind] = 1.0;
        ticket = moves(&mut client, &mut next, &peer, relay, &ticket).await;
        until_live(&server.server, live).await;
        client = next;
    }
    assert_eq!(client.refresh(0).await, 200);
    until_live(&server.server, [0.0; 4]).await;
    let metrics = scrape(server.server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 0.0);
    assert_eq!(metrics.get("hairpin_allocations_total"), 1.0, "never more than one");
}

#[tokio::test]
async fn client_that_is_left_behind_allocates_anew() {
    let server = server(1);
    let peer = Peer::at(server.turn().ip());
    for _ in 0..8 {
        let (mut old, mut new) = (Client::new(server.turn()), Client::new(server.turn()));
        let (relay, ticket) = allocate(&mut old, &peer).await;
        moves(&mut old, &mut new, &peer, relay, &ticket).await;
        // The shard that passed on what came from there is told a little later.
        let deadline = Instant::now() + DEADLINE;
        while old.allocate().await != 200 {
            assert!(Instant::now() < deadline, "the five-tuple is free");
            sleep(Duration::from_millis(10)).await;
        }
        assert_ne!(old.relayed(), relay);
        answers(&mut new, &peer, relay, b"not disturbed").await;
        assert_eq!([old.refresh(0).await, new.refresh(0).await], [200, 200]);
    }
}

#[tokio::test]
async fn quota_stays_charged_while_the_client_is_away() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(8, 2), 0)];
        config.net.allocations_per_user = 1;
        mobile(config);
    });
    let peer = Peer::at(server.turn().ip());
    let mut old = Client::tcp(server.turn()).await;
    let (relay, mut ticket) = allocate(&mut old, &peer).await;
    for _ in 0..6 {
        old.shutdown().await;
        assert!(old.is_closed().await);
        peer.send(relay, b"nobody hears this").await;
        server.until_dropped("client_away", 1.0).await;
        assert_eq!(Client::new(server.turn()).allocate().await, 486);
        let mut new = Client::tcp(server.turn()).await;
        ticket = ticket_of(&resume(&mut new, &ticket).await);
        // Reached at once: there is nowhere else.
        answers(&mut new, &peer, relay, b"welcome back").await;
        assert_eq!(Client::new(server.turn()).allocate().await, 486);
        old = new;
    }
    assert_eq!(old.refresh(0).await, 200);
    assert_eq!(Client::new(server.turn()).allocate().await, 200);
}

/// Without a word from the new place; what is sent too early may be lost.
async fn hears_before_long(new: &mut Client, peer: &Peer, relay: SocketAddr) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        peer.send(relay, b"new way").await;
        let until = Instant::now() + Duration::from_millis(50);
        if new.recv_raw(until).await.is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "the client is reached");
    }
}

/// A user that moves has no more of its bandwidth than one that stays.
#[tokio::test]
async fn bandwidth_stays_charged_across_moves() {
    const CAP: u64 = 20_000;
    const DATAGRAM: usize = 1_000;
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(8, 7), 0)];
        config.net.user_bandwidth = CAP;
        mobile(config);
    });
    let peer = Peer::at(server.turn().ip());
    let begun = Instant::now();
    let mut client = Client::new(server.turn());
    let (_, mut ticket) = allocate(&mut client, &peer).await;
    let (mut sent, mut bytes) = (0, 0);
    for _ in 0..12 {
        for _ in 0..60 {
            client.send_channel(NUMBER, &[0; DATAGRAM]).await;
            sent += 1;
        }
        // The answer comes behind all of them, as they have taken the same way.
        let mut next = Client::new(server.turn());
        assert_eq!(client.permit(peer.address()).await, 200);
        ticket = ticket_of(&resume(&mut next, &ticket).await);
        client = next;
    }
    let passed = r#"hairpin_relay_packets_total{direction="to_peer",transport="udp"}"#;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let relayed = scrape(server.http()).await.get(passed);
        if relayed + server.dropped("bandwidth").await >= f64::from(sent) {
            break;
        }
        assert!(Instant::now() < deadline, "every datagram is relayed or counted");
        sleep(Duration::from_millis(20)).await;
    }
    while let Some((_, data)) = peer.try_recv() {
        bytes += data.len();
    }
    let most = CAP as f64 * (begun.elapsed().as_secs_f64() + 2.0);
    assert!(bytes > 0 && bytes as f64 <= most, "{bytes} bytes, {most} at most");
}

#[tokio::test]
async fn end_of_the_old_connection_completes_a_move() {
    let server = server(3);
    let peer = Peer::at(server.turn().ip());
    for _ in 0..8 {
        let (mut old, mut new) = (Client::tcp(server.turn()).await, Client::new(server.turn()));
        let (relay, ticket) = allocate(&mut old, &peer).await;
        ticket_of(&resume(&mut new, &ticket).await);
        answers(&mut old, &peer, relay, b"old way").await;
        old.shutdown().await;
        assert!(old.is_closed().await);
        hears_before_long(&mut new, &peer, relay).await;
        assert_eq!(new.refresh(0).await, 200);
    }
}

/// Over DTLS, and wherever the shards of the two are.
#[tokio::test]
async fn end_of_the_old_session_completes_a_move() {
    let server = Tls::start(81, mobile);
    let turn = server.server.turn();
    let peer = Peer::at(turn.ip());
    for _ in 0..8 {
        let mut old = Client::within(Dtls::connected(turn.ip(), turn).await);
        let (relay, ticket) = allocate(&mut old, &peer).await;
        let mut new = Client::within(Dtls::connected(turn.ip(), turn).await);
        ticket_of(&resume(&mut new, &ticket).await);
        answers(&mut old, &peer, relay, b"old way").await;
        let end = old.dtls().close_notify();
        old.dtls().send_datagrams(&[end]).await;
        assert!(old.dtls().is_closed().await);
        hears_before_long(&mut new, &peer, relay).await;
        assert_eq!(new.refresh(0).await, 200);
    }
    until_live(&server.server, [0.0; 4]).await;
}

/// A client whose session has ended is away, and comes back by another one of the same port.
#[tokio::test]
async fn client_that_lost_its_session_finds_its_allocation_again() {
    let server = Tls::start(82, mobile);
    let turn = server.server.turn();
    let peer = Peer::at(turn.ip());
    let mut client = Client::within(Dtls::connected(turn.ip(), turn).await);
    let (relay, mut ticket) = allocate(&mut client, &peer).await;
    for _ in 0..4 {
        let socket = client.into_dtls().into_socket();
        let mut dtls = Dtls::on(socket, turn, &context(|_| {}), None);
        dtls.connect().await;
        client = Client::within(dtls);
        ticket = ticket_of(&resume(&mut client, &ticket).await);
        passes(&mut client, &peer, relay, b"again").await;
        until_live(&server.server, [0.0, 0.0, 0.0, 1.0]).await;
    }
}

/// RFC 8016 §3.2.2: a ticket is given out as soon as a client asks from elsewhere, and so it may
/// move on before it has sent anything.
#[tokio::test]
async fn second_move_before_the_first_is_complete_wins() {
    let server = Tls::start(83, mobile);
    let turn = server.server.turn();
    let peer = Peer::at(turn.ip());
    for round in 0..18 {
        let mut clients = Vec::new();
        for place in 0..3 {
            clients.push(match (round + place) % 3 {
                0 => Client::new(turn),
                1 => Client::tcp(turn).await,
                _ => Client::within(Dtls::connected(turn.ip(), turn).await),
            });
        }
        let [first, second, third] = &mut clients[..] else { unreachable!() };
        let (relay, ticket) = allocate(first, &peer).await;
        let ticket = ticket_of(&resume(second, &ticket).await);
        let ticket = ticket_of(&resume(third, &ticket).await);
        passes(first, &peer, relay, b"still the first").await;
        // Where it has only passed by, it has nothing.
        assert_eq!(second.permit(peer.address()).await, 437);
        passes(third, &peer, relay, b"the third").await;
        assert_eq!(third.permit(peer.address()).await, 200);
        assert_eq!(second.permit(peer.address()).await, 437);
        let deadline = Instant::now() + DEADLINE;
        while first.permit(peer.address()).await != 437 {
            assert!(Instant::now() < deadline, "nor where it was");
        }
        // And back to where it has passed by.
        let _ = ticket_of(&resume(second, &ticket).await);
        passes(second, &peer, relay, b"the second").await;
        assert_eq!(second.refresh(0).await, 200);
    }
    until_live(&server.server, [0.0; 4]).await;
    let metrics = scrape(server.server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 0.0);
}

#[tokio::test]
async fn what_others_may_not_have_stays_where_it_is() {
    let server = server(4);
    let peer = Peer::at(server.turn().ip());
    let mut old = Client::new(server.turn());
    let (relay, ticket) = allocate(&mut old, &peer).await;
    for _ in 0..6 {
        let mut thief = Client::new(server.turn()).user("bob");
        assert_eq!(resume(&mut thief, &ticket).await.code(), 441);
        let mut flipped = ticket.clone();
        flipped[20] ^= 1;
        let mut own = Client::new(server.turn());
        assert_eq!(resume(&mut own, &flipped).await.code(), 400);
        assert_eq!(resume(&mut own, &[]).await.code(), 400);
    }
    assert_eq!(resume(&mut old, &ticket).await.code(), 400);
    answers(&mut old, &peer, relay, b"undisturbed").await;
    assert_eq!(old.refresh(0).await, 200);
    for _ in 0..6 {
        assert_eq!(resume(&mut Client::new(server.turn()), &ticket).await.code(), 437);
    }
}

/// Several devices show one ticket at the same time: one of them has it, and nothing is lost.
#[tokio::test]
async fn of_many_who_show_one_ticket_one_gets_the_allocation() {
    let server = server(5);
    let peer = Peer::at(server.turn().ip());
    let mut old = Client::new(server.turn());
    let (relay, mut ticket) = allocate(&mut old, &peer).await;
    for _ in 0..10 {
        let mut clients: Vec<_> = (0..4).map(|_| Client::new(server.turn())).collect();
        let [a, b, c, d] = &mut clients[..] else { unreachable!() };
        let answers_of = tokio::join!(
            resume(a, &ticket),
            resume(b, &ticket),
            resume(c, &ticket),
            resume(d, &ticket)
        );
        let replies = [answers_of.0, answers_of.1, answers_of.2, answers_of.3];
        let codes = replies.each_ref().map(Message::code);
        let winner = codes.iter().position(|&code| code == 200).expect("one of them");
        let others = codes.iter().enumerate().filter(|&(at, _)| at != winner);
        assert!(others.clone().all(|(_, &code)| code == 400), "{codes:?}");
        ticket = ticket_of(&replies[winner]);
        let mut new = clients.swap_remove(winner);
        passes(&mut new, &peer, relay, b"mine").await;
        old = new;
    }
    assert_eq!(old.refresh(0).await, 200);
    until_live(&server, [0.0; 4]).await;
}

/// Two relay addresses with one port each: nothing but the address tells the allocations apart.
#[tokio::test]
async fn allocation_at_each_relay_address_moves_from_shard_to_shard() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(8, 7), 0)];
        config.net.relay_addresses = vec![loopback(8, 7), loopback(8, 8)];
        config.net.relay_ports = 41_000..=41_000;
        mobile(config);
    });
    let turn = server.turn();
    let peer = Peer::at(turn.ip());
    let (mut one, mut other) = (Client::new(turn), Client::new(turn));
    let (relay, mut ticket) = allocate(&mut one, &peer).await;
    let (other_relay, mut other_ticket) = allocate(&mut other, &peer).await;
    let mut ips = [relay, other_relay].map(|relay| relay.ip());
    ips.sort();
    assert_eq!(ips, [loopback(8, 7), loopback(8, 8)]);
    for _ in 0..8 {
        let (mut next, mut other_next) = (Client::new(turn), Client::tcp(turn).await);
        ticket = moves(&mut one, &mut next, &peer, relay, &ticket).await;
        other_ticket = moves(&mut other, &mut other_next, &peer, other_relay, &other_ticket).await;
        (one, other) = (next, other_next);
    }
}

#[tokio::test]
async fn allocation_behind_nat_keeps_its_external_address_on_every_shard() {
    let external: std::net::IpAddr = "203.0.113.4".parse().unwrap();
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(8, 6), 0)];
        config.net.external.known = vec![Known { external, local: None }];
        mobile(config);
    });
    let turn = server.turn();
    let peer = Peer::at(turn.ip());
    let mut client = Client::new(turn);
    let (relay, mut ticket) = allocate(&mut client, &peer).await;
    assert_eq!(relay.ip(), external);
    // The test is the NAT.
    let inside = SocketAddr::new(turn.ip(), relay.port());
    for _ in 0..8 {
        let mut next = Client::tcp(turn).await;
        ticket = moves(&mut client, &mut next, &peer, inside, &ticket).await;
        client = next;
    }
    // Others find it where it is now.
    let mut other = Client::new(turn);
    assert_eq!(other.allocate().await, 200);
    assert_eq!(client.permit(other.relayed()).await, 200);
    assert_eq!(other.bind(NUMBER, relay).await, 200);
    other.send_channel(NUMBER, b"hello").await;
    assert_eq!(client.recv().await, Received::Data(other.relayed(), b"hello".to_vec()));
}
