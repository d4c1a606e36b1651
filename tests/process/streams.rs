//! Connections that end badly, by the thousand, and those that are not read: nothing of them stays,
//! and nothing piles up.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hairpin::stun::ChannelNumber;
use hairpin::stun::attribute::RequestedTransport;

use crate::client;
use crate::proxy::over_tls;
use crate::server::{ConfigFile, DEADLINE, Server, Settings, eventually, hairpin};
use crate::stream::StreamClient;
use crate::tls::{YEAR, toml, write_pair};

const ROUNDS: usize = 1_000;
const HALF_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
const HALF_MESSAGE: &[u8] = b"\x00\x01\x00\x08\x21\x12\xa4\x42abcde";

/// What a client that does not read, or reads slowly, may cost: its queue and what the allocator
/// keeps, and many times less than what it is offered.
const SLOW_CLIENT_BYTES_MAX: u64 = 8 << 20;
/// What a peer offers to a client that reads slowly.
const OFFERED: usize = 256 << 20;

/// What it is sent while its queue is full is dropped, and the queue is short.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_costs_little_memory() {
    let server = Server::start(&Settings::default());
    assert_costs_little(&server, |peer| {
        StreamClient::with_channel(server.turn, "wonderland", ChannelNumber::MIN, peer)
    });
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_costs_little_memory_over_tls() {
    let server = with_tls("");
    assert_costs_little(&server, |peer| {
        let tls = over_tls(TcpStream::connect(server.turn).unwrap());
        StreamClient::allocate(tls, "wonderland", RequestedTransport::UDP)
            .bound(ChannelNumber::MIN, peer)
    });
    server.stop();
}

#[cfg(target_os = "linux")]
fn assert_costs_little<S>(server: &Server, client: impl FnOnce(SocketAddr) -> StreamClient<S>) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client(peer.local_addr().unwrap());
    let resident = || server.metrics().sum(&["process_resident_memory_bytes"]);
    let before = resident();
    eventually("96 MB are dropped", || {
        // No more at once than the relay socket holds: what the kernel drops proves nothing.
        for _ in 0..20 {
            peer.send_to(&[3; 8_000], client.relayed).unwrap();
        }
        let dropped = server.metrics().sum(&["hairpin_dropped_packets_total", "stream_full"]);
        (dropped >= 12_000).then_some(())
    });
    let more = resident().saturating_sub(before);
    assert!(more < SLOW_CLIENT_BYTES_MAX, "{more} bytes");
}

/// RFC 6062: nothing is dropped there, so it is the peer that has to wait.
#[cfg(target_os = "linux")]
#[test]
fn a_data_connection_that_is_read_slowly_costs_little_memory() {
    let server = relaying_tcp();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = StreamClient::relaying_tcp(server.turn, "wonderland");
    let id = client.connect(listener.local_addr().unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let mut data = client.data(server.turn, id);
    let before = server.resident() * 1024;
    let taken = Arc::new(AtomicUsize::new(0));
    let offering = std::thread::spawn({
        let taken = Arc::clone(&taken);
        move || {
            let portion = [5; 1 << 16];
            for _ in 0..OFFERED / portion.len() {
                peer.write_all(&portion).unwrap();
                taken.fetch_add(portion.len(), Ordering::Relaxed);
            }
        }
    });
    let mut last = 0;
    eventually("the peer has to wait", || {
        std::thread::sleep(Duration::from_millis(200));
        let taken = taken.load(Ordering::Relaxed);
        (taken > 0 && std::mem::replace(&mut last, taken) == taken).then_some(())
    });
    assert!(last < OFFERED / 2, "{last} bytes are somewhere");
    let (mut read, mut most) = (0, 0);
    let mut room = vec![0; 1 << 16];
    while let length @ 1.. = data.read(&mut room).unwrap() {
        assert!(room[..length].iter().all(|&byte| byte == 5));
        read += length;
        if read >> 20 != (read - length) >> 20 {
            std::thread::sleep(Duration::from_millis(10));
            most = most.max(server.resident() * 1024);
        }
    }
    offering.join().unwrap();
    assert_eq!(read, OFFERED);
    let more = most.saturating_sub(before);
    assert!(more < SLOW_CLIENT_BYTES_MAX, "{more} bytes");
    server.stop();
}

/// How a connection to a peer ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The client says that nothing follows, and then the peer.
    Fin,
    /// The client resets it.
    Reset,
    /// Nobody binds it, so it is closed when its time is over.
    Unbound,
}

