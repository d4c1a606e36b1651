//! Relaying over TCP (RFC 6062) with real connections, on one shard and on several, where the
//! client's connections land on any of them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::external::Known;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::client::{CONNECTION_BIND, Client, DEADLINE, connection_id};
use super::common::{Metrics, scrape};
use super::relay::loopback;
use super::stream::Stream;
use super::tls::Tls;

const LIVE: &str = "hairpin_peer_connections";
/// Enough to fill every buffer on the way.
const VOLUME: usize = 8 << 20;
/// What is written at once where it does not matter: a whole record of TLS.
const PORTION: usize = 16_384;

/// How the client's connections reach the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Tcp,
    Tls,
}

/// A server at an address of the test's own, with as many shards.
struct World {
    tls: Tls,
    over: Over,
}

impl World {
    /// The addresses `fourth` of one test are no other test's.
    fn start(fourth: u8, threads: usize, over: Over, change: impl FnOnce(&mut Config)) -> Self {
        let tls = Tls::start(fourth, |config| {
            config.net.threads = threads;
            change(config);
        });
        Self { tls, over }
    }

    fn simple(fourth: u8) -> Self {
        Self::start(fourth, 2, Over::Tcp, |_| {})
    }

    async fn client(&self) -> Client {
        match self.over {
            Over::Tcp => Client::tcp(self.tls.server.turn()).await,
            Over::Tls => self.tls.any_client().await,
        }
    }

    async fn allocated(&self) -> Client {
        let mut client = self.client().await;
        assert_eq!(client.allocate_tcp().await, 200);
        client
    }

    /// The data connection for a name, and what came behind the answer.
    async fn bound_early(&self, connection: u32) -> (Box<dyn Stream>, Vec<u8>) {
        let mut client = self.client().await;
        assert_eq!(client.bind_connection(connection).await, 200);
        client.into_stream()
    }

    /// The data connection for a name.
    async fn bound(&self, connection: u32) -> Box<dyn Stream> {
        let (stream, early) = self.bound_early(connection).await;
        assert!(early.is_empty(), "nothing has been sent yet");
        stream
    }

    /// A client's end and a peer's, connected by the client.
    async fn pair(&self, client: &mut Client) -> (Box<dyn Stream>, TcpStream) {
        let listener = listener().await;
        let connected = client.connect(listener.local_addr().unwrap()).await;
        assert_eq!(connected.code(), 200);
        let (peer, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.relayed(), "RFC 6062 §5.2: from the relayed address");
        (self.bound(connected.connection()).await, peer)
    }

    async fn metrics(&self) -> Metrics {
        scrape(self.tls.server.http()).await
    }

