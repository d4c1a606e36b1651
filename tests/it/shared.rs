//! HTTP on the ports of TURN: told apart, handed over, and bounded.

use std::net::IpAddr;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, DEADLINE};
use super::common::get;
use super::relay::loopback;
use super::stream::{Dribble, Stream};
use super::tls::{Tls, handshake, read_to_end};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn shared(fourth: u8) -> Tls {
    Tls::start(fourth, |config| config.http.shared = true)
}

impl Tls {
    fn offering(&self, protocols: &[&str]) -> ClientConfig {
        let mut config = self.config(&[&TLS12, &TLS13], self.trusting());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// All that the server says to these bytes until it closes.
pub(crate) async fn answer(mut stream: impl Stream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    read.expect("the server closes").unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn is_healthy(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n")
}

#[tokio::test]
async fn plain_http_is_answered_on_the_turn_port() {
    let server = shared(40);
    assert_eq!(get(server.server.turn(), "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(server.server.turn(), "/readyz").await, (200, "ready\n".into()));
    assert!(is_healthy(&answer(Dribble(server.tcp().await), HEALTH).await));
    // Several requests at once, then one more on the same connection.
    let mut tcp = server.tcp().await;
    tcp.write_all(&b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).await.unwrap();
    let mut three = Vec::new();
    while three.windows(7).filter(|at| at == b"\r\n\r\nok\n").count() < 3 {
        assert_ne!(timeout(DEADLINE, tcp.read_buf(&mut three)).await.unwrap().unwrap(), 0);
    }
    assert!(is_healthy(&answer(tcp, HEALTH).await));
}

#[tokio::test]
async fn https_is_answered_with_and_without_a_negotiated_protocol() {
    let server = shared(41);
    for version in [&TLS12, &TLS13] {
        for protocols in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
            let mut config = server.config(&[version], server.trusting());
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            let tcp = server.tcp().await;
            let tls = handshake(config.clone(), "localhost", tcp).await.unwrap();
            let agreed = tls.get_ref().1.alpn_protocol();
            assert_eq!(agreed, (!protocols.is_empty()).then_some(&b"http/1.1"[..]));
            assert!(is_healthy(&answer(tls, HEALTH).await), "{protocols:?}");
            let slow = Dribble(server.tcp().await);
            let tls = handshake(config, "localhost", slow).await.unwrap();
            assert!(is_healthy(&answer(tls, HEALTH).await), "{protocols:?}, byte for byte");
        }
    }
}

#[tokio::test]
async fn a_large_answer_passes_a_slow_reader_of_https() {
    let server = Tls::start(42, |config| {
        config.http.shared = true;
        config.http.shared_admin = true;
    });
    let mut tls = handshake(server.offering(&[]), "localhost", server.tcp().await).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(400);
    let last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // More than all buffers on the way hold: the server must wait, and go on.
    let (mut from_server, mut to_server) = tokio::io::split(&mut tls);
    let send = async {
        to_server.write_all(&request).await.unwrap();
        to_server.write_all(last).await.unwrap();
        to_server.flush().await.unwrap();
    };
    let read = async {
        sleep(Duration::from_millis(300)).await;
        let mut bytes = Vec::new();
        timeout(DEADLINE * 2, from_server.read_to_end(&mut bytes)).await.unwrap().unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let ((), text) = tokio::join!(send, read);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 401);
    assert!(text.len() > 2_000_000 && text.ends_with("\r\n\r\nok\n"), "{}", text.len());
}

#[tokio::test]
async fn what_is_for_the_operator_is_shown_only_where_configured() {
    for (fourth, shared_admin, status) in [(43, false, 404), (44, true, 200)] {
        let server = Tls::start(fourth, |config| {
            config.http.shared = true;
            config.http.shared_admin = shared_admin;
        });
        for path in ["/metrics", "/api/v1/sessions"] {
            let status = if path == "/metrics" { status } else { 404 };
            assert_eq!(get(server.server.turn(), path).await.0, status, "{path}");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let tls = handshake(server.offering(&["http/1.1"]), "localhost", server.tcp().await);
            let answer = answer(tls.await.unwrap(), request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}

/// A page that came without TLS is not the server's own where TLS ends here.
#[tokio::test]
async fn own_pages_are_those_that_came_as_the_request_does() {
    let server = Tls::start(49, |config| {
        config.http.shared = true;
        config.public_host = Some("localhost".to_owned());
        config.http.signaling.as_mut().unwrap().origins.local = false;
        config.http.signaling.as_mut().unwrap().origins.public_host = Some("localhost".to_owned());
    });
    let host = format!("localhost:{}", server.server.turn().port());
    for (scheme, over_tls, status) in
        [("http", true, 403), ("https", true, 200), ("http", false, 200), ("https", false, 200)]
    {
        let request = format!(
            "GET /ice-servers HTTP/1.1\r\nHost: {host}\r\nOrigin: {scheme}://{host}\r\n\
             Connection: close\r\n\r\n"
        );
        let tcp = server.tcp().await;
        let answer = if over_tls {
            let tls = handshake(server.offering(&["http/1.1"]), "localhost", tcp).await.unwrap();
            answer(tls, request.as_bytes()).await
        } else {
            answer(tcp, request.as_bytes()).await
        };
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{scheme}, over TLS: {over_tls}: {answer}");
    }
}

#[tokio::test]
async fn http_where_it_is_not_shared_is_closed_unanswered_and_counted() {
    let server = Tls::start(45, |_| {});
    let mut tcp = server.tcp().await;
    tcp.write_all(HEALTH).await.unwrap();
    assert_eq!(read_to_end(&mut tcp).await, b"");
    assert_eq!(server.server.refused("not_a_protocol").await, 1.0);
    let tls = handshake(server.offering(&[]), "localhost", server.tcp().await).await.unwrap();
    assert_unanswered(tls).await;
    assert_eq!(server.server.refused("not_a_protocol").await, 2.0);
    let refused = handshake(server.offering(&["http/1.1"]), "localhost", server.tcp().await).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    server.server.until_refused("handshake_failed", 1.0).await;
}

/// Who asked for TURN in the handshake is not given HTTP: another's page may have sent it here.
#[tokio::test]
async fn http_after_agreeing_on_turn_is_closed_unanswered() {
    let server = shared(46);
    for protocol in ["stun.turn", "stun.nat-discovery"] {
        let config = server.offering(&[protocol, "http/1.1"]);
        let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
        assert_unanswered(tls).await;
    }
    assert_eq!(server.server.refused("not_a_protocol").await, 2.0);
}

async fn assert_unanswered(mut stream: impl Stream) {
    stream.write_all(HEALTH).await.unwrap();
    stream.flush().await.unwrap();
    let mut bytes = Vec::new();
    // Closed with or without a close_notify.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    assert_eq!(bytes, b"");
}

#[tokio::test]
async fn half_a_head_is_closed_at_the_deadline_and_gives_its_place_back() {
    let server = shared(47);
    let mut plain = server.tcp().await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.unwrap();
    // Agreed on HTTP, and then silent.
    let config = server.offering(&["http/1.1"]);
    let silent = handshake(config, "localhost", server.tcp().await).await.unwrap();
    let open = async {
        while server.server.connections("http").await < 2.0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, open).await.expect("both are counted while they are open");
    assert_eq!(read_to_end(&mut plain).await, b"");
    let (mut silent, _) = silent.into_inner();
    read_to_end(&mut silent).await;
    let closed = async {
        while server.server.connections("http").await > 0.0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, closed).await.expect("both places are free");
}

/// One source that opens all the connections that are served at once and all that may wait, and
/// keeps them by asking again and again.
#[tokio::test]
async fn a_source_that_holds_on_has_its_part_and_another_is_served_meanwhile() {
    let server = shared(49);
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..256 + 64 {
        let mut tcp = from(&server, loopback(9, 49)).await;
        tcp.write_all(request).await.unwrap();
        held.push(tcp);
    }
    server.server.until_refused("limit_http_source", 1.0).await;
    assert_eq!(get(server.server.turn(), "/healthz").await, (200, "ok\n".into()));
    let mut answered = 0;
    for mut tcp in held {
        let mut answer = Vec::new();
        while timeout(DEADLINE, tcp.read_buf(&mut answer)).await.unwrap().unwrap_or(0) > 0 {}
        answered += usize::from(answer.ends_with(b"ok\n"));
    }
    assert!(answered >= 16, "its part, or more where some have ended: {answered}");
}

async fn from(server: &Tls, source: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(server.server.turn()).await.unwrap()
}

#[tokio::test]
async fn more_than_can_be_served_are_closed_and_counted_and_turn_goes_on() {
    let server = shared(48);
    let mut held = Vec::new();
    // Again where it took so long that the first had their deadline before the last came.
    let guard = Instant::now() + 3 * DEADLINE;
    while server.server.refused("handover_full").await < 1.0 {
        assert!(Instant::now() < guard, "the places are bounded");
        held.clear();
        for at in 0..600 {
            let mut tcp = from(&server, loopback(12, (at % 250) as u8)).await;
            let _ = tcp.write_all(b"GET /healthz HTTP/1.1\r\n").await;
            held.push(tcp);
        }
    }
    let mut client = Client::tcp(server.server.turn()).await;
    assert_eq!(client.mapped().await, client.local());
    // They are closed at the deadline for heads, and then others have their turn.
    let served = async {
        loop {
            let mut tcp = TcpStream::connect(server.server.turn()).await.unwrap();
            tcp.write_all(HEALTH).await.unwrap();
            if read_to_end(&mut tcp).await.ends_with(b"\r\n\r\nok\n") {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE * 2, served).await.expect("HTTP is served again");
}