#[test]
fn connections_to_peers_leave_no_descriptor_behind() {
    let server = relaying_tcp();
    let mut client = StreamClient::relaying_tcp(server.turn, "wonderland");
    // The first ones may make something that stays.
    for ending in [Ending::Fin, Ending::Reset] {
        connect_and_end(&server, &mut client, ending);
    }
    until_parted(&server);
    // A scrape's own may live a moment longer than its answer.
    let settled = eventually("nothing changes any more", || {
        let before = server.descriptors();
        std::thread::sleep(Duration::from_millis(200));
        (server.descriptors() == before).then_some(before)
    });
    for _ in 0..100 {
        for ending in [Ending::Fin, Ending::Reset, Ending::Unbound] {
            connect_and_end(&server, &mut client, ending);
        }
    }
    until_parted(&server);
    eventually("the descriptors are as many as before", || {
        (server.descriptors() == settled).then_some(())
    });
    server.stop();
}

fn connect_and_end(server: &Server, client: &mut StreamClient, ending: Ending) {
    // Each at an address of its own: between two there is one connection at a time.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = client.connect(listener.local_addr().unwrap());
    let (mut peer, from) = listener.accept().unwrap();
    assert_eq!(from, client.relayed);
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    if matches!(ending, Ending::Unbound) {
        return;
    }
    let mut data = client.data(server.turn, id);
    data.write_all(b"ends").unwrap();
    let mut heard = [0; 4];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"ends");
    if matches!(ending, Ending::Reset) {
        socket2::SockRef::from(&data).set_linger(Some(Duration::ZERO)).unwrap();
        drop(data);
        assert!(peer.read(&mut heard).is_err(), "a reset is passed on");
        return;
    }
    data.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut heard).unwrap(), 0);
    drop(peer);
    assert_eq!(data.read(&mut heard).unwrap(), 0);
}

fn until_parted(server: &Server) {
    eventually("no connection to a peer is left", || {
        (server.metrics().sum(&["hairpin_peer_connections"]) == 0).then_some(())
    });
    // Neither is one of the client's but that with the allocation.
    eventually("no data connection is left", || {
        (server.metrics().sum(&["hairpin_connections{"]) == 1).then_some(())
    });
}

fn relaying_tcp() -> Server {
    let toml = Settings::default().toml().replace("[relay]\n", "[relay]\ntcp = true\n");
    Server::start_in(&mut hairpin(), ConfigFile::new(&toml))
}

/// A server with a certificate; `http` is more of that table.
fn with_tls(http: &str) -> Server {
    let config = toml("cert = \"cert.pem\"\nkey = \"key.pem\"");
    let config = ConfigFile::new(&config.replace("[http]\n", &format!("[http]\n{http}")));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    Server::start_in(&mut hairpin(), config)
}

#[test]
fn resets_and_early_ends_leave_no_descriptor_behind() {
    let server = with_tls("shared = true\n");
    // The first of each kind may make something that stays.
    for first in [&HALF_HELLO[..], HALF_MESSAGE, b"GET / HT"] {
        end(server.turn, first, false);
    }
    quiet(&server);
    let descriptors = || server.metrics().sum(&["process_open_fds"]);
    let before = descriptors();
    for round in 0..ROUNDS {
        for bytes in [&HALF_HELLO[..], HALF_MESSAGE, b"GET / HT"] {
            end(server.turn, bytes, round % 2 == 0);
        }
    }
    quiet(&server);
    eventually("descriptors are given back", || (descriptors() <= before).then_some(()));
    assert!(client::is_served(server.turn));
    // Half of the handshakes were ended by a FIN, which is always seen as one given up.
    let failed = server.metrics().sum(&["hairpin_connections_refused_total", "handshake_failed"]);
    assert!(failed as usize >= ROUNDS / 2, "{failed}");
    server.stop();
}

/// Sends these bytes and goes: without a word, or with a reset.
fn end(server: SocketAddr, bytes: &[u8], reset: bool) {
    let mut tcp = TcpStream::connect(server).unwrap();
    tcp.write_all(bytes).unwrap();
    if reset {
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
        return;
    }
    tcp.shutdown(Shutdown::Write).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    // HTTP says what it thinks of half a request; the others close.
    while matches!(tcp.read(&mut [0; 512]), Ok(1..)) {}
}

fn quiet(server: &Server) {
    eventually("all connections are over", || {
        (server.metrics().sum(&["hairpin_connections{"]) == 0).then_some(())
    });
}
