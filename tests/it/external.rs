//! Behind 1:1 NAT: the relayed address is what peers see, and what is ours stays inside. The tests
//! are the NAT: what goes to the external address they bring to the local one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::external::{self, Known};
use hairpin::server::Running;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::client::{Client, DEADLINE, Peer, Received};
use super::common::TestServer;
use super::relay::loopback;

/// Documentation addresses, which no packet ever reaches.
const EXTERNAL: &str = "203.0.113.4";
const EXTERNAL6: &str = "2001:db8::4";

fn external(known: &[(&str, Option<IpAddr>)]) -> external::Config {
    let known = known
        .iter()
        .map(|&(external, local)| Known { external: external.parse().unwrap(), local })
        .collect();
    external::Config { known, ..external::Config::default() }
}

async fn client(server: SocketAddr) -> Client {
    let mut client = Client::new(server);
    assert_eq!(client.allocate().await, 200);
    client
}

#[tokio::test]
async fn relayed_address_is_the_external_one_of_its_family() {
    let server = TestServer::start(|config| {
        let local = [loopback(3, 1), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        config.net.listen = local.map(|ip| SocketAddr::new(ip, 0)).into();
        config.net.external = external(&[(EXTERNAL, Some(local[0])), (EXTERNAL6, None)]);
    });
    for (&listening, shown) in server.listening().iter().zip([EXTERNAL, EXTERNAL6]) {
        let mut client = client(listening).await;
        assert_eq!(client.relayed().ip().to_string(), shown);
        let peer = Peer::at(listening.ip());
        assert_eq!(client.permit(peer.address()).await, 200);
        client.send(peer.address(), b"out").await;
        let inside = SocketAddr::new(listening.ip(), client.relayed().port());
        assert_eq!(peer.recv().await, (inside, b"out".to_vec()), "the NAT has not seen it yet");
        peer.send(inside, b"in").await;
        assert_eq!(client.recv().await, Received::Data(peer.address(), b"in".to_vec()));
    }
}

#[tokio::test]
async fn clients_meet_at_their_external_addresses_inside_the_process() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(3, 2), 0)];
        config.net.external = external(&[(EXTERNAL, None)]);
    });
    let mut one = client(server.turn()).await;
    // Enough for both shards.
    for at in 0..8u16 {
        let mut other = client(server.turn()).await;
        assert_eq!(one.permit(other.relayed()).await, 200);
        assert_eq!(other.bind(0x4000, one.relayed()).await, 200);
        one.send(other.relayed(), &at.to_be_bytes()).await;
        assert_eq!(other.recv().await, Received::Channel(0x4000, at.to_be_bytes().to_vec()));
        other.send_channel(0x4000, b"back").await;
        assert_eq!(one.recv().await, Received::Data(other.relayed(), b"back".to_vec()));
    }
}

#[tokio::test]
async fn own_external_address_is_refused_like_the_local_one() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(3, 3), 0)];
        config.net.external = external(&[(EXTERNAL, None)]);
        config.turn.policy.allow.clear();
    });
    let port = server.turn().port();
    let mut client = client(server.turn()).await;
    let at = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
    for own in [at(EXTERNAL, port), at(EXTERNAL, 22), server.turn(), at("127.0.3.3", 50_000)] {
        assert_eq!(client.bind(0x4000, own).await, 403, "{own}");
    }
    assert_eq!(client.permit(at(EXTERNAL, port)).await, 403, "a listener");
    // A relayed address that nobody holds: admitted, since somebody may hold it soon, but nothing
    // ever leaves for it.
    let nobody = match client.relayed().port() {
        50_000 => 50_001,
        _ => 50_000,
    };
    assert_eq!(client.bind(0x4001, at(EXTERNAL, nobody)).await, 200);
    let before = server.dropped("no_allocation").await;
    client.send_channel(0x4001, b"hello").await;
    server.until_dropped("no_allocation", before + 1.0).await;
}

