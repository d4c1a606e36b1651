//! Peers meet over real sockets.

use std::time::Duration;

use hairpin::signal::OUTBOUND_BYTES;
use serde_json::json;
use tokio::time::Instant;

use crate::common::scrape;
use crate::socket::{
    CLOSE, FIN, GOOD, PING, Received, Socket, TEXT, closed_server, handshake, open_server, token,
};

/// What the server gives a connection that it closes to hear why.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn two_peers_meet_in_a_room_and_signal() {
    let server = open_server();
    let (mut alice, mut bob) =
        (Socket::connect(server.http()).await, Socket::connect(server.http()).await);
    let (welcome, _) = alice.join("alice", "r").await;
    let ice = &welcome["payload"]["iceServers"][0];
    assert_eq!(ice["username"], "dev");
    let turn = server.turn();
    let urls = [
        format!("stun:{turn}"),
        format!("turn:{turn}?transport=udp"),
        format!("turn:{turn}?transport=tcp"),
        format!("turns:{turn}?transport=tcp"),
    ];
    assert_eq!(ice["urls"], json!(urls));
    let (_, peers) = bob.join("bob", "r").await;
    assert_eq!(peers["payload"]["peers"], json!([{ "id": "alice", "polite": true }]));
    let joined = alice.message().await;
    assert_eq!(joined["payload"], json!({ "id": "bob", "polite": false }));
    alice.say(json!({ "type": "offer", "from": "bob", "to": "bob", "payload": "sdp" })).await;
    let offer = json!({ "type": "offer", "from": "alice", "to": "bob", "payload": "sdp" });
    assert_eq!(bob.message().await, offer);
    bob.frame(FIN | CLOSE, &1000u16.to_be_bytes()).await;
    assert_eq!(bob.end().await, Received::Close(Some(1000)));
    assert_eq!(alice.message().await["type"], "peer-left");
}

#[tokio::test]
async fn peers_meet_on_the_port_of_turn_too() {
    let server = open_server();
    let mut alice = Socket::connect(server.http()).await;
    alice.join("alice", "r").await;
    let mut bob = Socket::connect(server.turn()).await;
    bob.join("bob", "r").await;
    assert_eq!(alice.message().await["payload"]["id"], "bob");
    bob.say(json!({ "type": "x", "to": "alice" })).await;
    assert_eq!(alice.message().await["from"], "bob");
}

#[tokio::test]
async fn who_loses_the_socket_comes_back_and_nobody_noticed() {
    let server = open_server();
    let (mut alice, mut bob) =
        (Socket::connect(server.http()).await, Socket::connect(server.http()).await);
    let (welcome, _) = alice.join("alice", "r").await;
    bob.join("bob", "r").await;
    drop(alice);
    let lost = r#"hairpin_signaling_peers{state="lost"}"#;
    while scrape(server.http()).await.get(lost) < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bob.say(json!({ "type": "candidate", "to": "alice", "payload": 1 })).await;
    let mut alice = Socket::connect(server.http()).await;
    let secret = &welcome["payload"]["secret"];
    alice
        .say(json!({
            "type": "join", "from": "alice", "room": "r", "payload": { "secret": secret },
        }))
        .await;
    assert_eq!(alice.message().await["payload"]["resumed"], true);
    assert_eq!(alice.message().await["type"], "peers");
    assert_eq!(alice.message().await["payload"], 1);
    alice.say(json!({ "type": "x", "to": "bob" })).await;
    assert_eq!(bob.message().await["type"], "x");
}

#[tokio::test]
async fn who_closes_with_a_code_of_its_own_will_be_back_and_nobody_noticed() {
    let server = open_server();
    let (mut alice, mut bob) =
        (Socket::connect(server.http()).await, Socket::connect(server.http()).await);
    let (welcome, _) = alice.join("alice", "r").await;
    bob.join("bob", "r").await;
    alice.message().await;
    alice.frame(FIN | CLOSE, &4000u16.to_be_bytes()).await;
    assert_eq!(alice.end().await, Received::Close(Some(4000)));
    let mut again = Socket::connect(server.http()).await;
    let payload = json!({ "secret": welcome["payload"]["secret"] });
    again.say(json!({ "type": "join", "from": "alice", "room": "r", "payload": payload })).await;
    assert_eq!(again.message().await["payload"]["resumed"], true);
    again.message().await;
    again.say(json!({ "type": "x", "to": "bob" })).await;
    // Neither a leave nor a join came in between.
    assert_eq!(bob.message().await["type"], "x");
}

