//! TURN over DTLS (RFC 7350), with a client and a network of the tests' own.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::certificates::{Files, Pair, Reload};
use openssl::ssl::{SslContextBuilder, SslVersion};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::client::{ALLOCATE, Client, DEADLINE, Peer, Received, binding_request};
use super::common::{TestServer, scrape};
use super::datagrams::{Dtls, context};
use super::relay::loopback;

const LIVE: &str = r#"hairpin_allocations{transport="dtls"}"#;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// Where the cookie is in a HelloVerifyRequest.
const COOKIE_AT: usize = 28;

fn start(fourth: u8, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(7, fourth), 0)];
        change(config);
    })
}

async fn client(server: &TestServer) -> Client {
    Client::within(Dtls::connected(server.turn().ip(), server.turn()).await)
}

async fn hello(server: &TestServer) -> Dtls {
    Dtls::new(server.turn().ip(), server.turn(), &context(|_| {})).await
}

/// What is not answered is not answered soon: by then, something sent later is.
async fn is_silent(dtls: &Dtls) -> bool {
    dtls.send_datagrams(&[binding_request()]).await;
    dtls.answer().await[..2] == [1, 1]
}

#[tokio::test]
async fn relays_both_ways_up_to_the_largest_record() {
    let server = start(1, |config| {
        config.net.listen.push(SocketAddr::new("::1".parse().unwrap(), 0));
    });
    for &listener in server.listening() {
        let mut client = Client::within(Dtls::connected(listener.ip(), listener).await);
        let peer = Peer::at(listener.ip());
        assert_eq!(client.mapped().await, client.local());
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        for length in [0, 1, 2, 3, 4, 5, 1_000, 9_000, (1 << 14) - 4] {
            client.send_channel(0x4000, &vec![7; length]).await;
            assert_eq!(peer.recv().await, (client.relayed(), vec![7; length]));
            peer.send(client.relayed(), &vec![9; length]).await;
            // Without padding, which the client checks: this is no stream.
            assert_eq!(client.recv().await, Received::Channel(0x4000, vec![9; length]));
        }
        client.send(peer.address(), b"indicated").await;
        assert_eq!(peer.recv().await.1, b"indicated");
    }
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(LIVE), 2.0);
    let series = r#"hairpin_relay_packets_total{direction="to_client",transport="dtls"}"#;
    assert_eq!(metrics.get(series), 18.0);
}

#[tokio::test]
async fn what_no_record_holds_is_dropped_and_counted() {
    let server = start(2, |_| {});
    let (mut client, peer) = (client(&server).await, Peer::at(loopback(7, 2)));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    peer.send(client.relayed(), &[9; (1 << 14) - 3]).await;
    server.until_dropped("too_large", 1.0).await;
    peer.send(client.relayed(), b"next").await;
    assert_eq!(client.recv().await, Received::Channel(0x4000, b"next".to_vec()));
}

#[tokio::test]
async fn relay_to_relay_between_dtls_and_udp() {
    let server = start(3, |_| {});
    let (mut within, mut plain) = (client(&server).await, Client::new(server.turn()));
    assert_eq!((within.allocate().await, plain.allocate().await), (200, 200));
    assert_eq!(within.bind(0x4000, plain.relayed()).await, 200);
    assert_eq!(plain.bind(0x4001, within.relayed()).await, 200);
    for number in 0..200_u8 {
        within.send_channel(0x4000, &[number; 700]).await;
        assert_eq!(plain.recv().await, Received::Channel(0x4001, vec![number; 700]));
        plain.send_channel(0x4001, &[number; 701]).await;
        assert_eq!(within.recv().await, Received::Channel(0x4000, vec![number; 701]));
    }
}

