//! Relaying a packet takes no memory from the heap: neither the core nor the driver around it.
//!
//! Counts what each thread allocates. The first packets may: buffers grow to what is needed, and
//! stay. Then thousands of packets more, one at a time and in bursts, must not.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator that counts cannot be had without")]

#[path = "process/client.rs"]
mod client;
mod common;
#[path = "zero_alloc/stream.rs"]
mod stream;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, Login, channel_data, send_indication};
use common::TestServer;
use hairpin::config::Config;
use hairpin::net::clock;
use hairpin::stun::attribute::{ChannelNumberAttribute, RequestedTransport, XorPeerAddress};
use hairpin::stun::{ChannelNumber, Method};
use hairpin::turn::{
    Allocated, AllocationId, FiveTuple, RelayedAddress, Server, Transport, Verdict, policy,
};

use stream::StreamClient;

const PACKETS: usize = 1000;
const WARM_UP: usize = 100;
const BURST: usize = 8;
/// Rounds of bursts, of which one at least must take nothing: how many packets the driver finds
/// at once is up to the kernel, and its buffers grow with the most it has found yet.
const ROUNDS: usize = 20;
const SHARDS: usize = 2;
const DATA: [u8; 1000] = [0x5a; 1000];
const NUMBER: ChannelNumber = ChannelNumber::MIN;
/// More than a busy machine needs for anything.
const DEADLINE: Duration = Duration::from_secs(30);

thread_local! {
    static OF_THREAD: Cell<u64> = const { Cell::new(0) };
}
/// What the threads named `shard-0` and `shard-1` have allocated.
static OF_SHARDS: [AtomicU64; SHARDS] = [const { AtomicU64::new(0) }; SHARDS];

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

