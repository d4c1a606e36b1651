//! The log: what is in it, on how many lines, and what never is.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hairpin::stun::{ChannelNumber, Key};
use hairpin::turn::rest;
use serde_json::Value;

use crate::client::{self, Client};
use crate::server::{ConfigFile, Server, Settings, eventually, field, hairpin, private_port};

const SECRET: &str = "a-shared-secret-of-32-characters";
/// The year 2100: no test lives as long.
const EXPIRES: u64 = 4_102_444_800;

#[test]
fn an_allocation_is_a_line_when_it_opens_and_a_line_when_it_closes() {
    for format in ["text", "json"] {
        let log = format!("format = \"{format}\"");
        let server = Server::start(&Settings { log: &log, ..Settings::default() });
        let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
        let (local, relayed) = (client.socket.local_addr().unwrap(), client.relayed);
        let server_at = server.turn;
        let peer = echoed(&client, 3, b"four");
        client.refresh(0).unwrap();
        let log = server.stop();

        let about = |what: &str| {
            let lines: Vec<_> = log.iter().filter(|line| line.contains(what)).cloned().collect();
            assert_eq!(lines.len(), 1, "{what}: {log:#?}");
            lines.into_iter().next().unwrap()
        };
        let (opened, closed) = (about("allocation opened"), about("allocation closed"));
        for line in [&opened, &closed] {
            assert_eq!(field(line, "user"), "alice");
            assert_eq!(field(line, "client"), local.to_string());
            assert_eq!(field(line, "relayed"), relayed.to_string());
            assert_eq!(field(line, "transport"), "udp");
        }
        assert_eq!(field(&opened, "server"), server_at.to_string(), "the whole five-tuple");
        for (name, value) in [
            ("reason", "deleted"),
            ("to_peer_bytes", "12"),
            ("to_peer_packets", "3"),
            ("to_client_bytes", "12"),
            ("to_client_packets", "3"),
        ] {
            assert_eq!(field(&closed, name), value, "{name} in {closed}");
        }
        assert!(field(&closed, "seconds").parse::<u64>().is_ok(), "{closed}");
        let peer = peer.to_string();
        assert!(!log.iter().any(|line| line.contains(&peer)), "no peer at info: {log:#?}");
        if format == "json" {
            let is_object = |line: &String| {
                serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object())
            };
            assert!(log.iter().all(is_object), "{log:#?}");
        }
    }
}

/// As `config.toml` says of the levels.
#[test]
fn a_channel_is_a_line_with_its_peer_at_debug() {
    let server = Server::start(&Settings { log: "level = \"debug\"", ..Settings::default() });
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let peer = echoed(&client, 3, b"four");
    let log = server.stop();
    let lines: Vec<_> = log.iter().filter(|line| line.contains(&peer.to_string())).collect();
    let [only] = lines.as_slice() else { panic!("{log:#?}") };
    assert!(only.contains("DEBUG") && field(only, "peer") == peer.to_string(), "{only}");
}

#[test]
fn peers_are_logged_at_debug_with_the_relayed_address() {
    let server =
        Server::start(&Settings { log: "level = \"hairpin=debug\"", ..Settings::default() });
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let relayed = client.relayed.to_string();
    let peer = echoed(&client, 1, b"four");
    client.refresh(0).unwrap();
    let log = server.stop();
    let about = |what: &str| log.iter().find(|line| line.contains(what)).cloned();
    let line = about("peer permitted").or_else(|| about("channel bound")).expect("a line");
    assert_eq!(field(&line, "relayed"), relayed);
    assert!(field(&line, "peer").starts_with(&peer.ip().to_string()), "{line}");
}