#[tokio::test]
async fn cookie_is_asked_for_without_state_and_verified_by_address() {
    let server = start(4, |_| {});
    let mut first = hello(&server).await;
    let out = first.step();
    first.send_datagrams(&out).await;
    let asked = first.answer().await;
    assert_eq!(asked.len(), 44);
    assert!(asked.len() < out[0].len(), "no help to whoever forges addresses");
    let [again] = &first.step_with(&asked)[..] else { panic!("one ClientHello") };
    // A wrong cookie is asked for again.
    let at = again.windows(16).position(|part| *part == asked[COOKIE_AT..]).unwrap();
    let mut wrong = again.clone();
    wrong[at] ^= 1;
    first.send_datagrams(&[wrong]).await;
    assert_eq!(first.answer().await[13], 3, "a HelloVerifyRequest");
    // The right one is worth nothing elsewhere.
    let thief = hello(&server).await;
    thief.send_datagrams(std::slice::from_ref(again)).await;
    let answer = thief.answer().await;
    assert_eq!((answer[13], answer.len()), (3, 44), "a HelloVerifyRequest");
    first.send_datagrams(std::slice::from_ref(again)).await;
    assert_eq!(first.answer().await[13], 2, "a ServerHello");
    // Once more, it is a retransmission and begins nothing.
    first.send_datagrams(std::slice::from_ref(again)).await;
    server.until_dropped("dtls_stray", 1.0).await;
}

#[tokio::test]
async fn first_records_have_the_number_of_the_client_hello() {
    let server = start(5, |_| {});
    let mut client = hello(&server).await;
    let mut out = client.step();
    out[0][10] = 40;
    client.send_datagrams(&out).await;
    let asked = client.answer().await;
    assert_eq!(asked[5..11], [0, 0, 0, 0, 0, 40]);
    let mut again = client.step_with(&asked);
    again[0][10] = 41;
    client.send_datagrams(&again).await;
    assert_eq!(client.answer().await[5..11], [0, 0, 0, 0, 0, 41]);
}

#[tokio::test]
async fn client_hello_in_fragments_is_dropped() {
    let server = start(6, |_| {});
    let mut client = hello(&server).await;
    let out = client.step();
    client.send_datagrams(&fragments(&out[0], 50)).await;
    server.until_dropped("dtls_stray", 3.0).await;
    // Thirty-five bytes that announce 650,000.
    let fragment =
        *b"\x16\xFE\xFD\0\0\0\0\0\0\0\0\0\x16\x01\x09\xEB\x10\0\0\0\0\0\0\0\x0A0123456789";
    let before = server.dropped("dtls_stray").await;
    client.send_datagrams(&vec![fragment.to_vec(); 100]).await;
    server.until_dropped("dtls_stray", before + 100.0).await;
    assert!(is_silent(&client).await);
}

#[tokio::test]
async fn handshake_survives_fragments_repetitions_and_disorder() {
    let server = start(7, |_| {});
    for in_order in [true, false] {
        let mut client = hello(&server).await;
        client.greet().await;
        let flight = client.answer().await;
        let last = client.step_with(&flight);
        let [key_exchange, rest @ ..] = &records(&last.concat())[..] else { panic!("records") };
        assert_eq!(key_exchange[13], 16);
        let mut fragments = fragments(key_exchange, 20);
        fragments.reverse();
        fragments.extend(fragments.clone());
        let mut rest = rest.to_vec();
        if in_order {
            client.send_datagrams(&fragments).await;
            client.send_datagrams(&rest).await;
            let datagram = client.answer().await;
            client.step_with(&datagram);
            assert!(client.is_connected(), "with the first answer");
        } else {
            // Finished before ChangeCipherSpec before the key exchange: what comes too early is
            // sent again.
            rest.reverse();
            client.send_datagrams(&rest).await;
            client.send_datagrams(&fragments).await;
            client.connect().await;
        }
        let mut client = Client::within(client);
        assert_eq!(client.allocate().await, 200);
    }
}

/// Sends what ends a handshake, and returns it.
async fn end_handshake(client: &mut Dtls) -> Vec<Vec<u8>> {
    let mut last = Vec::new();
    // The client may become impatient at the same time, and repeat its ClientHello.
    while last.first().is_none_or(|datagram: &Vec<u8>| datagram[13] != 16) {
        let flight = client.answer().await;
        last = client.step_with(&flight);
    }
    client.send_datagrams(&last).await;
    last
}

