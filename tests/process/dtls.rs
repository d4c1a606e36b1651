//! DTLS as strangers try it: what they leave behind in the memory of a process.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use crate::hostile::{Ledger, assert_drops_every_first_byte};
use crate::server::{ConfigFile, Server, eventually, hairpin};
use crate::tls::{YEAR, toml, write_pair};

/// What 10,000 strangers may leave behind, in KiB.
const GROWTH_MAX: u64 = 1024;
const STRANGERS: u32 = 10_000;
/// Fewer than the handshakes that the server has at a time.
const ANSWERED: usize = 500;
/// Where the cookie is in a HelloVerifyRequest.
const COOKIE_AT: usize = 28;

#[test]
fn client_hellos_of_strangers_leave_nothing_behind() {
    let server = serving();
    let greet =
        |strangers: std::ops::Range<u32>| strangers.for_each(|one| drop(asked(&server, one)));
    greet(0..STRANGERS / 10);
    let before = server.resident();
    greet(STRANGERS / 10..STRANGERS / 10 + STRANGERS);
    let growth = server.resident().saturating_sub(before);
    eprintln!("{STRANGERS} ClientHellos: +{growth} KiB");
    assert!(growth <= GROWTH_MAX, "{growth} KiB more");
    server.stop();
}

#[test]
fn handshakes_that_strangers_give_up_are_bounded_and_leave_nothing_behind() {
    let server = serving();
    let start = server.resident();
    // Once, so that all buffers have been used.
    give_up(&server, 0..STRANGERS / 10);
    let most = server.resident() - start;
    eventually("handshakes end, and their memory is given back", || {
        (server.resident() - start < most / 4).then_some(())
    });
    let before = server.resident();
    give_up(&server, STRANGERS / 10..STRANGERS / 10 + STRANGERS);
    let most = server.resident().saturating_sub(before);
    assert!(server.metrics().sum(&["dropped_packets_total", "dtls_full"]) > 0, "there is a limit");
    eventually("the same, of many more", || {
        (server.resident() <= before + GROWTH_MAX).then_some(())
    });
    let growth = server.resident().saturating_sub(before);
    eprintln!("{STRANGERS} handshakes begun: +{most} KiB, and afterwards +{growth} KiB");
    server.stop();
}

#[test]
fn every_first_byte_in_every_short_datagram_is_dropped_and_counted_with_dtls_on() {
    let server = serving();
    assert_drops_every_first_byte(&server);
    server.stop();
}

/// What only an association could mean, of those who have none, is answered by nobody: neither
/// with an alert, which anybody could ask for in another's name.
#[test]
fn records_and_client_hellos_of_tls_from_strangers_are_dropped_unanswered_and_counted() {
    let server = serving();
    let record = |kind: u8, version: [u8; 2], epoch: u8, body: &[u8]| {
        let [high, low] = (body.len() as u16).to_be_bytes();
        let header = [kind, version[0], version[1], 0, epoch, 0, 0, 0, 0, 0, 7, high, low];
        [&header[..], body].concat()
    };
    let mut datagrams = Vec::new();
    // ChangeCipherSpec, alert, application data, heartbeat, and tls12_cid; a heartbeat that asks
    // for more than it brings, and a close_notify among them.
    for kind in [0x14, 0x15, 0x17, 0x18, 0x19] {
        for version in [[0xFE, 0xFF], [0xFE, 0xFD], [3, 3]] {
            for epoch in [0, 1] {
                for body in [&[][..], &[1], &[1, 0], &[2, 40], &[1, 0x40, 0, 0x41], &[0x5A; 1200]] {
                    datagrams.push(record(kind, version, epoch, body));
                }
            }
        }
    }
    // The ClientHello of TLS, whole and cut, as over TCP.
    let body = &client_hello(&[])[25..];
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    datagrams.extend([5, 9, hello.len()].map(|length| hello[..length].to_vec()));
    let stranger = crate::client::socket(server.turn);
    let start = Ledger::read(&server);
    for datagram in &datagrams {
        stranger.send(datagram).unwrap();
    }
    let metrics = start.settle(&server, datagrams.len() as u64);
    assert_eq!(metrics.sum(&["hairpin_requests_total"]), 0);
    assert_eq!(metrics.sum(&["hairpin_dropped_packets_total"]) as usize, datagrams.len());
    // What was sent after all of them is answered first.
    stranger.send(&crate::client::binding()).unwrap();
    assert_eq!(receive(&stranger)[..2], [1, 1]);
    server.stop();
}

/// Strangers who come back with their cookies, and say no more.
fn give_up(server: &Server, strangers: std::ops::Range<u32>) {
    for (index, stranger) in strangers.enumerate() {
        let (socket, cookie) = asked(server, stranger);
        socket.send(&client_hello(&cookie)).unwrap();
        if index < ANSWERED {
            assert_eq!(receive(&socket)[13], 2, "a ServerHello");
        }
    }
}

fn serving() -> Server {
    let config = ConfigFile::new(&toml("cert = \"cert.pem\"\nkey = \"key.pem\"\ndtls = true"));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
    server.process().stderr().wait_for("listening (dtls)", 1);
    server
}

/// A stranger with an address of its own, and the cookie it has been given.
fn asked(server: &Server, stranger: u32) -> (UdpSocket, Vec<u8>) {
    let [.., high, low] = stranger.to_be_bytes();
    let source = IpAddr::from(Ipv4Addr::new(127, 60 + high, low, 1));
    let socket = UdpSocket::bind((source, 0)).unwrap();
    socket.connect(server.turn).unwrap();
    socket.send(&client_hello(&[])).unwrap();
    let asked = receive(&socket);
    assert_eq!((asked[13], asked.len()), (3, 44), "a HelloVerifyRequest");
    (socket, asked[COOKIE_AT..].to_vec())
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    socket.set_read_timeout(Some(crate::server::DEADLINE)).unwrap();
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).expect("an answer");
    bytes[..length].to_vec()
}

/// The first ClientHello, or the second one where there is a cookie.
fn client_hello(cookie: &[u8]) -> Vec<u8> {
    let number = u8::from(!cookie.is_empty());
    let mut body = vec![0xFE, 0xFD];
    body.extend([0x5A; 32]);
    body.extend([0, cookie.len() as u8]);
    body.extend(cookie);
    // ECDHE-ECDSA-AES128-GCM-SHA256, over P-256, signed with ECDSA and SHA-256.
    body.extend([0, 2, 0xC0, 0x2B, 1, 0, 0, 16]);
    body.extend([0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = body.len() as u8;
    let mut record = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, number, 0, length + 12];
    record.extend([1, 0, 0, length, 0, number, 0, 0, 0, 0, 0, length]);
    record.extend(body);
    record
}