/// Answers each Binding request with XOR-MAPPED-ADDRESS `shown`, as a STUN server beyond a NAT.
async fn answer(socket: &UdpSocket, shown: [u8; 4]) {
    let mut bytes = [0; 1500];
    let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
    assert_eq!((length, &bytes[..2]), (20, &[0, 1][..]), "a bare Binding request");
    let [p0, p1] = from.port().to_be_bytes();
    let mut response = vec![1, 1, 0, 12];
    response.extend(&bytes[4..20]);
    response.extend([0, 0x20, 0, 8, 0, 1, p0 ^ 0x21, p1 ^ 0x12]);
    response.extend(shown.iter().zip([0x21, 0x12, 0xA4, 0x42]).map(|(byte, mask)| byte ^ mask));
    socket.send_to(&response, from).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn external_address_is_asked_for_and_followed_when_it_changes() {
    let stun = UdpSocket::bind((loopback(3, 9), 0)).await.unwrap();
    let address = stun.local_addr().unwrap();
    let first = tokio::spawn(async move {
        answer(&stun, [203, 0, 113, 4]).await;
        stun
    });
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(3, 4), 0)];
        config.net.allocations_per_user = 0;
        config.net.external = external::Config {
            stun: Some(address.to_string()),
            ask_again: Duration::from_millis(100),
            ..external::Config::default()
        };
    });
    let stun = first.await.unwrap();
    let before = client(server.turn()).await;
    assert_eq!(before.relayed().ip().to_string(), EXTERNAL);
    let answering = tokio::spawn(async move {
        loop {
            answer(&stun, [203, 0, 113, 7]).await;
        }
    });
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = client(server.turn()).await;
        if now.relayed().ip().to_string() == "203.0.113.7" {
            break;
        }
        assert!(Instant::now() < deadline, "still {}", now.relayed());
        sleep(Duration::from_millis(50)).await;
    }
    // Two that were allocated since meet, as soon as their shards have looked.
    let deadline = deadline + DEADLINE;
    let (mut one, mut other) = (client(server.turn()).await, client(server.turn()).await);
    loop {
        let permitted = [one.permit(other.relayed()).await, other.permit(one.relayed()).await];
        if permitted == [200, 200] {
            one.send(other.relayed(), b"hello").await;
            let until = Instant::now() + Duration::from_millis(200);
            if other.recv_raw(until).await.is_some() {
                break;
            }
        }
        assert!(Instant::now() < deadline, "{permitted:?}");
        sleep(Duration::from_millis(100)).await;
    }
    answering.abort();
}

/// Starts a server with two relay addresses, while a STUN server says what each of them looks like.
async fn asking_for_two(test: u8, shown: [[u8; 4]; 2]) -> Result<(Running, [IpAddr; 2]), String> {
    let stun = UdpSocket::bind((loopback(3, 9), 0)).await.unwrap();
    let address = stun.local_addr().unwrap();
    let locals = [loopback(3, test), loopback(3, test + 1)];
    let started = tokio::task::spawn_blocking(move || {
        let mut config = Config::dev();
        config.net.listen = vec![SocketAddr::new(locals[0], 0)];
        config.net.relay_addresses = locals.into();
        config.turn.auth.users = [("alice".into(), "secret".into())].into();
        config.http.listen.clear();
        config.net.external.stun = Some(address.to_string());
        Running::start(&config).map_err(|error| error.to_string())
    });
    for shown in shown {
        answer(&stun, shown).await;
    }
    let started = started.await.unwrap();
    started.map_err(|error| error.replace(&address.to_string(), "STUN")).map(|it| (it, locals))
}

#[tokio::test]
async fn external_address_is_asked_for_each_relay_address() {
    let (server, locals) = asking_for_two(20, [[203, 0, 113, 4], [203, 0, 113, 5]]).await.unwrap();
    let turn = server.addresses().listen[0];
    let peer = Peer::at(locals[0]);
    for (local, external) in locals.into_iter().zip([EXTERNAL, "203.0.113.5"]) {
        let mut client = Client::new(turn);
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.relayed().ip().to_string(), external);
        assert_eq!(client.permit(peer.address()).await, 200);
        client.send(peer.address(), b"out").await;
        let inside = SocketAddr::new(local, client.relayed().port());
        assert_eq!(peer.recv().await, (inside, b"out".to_vec()));
    }
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
}

/// What peers send to the one could not be told from what they send to the other.
#[tokio::test]
async fn two_relay_addresses_that_look_alike_from_outside_are_refused() {
    let error = asking_for_two(22, [[203, 0, 113, 4]; 2]).await.unwrap_err();
    assert_eq!(
        error,
        "relay.external: cannot learn the external address of 127.0.3.23 from STUN: it says \
         203.0.113.4, as for 127.0.3.22"
    );
}

#[tokio::test]
async fn without_an_answer_the_server_does_not_start() {
    // Nobody reads there.
    let silent = UdpSocket::bind((loopback(3, 9), 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let error = tokio::task::spawn_blocking(move || {
        let mut config = Config::dev();
        config.net.listen = vec![SocketAddr::new(loopback(3, 5), 0)];
        config.http.listen.clear();
        config.net.external.stun = Some(address.to_string());
        Running::start(&config).unwrap_err().to_string()
    });
    let expected = format!(
        "relay.external: cannot learn the external address of 127.0.3.5 from {address}: no answer"
    );
    assert_eq!(error.await.unwrap(), expected);
}

/// A private address of a family that does not reach the STUN server is no reason not to serve the
/// other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_for_one_family_is_enough_to_start() {
    let stun = UdpSocket::bind((loopback(3, 9), 0)).await.unwrap();
    let address = stun.local_addr().unwrap();
    let answering = tokio::spawn(async move { answer(&stun, [203, 0, 113, 4]).await });
    let ipv6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
    let server = TestServer::start(|config| {
        config.net.listen = [loopback(3, 6), ipv6].map(|ip| SocketAddr::new(ip, 0)).into();
        config.net.external.stun = Some(address.to_string());
    });
    answering.await.unwrap();
    for (&listening, shown) in server.listening().iter().zip([EXTERNAL, "::1"]) {
        assert_eq!(client(listening).await.relayed().ip().to_string(), shown);
    }
}
