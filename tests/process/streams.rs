//! Connections that end badly, by the thousand: nothing of them stays.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hairpin::stun::ChannelNumber;

use crate::client;
use crate::server::{ConfigFile, DEADLINE, Server, Settings, eventually, hairpin};
use crate::stream::StreamClient;
use crate::tls::{YEAR, toml, write_pair};

const ROUNDS: usize = 1_000;
const HALF_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
const HALF_MESSAGE: &[u8] = b"\x00\x01\x00\x08\x21\x12\xa4\x42abcde";

/// What it is sent while its queue is full is dropped, and the queue is short.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_costs_little_memory() {
    let server = Server::start(&Settings::default());
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    let client = StreamClient::with_channel(server.turn, "wonderland", ChannelNumber::MIN, address);
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
    assert!(more < 8 << 20, "{more} bytes");
    server.stop();
}

#[test]
fn resets_and_early_ends_leave_no_descriptor_behind() {
    let config = toml("cert = \"cert.pem\"\nkey = \"key.pem\"");
    let config = ConfigFile::new(&config.replace("[http]\n", "[http]\nshared = true\n"));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
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