#[test]
fn no_secret_is_logged_at_any_level() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let nonce_key = folder.path().join("nonce-key");
        std::fs::write(&nonce_key, "the-bytes-that-key-the-nonces").unwrap();
        let auth = format!(
            "users = {{ alice = \"wonderland\" }}\nsecrets = [\"{SECRET}\"]\n\
             nonce_secret_file = {nonce_key:?}"
        );
        let log = format!("level = \"trace\"\nformat = \"{format}\"");
        let server = Server::start(&Settings { auth: &auth, log: &log, ..Settings::default() });
        let username = rest::username(EXPIRES, "bob");
        let credential = rest::password(SECRET, &username);
        for (user, password) in [("alice", "wonderland"), (&username, &credential)] {
            let client = Client::allocate(server.turn, user, password).unwrap();
            echoed(&client, 3, b"data");
            client.refresh(0).unwrap();
            let refused = Client::allocate(server.turn, user, "curiouser").map(|_| ());
            assert_eq!(refused, Err(401));
        }
        server.metrics();
        let log = server.stop();
        let secrets = ["wonderland", "curiouser", "the-bytes-that-key", SECRET, &credential];
        let mut forbidden: Vec<_> = secrets.map(str::to_owned).into();
        for (user, password) in [("alice", "wonderland"), (&username, &credential)] {
            forbidden.extend(written(&Key::md5(user, "test", password)));
            forbidden.extend(written(&Key::sha256(user, "test", password)));
        }
        for line in &log {
            let found = forbidden.iter().find(|secret| line.contains(secret.as_str()));
            assert_eq!(found, None, "{line}");
        }
        assert!(log.iter().any(|line| line.contains("allocation closed")), "{log:#?}");
    }
}

#[test]
fn a_hostile_user_name_is_one_escaped_line() {
    let hostile = [
        "mallory\r\n2026-01-01T00:00:00Z  INFO allocation opened user=alice",
        "mallory\u{1b}[2J\u{1b}[31mred",
        "mallory\0alice",
        "\u{202e}ecila\u{2066}",
        "%n%s%x{}{0}",
        "mallory\" user=\"alice",
        r"mallory\nback\slash",
        "\u{85}\u{2028}\u{2029}\u{7f}",
    ];
    let long = "x".repeat(508);
    // Configured names may hold no characters that steer; those that a web service mints may.
    let steers =
        |char: char| char.is_control() || "\u{202e}\u{2066}\u{2028}\u{2029}".contains(char);
    let is_static = |name: &&str| !name.chars().any(steers);
    let users = hostile
        .iter()
        .copied()
        .filter(is_static)
        .chain([long.as_str()])
        .map(|name| format!("{} = \"wonderland\"", serde_json::to_string(name).unwrap()));
    let users = users.collect::<Vec<_>>().join(", ");
    let auth = format!("users = {{ {users} }}\nsecrets = [\"{SECRET}\"]");
    for format in ["text", "json"] {
        let log = format!("format = \"{format}\"");
        let server = Server::start(&Settings { auth: &auth, log: &log, ..Settings::default() });
        let mut names = Vec::new();
        for name in hostile {
            if is_static(&name) {
                Client::allocate(server.turn, name, "wonderland").unwrap();
                names.push(name.to_owned());
            }
            let minted = rest::username(EXPIRES, name);
            let credential = rest::password(SECRET, &minted);
            Client::allocate(server.turn, &minted, &credential).unwrap();
            names.push(minted);
        }
        Client::allocate(server.turn, &long, "wonderland").unwrap();
        names.push(long.clone());
        let log = server.stop();

        for what in ["allocation opened", "allocation closed"] {
            // A name may contain these words; the line of another message may not.
            let lines: Vec<_> = log.iter().filter(|line| message(line).contains(what)).collect();
            assert_eq!(lines.len(), names.len(), "{log:#?}");
        }
        for line in &log {
            assert!(!line.chars().any(steers), "{line:?}");
        }
        for name in names {
            let escaped = match format {
                "json" => serde_json::to_string(&name.escape_debug().to_string()).unwrap(),
                _ => format!(" user={} client=", name.escape_debug()),
            };
            let lines = log.iter().filter(|line| line.contains(&escaped)).count();
            assert_eq!(lines, 2, "{escaped}: {log:#?}");
        }
    }
}

