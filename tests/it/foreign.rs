//! Other people's TURN clients against the server.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use turn::client::ClientConfig;
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::{DelayedTransmitBuild, TurnClientApi};
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use webrtc_util::Conn;

use super::client::{DEADLINE, Peer};
use super::common::{TestServer, scrape};
use super::relay::{loopback, server_at};

const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[tokio::test]
async fn webrtc_rs_relays_both_ways() {
    let ip = loopback(6, 1);
    let server = server_at(ip);
    let conn = Arc::new(UdpSocket::bind(SocketAddr::new(ip, 0)).await.unwrap());
    let mapped = conn.local_addr().unwrap();
    let client = turn::client::Client::new(ClientConfig {
        stun_serv_addr: server.turn().to_string(),
        turn_serv_addr: server.turn().to_string(),
        username: "alice".into(),
        password: "secret".into(),
        realm: "localhost".into(),
        software: String::new(),
        rto_in_ms: 0,
        conn,
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    assert_eq!(client.send_binding_request().await.unwrap(), mapped);
    let relay = client.allocate().await.unwrap();
    let relayed = relay.local_addr().unwrap();
    let peer = Peer::at(ip);
    // The client permits with its first datagram, and binds a channel while the others go.
    for at in 0..50_u8 {
        let data = vec![at; 20 * usize::from(at) + 1];
        relay.send_to(&data, peer.address()).await.unwrap();
        assert_eq!(peer.recv().await, (relayed, data.clone()));
        peer.send(relayed, &data).await;
        let mut received = vec![0; 2_000];
        let echo = timeout(DEADLINE, relay.recv_from(&mut received)).await.unwrap();
        let (length, from) = echo.unwrap();
        assert_eq!((from, &received[..length]), (peer.address(), &data[..]));
    }
    relay.close().await.unwrap();
    client.close().await.unwrap();
}

/// The other client has no sockets. This gives it one.
struct Driver {
    client: TurnClientUdp,
    socket: UdpSocket,
    started: Instant,
    received: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Driver {
    async fn new(server: SocketAddr, config: TurnConfig) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).await.unwrap();
        let client = TurnClientUdp::allocate(socket.local_addr().unwrap(), server, config);
        Self { client, socket, started: Instant::now(), received: VecDeque::new() }
    }

    fn now(&self) -> turn_client_proto::stun::Instant {
        turn_client_proto::stun::Instant::from_nanos(self.started.elapsed().as_nanos() as i64)
    }

    /// Sends what is to be sent, and takes in what arrives for a moment.
    async fn step(&mut self) {
        if let TurnPollRet::Closed = self.client.poll(self.now()) {
            return;
        }
        while let Some(transmit) = self.client.poll_transmit(self.now()) {
            self.socket.send_to(&transmit.data, transmit.to).await.unwrap();
        }
        let mut bytes = vec![0; 65_536];
        let moment = Duration::from_millis(10);
        let Ok(received) = timeout(moment, self.socket.recv_from(&mut bytes)).await else {
            return;
        };
        let (length, from) = received.unwrap();
        bytes.truncate(length);
        let to = self.socket.local_addr().unwrap();
        let transmit = Transmit::new(bytes, TransportType::Udp, from, to);
        match self.client.recv(transmit, self.now()) {
            TurnRecvRet::Handled => {}
            TurnRecvRet::PeerData(data) => {
                self.received.push_back((data.peer, data.data().to_vec()));
            }
            other => panic!("the client has no use for {other:?}"),
        }
    }

    async fn event(&mut self) -> TurnEvent {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            self.step().await;
        }
        panic!("nothing happens");
    }

    async fn relayed(&mut self) -> SocketAddr {
        match self.event().await {
            TurnEvent::AllocationCreated(TransportType::Udp, relayed) => relayed,
            other => panic!("no allocation but {other:?}"),
        }
    }

    async fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        let transmit = self.client.send_to(TransportType::Udp, peer, data, now).unwrap();
        if let Some(transmit) = transmit {
            let to = transmit.to;
            self.socket.send_to(&transmit.data.build(), to).await.unwrap();
        }
    }

    async fn recv(&mut self) -> (SocketAddr, Vec<u8>) {
        let deadline = Instant::now() + DEADLINE;
        while self.received.is_empty() {
            assert!(Instant::now() < deadline, "something from the peer");
            self.step().await;
        }
        self.received.pop_front().unwrap()
    }

    async fn echo(&mut self, relayed: SocketAddr, peer: &Peer) {
        for size in [0, 1, 3, 1_200, 9_000] {
            let data = vec![size as u8; size];
            self.send(peer.address(), &data).await;
            assert_eq!(peer.recv().await, (relayed, data.clone()));
            peer.send(relayed, &data).await;
            assert_eq!(self.recv().await, (peer.address(), data));
        }
    }
}

/// Signs with SHA-256 where the server offers it. Left to its default, the client answers that
/// offer with a signature of SHA-1, against RFC 8489 §9.2.5, and ignores responses that are signed
/// as RFC 8489 §9.2.4 demands.
fn config() -> TurnConfig {
    let mut config = TurnConfig::new(TurnCredentials::new("alice", "secret"));
    config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    config
}

/// Allocates, permits, binds, relays before and after the channel, and deletes.
async fn whole_session(server: TestServer, config: TurnConfig) {
    let ip = server.turn().ip();
    let mut driver = Driver::new(server.turn(), config).await;
    let relayed = driver.relayed().await;
    assert_eq!(relayed.ip(), ip);
    let peer = Peer::at(ip);
    let now = driver.now();
    driver.client.create_permission(TransportType::Udp, ip, now).unwrap();
    assert!(matches!(driver.event().await, TurnEvent::PermissionCreated(_, of) if of == ip));
    driver.echo(relayed, &peer).await;
    let now = driver.now();
    driver.client.bind_channel(TransportType::Udp, peer.address(), now).unwrap();
    let event = driver.event().await;
    assert!(matches!(event, TurnEvent::ChannelCreated(_, to) if to == peer.address()), "{event:?}");
    driver.echo(relayed, &peer).await;
    let now = driver.now();
    driver.client.delete(now).unwrap();
    let gone = r#"hairpin_allocations{transport="udp"}"#;
    let deadline = Instant::now() + DEADLINE;
    while scrape(server.http()).await.get(gone) != 0.0 {
        assert!(Instant::now() < deadline, "the allocation goes");
        driver.step().await;
    }
}

#[tokio::test]
async fn librice_relays_over_ipv4() {
    whole_session(server_at(loopback(6, 2)), config()).await;
}

#[tokio::test]
async fn librice_relays_over_ipv6() {
    let mut config = config();
    config.set_address_family(AddressFamily::IPV6);
    whole_session(server_at(IPV6), config).await;
}

/// It can do nothing but SHA-1, and is not offered anything else.
#[tokio::test]
async fn librice_signs_with_sha1() {
    let mut config = TurnConfig::new(TurnCredentials::new("alice", "secret"));
    config.set_supported_integrity(IntegrityAlgorithm::Sha1);
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(6, 3), 0)];
        config.turn.auth.sha256 = false;
    });
    whole_session(server, config).await;
}
