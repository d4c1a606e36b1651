//! Signaling as an operator configures it, and as clients come and go by the thousand. What peers
//! say to each other is nobody else's business.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};

use crate::server::{ConfigFile, DEADLINE, Server, Settings, eventually, hairpin};
use crate::tls::pem;

const MARK: &str = "between-the-two-of-us";
const API_TOKEN: &str = "a token for the web service";
const RUNS: usize = 10_000;
const AT_A_TIME: usize = 8;

/// H 101. By each of the ways in which a client may end.
#[test]
fn ten_thousand_clients_that_come_and_go_leave_nothing_behind() {
    let server = Server::start(&Settings {
        http: "listen = [\"127.0.0.1:0\"]\n[signaling]\nenabled = true\nopen = true",
        ..Settings::default()
    });
    come_and_go(server.http, RUNS / 10);
    is_left(&server);
    let (descriptors, memory) = (server.descriptors(), server.resident());
    come_and_go(server.http, RUNS);
    is_left(&server);
    // The connection of the last scrape may still be closing.
    eventually("descriptors are given back", || {
        (server.descriptors() <= descriptors).then_some(())
    });
    let growth = server.resident().saturating_sub(memory);
    assert!(growth <= 4096, "{growth} KiB more");
    let metrics = server.metrics();
    let joined = metrics.sum(&["hairpin_signaling_ice_servers_total"]);
    assert_eq!(joined as usize, RUNS / 10 + RUNS, "each was welcomed");
    server.stop();
}

fn come_and_go(http: SocketAddr, runs: usize) {
    std::thread::scope(|scope| {
        for thread in 0..AT_A_TIME {
            scope.spawn(move || {
                for run in (thread..runs).step_by(AT_A_TIME) {
                    let mut socket = Socket::connect(http, "").unwrap();
                    socket.say(&json!({ "type": "join", "room": format!("room {}", run % 100) }));
                    assert_eq!(socket.hear()["type"], "welcome");
                    assert_eq!(socket.hear()["type"], "peers");
                    match run / AT_A_TIME % 3 {
                        0 => socket.frame(0x88, &1000u16.to_be_bytes()),
                        1 => socket.say(&json!({ "type": "leave" })),
                        _ => {
                            socket.say(&json!({ "type": "leave" }));
                            socket.frame(0x88, b"");
                        }
                    }
                }
            });
        }
    });
}

fn is_left(server: &Server) {
    eventually("nobody is there", || {
        let metrics = server.metrics();
        let of = |name: &str| metrics.sum(&[name]);
        // The name of the one is the beginning of the other's.
        let connections =
            of("hairpin_signaling_connections") - of("hairpin_signaling_connections_total");
        let all = [connections, of("hairpin_signaling_peers{"), of("hairpin_signaling_rooms")];
        (all == [0; 3]).then_some(())
    });
}

