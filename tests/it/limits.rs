//! Every cap, seen from outside: who is over it is refused, and nobody else notices.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use hairpin::config::Config;
use tokio::time::{Instant, sleep};

use super::client::{Client, DEADLINE, Peer, binding_request};
use super::common::{TestServer, scrape};
use super::relay::loopback;

const SHARED_SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
/// When time-limited credentials end, in seconds since 1970.
const FAR_FUTURE: u64 = 4_000_000_000;
/// Bytes per second.
const CAP: u64 = 50_000;

/// A server at an address of the test's own.
fn start(fourth: u8, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(4, fourth), 0)];
        change(config);
    })
}

#[tokio::test]
async fn quota_is_the_users_wherever_the_clients_are() {
    let server = start(1, |config| config.net.allocations_per_user = 4);
    // As many sources that no shard has them all.
    let at = |fourth| Client::at(loopback(40, fourth), server.turn());
    let mut clients = Vec::new();
    for fourth in 1..=4 {
        clients.push(at(fourth));
        assert_eq!(clients.last_mut().unwrap().allocate().await, 200);
    }
    for fourth in 5..=16 {
        assert_eq!(at(fourth).allocate().await, 486);
    }
    let mut other = at(1).user("bob");
    assert_eq!(other.allocate().await, 200);
    // What is given back is there at once, on each shard.
    for fourth in 17..=56 {
        assert_eq!(clients.remove(0).refresh(0).await, 200);
        clients.push(at(fourth));
        assert_eq!(clients.last_mut().unwrap().allocate().await, 200);
    }
    assert_eq!(at(1).allocate().await, 486);
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_allocation_errors_total{code="486"}"#), 13.0);
    assert_eq!(metrics.sum("hairpin_allocations"), 5.0);
}

/// Each credential has a name of its own, with its expiry in it; the account behind is the same.
#[tokio::test]
async fn time_limited_credentials_of_one_user_share_a_quota() {
    let server = start(8, |config| {
        config.net.allocations_per_user = 2;
        config.turn.auth.secrets = vec![SHARED_SECRET.into()];
    });
    let login = |user, expiry| Client::new(server.turn()).user(user).until(expiry, SHARED_SECRET);
    let mut first = login("alice", FAR_FUTURE);
    let mut second = login("alice", FAR_FUTURE + 1);
    let mut third = login("alice", FAR_FUTURE + 2);
    assert_eq!(first.allocate().await, 200);
    assert_eq!(second.allocate().await, 200);
    assert_eq!(third.allocate().await, 486);
    assert_eq!(login("bob", FAR_FUTURE).allocate().await, 200);
    assert_eq!(first.refresh(0).await, 200);
    assert_eq!(third.allocate().await, 200);
    assert_eq!(login("alice", FAR_FUTURE).allocate().await, 486);
}

#[tokio::test]
async fn server_is_full_for_everybody() {
    let server = start(2, |config| config.net.allocations = 3);
    let mut clients: Vec<_> = ["alice", "bob", "alice"]
        .iter()
        .map(|user| Client::new(server.turn()).user(user))
        .collect();
    for client in &mut clients {
        assert_eq!(client.allocate().await, 200);
    }
    let mut late = Client::new(server.turn()).user("bob");
    assert_eq!(late.allocate().await, 508);
    assert_eq!(clients[0].refresh(0).await, 200);
    assert_eq!(late.allocate().await, 200);
}

#[tokio::test]
async fn last_relay_port_is_given_and_given_again() {
    let server = start(3, |config| config.net.relay_ports = 20_000..=20_009);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::new(server.turn());
        assert_eq!(client.allocate().await, 200);
        assert!((20_000..=20_009).contains(&client.relayed().port()));
        clients.push(client);
    }
    assert_eq!(Client::new(server.turn()).allocate().await, 508);
    for _ in 0..40 {
        let mut leaving = clients.remove(0);
        let port = leaving.relayed().port();
        assert_eq!(leaving.refresh(0).await, 200);
        let mut next = Client::new(server.turn());
        assert_eq!(next.allocate().await, 200);
        assert_eq!(next.relayed().port(), port);
        clients.push(next);
    }
    assert_eq!(Client::new(server.turn()).allocate().await, 508);
}