#[tokio::test]
async fn a_taken_over_connection_is_told() {
    let server = open_server();
    let mut old = Socket::connect(server.http()).await;
    let (welcome, _) = old.join("alice", "r").await;
    let mut new = Socket::connect(server.http()).await;
    let secret = &welcome["payload"]["secret"];
    new.say(json!({ "type": "join", "from": "alice", "payload": { "secret": secret } })).await;
    let bye = old.message().await;
    assert_eq!((&bye["type"], &bye["payload"]["code"]), (&json!("bye"), &json!("replaced")));
    assert_eq!(old.end().await, Received::Close(Some(4000)));
}

#[tokio::test]
async fn a_token_may_come_in_the_query_or_the_subprotocol_or_the_join() {
    let server = closed_server();
    let good = token("alice", &["r"]);
    let mut socket = Socket::connect_to(server.http(), &format!("/ws?token={good}")).await;
    let (welcome, _) = socket.join("alice", "r").await;
    let username = welcome["payload"]["iceServers"][0]["username"].as_str().unwrap();
    assert!(username.ends_with(":alice"), "{username}");

    let protocols = format!("hairpin, hairpin.token.{}", token("bob", &["r"]));
    let headers = [&GOOD[..], &[("Sec-WebSocket-Protocol", &*protocols)]].concat();
    let (_, head, _) = handshake(server.http(), "/ws", &headers).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nsec-websocket-protocol: hairpin\r\n"), "{head}");

    let mut socket = Socket::connect(server.http()).await;
    socket.say(json!({ "type": "join", "from": "bob", "room": "r" })).await;
    assert_eq!(socket.message().await["payload"]["code"], "unauthorized");
    let payload = json!({ "token": token("bob", &["r"]) });
    socket.say(json!({ "type": "join", "from": "bob", "room": "r", "payload": payload })).await;
    assert_eq!(socket.message().await["type"], "welcome");
}