/// Each repetition of the client's Finished asks for ours again (RFC 6347 §4.2.4), and could ask for
/// as much as an attacker likes.
#[tokio::test]
async fn a_thousand_repetitions_of_a_flight_are_answered_eight_times() {
    let server = start(27, |_| {});
    let mut client = hello(&server).await;
    client.greet().await;
    let last = end_handshake(&mut client).await;
    let mut strays = server.dropped("dtls_stray").await;
    for _ in 0..20 {
        for _ in 0..50 {
            client.send_datagrams(&last).await;
        }
        strays += 50.0;
        server.until_dropped("dtls_stray", strays).await;
    }
    // What was counted last was answered before, if at all.
    let mut flights = Vec::new();
    while let Some(datagram) = client.datagram(Instant::now() + Duration::from_millis(200)).await {
        flights.push(datagram);
    }
    let repeated = flights.iter().filter(|datagram| datagram[0] == 20).count();
    assert_eq!(repeated, 1 + 8, "a ChangeCipherSpec begins each");
    for flight in flights {
        client.step_with(&flight);
    }
    assert!(client.is_connected());
    let mut client = Client::within(client);
    assert_eq!(client.allocate().await, 200);
    assert_eq!(server.connections("dtls").await, 1.0);
}

#[tokio::test]
async fn lost_flights_are_sent_again() {
    let server = start(8, |_| {});
    let mut client = hello(&server).await;
    client.greet().await;
    assert_eq!(client.answer().await[13], 2, "a ServerHello, which is lost");
    // By the server, as the client says nothing.
    end_handshake(&mut client).await;
    // A ChangeCipherSpec, and Finished: lost.
    while client.answer().await[0] != 20 {}
    // By the client, whose repetition the server repeats.
    let guard = Instant::now() + DEADLINE;
    let mut repeated = Vec::new();
    while repeated.is_empty() {
        assert!(Instant::now() < guard, "a client sends again");
        sleep(Duration::from_millis(50)).await;
        repeated = client.step();
    }
    client.send_datagrams(&repeated).await;
    while !client.is_connected() {
        let again = client.answer().await;
        client.step_with(&again);
    }
    let mut client = Client::within(client);
    assert_eq!(client.allocate().await, 200);
    // From then on there is nothing to repeat.
    client.dtls().send_datagrams(&repeated).await;
    server.until_dropped("dtls_stray", 1.0).await;
    assert_eq!(client.refresh(600).await, 200);
}

#[tokio::test]
async fn replayed_and_damaged_records_are_dropped() {
    let server = start(9, |_| {});
    let (mut client, peer) = (client(&server).await, Peer::at(loopback(7, 9)));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let before = server.dropped("dtls_stray").await;
    let dtls = client.dtls();
    let sealed = dtls.seal(b"\x40\x00\x00\x04once");
    let mut damaged = sealed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    dtls.send_datagrams(&[damaged]).await;
    dtls.send_datagrams(&vec![sealed.clone(); 1000]).await;
    let mut next_epoch = sealed.clone();
    next_epoch[4] = 2;
    let mut plain = sealed.clone();
    plain[4] = 0;
    dtls.send_datagrams(&[next_epoch, plain]).await;
    dtls.send(b"\x40\x00\x00\x04next").await;
    assert_eq!(peer.recv().await.1, b"once");
    assert_eq!(peer.recv().await.1, b"next");
    server.until_dropped("dtls_stray", before + 1002.0).await;
    assert_eq!(client.refresh(600).await, 200);
}

#[tokio::test]
async fn several_records_in_one_datagram_are_several_messages() {
    let server = start(10, |_| {});
    let (mut client, peer) = (client(&server).await, Peer::at(loopback(7, 10)));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let dtls = client.dtls();
    let datagram: Vec<_> = (0..20_u8).flat_map(|n| dtls.seal(&[0x40, 0, 0, 1, n])).collect();
    dtls.send_datagrams(&[datagram]).await;
    for number in 0..20 {
        assert_eq!(peer.recv().await.1, [number]);
    }
}

#[tokio::test]
async fn records_without_a_session_are_dropped_and_counted() {
    let server = start(11, |_| {});
    let stranger = hello(&server).await;
    let mut sent = 0.0;
    for content in [20, 21, 22, 23] {
        for epoch in [0, 1, 2, 255] {
            for length in [0, 1, 30, 255] {
                let header = [content, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 1, 0, length];
                let record = [&header[..], &vec![16; length.into()]].concat();
                stranger.send_datagrams(&[record]).await;
                sent += 1.0;
            }
        }
    }
    server.until_dropped("dtls_stray", sent).await;
    assert!(is_silent(&stranger).await);
    assert_eq!(server.dropped("dtls_stray").await, sent);
}

