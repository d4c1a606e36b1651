//! TURN over TCP: the same protocol in a byte stream, and what only a stream can do wrong.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::turn::ChannelRange;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, DEADLINE, Peer, Received, binding_request};
use super::common::{TestServer, scrape};
use super::stream::padded;
use super::tls::read_to_end;

const CHANNEL: u16 = 0x4000;

/// ChannelData with the padding of streams.
fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    let mut message = [&number.to_be_bytes()[..], &length, data].concat();
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

fn server() -> TestServer {
    TestServer::start(|_| {})
}

/// A client over TCP with an allocation, and a peer it has a channel to.
async fn connected(server: &TestServer) -> (Client, Peer) {
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(server.turn().ip());
    assert_eq!(client.bind(CHANNEL, peer.address()).await, 200);
    (client, peer)
}

#[tokio::test]
async fn binding_over_tcp_is_answered_with_the_address_of_the_connection() {
    let server = server();
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.mapped().await, client.local());
    assert_eq!(client.mapped().await, client.local(), "the connection stays open");
}

#[tokio::test]
async fn every_size_passes_both_ways_and_the_stream_stays_in_step() {
    let server = server();
    let (mut client, peer) = connected(&server).await;
    let relayed = client.relayed();
    for size in (0..=9).chain([500, 1_200, 1_472, 4_096, 9_000, 65_000, 65_507]) {
        let data: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        client.send_channel(CHANNEL, &data).await;
        assert_eq!(peer.recv().await, (relayed, data.clone()), "{size} bytes to the peer");
        peer.send(relayed, &data).await;
        assert_eq!(client.recv().await, Received::Channel(CHANNEL, data), "{size} bytes back");
    }
}

#[tokio::test]
async fn send_and_data_indications_pass_over_tcp() {
    let server = server();
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(server.turn().ip());
    assert_eq!(client.permit(peer.address()).await, 200);
    for size in [0, 1, 2, 3, 1_000, 65_000, 65_507] {
        let data = vec![size as u8; size];
        client.send(peer.address(), &data).await;
        assert_eq!(peer.recv().await, (client.relayed(), data.clone()));
        peer.send(client.relayed(), &data).await;
        assert_eq!(client.recv().await, Received::Data(peer.address(), data));
    }
}

#[tokio::test]
async fn many_messages_in_one_segment_are_all_answered() {
    let server = server();
    let client = Client::tcp(server.turn()).await;
    let requests: Vec<_> = (0..50).map(|_| binding_request()).collect();
    client.send_bytes(&requests.concat()).await;
    let until = tokio::time::Instant::now() + DEADLINE;
    for request in &requests {
        let answer = client.recv_raw(until).await.expect("an answer");
        assert_eq!(answer[..2], [1, 1]);
        assert_eq!(answer[8..20], request[8..20], "in the order of the requests");
    }
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let server = server();
    let (client, peer) = connected(&server).await;
    let message = [channel_data(CHANNEL, b"hello"), channel_data(CHANNEL, b"again")].concat();
    for byte in message {
        client.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.recv().await.1, b"hello");
    assert_eq!(peer.recv().await.1, b"again");
}