#[tokio::test]
async fn a_bad_token_is_refused_before_the_upgrade() {
    let server = closed_server();
    let good = token("alice", &["r"]);
    let forged = format!("{}x", &good[..good.len() - 1]);
    for bad in ["x", "", &forged] {
        let (_, head, _) = handshake(server.http(), &format!("/ws?token={bad}"), &GOOD).await;
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    }
    let refused = scrape(server.http()).await;
    assert_eq!(refused.get(r#"hairpin_signaling_refused_total{reason="token"}"#), 3.0);
}

#[tokio::test]
async fn a_bad_token_in_the_subprotocol_is_refused_before_the_upgrade() {
    let server = closed_server();
    let good = token("alice", &["r"]);
    let (claims, signature) = good.rsplit_once('.').unwrap();
    let other = token("bob", &["r"]);
    let (other_claims, _) = other.rsplit_once('.').unwrap();
    let (unsigned, forged) = (format!("{claims}."), format!("{other_claims}.{signature}"));
    for bad in ["x", "", &unsigned, &forged] {
        for protocols in [
            format!("hairpin, hairpin.token.{bad}"),
            format!("hairpin.token.{bad},hairpin"),
            format!("hairpin.token.{bad}"),
        ] {
            let headers = [&GOOD[..], &[("Sec-WebSocket-Protocol", &*protocols)]].concat();
            let (_, head, _) = handshake(server.http(), "/ws", &headers).await;
            assert!(head.starts_with("HTTP/1.1 401 "), "{protocols}: {head}");
            assert!(!head.contains("sec-websocket"), "{protocols}: {head}");
        }
    }
    let refused = scrape(server.http()).await;
    assert_eq!(refused.get(r#"hairpin_signaling_refused_total{reason="token"}"#), 12.0);
    assert_eq!(refused.get("hairpin_signaling_connections_total"), 0.0);
}

#[tokio::test]
async fn who_never_joins_is_told_and_closed_with_1008() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    // It is alive, and that is not enough.
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.message().await["type"], "pong");
    let bye = socket.message().await;
    assert_eq!((&bye["type"], &bye["payload"]["code"]), (&json!("bye"), &json!("not-joined")));
    assert_eq!(socket.receive().await, Received::Close(Some(1008)));
    let closed = scrape(server.http()).await;
    assert_eq!(closed.get(r#"hairpin_signaling_closed_total{reason="not-joined"}"#), 1.0);
    assert_eq!(closed.get("hairpin_signaling_connections"), 0.0);
}

#[tokio::test]
async fn pings_are_answered_at_both_levels() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    socket.frame(FIN | PING, b"are you there").await;
    assert_eq!(socket.receive().await, Received::Pong(b"are you there".to_vec()));
    socket.say(json!({ "type": "ping", "payload": 7 })).await;
    let pong = json!({ "type": "pong", "from": "server", "payload": 7 });
    assert_eq!(socket.message().await, pong);
}

#[tokio::test]
async fn a_message_may_come_in_fragments() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    let text = json!({ "type": "ping", "payload": "ä" }).to_string();
    let (first, rest) = text.as_bytes().split_at(text.len() - 3);
    socket.frame(TEXT, first).await;
    socket.frame(FIN | PING, b"in between").await;
    socket.frame(FIN, rest).await;
    assert_eq!(socket.receive().await, Received::Pong(b"in between".to_vec()));
    assert_eq!(socket.message().await["payload"], "ä");
}

/// H 103. What it did not read is thrown away, it is told why, and the others notice nothing.
#[tokio::test]
async fn a_slow_consumer_is_told_and_closed_at_the_cap() {
    // Whoever is told has two seconds to hear it, and this machine may be busy for longer: then, and
    // only then, it is tried again.
    for _ in 0..5 {
        if a_slow_consumer_hears_why().await {
            return;
        }
    }
    panic!("never told");
}

/// False where it came too late for it.
async fn a_slow_consumer_hears_why() -> bool {
    let server = open_server();
    let (mut alice, mut bob) =
        (Socket::connect(server.http()).await, Socket::connect(server.http()).await);
    alice.join("alice", "r").await;
    bob.join("bob", "r").await;
    assert_eq!(alice.message().await["type"], "peer-joined");
    let large = "x".repeat(60_000);
    let slow = r#"hairpin_signaling_closed_total{reason="slow"}"#;
    // What the system's buffers take is not known; the cap comes on top.
    let cap = OUTBOUND_BYTES / large.len();
    let most = 64 * 1024 * 1024 / large.len() + cap;
    let mut sent = 0;
    let since = loop {
        assert!(sent < most, "never closed");
        let before = Instant::now();
        bob.say(json!({ "type": "x", "room": "r", "payload": [sent, large] })).await;
        sent += 1;
        // Below the rate that closes the sender.
        tokio::time::sleep(Duration::from_millis(21)).await;
        if scrape(server.http()).await.get(slow) > 0.0 {
            break before;
        }
    };
    assert!(sent > cap, "closed below the cap, after {sent}");
    let mut heard = 0;
    let told = loop {
        match alice.receive().await {
            Received::Message(message) if message["type"] == "bye" => break message,
            Received::Message(message) => {
                assert_eq!(
                    (&message["type"], &message["payload"][0]),
                    (&json!("x"), &json!(heard))
                );
                heard += 1;
            }
            Received::Ping => {}
            end => {
                let after = since.elapsed();
                assert!(
                    after >= CLOSE_TIMEOUT,
                    "{end:?} without a goodbye, {after:?} later at most"
                );
                return false;
            }
        }
    };
    // What waited is gone, and so is what did not fit.
    assert!(heard + cap < sent, "{heard} of {sent}");
    assert_eq!(told["payload"]["code"], "slow");
    assert_eq!(alice.receive().await, Received::Close(Some(1008)));
    bob.say(json!({ "type": "ping", "payload": 1 })).await;
    assert_eq!(bob.message().await["type"], "pong");
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(slow), 1.0);
    assert_eq!(metrics.get("hairpin_signaling_connections"), 1.0);
    assert_eq!(metrics.get(r#"hairpin_signaling_peers{state="lost"}"#), 1.0);
    true
}

/// It has left nobody: calls go on without a server.
#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let server = open_server();
    let mut socket = Socket::connect(server.http()).await;
    let mut other = Socket::connect(server.http()).await;
    other.join("bob", "r").await;
    socket.join("alice", "r").await;
    let stopping = std::thread::spawn(move || drop(server));
    assert_eq!(socket.message().await["payload"]["code"], "shutdown");
    assert_eq!(socket.end().await, Received::Close(Some(1001)));
    tokio::task::spawn_blocking(move || stopping.join().unwrap()).await.unwrap();
}