/// RFC 8656 §6
#[tokio::test]
async fn thousand_allocations_have_a_thousand_relayed_addresses() {
    const MANY: usize = 1_000;
    const PORTS: std::ops::RangeInclusive<u16> = 21_000..=22_999;
    allow_descriptors();
    let server = start(11, |config| {
        config.net.relay_ports = PORTS;
        config.net.allocations_per_user = 0;
    });
    let mut relayed = BTreeSet::new();
    for at in 0..MANY {
        // Each from an address of its own, and with a socket no longer than it takes.
        let ip = loopback(100 + (at / 200) as u8, 1 + (at % 200) as u8);
        let mut client = Client::at(ip, server.turn());
        assert_eq!(client.allocate().await, 200);
        assert!(PORTS.contains(&client.relayed().port()), "{}", client.relayed());
        assert_eq!(client.relayed().ip(), server.turn().ip());
        relayed.insert(client.relayed());
    }
    assert_eq!(relayed.len(), MANY);
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), MANY as f64);
}

/// A thousand relay sockets, and all that the other tests have open, are more than some systems let
/// a process have unless it asks.
fn allow_descriptors() {
    let own = std::process::id().to_string();
    // Where there is no such program, the limit may do as it is.
    let _ = Command::new("prlimit").args(["--pid", &own, "--nofile=16384:"]).output();
}

/// RFC 8656 §7.2, EVEN-PORT with R = 0
#[tokio::test]
async fn even_ports_are_even_and_all_come_back() {
    const EVEN_PORT: u16 = 0x018;
    let server = start(9, |config| config.net.relay_ports = 20_000..=20_019);
    let mut client = Client::new(server.turn());
    for _ in 0..50 {
        assert_eq!(client.allocate_with(&[(EVEN_PORT, vec![0])]).await.code(), 200);
        let port = client.relayed().port();
        assert!((20_000..=20_019).contains(&port) && port.is_multiple_of(2), "{port}");
        assert_eq!(client.refresh(0).await, 200);
    }
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::new(server.turn());
        assert_eq!(client.allocate().await, 200);
        clients.push(client);
    }
    assert_eq!(Client::new(server.turn()).allocate().await, 508);
}

#[tokio::test]
async fn permissions_of_an_allocation_are_bounded() {
    let server = start(4, |config| config.turn.limits.permissions_per_allocation = 3);
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = |fourth| SocketAddr::new(loopback(41, fourth), 1_000);
    for fourth in 1..=3 {
        assert_eq!(client.permit(peer(fourth)).await, 200);
    }
    assert_eq!(client.permit(peer(4)).await, 508);
    assert_eq!(client.bind(0x4000, peer(4)).await, 508);
    assert_eq!(client.permit(peer(1)).await, 200);
    let mut other = Client::new(server.turn());
    assert_eq!(other.allocate().await, 200);
    assert_eq!(other.permit(peer(4)).await, 200);
}

#[tokio::test]
async fn channels_of_an_allocation_are_bounded() {
    let server = start(5, |config| config.turn.limits.channels_per_allocation = 3);
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = |port| SocketAddr::new(loopback(42, 1), port);
    for at in 1..=3 {
        assert_eq!(client.bind(0x4000 + at, peer(at)).await, 200);
    }
    assert_eq!(client.bind(0x4004, peer(4)).await, 508);
    assert_eq!(client.bind(0x4001, peer(1)).await, 200);
}