/// RFC 8489 §6.2.2: one connection, several transactions, whatever the pause between them
#[tokio::test]
async fn connection_stays_open_for_the_next_transaction() {
    let server = server();
    let mut client = Client::tcp(server.turn()).await;
    for _ in 0..3 {
        assert_eq!(client.mapped().await, client.local());
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(server.connections("tcp").await, 1.0);
}

/// RFC 8489 §6.2.2
#[tokio::test]
async fn request_that_comes_byte_by_byte_has_one_answer() {
    let server = server();
    let client = Client::tcp(server.turn()).await;
    let (slow, next) = (binding_request(), binding_request());
    for byte in &slow {
        client.send_bytes(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let until = tokio::time::Instant::now() + DEADLINE;
    assert_eq!(client.recv_raw(until).await.expect("an answer")[8..20], slow[8..20]);
    client.send_bytes(&next).await;
    let answer = client.recv_raw(until).await.expect("an answer");
    assert_eq!(answer[8..20], next[8..20], "and none between the two");
}

/// RFC 8489 §5: nobody knows where the next message begins, so nothing is said either
#[tokio::test]
async fn length_that_is_not_a_multiple_of_four_ends_the_connection_unanswered() {
    let server = server();
    for length in [1, 2, 3, 5, 6, 7, 13, 255] {
        let mut request = binding_request();
        request[3] = length;
        request.extend(vec![0; usize::from(length)]);
        let mut tcp = TcpStream::connect(server.turn()).await.unwrap();
        tcp.write_all(&request).await.unwrap();
        assert_eq!(read_to_end(&mut tcp).await, b"", "{length}");
    }
}

/// RFC 8656 §12.5: padding is told by nothing but the length; `Framed` sees to it that the server's
/// is zeros
#[tokio::test]
async fn short_channel_data_in_one_segment_stays_in_step() {
    let server = server();
    let (mut client, peer) = connected(&server).await;
    let relayed = client.relayed();
    let data = |length: u8| vec![0x40 + length; length.into()];
    let messages: Vec<_> = (0..=9).map(|length| padded(&with_header(&data(length)))).collect();
    client.send_bytes(&messages.concat()).await;
    for length in 0..=9 {
        assert_eq!(peer.recv().await, (relayed, data(length)));
    }
    for length in 0..=9 {
        peer.send(relayed, &data(length)).await;
    }
    for length in 0..=9 {
        assert_eq!(client.recv().await, Received::Channel(CHANNEL, data(length)));
    }
    assert_eq!(client.mapped().await, client.local());
}

/// ChannelData without padding.
fn with_header(data: &[u8]) -> Vec<u8> {
    [&CHANNEL.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

#[tokio::test]
async fn messages_cut_anywhere_arrive_whole() {
    let server = server();
    let (client, peer) = connected(&server).await;
    let message =
        [channel_data(CHANNEL, &[1; 30_000]), channel_data(CHANNEL, &[2; 40_001])].concat();
    for cut in [1, 4, 29_999, 30_003, 30_004, 30_005, 30_008, 70_000] {
        let (first, second) = message.split_at(cut);
        client.send_bytes(first).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.send_bytes(second).await;
        assert_eq!(peer.recv().await.1, vec![1; 30_000], "cut at {cut}");
        assert_eq!(peer.recv().await.1, vec![2; 40_001], "cut at {cut}");
    }
}

#[tokio::test]
async fn the_allocation_ends_with_its_connection() {
    let server = server();
    let (client, peer) = connected(&server).await;
    let relayed = client.relayed();
    assert_eq!(scrape(server.http()).await.get(r#"hairpin_allocations{transport="tcp"}"#), 1.0);
    drop(client);
    until_nothing_is_held(&server).await;
    peer.send(relayed, b"too late").await;
}

#[tokio::test]
async fn tcp_and_udp_clients_relay_to_each_other() {
    let server = server();
    let mut stream = Client::tcp(server.turn()).await;
    let mut datagrams = Client::new(server.turn());
    assert_eq!(stream.allocate().await, 200);
    assert_eq!(datagrams.allocate().await, 200);
    assert_eq!(stream.bind(CHANNEL, datagrams.relayed()).await, 200);
    assert_eq!(datagrams.bind(CHANNEL, stream.relayed()).await, 200);
    for round in 0..20_u8 {
        stream.send_channel(CHANNEL, &[round; 101]).await;
        assert_eq!(datagrams.recv().await, Received::Channel(CHANNEL, vec![round; 101]));
        datagrams.send_channel(CHANNEL, &[round; 99]).await;
        assert_eq!(stream.recv().await, Received::Channel(CHANNEL, vec![round; 99]));
    }
}

#[tokio::test]
async fn what_is_no_message_closes_that_connection_alone() {
    let server = server();
    let (mut good, _peer) = connected(&server).await;
    let mut wrong_cookie = binding_request();
    wrong_cookie[5] ^= 1;
    let mut odd_length = binding_request();
    odd_length[3] = 2;
    for junk in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0xff; 40],
        vec![0x50, 0, 0, 0],
        vec![22, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        wrong_cookie,
        odd_length,
        [binding_request(), vec![0x80; 20]].concat(),
    ] {
        let client = Client::tcp(server.turn()).await;
        client.send_bytes(&junk).await;
        let answered = junk.len() > 20
            && junk[..20]
                == binding_request()[..8].iter().chain(&junk[8..20]).copied().collect::<Vec<_>>()[..];
        if answered && junk.len() == 40 {
            let until = tokio::time::Instant::now() + DEADLINE;
            assert!(client.recv_raw(until).await.is_some(), "what came before is answered");
        }
        assert!(client.is_closed().await, "{junk:02x?}");
    }
    assert_eq!(good.mapped().await, good.local());
}

#[tokio::test]
async fn silent_and_dribbling_connections_are_closed() {
    let server = TestServer::start(|config| {
        config.net.unauthenticated_idle = Duration::from_secs(1);
    });
    let silent = Client::tcp(server.turn()).await;
    let dribbling = Client::tcp(server.turn()).await;
    let mut answered = Client::tcp(server.turn()).await;
    assert_eq!(answered.mapped().await, answered.local());
    let (mut allocated, _peer) = connected(&server).await;
    let dribble = async {
        let request = binding_request();
        for byte in &request[..10] {
            dribbling.send_bytes(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        dribbling.is_closed().await
    };
    assert!(dribble.await, "half a header is no sign of life");
    assert!(silent.is_closed().await);
    assert!(answered.is_closed().await, "a connection without an allocation may not just stay");
    assert_eq!(allocated.mapped().await, allocated.local(), "one with an allocation may");
}

/// The client does not read; its peer floods. Nobody else notices, and memory is bounded by what
/// is dropped.
#[tokio::test]
async fn data_for_a_client_that_does_not_read_is_dropped_and_others_are_served() {
    let server = TestServer::start(|config| config.net.threads = 1);
    let (mut slow, peer) = connected(&server).await;
    let (mut other, other_peer) = connected(&server).await;
    let mut dropped = 0.0;
    for round in 0..2_000_u32 {
        for _ in 0..16 {
            peer.send(slow.relayed(), &[9; 8_000]).await;
        }
        other_peer.send(other.relayed(), &round.to_be_bytes()).await;
        let expected = Received::Channel(CHANNEL, round.to_be_bytes().to_vec());
        assert_eq!(other.recv().await, expected, "another client of the same shard");
        dropped = server.dropped("stream_full").await;
        if dropped > 0.0 {
            break;
        }
    }
    assert!(dropped > 0.0, "a bound is reached");
    // It starts to read: what was kept is whole, and the connection goes on.
    let mut read = 0;
    while timeout(Duration::from_millis(500), slow.recv()).await.is_ok() {
        read += 1;
    }
    assert!(read > 0);
    assert_eq!(slow.mapped().await, slow.local());
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_message_ends_the_allocation() {
    let server = server();
    let halves = [&binding_request()[..13], &channel_data(CHANNEL, &[7; 1_000])[..513]];
    for round in 0..20 {
        let stream = TcpStream::connect(server.turn()).await.unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let local = stream.local_addr().unwrap();
        let mut client = Client::over(stream, local, server.turn());
        assert_eq!(client.allocate().await, 200);
        let peer = Peer::at(server.turn().ip());
        assert_eq!(client.bind(CHANNEL, peer.address()).await, 200);
        client.send_bytes(halves[round % 2]).await;
    }
    until_nothing_is_held(&server).await;
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.mapped().await, client.local());
}

/// Waits until no allocation is left, and then no port may be.
async fn until_nothing_is_held(server: &TestServer) {
    let ended = async {
        while scrape(server.http()).await.sum("hairpin_allocations") > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, ended).await.expect("the allocations end");
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 0.0);
}

#[tokio::test]
async fn a_source_may_not_open_connections_without_end() {
    let server = TestServer::start(|config| config.net.threads = 1);
    let source: SocketAddr = ([127, 0, 0, 77], 0).into();
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..1_030 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(source).unwrap();
        held.push(socket.connect(server.turn()).await.unwrap());
    }
    for mut stream in held.split_off(1_000) {
        let _ = stream.write_all(&binding_request()).await;
        let mut answer = [0; 32];
        let read = timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap();
        refused += usize::from(read.is_err());
        held.push(stream);
    }
    assert_eq!(refused, 6, "1,024 of 1,030 are kept");
    let mut other = Client::tcp(server.turn()).await;
    assert_eq!(other.mapped().await, other.local(), "another source is served");
}

/// RFC 5766 §11: such a number ends the stream, unless the operator accepts it.
#[tokio::test]
async fn channels_of_rfc5766_pass_over_tcp_where_they_are_accepted() {
    let server = TestServer::start(|config| config.turn.channels = ChannelRange::Rfc5766);
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(server.turn().ip());
    assert_eq!(client.bind(0x7FFF, peer.address()).await, 200);
    client.send_channel(0x7FFF, b"to the peer").await;
    assert_eq!(peer.recv().await, (client.relayed(), b"to the peer".to_vec()));
    peer.send(client.relayed(), b"back").await;
    assert_eq!(client.recv().await, Received::Channel(0x7FFF, b"back".to_vec()));
    let strict = self::server();
    let client = Client::tcp(strict.turn()).await;
    client.send_bytes(&channel_data(0x5000, b"x")).await;
    assert!(client.is_closed().await);
}