#[tokio::test]
async fn answers_to_strangers_are_limited() {
    let server = start(12, |config| {
        config.turn.limits.unauthenticated_per_source = 2;
        config.net.threads = 1;
    });
    let mut client = hello(&server).await;
    let out = client.step();
    client.send_datagrams(&vec![out[0].clone(); 100]).await;
    server.until_dropped("rate_limited", 90.0).await;
}

#[tokio::test]
async fn handshakes_of_one_source_are_limited_and_end_in_time() {
    let server = start(13, |_| {});
    let ip = server.turn().ip();
    let context = context(|_| {});
    let mut half_open = Vec::new();
    for _ in 0..64 {
        let mut client = Dtls::new(ip, server.turn(), &context).await;
        client.greet().await;
        assert_eq!(client.answer().await[13], 2, "a ServerHello");
        half_open.push(client);
    }
    let mut refused = Dtls::new(ip, server.turn(), &context).await;
    refused.greet().await;
    server.until_dropped("dtls_full", 1.0).await;
    assert!(is_silent(&refused).await);
    // Somebody else is served, and so is the same source when one of its handshakes ends.
    Dtls::connected(loopback(7, 113), server.turn()).await;
    let ended = half_open.pop().unwrap();
    finish(ended).await;
    Dtls::connected(ip, server.turn()).await;
    // The others end by themselves.
    let mut more = Vec::new();
    let guard = Instant::now() + DEADLINE;
    while more.len() < 32 {
        let mut client = Dtls::new(ip, server.turn(), &context).await;
        client.greet().await;
        let answer = client.datagram(Instant::now() + Duration::from_millis(500)).await;
        more.extend(answer.map(|_| client));
        assert!(Instant::now() < guard, "handshakes end");
    }
}

/// As many sources as could have all handshakes there may be, if each had all that one may have.
#[tokio::test]
async fn handshakes_of_sixteen_sources_do_not_keep_a_seventeenth_out() {
    let server = start(24, |config| config.turn.limits.unauthenticated_per_source = 0);
    let mut model = hello(&server).await;
    let out = model.step();
    model.send_datagrams(&out).await;
    let asked = model.answer().await;
    let [again] = &model.step_with(&asked)[..] else { panic!("one ClientHello") };
    let at = again.windows(16).position(|part| *part == asked[COOKIE_AT..]).unwrap();
    // The same client's words from everywhere, each time with the cookie that is for there.
    let mut half_open = Vec::new();
    for client in 0..16 * 64_u16 {
        let socket = UdpSocket::bind((loopback(10, (client / 64) as u8), 0)).await.unwrap();
        socket.send_to(&out[0], server.turn()).await.unwrap();
        let mut asked = [0; 64];
        let read = timeout(DEADLINE, socket.recv(&mut asked)).await.expect("a cookie").unwrap();
        let mut again = again.clone();
        again[at..at + 16].copy_from_slice(&asked[COOKIE_AT..read]);
        socket.send_to(&again, server.turn()).await.unwrap();
        half_open.push(socket);
    }
    let guard = Instant::now() + DEADLINE;
    while server.connections("dtls").await + server.dropped("dtls_full").await < 1024.0 {
        assert!(Instant::now() < guard, "all are seen");
        sleep(Duration::from_millis(5)).await;
    }
    let refused = server.dropped("dtls_full").await;
    Dtls::connected(loopback(10, 16), server.turn()).await;
    assert_eq!(server.dropped("dtls_full").await, refused, "at its first attempt");
}

/// Ends a handshake whose server flight has been read, and may be sent again.
async fn finish(mut client: Dtls) {
    while !client.is_connected() {
        let datagram = client.answer().await;
        let out = client.step_with(&datagram);
        client.send_datagrams(&out).await;
    }
}