#[tokio::test]
async fn source_that_proves_nothing_is_answered_so_many_times_a_second() {
    const PER_SECOND: u32 = 20;
    const WAVE: u32 = 100;
    let server = start(6, |config| {
        // Each shard grants its own share.
        config.net.threads = 1;
        config.turn.limits.unauthenticated_per_source = PER_SECOND;
    });
    let flood = Client::at(loopback(43, 1), server.turn());
    let begun = Instant::now();
    let mut answered = 0;
    // In waves, so that no buffer overflows and every request is accounted for.
    for wave in 1..=10 {
        for _ in 0..WAVE {
            flood.send_raw(&binding_request()).await;
        }
        while f64::from(answered) + server.dropped("rate_limited").await < f64::from(wave * WAVE) {
            assert!(begun.elapsed() < DEADLINE);
            while flood.recv_raw(Instant::now() + Duration::from_millis(5)).await.is_some() {
                answered += 1;
            }
        }
    }
    let most = f64::from(PER_SECOND) * (begun.elapsed().as_secs_f64() + 1.0);
    assert!((PER_SECOND..=most as u32).contains(&answered), "{answered} replies, {most} at most");
    let mut other = Client::at(loopback(43, 2), server.turn());
    assert_eq!(other.mapped().await, other.local());
    assert_eq!(other.allocate().await, 200);
}

#[tokio::test]
async fn flood_of_one_user_is_cut_to_its_bandwidth() {
    let server = start(7, |config| config.net.user_bandwidth = CAP);
    let clients = ["alice", "alice", "bob"].map(|user| Client::new(server.turn()).user(user));
    flood_of_the_first_two_is_cut(&server, clients).await;
}

#[tokio::test]
async fn time_limited_credentials_of_one_user_share_a_bandwidth() {
    let server = start(10, |config| {
        config.net.user_bandwidth = CAP;
        config.turn.auth.secrets = vec![SHARED_SECRET.into()];
    });
    let clients = [("alice", FAR_FUTURE), ("alice", FAR_FUTURE + 1), ("bob", FAR_FUTURE)]
        .map(|(user, until)| Client::new(server.turn()).user(user).until(until, SHARED_SECRET));
    flood_of_the_first_two_is_cut(&server, clients).await;
}

/// The first two are one user, the third another.
async fn flood_of_the_first_two_is_cut(server: &TestServer, mut clients: [Client; 3]) {
    const DATAGRAM: usize = 1_000;
    let ip = server.turn().ip();
    let (target, quiet) = (Peer::at(ip), Peer::at(ip));
    for client in &mut clients {
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.permit(target.address()).await, 200);
    }
    let begun = Instant::now();
    let (mut sent, mut sent_quietly, mut bytes) = (0, 0_u8, 0);
    // Ten times what is allowed, over both allocations of the user.
    while begun.elapsed() < Duration::from_secs(3) {
        let due = begun.elapsed().as_millis() as u64 * CAP / 100 / DATAGRAM as u64;
        // No more at once than every buffer on the way holds.
        let next = due.min(sent + 64);
        for at in sent..next {
            clients[at as usize % 2].send(target.address(), &[0; DATAGRAM]).await;
        }
        sent = next;
        if u64::from(sent_quietly) < sent / 40 {
            clients[2].send(quiet.address(), &[sent_quietly; DATAGRAM]).await;
            sent_quietly += 1;
        }
        while let Some((_, data)) = target.try_recv() {
            bytes += data.len();
        }
        sleep(Duration::from_millis(5)).await;
    }
    for at in 0..sent_quietly {
        assert_eq!(quiet.recv().await, (clients[2].relayed(), vec![at; DATAGRAM]));
    }
    let passed = r#"hairpin_relay_packets_total{direction="to_peer",transport="udp"}"#;
    let guard = Instant::now() + DEADLINE;
    while scrape(server.http()).await.get(passed) + server.dropped("bandwidth").await
        < (sent + u64::from(sent_quietly)) as f64
    {
        assert!(Instant::now() < guard, "every datagram is relayed or counted");
        sleep(Duration::from_millis(20)).await;
    }
    while let Some((_, data)) = target.try_recv() {
        bytes += data.len();
    }
    let most = CAP as f64 * (begun.elapsed().as_secs_f64() + 2.0);
    assert!(bytes as u64 >= CAP && bytes as f64 <= most, "{bytes} bytes, {most} at most");
    let excess = sent - (bytes / DATAGRAM) as u64;
    assert_eq!(server.dropped("bandwidth").await, excess as f64);
}