impl Counting {
    fn count() {
        // An error means that the thread is ending.
        let _ = OF_THREAD.try_with(|count| count.set(count.get() + 1));
        if let Some(count) = own_shard().and_then(|shard| OF_SHARDS.get(shard)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Which shard this thread is. Asks the kernel: asking the standard library could allocate.
fn own_shard() -> Option<usize> {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most the 16 bytes there are.
    let outcome = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let number = name.strip_prefix(b"shard-").filter(|_| outcome == 0)?.first()?;
    number.checked_sub(b'0').map(usize::from)
}

fn of_shards() -> [u64; SHARDS] {
    OF_SHARDS.each_ref().map(|count| count.load(Ordering::Relaxed))
}

fn of_all_shards() -> u64 {
    of_shards().iter().sum()
}

#[test]
fn the_counters_count() {
    let before = OF_THREAD.get();
    drop(black_box(vec![0_u8; 100]));
    assert_eq!(OF_THREAD.get() - before, 1);
    let mut driver = Driver::start();
    let before = of_all_shards();
    driver.client();
    assert!(of_all_shards() > before, "an Allocate request allocates");
}

#[test]
fn core_relays_channel_data_without_allocating() {
    let mut core = Core::start();
    let packet = channel_data(NUMBER, &DATA);
    let client = core.client;
    core.assert_allocates_nothing(|core| {
        let verdict = core.client_sends(client, &packet);
        assert!(matches!(verdict, Verdict::ToPeer { payload, .. } if payload == (4..1004)));
    });
}

#[test]
fn core_relays_send_indications_without_allocating() {
    let mut core = Core::start();
    let packet = send_indication(core.unbound_peer, &DATA);
    let client = core.client;
    core.assert_allocates_nothing(|core| {
        let verdict = core.client_sends(client, &packet);
        assert!(matches!(verdict, Verdict::ToPeer { payload, .. } if payload.len() == DATA.len()));
    });
}

#[test]
fn core_relays_to_clients_without_allocating() {
    let mut core = Core::start();
    for (peer, header_len) in [(core.bound_peer, 4), (core.unbound_peer, 36)] {
        core.assert_allocates_nothing(|core| {
            let verdict = core.server.handle_peer(core.id, peer, &DATA, clock::now());
            let Verdict::ToClient { header, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(header.as_bytes().len(), header_len);
        });
    }
}

#[test]
fn core_drops_junk_without_allocating() {
    let mut core = Core::start();
    let stranger = SocketAddr::from(([198, 51, 100, 77], 4000));
    let unbound = channel_data(ChannelNumber::MAX, &DATA);
    let forbidden = send_indication(([127, 0, 0, 1], 9).into(), &DATA);
    let client = core.client;
    core.assert_allocates_nothing(|core| {
        for (from, packet) in [
            (stranger, unbound.as_slice()),
            (client, &unbound),
            (client, &forbidden),
            (client, &DATA),
            (client, &[]),
        ] {
            assert!(matches!(core.client_sends(from, packet), Verdict::Drop(_)));
        }
    });
}

#[test]
fn driver_relays_channel_data_without_allocating() {
    let mut driver = Driver::start();
    let (client, peer) = (driver.client(), driver.peer());
    client.bind(NUMBER, peer.local_addr().unwrap()).unwrap();
    driver.assert_allocates_nothing(&client.socket, &channel_data(NUMBER, &DATA), &peer);
}

#[test]
fn driver_relays_send_indications_without_allocating() {
    let mut driver = Driver::start();
    let (client, peer) = (driver.client(), driver.peer());
    let address = peer.local_addr().unwrap();
    client.permit(address).unwrap();
    driver.assert_allocates_nothing(&client.socket, &send_indication(address, &DATA), &peer);
}

#[test]
fn driver_relays_to_clients_with_a_channel_without_allocating() {
    let mut driver = Driver::start();
    let (client, peer) = (driver.client(), driver.peer());
    client.bind(NUMBER, peer.local_addr().unwrap()).unwrap();
    peer.connect(client.relayed).unwrap();
    driver.assert_allocates_nothing(&peer, &DATA, &client.socket);
}

#[test]
fn driver_relays_to_clients_without_a_channel_without_allocating() {
    let mut driver = Driver::start();
    let (client, peer) = (driver.client(), driver.peer());
    client.permit(peer.local_addr().unwrap()).unwrap();
    peer.connect(client.relayed).unwrap();
    driver.assert_allocates_nothing(&peer, &DATA, &client.socket);
}

#[test]
fn driver_relays_between_its_clients_without_allocating() {
    let mut driver = Driver::start();
    let (one, other) = (driver.client(), driver.client());
    one.bind(NUMBER, other.relayed).unwrap();
    other.bind(NUMBER, one.relayed).unwrap();
    driver.assert_allocates_nothing(&one.socket, &channel_data(NUMBER, &DATA), &other.socket);
    other.refresh(0).unwrap();
    let other = driver.client();
    other.permit(one.relayed).unwrap();
    one.permit(other.relayed).unwrap();
    let packet = send_indication(other.relayed, &DATA);
    driver.assert_allocates_nothing(&one.socket, &packet, &other.socket);
}

/// TLS is another matter: rustls makes a vector of each record.
#[test]
fn driver_relays_from_and_to_clients_over_tcp_without_allocating() {
    let driver = Driver::start();
    let peer = driver.peer();
    let address = peer.local_addr().unwrap();
    let StreamClient { stream: tcp, relayed, .. } =
        StreamClient::with_channel(driver.server.turn(), "secret", NUMBER, address);
    peer.connect(relayed).unwrap();
    let packet = channel_data(NUMBER, &DATA);
    let mut to_peer = Flow::new(|packet| (&tcp).write(packet), &packet, |room| peer.recv(room));
    to_peer.comes_to_allocate_nothing(1);
    to_peer.comes_to_allocate_nothing(BURST);
    // A frame is 1,004 bytes, and so needs no padding.
    let frame = |room: &mut [u8]| {
        (&tcp).read_exact(&mut room[..packet.len()])?;
        Ok(packet.len())
    };
    let mut to_client = Flow::new(|packet| peer.send(packet), &DATA, frame);
    to_client.comes_to_allocate_nothing(1);
    to_client.comes_to_allocate_nothing(BURST);
}

/// What goes from shard to shard is copied into parcels that come home empty. How many are on the
/// way at once is up to the scheduler, and the channels that carry them take their memory in blocks;
/// so a round may still take some, but not every one.
#[test]
fn driver_relays_between_its_shards_without_allocating() {
    let mut driver = Driver::start_with(SHARDS);
    let (one, other) = driver.clients_of_two_shards();
    one.bind(NUMBER, other.relayed).unwrap();
    other.bind(NUMBER, one.relayed).unwrap();
    let packet = channel_data(NUMBER, &DATA);
    for (from, to) in [(&one, &other), (&other, &one)] {
        let (from, to) = (&from.socket, &to.socket);
        to.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut flow = Flow::new(|packet| from.send(packet), &packet, |room| to.recv(room));
        flow.comes_to_allocate_nothing(1);
        flow.comes_to_allocate_nothing(BURST);
    }
}

/// The core alone, with one allocation, a channel and a permission.
struct Core {
    server: Server,
    id: AllocationId,
    client: SocketAddr,
    bound_peer: SocketAddr,
    unbound_peer: SocketAddr,
    reply: Vec<u8>,
}

impl Core {
    fn start() -> Self {
        let local = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let host = policy::Host {
            endpoints: Vec::new(),
            addresses: vec![local],
            aliases: Vec::new(),
            broadcasts: Vec::new(),
            relay_addresses: vec![local],
            relay_ports: 50_000..=50_999,
        };
        let mut core = Self {
            server: Server::new(Config::dev().turn, host, [7; 32]),
            id: AllocationId::default(),
            client: ([198, 51, 100, 1], 4000).into(),
            bound_peer: ([10, 0, 0, 1], 5000).into(),
            unbound_peer: ([10, 0, 0, 2], 5000).into(),
            reply: Vec::new(),
        };
        let client = core.client;
        assert!(matches!(core.client_sends(client, &client::bare_allocate()), Verdict::Reply));
        let login = Login::new(&core.reply, "dev", "dev");
        let udp = RequestedTransport::UDP;
        let request = login.request(Method::Allocate, |builder| builder.put(&udp));
        let Verdict::Bind(pending) = core.client_sends(client, &request) else {
            panic!("an Allocate request leads to a socket");
        };
        let relayed = RelayedAddress((local, 50_000).into());
        let allocated =
            Allocated { relayed, also: None, meter: None, reservation: None, tally: None };
        let now = clock::now();
        core.id = core.server.allocated(&pending, Ok(allocated), now, &mut Vec::new()).unwrap();
        let peer = XorPeerAddress(core.unbound_peer);
        let permit = login.request(Method::CreatePermission, |builder| builder.put(&peer));
        let peer = XorPeerAddress(core.bound_peer);
        let bind = login.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(NUMBER)).put(&peer)
        });
        for request in [permit, bind] {
            assert!(matches!(core.client_sends(client, &request), Verdict::Reply));
            assert_eq!(core.reply[0], 0x01, "a success response");
        }
        core
    }

    fn client_sends(&mut self, client: SocketAddr, packet: &[u8]) -> Verdict {
        let server = SocketAddr::from(([192, 0, 2, 1], 3478));
        let from = FiveTuple { transport: Transport::Udp, client, server };
        self.reply.clear();
        self.server.handle_client(from, packet, clock::now(), &mut self.reply)
    }

    fn assert_allocates_nothing(&mut self, mut packet: impl FnMut(&mut Self)) {
        let before = OF_THREAD.get();
        (0..PACKETS).for_each(|_| packet(self));
        assert_eq!(OF_THREAD.get() - before, 0, "in {PACKETS} packets");
    }
}

/// A whole server; no other runs at the same time, for shards are counted by name.
struct Driver {
    server: TestServer,
    _alone: MutexGuard<'static, ()>,
}

impl Driver {
    fn start() -> Self {
        Self::start_with(1)
    }

