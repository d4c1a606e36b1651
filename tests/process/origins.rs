//! Signaling by a configuration file: which pages it lets in, and by what name it says that the
//! server is reached.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::proxy::over_tls;
use crate::server::{ConfigFile, DEADLINE, Server, Settings, field, hairpin};
use crate::signaling::Socket;
use crate::tls::{YEAR, write_pair};

const APP: &str = "https://app.test";

/// By a door of the server: the headers of who asks, and whether it is let in.
type Case<'a> = (SocketAddr, Option<&'a str>, &'a str, bool);

fn start() -> (Server, SocketAddr) {
    let settings = Settings {
        auth: r#"secrets = ["north-of-everything"]"#,
        listen: "[\"127.0.0.1:0\"]\npublic_host = \"turn.test\"",
        http: "listen = [\"127.0.0.1:0\"]\nshared = true\n\
               [signaling]\nenabled = true\nopen = true\norigins = [\"https://app.test\"]",
        ..Settings::default()
    };
    let tls = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\nlisten = [\"127.0.0.1:0\"]\n";
    let config = ConfigFile::new(&(settings.toml() + tls));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
    let line = &server.process().stderr().wait_for("listening (tls)", 1)[0];
    let tls = field(line, "address").parse().unwrap();
    (server, tls)
}

/// The tests in `src` have all the ways of writing one; here it counts that the file is heeded, at each
/// door and in both services.
#[test]
fn pages_of_the_configured_origins_and_the_servers_own_are_let_in_and_no_others() {
    let (server, tls) = start();
    let [http, turn, tls_only] = [server.http, server.turn, tls].map(|at| at.port());
    let named = |port| format!("turn.test:{port}");
    let (by_http, by_tls, by_tls_only) = (named(http), named(turn), named(tls_only));
    let own = |scheme: &str, host: &str| format!("{scheme}://{host}");
    let ip = server.http.to_string();
    let cases: [Case<'_>; 16] = [
        (server.http, Some(APP), &ip, true),
        (server.http, Some(&own("http", &ip)), &ip, true),
        (server.http, Some(&own("http", &by_http)), &by_http, true),
        // As behind a proxy that ends TLS.
        (server.http, Some("https://turn.test"), "turn.test", true),
        (server.http, Some("http://localhost:5173"), &ip, false),
        (server.http, Some("https://app.test.evil"), &ip, false),
        (server.http, Some("http://app.test"), &ip, false),
        (server.http, Some("null"), &ip, false),
        // A name of somebody else's that leads here.
        (server.http, Some("https://app.test.evil"), "app.test.evil", false),
        (server.http, None, &ip, false),
        (server.turn, Some(APP), &by_tls, true),
        (server.turn, Some(&own("https", &by_tls)), &by_tls, true),
        (server.turn, Some(&own("http", &by_tls)), &by_tls, false),
        (server.turn, None, &by_tls, false),
        (tls, Some(&own("https", &by_tls_only)), &by_tls_only, true),
        (tls, Some("http://localhost:5173"), &by_tls_only, false),
    ];
    for (door, origin, host, is_let_in) in cases {
        let is_tls = door != server.http;
        let what = format!("{origin:?} at {host}, TLS: {is_tls}");
        let said = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));

        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let answer =
            ask(door, is_tls, &format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{said}{upgrade}\r\n"));
        assert_eq!(answer.status, if is_let_in { 101 } else { 403 }, "{what}: {}", answer.head);

        // No page is without an origin, so who is may be a web service; but no page may read it.
        let is_answered = is_let_in || origin.is_none();
        for (method, good) in [("GET", 200), ("OPTIONS", 204)] {
            let is_good = if method == "GET" { is_answered } else { is_let_in };
            let head = format!("{method} /ice-servers HTTP/1.1\r\nHost: {host}\r\n{said}");
            let answer = ask(door, is_tls, &format!("{head}Connection: close\r\n\r\n"));
            assert_eq!(answer.status, if is_good { good } else { 403 }, "{method}, {what}");
            let readable = answer.header("access-control-allow-origin");
            assert_eq!(readable, origin.filter(|_| is_let_in), "{method}, {what}");
            assert_eq!(answer.header("vary"), Some("origin"), "{method}, {what}");
        }
    }
    let refused = server.metrics().sum(&["hairpin_signaling_refused_total", "origin"]);
    assert_eq!(refused, 9, "one for each handshake");
    server.stop();
}

/// Every port that is listened on, by each transport that is spoken there, under the public name.
#[test]
fn clients_are_told_the_urls_that_the_server_listens_on_by_its_public_name() {
    let (server, tls) = start();
    let (turn, tls) = (server.turn.port(), tls.port());
    let mut expected = vec![
        format!("stun:turn.test:{turn}"),
        format!("turn:turn.test:{turn}?transport=udp"),
        format!("turn:turn.test:{turn}?transport=tcp"),
    ];
    let (first, last) = (turn.min(tls), turn.max(tls));
    expected.extend([first, last].map(|port| format!("turns:turn.test:{port}?transport=tcp")));

    let mut socket = Socket::connect(server.http, "").unwrap();
    socket.say(&json!({ "type": "join", "from": "alice", "room": "r" }));
    let welcome = socket.hear();
    assert_eq!(welcome["type"], "welcome");
    let servers = welcome["payload"]["iceServers"].as_array().unwrap();
    assert_eq!(servers.len(), 1, "{welcome}");
    assert_eq!(servers[0]["urls"], json!(expected), "{welcome}");
    server.stop();
}

/// What the server answers.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn ask(door: SocketAddr, is_tls: bool, request: &str) -> Answer {
    let stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    if is_tls { ask_on(over_tls(stream), request) } else { ask_on(stream, request) }
}

/// Does not wait for the end, which does not come where the answer is 101.
fn ask_on(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head }
}
