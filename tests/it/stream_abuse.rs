//! What hostile and broken clients do to streams: each ends its own connection, is counted, and
//! costs nobody else anything.

use std::time::Duration;

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::client::{Client, DEADLINE, binding_request};
use super::common::{TestServer, scrape};
use super::relay::loopback;
use super::tls::{Tls, handshake, read_to_end};

/// The beginning of a TLS record that is not going to end.
const HALF_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];

#[tokio::test]
async fn garbage_is_closed_unanswered_and_counted() {
    // No TLS: a ClientHello is garbage too.
    let server = TestServer::start(|config| config.net.tls = None);
    let mut wrong_cookie = binding_request();
    wrong_cookie[7] ^= 1;
    for (refused, (what, bytes)) in (1..).zip([
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("HTTP of proxies", b"CONNECT a:443 HTTP/1.1\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("SMB", b"\x00\x00\x00\x85\xffSMBr\x00\x00\x00\x00".to_vec()),
        ("RDP", b"\x03\x00\x00\x13\x0e\xe0\x00\x00".to_vec()),
        ("TLS", HALF_HELLO.to_vec()),
        ("SMTP", b"EHLO a\r\n".to_vec()),
        ("a wrong cookie", wrong_cookie),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xFF; 64]),
    ]) {
        let mut tcp = TcpStream::connect(server.turn()).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        // CONNECT and EHLO begin as ChannelData might; they wait for the rest in vain.
        assert_eq!(read_to_end(&mut tcp).await, b"", "{what}");
        let counted = server.refused("not_a_protocol").await + server.refused("deadline").await;
        assert_eq!(counted, f64::from(refused), "{what}");
    }
    assert!(server.refused("deadline").await <= 2.0);
    assert_eq!(server.connections("tcp").await, 0.0);
}

#[tokio::test]
async fn junk_behind_a_message_ends_that_connection_alone() {
    let server = TestServer::start(|_| {});
    let mut other = Client::tcp(server.turn()).await;
    assert_eq!(other.allocate().await, 200);
    let mut tcp = TcpStream::connect(server.turn()).await.unwrap();
    tcp.write_all(&[binding_request(), vec![0xEE; 100]].concat()).await.unwrap();
    let answer = read_to_end(&mut tcp).await;
    assert_eq!(answer.len(), 32, "the message is answered, the junk is not");
    assert_eq!(server.dropped("malformed").await, 1.0);
    assert_eq!(server.refused("not_a_protocol").await, 0.0, "it had come to something");
    assert_eq!(other.refresh(600).await, 200);
}

#[tokio::test]
async fn handshakes_and_messages_that_trickle_are_closed_at_the_deadline() {
    let server = Tls::start(70, |_| {});
    let channel_data = [&[0x40, 0, 0xFF, 0xFF][..], &[7; 60]].concat();
    let trickles = [HALF_HELLO.to_vec(), channel_data, binding_request()[..19].to_vec()];
    let trickles = trickles.map(|bytes| {
        let connecting = TcpStream::connect(server.server.turn());
        async move {
            let (mut reader, mut writer) = connecting.await.unwrap().into_split();
            let trickle = async {
                for byte in bytes {
                    let _ = writer.write_all(&[byte]).await;
                    sleep(Duration::from_millis(900)).await;
                }
                sleep(DEADLINE).await;
            };
            let mut answer = Vec::new();
            tokio::select! {
                _ = reader.read_to_end(&mut answer) => assert_eq!(answer, b""),
                () = trickle => panic!("still open"),
            }
        }
    });
    let [hello, channel, request] = trickles;
    tokio::join!(hello, channel, request);
    assert_eq!(server.server.refused("deadline").await, 3.0);
}

/// More half-open handshakes than one source may have: others notice nothing, and when they are
/// over all is as before.
#[tokio::test]
async fn half_handshakes_beyond_the_limit_do_not_keep_others_out() {
    let server = Tls::start(71, |_| {});
    let mut held = Vec::new();
    for _ in 0..1_100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((loopback(9, 71), 0).into()).unwrap();
        let mut tcp = socket.connect(server.server.turn()).await.unwrap();
        let _ = tcp.write_all(&HALF_HELLO).await;
        held.push(tcp);
    }
    server.server.until_refused("limit_source", 1.0).await;
    let mut client = server.client(server.config(&[&TLS13], server.trusting())).await;
    assert_eq!(client.allocate().await, 200);
    let over = async {
        while server.server.connections("tls").await > 1.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE * 2, over).await.expect("the deadline ends them");
    let refused = server.server.refused("deadline").await;
    let over_limit = server.server.refused("limit_source").await;
    assert_eq!(refused + over_limit, 1_100.0);
    assert!(over_limit >= 76.0, "{over_limit}");
    assert_eq!(client.refresh(600).await, 200);
    drop(held);
}