    fn start_with(shards: usize) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let server = TestServer::start(|config| config.net.threads = shards);
        Self { server, _alone: alone }
    }

    fn client(&mut self) -> Client {
        Client::allocate(self.server.turn(), "alice", "secret").unwrap()
    }

    fn peer(&self) -> UdpSocket {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        peer
    }

    /// Two clients that the kernel gave to different shards.
    fn clients_of_two_shards(&mut self) -> (Client, Client) {
        let one = self.client();
        for _ in 0..100 {
            let other = self.client();
            if shard_of(&one) != shard_of(&other) {
                return (one, other);
            }
            other.refresh(0).unwrap();
        }
        panic!("the kernel gives all clients to one shard");
    }

    fn assert_allocates_nothing(&mut self, from: &UdpSocket, packet: &[u8], to: &UdpSocket) {
        to.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut flow = Flow::new(|packet| from.send(packet), packet, |room| to.recv(room));
        (0..WARM_UP).for_each(|_| flow.relay(1));
        assert_eq!(flow.taken_in_round(1), 0, "in {PACKETS} packets");
        flow.comes_to_allocate_nothing(BURST);
        assert!(flow.relayed >= WARM_UP + 2 * PACKETS - BURST);
    }
}

/// Which shard takes memory to answer this client.
fn shard_of(client: &Client) -> usize {
    let before = of_shards();
    (0..10).for_each(|_| client.refresh(600).unwrap());
    let after = of_shards();
    (0..SHARDS).max_by_key(|&shard| after[shard] - before[shard]).unwrap()
}

/// Packets on their way through a server.
struct Flow<'a, S, R> {
    send: S,
    packet: &'a [u8],
    receive: R,
    relayed: usize,
}

impl<'a, S, R> Flow<'a, S, R>
where
    S: FnMut(&[u8]) -> io::Result<usize>,
    R: FnMut(&mut [u8]) -> io::Result<usize>,
{
    fn new(send: S, packet: &'a [u8], receive: R) -> Self {
        Self { send, packet, receive, relayed: 0 }
    }

    fn relay(&mut self, burst: usize) {
        let mut buffer = [0; 2048];
        for _ in 0..burst {
            assert_eq!((self.send)(self.packet).unwrap(), self.packet.len());
        }
        for _ in 0..burst {
            let length = (self.receive)(&mut buffer).expect("it is relayed");
            assert!(buffer[..length].windows(DATA.len()).any(|data| data == DATA));
            self.relayed += 1;
        }
    }

    /// What all shards take from the heap to relay so many packets.
    fn taken_in_round(&mut self, burst: usize) -> u64 {
        let before = of_all_shards();
        (0..PACKETS / burst).for_each(|_| self.relay(burst));
        of_all_shards() - before
    }

    fn comes_to_allocate_nothing(&mut self, burst: usize) {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| self.taken_in_round(burst))
            .take_while(|&taken| taken > 0)
            .collect();
        assert!(rounds.len() < ROUNDS, "in rounds of {PACKETS} packets: {rounds:?}");
    }
}