#[tokio::test]
async fn idle_session_without_an_allocation_is_closed() {
    let server = start(14, |config| config.net.unauthenticated_idle = Duration::from_secs(1));
    let mut idle = client(&server).await;
    let mut busy = client(&server).await;
    assert_eq!(busy.allocate().await, 200);
    assert!(idle.dtls().is_closed().await);
    // Junk is no sign of life.
    let mut noisy = client(&server).await;
    let (begun, mut closed) = (Instant::now(), false);
    while !closed && begun.elapsed() < DEADLINE {
        noisy.dtls().send(&[0xEE; 20]).await;
        let ends = timeout(Duration::from_millis(100), noisy.dtls().is_closed());
        closed = ends.await.unwrap_or(false);
    }
    assert!(closed, "it is closed all the same");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(busy.refresh(600).await, 200);
}

#[tokio::test]
async fn close_notify_is_answered_and_frees_the_allocation() {
    let server = start(15, |_| {});
    let mut client = client(&server).await;
    assert_eq!(client.allocate().await, 200);
    assert_eq!(scrape(server.http()).await.get(LIVE), 1.0);
    let dtls = client.dtls();
    // The last message is answered before.
    let last = [dtls.seal(&binding_request()), dtls.close_notify()].concat();
    dtls.send_datagrams(&vec![last; 100]).await;
    assert!(dtls.recv(Instant::now() + DEADLINE).await.is_some_and(|reply| reply[..2] == [1, 1]));
    assert!(dtls.is_closed().await);
    let guard = Instant::now() + DEADLINE;
    while scrape(server.http()).await.get(LIVE) > 0.0 {
        assert!(Instant::now() < guard, "the allocation ends with its session");
        sleep(Duration::from_millis(5)).await;
    }
    server.until_dropped("dtls_stray", 99.0).await;
}

#[tokio::test]
async fn client_that_lost_its_session_begins_another_on_the_same_port() {
    let server = start(16, |_| {});
    let mut client = client(&server).await;
    assert_eq!(client.allocate().await, 200);
    // A ClientHello alone, which anybody can send with a forged source, ends nothing.
    let mut stranger = hello(&server).await;
    let forged = stranger.step();
    client.dtls().send_datagrams(&forged).await;
    assert_eq!(client.dtls().answer().await[13], 3, "a HelloVerifyRequest");
    assert_eq!(client.refresh(600).await, 200);
    let socket = client.into_dtls().into_socket();
    let mut dtls = Dtls::on(socket, server.turn(), &context(|_| {}), None);
    dtls.connect().await;
    let mut client = Client::within(dtls);
    assert_eq!(client.allocate().await, 200, "its old allocation is gone");
    let metrics = scrape(server.http()).await;
    assert_eq!((metrics.get(LIVE), metrics.sum("hairpin_allocations_total")), (1.0, 2.0));
}

#[tokio::test]
async fn certificate_is_replaced_and_sessions_go_on() {
    let home = tempfile::tempdir().unwrap();
    let files = Files { cert: home.path().join("cert.pem"), key: home.path().join("key.pem") };
    write_self_signed(&files);
    let first = Pair::load(files.clone()).unwrap();
    let server = start(17, |config| config.net.tls.as_mut().unwrap().pairs = vec![first]);
    let mut client = client(&server).await;
    assert_eq!(client.allocate().await, 200);
    let before = client.dtls().shown();
    write_self_signed(&files);
    server.running().reload_certificates(Reload::Changed);
    let after = Dtls::connected(server.turn().ip(), server.turn()).await.shown();
    assert_ne!(before, after);
    assert_eq!(client.refresh(600).await, 200);
}

#[tokio::test]
async fn host_chooses_the_certificate() {
    let server = start(18, |config| {
        let other = Pair::self_signed(&["turn.test"]).unwrap();
        config.net.tls.as_mut().unwrap().pairs.push(other);
    });
    let mut shown = Vec::new();
    for host in [None, Some("localhost"), Some("turn.test"), Some("unknown.test")] {
        let ip = server.turn().ip();
        let mut client = Dtls::of_host(ip, server.turn(), &context(|_| {}), host).await;
        client.connect().await;
        shown.push(client.shown());
    }
    assert_eq!((&shown[0], &shown[0]), (&shown[1], &shown[3]));
    assert_ne!(shown[0], shown[2]);
}

