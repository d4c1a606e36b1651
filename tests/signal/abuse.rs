//! What clients do wrong, by carelessness or on purpose: conformance §3.7 and group H.

use hairpin::signal::{JOIN_COST, MAX_MESSAGE_BYTES, MESSAGE_BURST};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{TestServer, scrape};
use crate::socket::{
    BINARY, CLOSE, CONTINUATION, FIN, GOOD, ORIGIN, PING, PONG, Received, Socket, TEXT, frame,
    handshake, open_server,
};

/// H 98.
#[tokio::test]
async fn a_foreign_origin_is_refused_before_the_upgrade() {
    let server = open_server();
    for origin in [
        "https://evil.test",
        "null",
        "http://localhost.evil.test",
        "http://evil-localhost",
        "http://localhost@evil.test",
        "",
    ] {
        let headers = [&[("Origin", origin)], &GOOD[1..]].concat();
        let (_, head, _) = handshake(server.http(), "/ws", &headers).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{origin}: {head}");
    }
    let (_, head, _) = handshake(server.http(), "/ws", &GOOD[1..]).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "none: {head}");
    let twice = [&[("Origin", ORIGIN)], &GOOD[..]].concat();
    let (_, head, _) = handshake(server.http(), "/ws", &twice).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "twice: {head}");
    let refused = scrape(server.http()).await;
    assert_eq!(refused.get(r#"hairpin_signaling_refused_total{reason="origin"}"#), 8.0);
    assert_eq!(refused.get("hairpin_signaling_connections_total"), 0.0);
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let server = open_server();
    for (at, value, status) in [
        (1, "h2c", 426),
        (2, "keep-alive", 426),
        (3, "12", 426),
        (3, "", 426),
        (4, "short", 400),
        (4, "dGhlIHNhbXBsZSBub25jZQ", 400),
        (4, "", 400),
    ] {
        let mut headers = GOOD;
        headers[at].1 = value;
        let (_, head, _) = handshake(server.http(), "/ws", &headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {head}");
    }
}

/// H 99: one frame of 10 MB, and as much in fragments.
#[tokio::test]
async fn too_large_a_message_closes_with_1009() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    socket.raw(&frame(FIN | TEXT, &vec![b' '; 10 * 1024 * 1024])).await;
    assert_eq!(socket.end().await, Received::Close(Some(1009)));

    let mut socket = Socket::connect(server.http()).await;
    socket.raw(&frame(FIN | TEXT, &vec![b' '; MAX_MESSAGE_BYTES + 1])).await;
    assert_eq!(socket.end().await, Received::Close(Some(1009)));

    let mut socket = Socket::connect(server.http()).await;
    socket.frame(TEXT, &vec![b' '; MAX_MESSAGE_BYTES / 2]).await;
    socket.frame(CONTINUATION, &vec![b' '; MAX_MESSAGE_BYTES / 2]).await;
    socket.frame(FIN | CONTINUATION, b" ").await;
    assert_eq!(socket.end().await, Received::Close(Some(1009)));

    let mut socket = Socket::connect(server.http()).await;
    let mut exactly = json!({ "type": "ping" }).to_string();
    exactly.push_str(&" ".repeat(MAX_MESSAGE_BYTES - exactly.len()));
    socket.frame(FIN | TEXT, exactly.as_bytes()).await;
    assert_eq!(socket.message().await["type"], "pong");
}

#[tokio::test]
async fn fragments_without_end_close_with_1009() {
    let server = open_server();
    for content in [&b""[..], b" "] {
        let mut socket = Socket::connect(server.http()).await;
        socket.frame(TEXT, content).await;
        let many = frame(CONTINUATION, content).repeat(1000);
        for _ in 0..100 {
            socket.raw(&many).await;
        }
        assert_eq!(socket.end().await, Received::Close(Some(1009)));
    }
}

#[tokio::test]
async fn text_that_is_no_utf8_closes_with_1007() {
    let server = open_server();
    for bytes in [&b"\"\xff\""[..], b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
    {
        let mut socket = Socket::connect(server.http()).await;
        socket.frame(FIN | TEXT, bytes).await;
        assert_eq!(socket.end().await, Received::Close(Some(1007)), "{bytes:?}");
    }
}

#[tokio::test]
async fn frames_against_the_protocol_close_with_1002() {
    let server = open_server();
    let text = json!({ "type": "ping" }).to_string();
    let mut unmasked = vec![FIN | TEXT, text.len() as u8];
    unmasked.extend(text.as_bytes());
    for (what, bytes) in [
        ("unmasked", unmasked),
        // As if it were compressed, which was never agreed.
        ("reserved bit", frame(FIN | 0x40 | TEXT, text.as_bytes())),
        ("reserved kind", frame(FIN | 3, b"")),
        ("reserved control", frame(FIN | 11, b"")),
        ("long ping", frame(FIN | PING, &[0; 126])),
        ("fragmented ping", frame(PING, b"")),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"")),
        ("text within text", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat()),
    ] {
        let mut socket = Socket::connect(server.http()).await;
        socket.raw(&bytes).await;
        assert_eq!(socket.end().await, Received::Close(Some(1002)), "{what}");
    }
    let closed = scrape(server.http()).await;
    assert_eq!(closed.get(r#"hairpin_signaling_closed_total{reason="protocol-error"}"#), 8.0);
}

#[tokio::test]
async fn binary_closes_with_1003() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    socket.frame(FIN | BINARY, b"{}").await;
    assert_eq!(socket.end().await, Received::Close(Some(1003)));
}

/// H 99: a million tiny frames do not come through.
#[tokio::test]
async fn floods_close_with_1008() {
    let server = open_server();
    for flood in [
        frame(FIN | TEXT, b"{}"),
        frame(FIN | PING, b""),
        frame(FIN | PONG, b""),
        frame(FIN | TEXT, json!({ "type": "ping" }).to_string().as_bytes()),
    ] {
        let mut socket = Socket::connect(server.http()).await;
        socket.join("alice", "r").await;
        let burst = flood.repeat(1000);
        for _ in 0..20 {
            socket.raw(&burst).await;
        }
        assert_eq!(socket.end().await, Received::Close(Some(1008)));
    }
    let closed = scrape(server.http()).await;
    assert_eq!(closed.get(r#"hairpin_signaling_closed_total{reason="rate-limited"}"#), 4.0);
    // That was abuse, and no loss that keeps an id.
    assert_eq!(closed.get(r#"hairpin_signaling_peers{state="lost"}"#), 0.0);
}

/// Connections that read nothing are filled in turn, until no more may wait for all together, and on.
#[tokio::test]
async fn who_reads_nothing_is_closed_and_who_reads_is_not() {
    const DEAF: usize = 12;
    let server = TestServer::start(|config| {
        config.http.signaling.as_mut().unwrap().hub.outbound_bytes_in_all = MAX_MESSAGE_BYTES * 8;
    });
    let mut deaf = Vec::new();
    for at in 0..DEAF {
        let mut socket = Socket::connect_narrow(server.http()).await;
        socket.join(&format!("deaf-{at}"), "crowd").await;
        deaf.push(socket);
    }
    let mut sender = Socket::connect(server.http()).await;
    sender.join("sender", "crowd").await;
    let long = "x".repeat(MAX_MESSAGE_BYTES - 1000);
    let meta = "x".repeat(200);
    let mut readers = Vec::new();
    for round in 0..60 {
        let to = format!("deaf-{}", round % DEAF);
        sender.say(json!({ "type": "x", "to": to, "payload": long })).await;
        sender.say(json!({ "type": "ping", "payload": round })).await;
        while sender.message().await["payload"] != round {}
        // It is told much at once: who else is there.
        let mut reader = Socket::connect(server.http()).await;
        let payload = json!({ "meta": meta });
        let from = format!("reader-{round}");
        let join = json!({ "type": "join", "from": from, "room": "quiet", "payload": payload });
        reader.say(join).await;
        assert_eq!(reader.message().await["type"], "welcome", "round {round}");
        assert_eq!(reader.message().await["type"], "peers", "round {round}");
        readers.push(reader);
    }
    let metrics = scrape(server.http()).await;
    let slow = metrics.get(r#"hairpin_signaling_closed_total{reason="slow"}"#);
    assert!((1.0..=DEAF as f64).contains(&slow), "{slow}");
    assert_eq!(metrics.get("hairpin_signaling_connections"), (DEAF + 61) as f64 - slow);
}

/// H 100.
#[tokio::test]
async fn guessing_rooms_ends_soon() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    for guess in 0..10_000 {
        socket.say(json!({ "type": "join", "room": format!("guess-{guess}") })).await;
        socket.say(json!({ "type": "leave" })).await;
    }
    assert_eq!(socket.end().await, Received::Close(Some(1008)));
    let welcomes = scrape(server.http()).await.get("hairpin_signaling_ice_servers_total");
    assert!(welcomes <= f64::from(MESSAGE_BURST / JOIN_COST), "{welcomes}");
}

/// H 102.
#[tokio::test]
async fn hostile_json_is_told_and_the_connection_stays() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    socket.join("alice", "r").await;
    let deep = |by: usize| format!("{}{}", "[".repeat(by), "]".repeat(by));
    for text in [
        format!(r#"{{"type":"x","to":"alice","payload":{}}}"#, deep(10_000)),
        deep(10_000),
        "[".repeat(60_000),
        r#"{"type":1e400}"#.to_owned(),
        r#"{"type":"x","to":1e400}"#.to_owned(),
        r#"{"type":"x","to":"alice","payload":NaN}"#.to_owned(),
        r#"{"type":"x","to":"alice","payload":'a'}"#.to_owned(),
        r#"{"type":"x","from":"a","from":"b","to":"alice"}"#.to_owned(),
        "\u{0}".to_owned(),
    ] {
        socket.frame(FIN | TEXT, text.as_bytes()).await;
        let error = socket.message().await;
        assert_eq!(error["payload"]["code"], "malformed", "{text}");
    }
    let keys = r#"{"__proto__":{"from":"server"},"constructor":1,"type":"x","to":"alice"}"#;
    socket.frame(FIN | TEXT, keys.as_bytes()).await;
    assert_eq!(socket.message().await, json!({ "type": "x", "from": "alice", "to": "alice" }));
}

#[tokio::test]
async fn a_goodbye_is_answered_and_then_the_end() {
    let server = open_server();
    for (payload, code) in [(&b""[..], None), (&[0x03, 0xe9], Some(1001))] {
        let mut socket = Socket::connect(server.http()).await;
        socket.frame(FIN | CLOSE, payload).await;
        assert_eq!(socket.receive().await, Received::Close(code));
        assert_eq!(socket.receive().await, Received::End);
    }
}

/// Loopback is not counted, so they come by a load balancer that says where from.
#[tokio::test]
async fn so_many_connections_of_one_source_are_upgraded_and_the_next_is_refused() {
    const MOST: usize = 5;
    let server = TestServer::start(|config| {
        config.http.shared = true;
        config.net.proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.http.signaling.as_mut().unwrap().hub.connections_per_source = MOST;
    });
    let mut open = Vec::new();
    for _ in 0..MOST {
        let (stream, head) = from(&server, [192, 0, 2, 1]).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        open.push(stream);
    }
    let (_, head) = from(&server, [192, 0, 2, 1]).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let (_other, head) = from(&server, [192, 0, 2, 2]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let refused = scrape(server.http()).await;
    assert_eq!(refused.get(r#"hairpin_signaling_refused_total{reason="source_full"}"#), 1.0);
    // A place is free again with the end of who had it.
    drop(open.pop());
    let again =
        async { while !from(&server, [192, 0, 2, 1]).await.1.starts_with("HTTP/1.1 101 ") {} };
    tokio::time::timeout(crate::socket::DEADLINE, again).await.expect("a place is free");
}

/// An opening handshake of a client at this address, and the head of the answer.
async fn from(server: &TestServer, ip: [u8; 4]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.turn()).await.unwrap();
    let mut bytes = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C".to_vec();
    bytes.extend(ip);
    bytes.extend([203, 0, 113, 1, 0x9C, 0x40, 0x01, 0xBB]);
    bytes.extend(format!("GET /ws HTTP/1.1\r\nHost: {}\r\n", server.turn()).into_bytes());
    for (name, value) in GOOD {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    stream.write_all(&bytes).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}