#[test]
fn nothing_is_logged_for_each_packet() {
    let lines = [10, 1000].map(|packets| {
        let settings = Settings { log: "level = \"debug\"", ..Settings::default() };
        let server = Server::start(&settings);
        let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
        echoed(&client, packets, b"data");
        client.permit(([127, 0, 0, 1], 9).into()).unwrap();
        // What is dropped is not logged either.
        for _ in 0..packets {
            let unbound = client::channel_data(ChannelNumber::MAX, b"data");
            client.socket.send(&unbound).unwrap();
            let forbidden = client::send_indication(([127, 0, 0, 9], 9).into(), b"data");
            client.socket.send(&forbidden).unwrap();
        }
        client.refresh(0).unwrap();
        let relayed = server.metrics().sum(&["hairpin_relay_packets_total"]);
        assert_eq!(relayed, 2 * packets as u64);
        server.stop().len()
    });
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn junk_is_not_logged_at_info() {
    let server = Server::start(&Settings::default());
    let socket = client::socket(server.turn);
    let before = server.log().len();
    for number in 0..1000_u32 {
        // Every first byte, and those of STUN and ChannelData more often.
        let first = if number % 2 == 0 { number / 2 } else { number % 5 * 16 };
        let junk = [&[first as u8][..], &number.to_be_bytes(), &[0xff; 40]].concat();
        socket.send(&junk[..number as usize % junk.len()]).unwrap();
        if number % 100 == 0 {
            client::exchange(&socket, &client::binding());
        }
    }
    client::exchange(&socket, &client::binding());
    eventually("the junk is counted", || {
        (server.metrics().sum(&["hairpin_dropped_packets_total"]) >= 1000).then_some(())
    });
    let log = server.stop();
    let [only] = &log[before..] else { panic!("{log:#?}") };
    assert!(only.contains("stopping"), "{only}");
}

/// Data to a peer over a channel and back, `count` times; returns the peer.
fn echoed(client: &Client, count: usize, data: &[u8]) -> std::net::SocketAddr {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    client.bind(ChannelNumber::MIN, address).unwrap();
    let packet = client::channel_data(ChannelNumber::MIN, data);
    for _ in 0..count {
        client.socket.send(&packet).unwrap();
        let (received, from) = client::receive(&peer);
        assert_eq!((received.as_slice(), from), (data, client.relayed));
        peer.send_to(data, from).unwrap();
        assert_eq!(client.receive(), packet);
    }
    address
}

/// The message alone, without fields that may repeat its words.
fn message(line: &str) -> String {
    match line.starts_with('{') {
        true => field(line, "message"),
        false => line.split(" user=").next().unwrap().to_owned(),
    }
}

/// The forms in which Rust might write a key.
fn written(key: &Key) -> [String; 3] {
    let bytes: &[u8] = match key {
        Key::Md5(key) => key,
        Key::Sha256(key) => key,
    };
    let hex = |upper: bool| {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if upper { digits.to_uppercase() } else { digits }
    };
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    [hex(false), hex(true), list]
}

/// A process whose log nobody reads; it does not outlive the test.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pipe that nobody reads is full after 64 KiB.
#[test]
fn a_log_that_nobody_reads_stops_neither_relaying_nor_stopping() {
    let turn = SocketAddr::from(([127, 0, 0, 1], private_port()));
    let listen = format!("[\"{turn}\"]");
    let settings = Settings { listen: &listen, threads: 1, ..Settings::default() };
    let file = ConfigFile::new(&settings.toml());
    let mut command = hairpin();
    command.args(["serve", "--config"]).arg(file.path()).stdout(Stdio::null());
    let mut server = Unread(command.stderr(Stdio::piped()).spawn().unwrap());
    eventually("the server answers", || {
        let socket = client::socket(turn);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.send(&client::binding()).ok().and_then(|_| socket.recv(&mut [0; 64]).ok())
    });
    for _ in 0..600 {
        let client = Client::allocate(turn, "alice", "wonderland").unwrap();
        client.refresh(0).unwrap();
    }
    client::exchange(&client::socket(turn), &client::binding());
    let pid = server.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = eventually("the server ends", || server.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
