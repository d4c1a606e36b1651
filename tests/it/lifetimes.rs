//! What ends by itself or on request, and what is left of it: nothing.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hairpin::config::Config;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, DEADLINE, Peer, Received};
use super::common::{TestServer, scrape};
use super::relay::loopback;

const LAB: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// A server at an address of the test's own.
fn start(fourth: u8, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(3, fourth), 0)];
        change(config);
    })
}

/// A socket that hears when nobody is at `to`.
fn connected(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Whether the kernel says that nobody is there. On loopback it does so before `send` returns.
fn is_refused(socket: &UdpSocket) -> bool {
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    socket.send(b"anybody?").is_err_and(refused) || socket.recv(&mut [0; 100]).is_err_and(refused)
}

async fn assert_baseline(server: &TestServer) {
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_allocations{transport="udp"}"#), 0.0);
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 0.0);
}

#[tokio::test]
async fn allocation_that_is_not_refreshed_is_gone() {
    let server = start(1, |config| config.turn.limits.default_lifetime = LAB);
    let mut client = Client::new(server.turn());
    let begin = Instant::now();
    let response = client.allocate_with(&[]).await;
    assert_eq!((response.code(), response.lifetime()), (200, 1));
    let probe = connected(client.relayed());
    assert_eq!(client.bind(0x4000, probe.local_addr().unwrap()).await, 200);
    timeout(DEADLINE, async {
        // Traffic does not keep it alive.
        while !is_refused(&probe) {
            sleep(PAUSE).await;
        }
    })
    .await
    .expect("the relay port closes");
    assert!(begin.elapsed() >= LAB, "not earlier than promised");
    assert_eq!(client.permit(probe.local_addr().unwrap()).await, 437);
    // It was heard while it lasted.
    let heard = client.take_waiting();
    let anybody = Received::Channel(0x4000, b"anybody?".to_vec());
    assert!(!heard.is_empty() && heard.iter().all(|heard| *heard == anybody), "{heard:?}");
    assert_eq!(client.refresh(600).await, 437);
    assert_baseline(&server).await;
    assert_eq!(client.allocate().await, 200);
}

/// RFC 8656 §8: a client that has vanished does not cost its user anything for longer.
#[tokio::test]
async fn quota_comes_back_when_an_allocation_expires() {
    let server = start(7, |config| {
        config.net.allocations_per_user = 1;
        config.turn.limits.default_lifetime = LAB;
    });
    let begin = Instant::now();
    let mut vanished = Client::new(server.turn());
    assert_eq!(vanished.allocate().await, 200);
    let mut next = Client::new(server.turn());
    assert_eq!(next.allocate().await, 486);
    let allocated = timeout(DEADLINE, async {
        loop {
            match next.allocate().await {
                486 => sleep(PAUSE).await,
                code => return code,
            }
        }
    });
    assert_eq!(allocated.await.expect("it expires"), 200);
    assert!(begin.elapsed() >= LAB);
}

#[tokio::test]
async fn refreshed_allocation_outlives_its_first_lifetime() {
    let server = start(2, |config| config.turn.limits.default_lifetime = 3 * LAB);
    let mut client = Client::new(server.turn());
    let mut left_alone = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.refresh(600).await, 200);
    assert_eq!(left_alone.allocate().await, 200);
    let probe = connected(left_alone.relayed());
    timeout(DEADLINE, async {
        while !is_refused(&probe) {
            sleep(PAUSE).await;
        }
    })
    .await
    .expect("the younger one ends");
    let peer = Peer::at(loopback(3, 2));
    assert_eq!(client.permit(peer.address()).await, 200);
    client.send(peer.address(), b"still here").await;
    assert_eq!(peer.recv().await, (client.relayed(), b"still here".to_vec()));
}

#[tokio::test]
async fn deleted_allocation_is_gone_when_the_response_arrives() {
    let server = start(3, |_| {});
    assert_baseline(&server).await;
    for _ in 0..50 {
        let mut client = Client::new(server.turn());
        assert_eq!(client.allocate().await, 200);
        let peer = Peer::at(loopback(3, 3));
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        let probe = connected(client.relayed());
        assert!(!is_refused(&probe));
        assert_eq!(client.refresh(0).await, 200);
        assert!(is_refused(&probe), "the port is closed at once");
        assert_eq!(client.permit(peer.address()).await, 437);
        assert_baseline(&server).await;
    }
}