/// Handshakes that are begun and given up, one after the other: never many at once, and each would be
/// a signature on the thread that relays.
#[tokio::test]
async fn handshakes_of_a_source_are_limited_and_another_is_served_meanwhile() {
    let server = Tls::start(74, |config| {
        config.net.threads = 1;
        config.turn.limits.unauthenticated_per_source = 1;
    });
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((loopback(9, 74), 0).into()).unwrap();
        let mut tcp = socket.connect(server.server.turn()).await.unwrap();
        tcp.write_all(&HALF_HELLO).await.unwrap();
        // So that it is seen before it is over; what is refused ends by itself.
        let _ = tcp.shutdown().await;
        read_to_end(&mut tcp).await;
    }
    server.server.until_refused("handshake_rate", 1.0).await;
    let begun = server.server.refused("handshake_failed").await;
    let refused = server.server.refused("handshake_rate").await;
    assert_eq!(begun + refused, 100.0);
    assert!(begun >= 5.0, "a burst is served: {begun}");
    // Without TLS it is, and with TLS another source.
    let mut plain = TcpStream::connect(server.server.turn()).await.unwrap();
    plain.write_all(&binding_request()).await.unwrap();
    assert_eq!(plain.read_exact(&mut [0; 32]).await.unwrap(), 32);
    let mut client = server.client(server.config(&[&TLS13], server.trusting())).await;
    assert_eq!(client.allocate().await, 200);
}

#[tokio::test]
async fn a_handshake_given_up_is_counted() {
    let server = Tls::start(72, |_| {});
    for _ in 0..5 {
        let mut tcp = server.tcp().await;
        tcp.write_all(&HALF_HELLO).await.unwrap();
        tcp.shutdown().await.unwrap();
        read_to_end(&mut tcp).await;
    }
    server.server.until_refused("handshake_failed", 5.0).await;
    // Who goes without a byte has done nothing wrong.
    drop(server.tcp().await);
    let mut tcp = server.tcp().await;
    tcp.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut tcp).await, b"");
    assert_eq!(server.server.refused("not_a_protocol").await, 0.0);
}

#[tokio::test]
async fn an_oversized_record_ends_the_session() {
    let server = Tls::start(73, |_| {});
    let config = server.config(&[&TLS13], server.trusting());
    let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
    let (mut tcp, _) = tls.into_inner();
    // 2^14 + 2048 is what a record of TLS 1.2 may hold (RFC 5246 §6.2.3), and one of 1.3 holds
    // less. The header says enough: what it announces is not waited for.
    tcp.write_all(&[23, 3, 3, 0x48, 0x01]).await.unwrap();
    let answer = read_to_end(&mut tcp).await;
    // Tickets may come first; behind them an encrypted alert, and the end.
    assert!(answer.len() < 2_000, "{}", answer.len());
    assert_eq!(server.server.connections("tls").await, 0.0);
    assert_eq!(server.server.refused("deadline").await, 0.0, "it was not time that ended it");
}

/// Pieces of a message that never ends are no sign of life: neither the allocation nor the connection
/// outlives its time for them.
#[tokio::test]
async fn an_unfinished_message_keeps_neither_allocation_nor_connection() {
    let server = TestServer::start(|config| {
        config.turn.limits.default_lifetime = Duration::from_secs(1);
        config.net.unauthenticated_idle = Duration::from_secs(1);
    });
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    let (mut stream, _) = client.into_stream();
    stream.write_all(&[&[0x40, 0, 0xFF, 0xFF][..], &[0; 60_000]].concat()).await.unwrap();
    let trickle = async {
        while stream.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, trickle).await.expect("it is closed");
    assert_eq!(server.connections("tcp").await, 0.0);
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_allocations{transport="tcp"}"#), 0.0);
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 0.0);
}

/// What may be kept for a stranger is little, because there may be many of them.
#[tokio::test]
async fn a_stranger_who_reads_no_answers_or_begins_a_large_message_is_closed() {
    let server = TestServer::start(|_| {});
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.turn()).await.unwrap();
    let asking = async { while deaf.write_all(&binding_request().repeat(100)).await.is_ok() {} };
    timeout(DEADLINE, asking).await.expect("it is closed, and not waited for");
    assert_eq!(server.dropped("stream_full").await, 1.0);

    let mut tcp = TcpStream::connect(server.turn()).await.unwrap();
    let large = [&[0x40, 0, 0xFF, 0xFF][..], &[0; 8_000]].concat();
    tcp.write_all(&[binding_request(), large.clone()].concat()).await.unwrap();
    assert_eq!(read_to_end(&mut tcp).await.len(), 32, "the request before is answered");
    assert_eq!(server.dropped("stream_full").await, 2.0);

    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    client.send_raw(&large).await;
    client.send_raw(&vec![0; 65_536 - 8_000]).await;
    assert_eq!(client.refresh(600).await, 200, "with an allocation it may");
    assert_eq!(server.dropped("channel_unbound").await, 1.0);
}

#[tokio::test]
async fn a_half_closed_connection_is_answered_and_closed() {
    let server = TestServer::start(|_| {});
    let mut tcp = TcpStream::connect(server.turn()).await.unwrap();
    tcp.write_all(&binding_request().repeat(20)).await.unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut tcp).await.len(), 20 * 32);
}