#[tokio::test]
async fn rsa_key_serves_with_its_whole_chain() {
    let home = tempfile::tempdir().unwrap();
    let files = Files { cert: home.path().join("cert.pem"), key: home.path().join("key.pem") };
    let chain = write_rsa_chain(&files);
    let pair = Pair::load(files).unwrap();
    let server = start(19, |config| config.net.tls.as_mut().unwrap().pairs = vec![pair]);
    let client = Dtls::connected(server.turn().ip(), server.turn()).await;
    assert_eq!(client.shown(), chain);
    assert_eq!(client.version(), Some(SslVersion::DTLS1_2));
    assert_eq!(client.suite(), "ECDHE-RSA-AES256-GCM-SHA384", "the server's own choice");
    // The one that RFC 8489 §6.2.3 wants every server to know, and no compression in the hello.
    let suite = "ECDHE-RSA-AES128-GCM-SHA256";
    let only = context(|context| context.set_cipher_list(suite).unwrap());
    let mut client = Dtls::new(server.turn().ip(), server.turn(), &only).await;
    client.connect().await;
    assert_eq!(client.suite(), suite);
    assert_eq!(Client::within(client).allocate().await, 200);
}

/// RFC 7350 §4.6: datagrams are lost, and requests repeated
#[tokio::test]
async fn repeated_request_is_answered_alike_and_makes_one_allocation() {
    let server = start(25, |_| {});
    let mut client = client(&server).await;
    // For a nonce.
    assert_eq!(client.refresh(600).await, 437);
    let request = client.signed(ALLOCATE, |_| vec![(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])]);
    let mut answers = Vec::new();
    for _ in 0..5 {
        client.send_raw(&request).await;
        let until = Instant::now() + DEADLINE;
        answers.push(client.recv_raw(until).await.expect("an answer"));
    }
    assert_eq!(answers[0][..2], [1, 3], "a success");
    let relayed = |answer: &Vec<u8>| answer[20..32].to_vec();
    assert!(answers.iter().all(|answer| relayed(answer) == relayed(&answers[0])));
    let metrics = scrape(server.http()).await;
    assert_eq!((metrics.get(LIVE), metrics.sum("hairpin_allocations_total")), (1.0, 1.0));
}

/// RFC 8489 §11
#[tokio::test]
async fn classic_request_within_a_session_is_500() {
    let server = start(26, |_| {});
    let client = client(&server).await;
    let mut request = binding_request();
    request[4..8].copy_from_slice(b"\x9e\x37\x79\xb9");
    client.send_raw(&request).await;
    let answer = client.recv_raw(Instant::now() + DEADLINE).await.expect("an answer");
    assert_eq!(answer[..4], [0x01, 0x11, 0, 8]);
    assert_eq!(answer[4..20], request[4..20], "all of the transaction id");
    assert_eq!(answer[20..], *b"\x00\x09\x00\x04\x00\x00\x05\x00");
    request[1] |= 0x10;
    client.send_raw(&request).await;
    server.until_dropped("malformed", 1.0).await;
}