    /// Waits until so many connections with peers are left.
    async fn until_live(&self, count: f64) {
        let reached = async {
            while self.metrics().await.get(LIVE) != count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, reached).await.expect("so many connections");
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind((loopback(7, 1), 0)).await.unwrap()
}

/// Bytes of which no two portions are alike.
fn data(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(3 * DEADLINE, what).await.expect("in time")
}

/// The next byte, the end (`Ok(None)`) or the error.
async fn next(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<u8>> {
    let mut byte = [0];
    match within(stream.read(&mut byte)).await? {
        0 => Ok(None),
        _ => Ok(Some(byte[0])),
    }
}

/// Over TLS, each portion is a record.
async fn send<S: Stream>(mut to: WriteHalf<S>, bytes: Vec<u8>, portion: usize) -> WriteHalf<S> {
    for portion in bytes.chunks(portion) {
        to.write_all(portion).await.unwrap();
    }
    to.flush().await.unwrap();
    to
}

async fn expect<S: Stream>(mut from: ReadHalf<S>, bytes: &[u8]) -> ReadHalf<S> {
    let mut read = vec![0; bytes.len()];
    within(from.read_exact(&mut read)).await.unwrap();
    assert!(read == bytes, "the very bytes, in order");
    from
}

/// Both ways at once, each way ended behind its last byte, and seen to end.
async fn exchange(client: Box<dyn Stream>, peer: TcpStream, portion: usize) {
    let (up, down) = (data(VOLUME, 11), data(VOLUME + 77, 5));
    let (from_server, to_server) = tokio::io::split(client);
    let (from_relay, to_relay) = tokio::io::split(peer);
    let sending = tokio::spawn(send(to_server, up.clone(), portion));
    let answering = tokio::spawn(send(to_relay, down.clone(), portion));
    let (mut at_peer, mut at_client) =
        tokio::join!(expect(from_relay, &up), expect(from_server, &down));
    let (mut to_server, mut to_relay) = (sending.await.unwrap(), answering.await.unwrap());
    to_server.shutdown().await.unwrap();
    assert_eq!(next(&mut at_peer).await.unwrap(), None);
    to_relay.shutdown().await.unwrap();
    assert_eq!(next(&mut at_client).await.unwrap(), None);
}

#[tokio::test]
async fn connections_carry_data_both_ways_on_any_shard() {
    for (fourth, threads, over) in
        [(61, 1, Over::Tcp), (62, 4, Over::Tcp), (63, 1, Over::Tls), (64, 3, Over::Tls)]
    {
        let world = World::start(fourth, threads, over, |_| {});
        let mut client = world.allocated().await;
        // Records that fill what is read at once, and others of which the last one is cut.
        for portion in [16_384, 8_000, 1_400] {
            let (stream, peer) = world.pair(&mut client).await;
            exchange(stream, peer, portion).await;
        }
        world.until_live(0.0).await;
        // While the allocation lives, and to which transport they belong.
        let label = if over == Over::Tcp { "tcp" } else { "tls" };
        let metrics = world.metrics().await;
        for (direction, volume) in [("to_peer", VOLUME), ("to_client", VOLUME + 77)] {
            let labels = format!(r#"{{direction="{direction}",transport="{label}"}}"#);
            let bytes = metrics.get(&format!("hairpin_relay_bytes_total{labels}"));
            assert_eq!(bytes, (3 * volume) as f64, "{direction}");
            let reads = metrics.get(&format!("hairpin_relay_packets_total{labels}"));
            assert!(reads >= bytes / 65_536.0 && reads < bytes, "{reads} reads");
        }
        assert_eq!(metrics.get("hairpin_allocation_relayed_bytes_sum"), 0.0);
        assert_eq!(client.refresh(0).await, 200);
        let relayed = world.metrics().await.get("hairpin_allocation_relayed_bytes_sum");
        assert_eq!(relayed, (6 * VOLUME + 3 * 77) as f64);
    }
}

#[tokio::test]
async fn permitted_peers_are_announced_and_carried() {
    let world = World::start(65, 4, Over::Tcp, |_| {});
    let mut client = world.allocated().await;
    for _ in 0..8 {
        let relayed = client.relayed();
        assert_eq!(client.permit((loopback(7, 2), 1).into()).await, 200);
        let mut peer = connect_from(loopback(7, 2), relayed).await;
        // Before anybody is there to read it.
        peer.write_all(b"early, ").await.unwrap();
        let attempt = client.attempt().await;
        assert_eq!(attempt.peer(), peer.local_addr().unwrap());
        peer.write_all(b"less early, ").await.unwrap();
        let (stream, early) = world.bound_early(attempt.connection()).await;
        peer.write_all(b"late").await.unwrap();
        let (from_server, _to_server) = tokio::io::split(stream);
        let all = b"early, less early, late";
        assert!(all.starts_with(&early));
        expect(from_server, &all[early.len()..]).await;
    }
}

async fn connect_from(ip: std::net::IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn peers_without_a_permission_are_closed_at_once() {
    let world = World::simple(66);
    let mut client = world.allocated().await;
    for _ in 0..300 {
        let mut peer = connect_from(loopback(7, 3), client.relayed()).await;
        assert_eq!(next(&mut peer).await.unwrap_or(None), None);
    }
    let metrics = world.metrics().await;
    let dropped = metrics.get(r#"hairpin_dropped_packets_total{reason="no_permission"}"#);
    assert_eq!((dropped, metrics.get(LIVE)), (300.0, 0.0));
    // Nobody told the client: the next thing it hears is about one that is permitted.
    assert_eq!(client.permit((loopback(7, 4), 1).into()).await, 200);
    let peer = connect_from(loopback(7, 4), client.relayed()).await;
    assert_eq!(client.attempt().await.peer(), peer.local_addr().unwrap());
}

#[tokio::test]
async fn closed_port_is_447_quickly_and_a_silent_one_after_the_deadline() {
    let world = World::start(67, 2, Over::Tcp, |config| {
        config.turn.limits.connect_deadline = Duration::from_secs(3);
    });
    let mut client = world.allocated().await;
    let begun = Instant::now();
    for _ in 0..20 {
        let nobody = listener().await.local_addr().unwrap();
        assert_eq!(client.connect(nobody).await.code(), 447);
    }
    assert!(begun.elapsed() < DEADLINE);
    // The kernel answers no SYN where the queue of a listener is full.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind((loopback(7, 5), 0).into()).unwrap();
    let silent = silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        queued.push(stream);
    }
    let begun = Instant::now();
    let peer = |message: &[u8]| vec![(0x012, super::client::xor_address(message, address))];
    let request = client.signed(super::client::CONNECT, peer);
    client.send_raw(&request).await;
    // Everything else goes on meanwhile.
    for _ in 0..20 {
        assert_eq!(client.mapped().await, client.local());
    }
    assert_eq!(client.connect(address).await.code(), 446);
    let (stream, live) = world.pair(&mut client).await;
    assert_eq!(world.metrics().await.get(LIVE), 2.0);
    drop((stream, live));
    assert!(begun.elapsed() < Duration::from_secs(3), "the deadline is yet to come");
    let answer = client.recv_raw(Instant::now() + DEADLINE).await.expect("an answer");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(answer[8..20], request[8..20]);
    assert_eq!(super::client::code_of(answer), 447);
}

#[tokio::test]
async fn connection_that_nobody_binds_is_closed() {
    let world = World::start(68, 2, Over::Tcp, |config| {
        config.turn.limits.unbound_lifetime = Duration::from_secs(2);
    });
    let mut client = world.allocated().await;
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let begun = Instant::now();
    let connected = client.connect(address).await;
    let (mut outgoing, _) = listener.accept().await.unwrap();
    assert_eq!(client.permit((loopback(7, 6), 1).into()).await, 200);
    let mut incoming = connect_from(loopback(7, 6), client.relayed()).await;
    let attempt = client.attempt().await;
    assert_eq!(client.connect(address).await.code(), 446, "it waits");
    assert_eq!(next(&mut outgoing).await.unwrap(), None, "a FIN");
    assert_eq!(next(&mut incoming).await.unwrap(), None, "a FIN");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    for connection in [connected.connection(), attempt.connection()] {
        assert_eq!(world.client().await.bind_connection(connection).await, 400);
    }
    world.until_live(0.0).await;
    drop((outgoing, incoming));
    // The server has closed first, so its kernel keeps the pair of addresses for a second yet.
    let guard = Instant::now() + DEADLINE;
    let mut again = client.connect(address).await;
    while again.code() == 447 && Instant::now() < guard {
        sleep(Duration::from_millis(100)).await;
        again = client.connect(address).await;
    }
    assert_eq!(again.code(), 200);
    // One that is bound in time stays.
    let mut stream = world.bound(again.connection()).await;
    let (mut peer, _) = listener.accept().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    peer.write_all(b"x").await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), Some(b'x'));
}

#[tokio::test]
async fn only_the_user_of_the_allocation_binds_and_only_once() {
    let world = World::start(69, 4, Over::Tcp, |_| {});
    let mut client = world.allocated().await;
    let listener = listener().await;
    for _ in 0..6 {
        let connected = client.connect(listener.local_addr().unwrap()).await;
        let name = connected.connection();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut bob = world.client().await.user("bob");
        assert_eq!(bob.bind_connection(name).await, 441);
        assert_eq!(bob.bind_connection(name.wrapping_add(1)).await, 400);
        assert_eq!(bob.mapped().await, bob.local(), "still a connection of messages");
        assert_eq!(client.bind_connection(name).await, 400, "the control connection");
        let mut datagrams = Client::new(world.tls.server.turn());
        assert_eq!(datagrams.bind_connection(name).await, 400, "over UDP");
        let mut stream = world.bound(name).await;
        assert_eq!(world.client().await.bind_connection(name).await, 400, "used");
        stream.write_all(b"x").await.unwrap();
        assert_eq!(next(&mut peer).await.unwrap(), Some(b'x'));
        drop((stream, peer));
        world.until_live(0.0).await;
    }
}

#[tokio::test]
async fn after_the_bind_nothing_is_a_message() {
    for (fourth, over) in [(70, Over::Tcp), (71, Over::Tls)] {
        let world = World::start(fourth, 2, over, |_| {});
        let mut client = world.allocated().await;
        let listener = listener().await;
        let connected = client.connect(listener.local_addr().unwrap()).await;
        let (peer, _) = listener.accept().await.unwrap();
        let mut binding = world.client().await;
        assert_eq!(binding.bind_connection(0).await, 400, "for the nonce");
        let id = connection_id(connected.connection());
        let request = binding.signed(CONNECTION_BIND, |_| vec![id.clone()]);
        // What follows looks like messages, and then like nothing at all.
        let data = [super::client::binding_request(), vec![0x40, 0, 0, 9, 1], data(100_000, 3)];
        let data = data.concat();
        binding.send_bytes(&[&request[..], &data[..70_000]].concat()).await;
        let answer = binding.recv_raw(Instant::now() + DEADLINE).await.unwrap();
        assert_eq!(super::client::code_of(answer), 200);
        binding.send_bytes(&data[70_000..]).await;
        let (from_relay, mut to_relay) = tokio::io::split(peer);
        expect(from_relay, &data).await;
        let (stream, early) = binding.into_stream();
        assert!(early.is_empty(), "and nothing is answered");
        to_relay.write_all(&data).await.unwrap();
        let (from_server, _to_server) = tokio::io::split(stream);
        expect(from_server, &data).await;
    }
}

/// RFC 6062 §3: who is not read from stops being read from, in either direction.
#[tokio::test]
async fn slow_reader_stops_the_writer_and_loses_nothing() {
    const ENDLESS: usize = 64 << 20;
    for (fourth, over) in [(72, Over::Tcp), (73, Over::Tls)] {
        let world = World::start(fourth, 2, over, |_| {});
        let mut client = world.allocated().await;
        let (stream, peer) = world.pair(&mut client).await;
        let (from_server, to_server) = tokio::io::split(stream);
        let (from_relay, to_relay) = tokio::io::split(peer);
        let all = data(ENDLESS, 9);
        let (to_server, sent_up) = send_until_stuck(to_server, &all).await;
        let (to_relay, sent_down) = send_until_stuck(to_relay, &all).await;
        for sent in [sent_up, sent_down] {
            // What the kernel holds at both ends of both connections; the server holds a portion.
            assert!((100_000..40 << 20).contains(&sent), "{sent} bytes are on their way");
        }
        let (up, down) = (all[sent_up..].to_vec(), all[sent_down..].to_vec());
        let sending = (
            tokio::spawn(send(to_server, up, PORTION)),
            tokio::spawn(send(to_relay, down, PORTION)),
        );
        tokio::join!(expect(from_relay, &all), expect(from_server, &all));
        sending.0.await.unwrap();
        sending.1.await.unwrap();
    }
}

/// Writes until nothing more is taken for a second; returns how much was.
async fn send_until_stuck<S: Stream>(mut to: WriteHalf<S>, bytes: &[u8]) -> (WriteHalf<S>, usize) {
    let mut sent = 0;
    while sent < bytes.len() {
        let portion = &bytes[sent..bytes.len().min(sent + 16_384)];
        match timeout(Duration::from_secs(1), to.write(portion)).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
    }
    (to, sent)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for (fourth, over) in [(74, Over::Tcp), (75, Over::Tls)] {
        let world = World::start(fourth, 2, over, |_| {});
        let mut client = world.allocated().await;
        let all = data(VOLUME, 21);
        // The client has said all it has to say; the peer goes on.
        let (mut stream, mut peer) = world.pair(&mut client).await;
        stream.write_all(b"over").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        within(peer.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "over");
        let (from_server, _to_server) = tokio::io::split(stream);
        let (_from_relay, to_relay) = tokio::io::split(peer);
        let sending = tokio::spawn(send(to_relay, all.clone(), PORTION));
        let mut at_client = expect(from_server, &all).await;
        sending.await.unwrap().shutdown().await.unwrap();
        assert_eq!(next(&mut at_client).await.unwrap(), None);
        world.until_live(0.0).await;
        // The other way round.
        let (stream, mut peer) = world.pair(&mut client).await;
        peer.write_all(b"over").await.unwrap();
        peer.shutdown().await.unwrap();
        let (from_server, to_server) = tokio::io::split(stream);
        let mut at_client = expect(from_server, b"over").await;
        assert_eq!(next(&mut at_client).await.unwrap(), None);
        let (from_relay, _to_relay) = tokio::io::split(peer);
        let sending = tokio::spawn(send(to_server, all.clone(), PORTION));
        let mut at_peer = expect(from_relay, &all).await;
        sending.await.unwrap().shutdown().await.unwrap();
        assert_eq!(next(&mut at_peer).await.unwrap(), None);
        world.until_live(0.0).await;
    }
}

#[tokio::test]
async fn reset_of_the_peer_is_a_reset_for_the_client() {
    let world = World::simple(76);
    let mut client = world.allocated().await;
    for reads in [true, false] {
        let (mut stream, peer) = world.pair(&mut client).await;
        if !reads {
            // Whoever does not read hears of it all the same.
            let (from_server, to_server) = tokio::io::split(stream);
            let (to_server, _) = send_until_stuck(to_server, &data(64 << 20, 1)).await;
            stream = from_server.unsplit(to_server);
        }
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let error = next(&mut stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        world.until_live(0.0).await;
    }
}

#[tokio::test]
async fn reset_of_the_client_is_a_reset_for_the_peer() {
    let world = World::simple(77);
    let mut client = world.allocated().await;
    let listener = listener().await;
    for half_closed in [false, true] {
        let connected = client.connect(listener.local_addr().unwrap()).await;
        let (mut peer, _) = listener.accept().await.unwrap();
        // A connection of its own, to keep hold of its socket.
        let tcp = std::net::TcpStream::connect(world.tls.server.turn()).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let socket = tcp.try_clone().unwrap();
        let tcp = TcpStream::from_std(tcp).unwrap();
        let local = tcp.local_addr().unwrap();
        let mut binding = Client::over(tcp, local, world.tls.server.turn());
        assert_eq!(binding.bind_connection(connected.connection()).await, 200);
        let (mut stream, _) = binding.into_stream();
        if half_closed {
            stream.shutdown().await.unwrap();
            assert_eq!(next(&mut peer).await.unwrap(), None);
        }
        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop((stream, socket));
        if half_closed {
            // The end has been read already; what is left to see is that nothing can be sent.
            let fails = async {
                while peer.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            within(fails).await;
        } else {
            let error = next(&mut peer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        world.until_live(0.0).await;
    }
}

/// RFC 6062 §5.5: on whichever shard the data connections are.
#[tokio::test]
async fn connections_end_with_their_allocation() {
    let world = World::start(78, 4, Over::Tcp, |_| {});
    for deleted in [true, false] {
        let mut client = world.allocated().await;
        let mut pairs = Vec::new();
        for _ in 0..8 {
            pairs.push(world.pair(&mut client).await);
        }
        let listener = listener().await;
        assert_eq!(client.connect(listener.local_addr().unwrap()).await.code(), 200);
        let (mut unbound, _) = listener.accept().await.unwrap();
        world.until_live(9.0).await;
        if deleted {
            assert_eq!(client.refresh(0).await, 200);
        }
        let mut control = Some(client).filter(|_| deleted);
        for (mut stream, mut peer) in pairs {
            assert!(next(&mut stream).await.unwrap_or(None).is_none());
            assert!(next(&mut peer).await.unwrap_or(None).is_none());
        }
        assert_eq!(next(&mut unbound).await.unwrap_or(None), None);
        if let Some(client) = &mut control {
            assert_eq!(client.mapped().await, client.local(), "the control connection stays");
        }
        world.until_live(0.0).await;
    }
    let ended = async {
        while world.metrics().await.get(r#"hairpin_relay_ports{state="used"}"#) > 0.0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(ended).await;
}

/// RFC 6062 §5.5: by itself too
#[tokio::test]
async fn connections_end_when_their_allocation_expires() {
    let world = World::start(84, 4, Over::Tcp, |config| {
        config.turn.limits.default_lifetime = Duration::from_secs(2);
    });
    let mut client = world.allocated().await;
    let mut pairs = Vec::new();
    for _ in 0..4 {
        pairs.push(world.pair(&mut client).await);
    }
    for (stream, peer) in &mut pairs {
        assert!(within(next(stream)).await.unwrap_or(None).is_none());
        assert!(within(next(peer)).await.unwrap_or(None).is_none());
    }
    world.until_live(0.0).await;
    assert_eq!(client.mapped().await, client.local(), "the control connection stays");
    assert_eq!(client.refresh(600).await, 437);
}

#[tokio::test]
async fn clients_of_one_server_connect_to_each_other() {
    // Loopback is nobody's peer but for relayed addresses.
    let world = World::start(79, 3, Over::Tcp, |config| config.turn.policy.allow.clear());
    meet(&world).await;
}

#[tokio::test]
async fn clients_behind_one_nat_connect_to_each_other_at_their_external_addresses() {
    let external: std::net::IpAddr = "203.0.113.4".parse().unwrap();
    let world = World::start(94, 3, Over::Tcp, |config| {
        config.turn.policy.allow.clear();
        config.net.external.known = vec![Known { external, local: None }];
    });
    assert_eq!(world.allocated().await.relayed().ip(), external);
    meet(&world).await;
}

/// Pairs of clients connect to each other, on any shards.
async fn meet(world: &World) {
    for _ in 0..4 {
        let (mut first, mut second) = (world.allocated().await, world.allocated().await);
        assert_eq!(second.permit(first.relayed()).await, 200);
        let connected = first.connect(second.relayed()).await;
        assert_eq!(connected.code(), 200);
        let attempt = second.attempt().await;
        assert_eq!(attempt.peer(), first.relayed());
        assert_eq!(second.connect(first.relayed()).await.code(), 446, "the same connection");
        let (from_first, mut to_first) =
            tokio::io::split(world.bound(connected.connection()).await);
        let (from_second, mut to_second) =
            tokio::io::split(world.bound(attempt.connection()).await);
        to_first.write_all(b"ping").await.unwrap();
        expect(from_second, b"ping").await;
        to_second.write_all(b"pong").await.unwrap();
        expect(from_first, b"pong").await;
    }
}

/// What else listens on a port of the relay range is no peer, whoever holds the port.
#[tokio::test]
async fn own_addresses_are_peers_only_where_somebody_relays_over_tcp() {
    let own = loopback(6, 80);
    let ports = 21_000..=21_031;
    let world = World::start(80, 2, Over::Tcp, |config| {
        config.turn.policy.allow.clear();
        config.net.relay_ports = ports.clone();
    });
    let others: Vec<_> = ports
        .clone()
        .step_by(2)
        .filter_map(|port| std::net::TcpListener::bind((own, port)).ok())
        .collect();
    assert!(others.len() > 8);
    let mut client = world.allocated().await;
    let mut datagrams = Vec::new();
    for _ in 0..8 {
        datagrams.push(Client::new(world.tls.server.turn()));
        assert_eq!(datagrams.last_mut().unwrap().allocate().await, 200);
    }
    for other in &others {
        assert_eq!(client.connect(other.local_addr().unwrap()).await.code(), 447);
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "nobody connected");
    }
    let turn = world.tls.server.turn();
    assert_eq!(client.connect(turn).await.code(), 403);
    assert_eq!(client.connect((own, 22).into()).await.code(), 403);
    assert_eq!(client.connect(client.relayed()).await.code(), 403, "itself");
}

#[tokio::test]
async fn too_many_connections_of_an_allocation_are_508() {
    const MOST: usize = hairpin::turn::limits::PEER_CONNECTIONS_MAX;
    let world = World::simple(81);
    let mut client = world.allocated().await;
    let mut held = Vec::new();
    for _ in 0..MOST {
        let listener = listener().await;
        assert_eq!(client.connect(listener.local_addr().unwrap()).await.code(), 200);
        held.push(listener.accept().await.unwrap().0);
    }
    let listener = listener().await;
    assert_eq!(client.connect(listener.local_addr().unwrap()).await.code(), 508);
    assert_eq!(client.permit((loopback(7, 8), 1).into()).await, 200);
    let mut late = connect_from(loopback(7, 8), client.relayed()).await;
    assert_eq!(next(&mut late).await.unwrap_or(None), None, "closed at once");
    assert_eq!(world.tls.server.dropped("connection_limit").await, 1.0);
    assert_eq!(world.metrics().await.get(LIVE), MOST as f64);
    assert_eq!(client.refresh(0).await, 200);
    world.until_live(0.0).await;
}

#[tokio::test]
async fn data_over_the_bandwidth_waits_and_none_is_lost() {
    const RATE: usize = 500_000;
    const AMOUNT: usize = 1_500_000;
    let world = World::start(82, 2, Over::Tcp, |config| {
        config.net.user_bandwidth = RATE as u64;
    });
    let mut client = world.allocated().await;
    let (stream, peer) = world.pair(&mut client).await;
    let begun = Instant::now();
    let all = data(AMOUNT, 33);
    let (_from_server, to_server) = tokio::io::split(stream);
    let (from_relay, _to_relay) = tokio::io::split(peer);
    let sending = tokio::spawn(send(to_server, all.clone(), PORTION));
    expect(from_relay, &all).await;
    sending.await.unwrap();
    // One second's worth is free, and so is what is read last.
    let least = (AMOUNT - RATE - 65_536) as f64 / RATE as f64;
    assert!(begun.elapsed().as_secs_f64() >= least, "{:?}", begun.elapsed());
    assert_eq!(world.tls.server.dropped("bandwidth").await, 0.0);
}

#[tokio::test]
async fn allocations_for_tcp_are_to_be_asked_for() {
    let world = World::start(83, 1, Over::Tcp, |config| config.turn.tcp_relay = false);
    assert_eq!(world.client().await.allocate_tcp().await, 442);
    let world = World::simple(84);
    assert_eq!(Client::new(world.tls.server.turn()).allocate_tcp().await, 400);
}

/// Each relayed address is a port of the pool, and those of quota and pool are given back.
#[tokio::test]
async fn last_port_is_given_again_although_connections_were_closed_on_it() {
    let world = World::start(85, 2, Over::Tcp, |config| {
        config.net.relay_ports = 22_000..=22_001;
    });
    for _ in 0..10 {
        let mut clients = [world.allocated().await, world.allocated().await];
        assert_eq!(world.client().await.allocate_tcp().await, 508);
        for client in &mut clients {
            let (stream, peer) = world.pair(client).await;
            drop((stream, peer));
            assert_eq!(client.refresh(0).await, 200);
        }
    }
}