/// The keys of the file that decide who comes in, each by what it does.
#[test]
fn keys_tokens_and_takeover_are_as_configured() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let settings = Settings {
        auth: r#"secrets = ["north-of-everything"]"#,
        http: "listen = [\"127.0.0.1:0\"]\napi_token_file = \"api-token\"\n\
               [signaling]\nenabled = true\nreplace = \"always\"\n\
               jwt_public_key_file = \"jwt.pem\"",
        ..Settings::default()
    };
    let config = ConfigFile::new(&settings.toml());
    config.write("jwt.pem", &pem("PUBLIC KEY", &key.subject_public_key_info()));
    config.write("api-token", &format!("{API_TOKEN}\n"));
    let secret = config.path().with_file_name("api-token");
    fs::set_permissions(secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::start_in(&mut hairpin(), config);

    let exp = hairpin::net::clock::now().unix_secs + 3600;
    let claims = json!({ "sub": "alice", "rooms": ["r"], "exp": exp });
    let sign = |key: &rcgen::KeyPair| {
        let key = EncodingKey::from_ed_der(key.serialized_der());
        encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap()
    };
    let good = sign(&key);
    let forged = sign(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    assert_eq!(Socket::connect(server.http, &format!("?token={forged}")).unwrap_err(), 401);
    let join = json!({ "type": "join", "from": "alice", "room": "r" });
    let mut first = Socket::connect(server.http, &format!("?token={good}")).unwrap();
    first.say(&join);
    assert_eq!(first.hear()["payload"]["id"], "alice");
    first.hear();
    // Without the secret of the first one, as `replace` allows.
    let mut second = Socket::connect(server.http, &format!("?token={good}")).unwrap();
    second.say(&join);
    assert_eq!(second.hear()["payload"]["id"], "alice");
    assert_eq!(first.hear()["payload"]["code"], "replaced");

    for (token, query, status, user) in [
        (&*good, "", 200, ":alice"),
        (&forged, "", 401, ""),
        (API_TOKEN, "?username=bob", 200, ":bob"),
        (API_TOKEN, "", 400, ""),
        ("a token for the web servicf", "?username=bob", 401, ""),
    ] {
        let (got, body) = ice_servers(server.http, token, query);
        assert_eq!(got, status, "{body}");
        if status == 200 {
            let body: Value = serde_json::from_str(&body).unwrap();
            let username = body["iceServers"][0]["username"].as_str().unwrap();
            assert!(username.ends_with(user), "{username}");
        }
    }
    server.stop();
}

fn ice_servers(http: SocketAddr, token: &str, query: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!(
        "GET /ice-servers{query} HTTP/1.1\r\nHost: {http}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A WebSocket client that does no more than these tests need.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: BufReader<TcpStream>,
}

impl Socket {
    /// The status where it is refused.
    pub(crate) fn connect(http: SocketAddr, query: &str) -> Result<Self, u16> {
        let stream = TcpStream::connect(http).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut socket = Self { stream: BufReader::new(stream) };
        let request = format!(
            "GET /ws{query} HTTP/1.1\r\nHost: {http}\r\nOrigin: http://{http}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut status = 0;
        for line in (&mut socket.stream).lines().map(Result::unwrap) {
            match line.strip_prefix("HTTP/1.1 ") {
                Some(rest) => status = rest[..3].parse().unwrap(),
                None if line.is_empty() => break,
                None => {}
            }
        }
        if status == 101 { Ok(socket) } else { Err(status) }
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.frame(0x81, message.to_string().as_bytes());
    }

    /// Masked by zeros, which changes nothing.
    fn frame(&mut self, first: u8, payload: &[u8]) {
        assert!(payload.len() < 126, "a short one");
        let frame = [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
        self.stream.get_mut().write_all(&frame).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Value {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).unwrap();
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        assert_eq!(header[0], 0x81, "a text");
        serde_json::from_slice(&payload).unwrap()
    }
}

#[test]
fn not_even_at_trace_does_the_log_hold_a_message_or_a_credential() {
    let server = Server::start(&Settings {
        auth: r#"secrets = ["north-of-everything"]"#,
        http: "listen = [\"127.0.0.1:0\"]\n[signaling]\nenabled = true\nopen = true",
        log: r#"level = "trace""#,
        ..Settings::default()
    });
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let http = server.http;
    let request = format!(
        "GET /ws?token={MARK} HTTP/1.1\r\nHost: {http}\r\nOrigin: http://{http}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let join = format!(r#"{{"type":"join","from":"a","payload":{{"token":"{MARK}"}}}}"#);
    let message = format!(r#"{{"type":"{MARK}","to":"a","payload":{{"sdp":"{MARK}"}}}}"#);
    let bad = format!(r#"{{"type":"{MARK}"#);
    for text in [join, message, bad] {
        stream.write_all(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }
    // The error is the last of the answers.
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.contains("malformed") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let credential = heard.split(r#""credential":""#).nth(1).unwrap();
    let credential = credential.split('"').next().unwrap().to_owned();
    let secret = heard.split(r#""secret":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    for line in server.stop() {
        for hidden in [MARK, &credential, &secret] {
            assert!(!line.contains(hidden), "{line}");
        }
    }
}