/// RFC 7443
#[tokio::test]
async fn protocols_are_negotiated_where_the_client_asks() {
    let server = start(24, |_| {});
    let ip = server.turn().ip();
    for (offered, chosen) in [
        (&b""[..], None),
        (b"\x09stun.turn", Some(&b"stun.turn"[..])),
        (b"\x12stun.nat-discovery", Some(b"stun.nat-discovery")),
        (b"\x02h2\x12stun.nat-discovery\x09stun.turn", Some(b"stun.turn")),
    ] {
        let offers = |context: &mut SslContextBuilder| {
            if !offered.is_empty() {
                context.set_alpn_protos(offered).unwrap();
            }
        };
        let mut dtls = Dtls::new(ip, server.turn(), &context(offers)).await;
        dtls.connect().await;
        assert_eq!(dtls.protocol(), chosen, "{offered:?}");
        assert_eq!(Client::within(dtls).allocate().await, 200);
    }
    let offers = context(|context| context.set_alpn_protos(b"\x02h2\x08http/1.1").unwrap());
    let mut refused = Dtls::new(ip, server.turn(), &offers).await;
    refused.greet().await;
    let answer = refused.answer().await;
    // One fatal alert: no_application_protocol.
    assert_eq!((answer[0], &answer[13..]), (21, &[2, 120][..]), "{answer:?}");
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_refused() {
    let server = start(20, |_| {});
    let old = context(|context| {
        context.set_security_level(0);
        context.set_min_proto_version(Some(SslVersion::DTLS1)).unwrap();
        context.set_max_proto_version(Some(SslVersion::DTLS1)).unwrap();
    });
    let weak = ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"];
    let weak = weak.map(|suite| context(|context| context.set_cipher_list(suite).unwrap()));
    for context in weak.iter().chain([&old]) {
        let mut client = Dtls::new(server.turn().ip(), server.turn(), context).await;
        client.greet().await;
        let answer = client.answer().await;
        // One fatal alert: handshake_failure, or protocol_version.
        assert!(matches!(answer[13..], [2, 40 | 70]) && answer[0] == 21, "{answer:?}");
    }
    // Nothing is left of them.
    assert_eq!(client(&server).await.allocate().await, 200);
}

#[tokio::test]
async fn off_means_silence() {
    let server = start(21, |config| config.net.tls.as_mut().unwrap().dtls = false);
    let mut client = hello(&server).await;
    let out = client.step();
    client.send_datagrams(&out).await;
    server.until_dropped("demux", 1.0).await;
    assert!(is_silent(&client).await);
}

#[tokio::test]
async fn one_port_speaks_both_and_another_only_dtls() {
    let server = start(22, |config| {
        let listen = config.net.listen.clone();
        config.net.tls.as_mut().unwrap().listen = listen;
    });
    let addresses = server.running().addresses();
    let only = addresses.tls[0];
    assert_eq!(addresses.dtls, [server.turn(), only]);
    let mut plain = Client::new(server.turn());
    assert_eq!(plain.allocate().await, 200);
    let mut within = client(&server).await;
    assert_eq!(within.allocate().await, 200);
    let dtls = Dtls::connected(only.ip(), only).await;
    dtls.send_datagrams(&[binding_request(), vec![]]).await;
    server.until_dropped("demux", 2.0).await;
    let mut within = Client::within(dtls);
    assert_eq!(within.allocate().await, 200);
}

#[tokio::test]
async fn server_that_stops_closes_its_sessions() {
    let server = start(23, |_| {});
    let mut client = client(&server).await;
    assert_eq!(client.allocate().await, 200);
    drop(server);
    assert!(client.dtls().is_closed().await);
}

/// The records of a datagram, each by itself.
fn records(mut datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !datagram.is_empty() {
        let length = usize::from(u16::from_be_bytes([datagram[11], datagram[12]])) + 13;
        records.push(datagram[..length].to_vec());
        datagram = &datagram[length..];
    }
    records
}

/// The one handshake message of a record, in pieces, each in a record with a number of its own.
fn fragments(record: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, message) = (&record[..25], &record[25..]);
    let mut fragments = Vec::new();
    for (index, piece) in message.chunks(size).enumerate() {
        let mut fragment = [header, piece].concat();
        fragment[10] = 20 + index as u8;
        fragment[11..13].copy_from_slice(&(piece.len() as u16 + 12).to_be_bytes());
        fragment[20..22].copy_from_slice(&((index * size) as u16).to_be_bytes());
        fragment[22..25].copy_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        fragments.push(fragment);
    }
    fragments
}

fn write_self_signed(files: &Files) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    for (file, label, der) in [
        (&files.cert, "CERTIFICATE", cert.der().to_vec()),
        (&files.key, "PRIVATE KEY", key.serialize_der()),
    ] {
        let next = file.with_extension("next");
        fs::write(&next, super::tls::pem(label, &der)).unwrap();
        fs::rename(next, file).unwrap();
    }
}

/// A certificate for an RSA key and the authority's behind it; returns both in DER.
fn write_rsa_chain(files: &Files) -> Vec<Vec<u8>> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
    let rsa = openssl::pkey::PKey::from_rsa(rsa).unwrap().private_key_to_pkcs8().unwrap();
    let key = KeyPair::try_from(rsa.clone()).unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![cert.der().to_vec(), authority_cert.der().to_vec()];
    let pem: String =
        chain.iter().map(|certificate| super::tls::pem("CERTIFICATE", certificate)).collect();
    fs::write(&files.cert, pem).unwrap();
    fs::write(&files.key, super::tls::pem("PRIVATE KEY", &rsa)).unwrap();
    chain
}