/// One port, two owners in turn, and a peer of the first that never stops sending to it.
#[tokio::test]
async fn next_owner_of_a_port_hears_only_whom_it_permits() {
    const ROUNDS: usize = 1_000;
    /// The only one, so it must be nobody's: none that other tests or the kernel give away.
    const PORT: u16 = 21_437;
    let server = start(8, |config| {
        config.net.relay_ports = PORT..=PORT;
        config.turn.limits.unauthenticated_per_source = 0;
    });
    let ip = server.turn().ip();
    // Permissions are for addresses, so these are two.
    let (noise, wanted) = (Noise::start(ip, SocketAddr::new(ip, PORT)), Peer::at(loopback(3, 9)));
    let mut heard = 0;
    for round in 0..ROUNDS {
        let mut first = Client::new(server.turn());
        assert_eq!(first.allocate().await, 200);
        assert_eq!(first.bind(0x4000, noise.address()).await, 200);
        first.send_channel(0x4000, b"in time").await;
        if round % 2 == 0 {
            // Between two of its datagrams, or before the first of them.
            first.recv().await;
        }
        assert_eq!(first.refresh(0).await, 200);
        heard += first.take_waiting().len();

        let mut next = Client::new(server.turn()).user("bob");
        assert_eq!(next.allocate().await, 200);
        first.send_channel(0x4000, b"too late").await;
        assert_eq!(next.permit(wanted.address()).await, 200);
        wanted.send(next.relayed(), b"welcome").await;
        let welcome = Received::Data(wanted.address(), b"welcome".to_vec());
        assert_eq!(next.recv().await, welcome, "round {round}");
        // The answer leaves after all that the relay has passed on.
        assert_eq!(next.refresh(0).await, 200);
        assert_eq!(next.take_waiting(), [], "round {round}");
        assert!(noise.told().iter().all(|told| told == "in time"), "round {round}");
    }
    assert!(heard > 0, "the noise does get through to whom it is meant for");
    assert!(server.dropped("no_permission").await > 0.0, "and is there for the other");
    noise.stop();
    assert_eq!(server.dropped("panic").await, 0.0);
    assert_baseline(&server).await;
}

/// A peer that sends without end, from a thread of its own.
struct Noise {
    socket: UdpSocket,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Noise {
    fn start(ip: IpAddr, to: SocketAddr) -> Self {
        /// Minutes; a test that fails must not leave it behind.
        const DATAGRAMS: usize = 1_000_000;
        let socket = Peer::at(ip).into_std();
        let sender = socket.try_clone().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for _ in 0..DATAGRAMS {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Nobody is there between two owners.
                let _ = sender.send_to(b"noise", to);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        Self { socket, stopped, thread }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// What it has been told since it was asked last.
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 100];
        std::iter::from_fn(|| {
            self.socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())
        })
        .map(|told| String::from_utf8(told).unwrap())
        .collect()
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn data_sent_just_before_the_end_still_leaves() {
    let server = start(4, |_| {});
    for _ in 0..20 {
        let mut client = Client::new(server.turn());
        assert_eq!(client.allocate().await, 200);
        let peer = Peer::at(loopback(3, 4));
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        for at in 0..8 {
            client.send_channel(0x4000, &[at; 50]).await;
        }
        assert_eq!(client.refresh(0).await, 200);
        for at in 0..8 {
            assert_eq!(peer.recv().await, (client.relayed(), vec![at; 50]));
        }
    }
}

#[tokio::test]
async fn permission_ends_both_ways_while_the_allocation_lives() {
    let server = start(5, |config| config.turn.limits.permission_lifetime = LAB);
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(loopback(3, 5));
    let guard = Instant::now() + DEADLINE;
    // Both grant one: a channel is bound for longer than its permission lives (RFC 8656 §12).
    for grants_by_channel in [false, true] {
        let granted = match grants_by_channel {
            false => client.permit(peer.address()).await,
            true => client.bind(0x4000, peer.address()).await,
        };
        assert_eq!(granted, 200);
        let before = server.dropped("no_permission").await;
        // Sending refreshes nothing.
        while server.dropped("no_permission").await == before {
            assert!(Instant::now() < guard, "the permission ends");
            client.send(peer.address(), b"early").await;
            sleep(PAUSE).await;
        }
        while peer.try_recv().is_some() {}
        let before = server.dropped("no_permission").await;
        client.send(peer.address(), b"late").await;
        peer.send(client.relayed(), b"late").await;
        server.until_dropped("no_permission", before + 2.0).await;
        assert_eq!(peer.try_recv(), None);
    }
    // Nothing of the above may arrive in front of this.
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    peer.send(client.relayed(), b"again").await;
    assert_eq!(client.recv().await, Received::Channel(0x4000, b"again".to_vec()));
}

#[tokio::test]
async fn channel_ends_while_the_permission_lives() {
    let server = start(6, |config| config.turn.limits.channel_lifetime = LAB);
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let (peer, next) = (Peer::at(loopback(3, 6)), Peer::at(loopback(3, 6)));
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let guard = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < guard, "the channel ends");
        peer.send(client.relayed(), b"data").await;
        match client.recv().await {
            Received::Channel(number, _) => assert_eq!(number, 0x4000),
            Received::Data(from, _) => {
                assert_eq!(from, peer.address());
                break;
            }
            Received::Icmp(..) => panic!("the peer is there"),
        }
        sleep(PAUSE).await;
    }
    client.send_channel(0x4000, b"nowhere").await;
    client.send(peer.address(), b"somewhere").await;
    assert_eq!(peer.recv().await, (client.relayed(), b"somewhere".to_vec()));
    assert_eq!(server.dropped("channel_unbound").await, 1.0);
    assert_eq!(client.bind(0x4000, next.address()).await, 200);
    client.send_channel(0x4000, b"to the next").await;
    assert_eq!(next.recv().await, (client.relayed(), b"to the next".to_vec()));
}
