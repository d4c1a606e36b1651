//! `/ice-servers`: who gets what, and that it works.

use std::net::SocketAddr;
use std::process::Command;

use hairpin::http::token::Keys;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::TestServer;
use crate::socket::{
    GOOD, JWT_SECRET, ORIGIN, Socket, TURN_SECRET, closed_server, handshake, open_server, signed,
    token,
};

const API_TOKEN: &str = "Bearer an api token, long";

/// H 106.
#[tokio::test]
async fn without_a_good_token_there_are_no_credentials() {
    let server = closed_server();
    for authorization in ["", "Bearer", "Bearer x", "Basic YTpi", "Bearer an api token, lon"] {
        for method in ["GET", "POST"] {
            let answer =
                ask(&server, method, "/ice-servers", &[("Authorization", authorization)]).await;
            assert_eq!(answer.status, 401, "{authorization}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    let none = ask(&server, "GET", "/ice-servers", &[]).await;
    assert_eq!(none.status, 401);
}

#[tokio::test]
async fn a_token_gets_ice_servers_for_its_user() {
    let server = closed_server();
    let bearer = format!("Bearer {}", token("alice", &[]));
    for method in ["GET", "POST"] {
        let headers = [("Authorization", &*bearer)];
        let answer = ask(&server, method, "/ice-servers?username=bob", &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        let ice = &body["iceServers"][0];
        assert!(ice["username"].as_str().unwrap().ends_with(":alice"), "{body}");
        let turn = format!("turn:{}?transport=udp", server.turn());
        assert!(ice["urls"].as_array().unwrap().contains(&json!(turn)), "{body}");
        let ttl = body["ttl"].as_u64().unwrap();
        assert!((1..=3600).contains(&ttl), "{ttl}");
    }
}

#[tokio::test]
async fn a_token_for_another_service_or_by_another_is_refused_at_both_doors() {
    let server = TestServer::start(|config| {
        let signaling = config.http.signaling.as_mut().unwrap();
        signaling.hub.open = false;
        signaling.keys = Keys::new(Some("turn.example.org".to_owned()), Some("login".to_owned()));
        signaling.keys.add_secret(JWT_SECRET.as_bytes());
    });
    for (aud, iss, is_good) in [
        (json!("turn.example.org"), "login", true),
        (json!(["mail", "turn.example.org"]), "login", true),
        (json!("mail"), "login", false),
        (json!("turn.example.org"), "evil", false),
        (json!(null), "login", false),
    ] {
        let token = signed(json!({ "sub": "alice", "aud": aud, "iss": iss }));
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer)];
        let answer = ask(&server, "GET", "/ice-servers", &headers).await;
        assert_eq!(answer.status, if is_good { 200 } else { 401 }, "{aud} {iss}");
        let (_, head, _) = handshake(server.http(), &format!("/ws?token={token}"), &GOOD).await;
        let status = if is_good { "101" } else { "401" };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{aud} {iss}: {head}");
    }
}

#[tokio::test]
async fn a_web_service_gets_credentials_for_whom_it_names() {
    let server = closed_server();
    let headers = [("Authorization", API_TOKEN)];
    let answer = ask(&server, "GET", "/ice-servers?service=turn&username=a%20b", &headers).await;
    let body = answer.json();
    let username = body["username"].as_str().unwrap();
    assert!(username.ends_with(":a b"), "{body}");
    assert_eq!(body["password"], hairpin::turn::rest::password(TURN_SECRET, username));
    let turn = server.turn();
    let uris = ["turn", "turn", "turns"].iter().zip(["udp", "tcp", "tcp"]);
    let uris: Vec<_> = uris.map(|(scheme, by)| format!("{scheme}:{turn}?transport={by}")).collect();
    assert_eq!(body["uris"], json!(uris));
    assert_eq!(body["ttl"], 3600);
    for query in ["", "?username=", "?username=a%0Ab", "?username=a%23b", "?service=x&username=a"] {
        let answer = ask(&server, "GET", &format!("/ice-servers{query}"), &headers).await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_no_others() {
    let server = closed_server();
    let bearer = format!("Bearer {}", token("alice", &[]));
    let headers = [("Authorization", &*bearer), ("Origin", ORIGIN)];
    let answer = ask(&server, "GET", "/ice-servers", &headers).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(answer.header("vary"), Some("origin"));
    // So that the page learns why.
    let answer = ask(&server, "GET", "/ice-servers", &headers[1..]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));

    let preflight = ask(&server, "OPTIONS", "/ice-servers", &headers[1..]).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("authorization, content-type")
    );

    for origin in ["https://evil.test", "null"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let headers = [("Authorization", &*bearer), ("Origin", origin)];
            let answer = ask(&server, method, "/ice-servers", &headers).await;
            assert_eq!(answer.status, 403, "{method} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
}

#[tokio::test]
async fn one_user_gets_so_many_and_others_still_do() {
    let server = closed_server();
    let headers = [("Authorization", API_TOKEN)];
    let mut last = 200;
    for _ in 0..200 {
        let answer = ask(&server, "GET", "/ice-servers?username=greedy", &headers).await;
        last = answer.status;
        if last != 200 {
            assert!(answer.header("retry-after").is_some());
            break;
        }
    }
    assert_eq!(last, 429);
    let other = ask(&server, "GET", "/ice-servers?username=modest", &headers).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn in_development_everybody_gets_the_user_of_development() {
    let server = open_server();
    let body = ask(&server, "GET", "/ice-servers", &[]).await.json();
    let ice = &body["iceServers"][0];
    assert_eq!((&ice["username"], &ice["credential"]), (&json!("dev"), &json!("dev")));
}

/// Each name would be an account of its own otherwise, and alice's a guest's to use up.
#[tokio::test]
async fn guests_get_one_account_whatever_they_call_themselves() {
    let server = TestServer::start(|config| {
        config.turn.auth.secrets = vec![TURN_SECRET.to_owned()];
        let signaling = config.http.signaling.as_mut().unwrap();
        signaling.source = hairpin::http::credentials::Source::Secret(TURN_SECRET.to_owned());
        signaling.keys.add_secret(JWT_SECRET.as_bytes());
    });
    let account = |ice: &Value| {
        let (_, account) = ice[0]["username"].as_str().unwrap().split_once(':').unwrap();
        account.to_owned()
    };
    for name in ["alice", "mallory"] {
        let path = format!("/ice-servers?username={name}");
        let body = ask(&server, "GET", &path, &[]).await.json();
        assert_eq!(account(&body["iceServers"]), "guest#127.0.0.1", "{body}");
        let mut socket = Socket::connect(server.http()).await;
        let (welcome, _) = socket.join(name, "r").await;
        assert_eq!(account(&welcome["payload"]["iceServers"]), "guest#127.0.0.1");
    }
    let bearer = format!("Bearer {}", token("alice", &[]));
    let body = ask(&server, "GET", "/ice-servers", &[("Authorization", &*bearer)]).await.json();
    assert_eq!(account(&body["iceServers"]), "alice");
}

/// The Host of a request could be anybody's.
#[tokio::test]
async fn the_host_in_the_urls_is_the_servers_own() {
    let server = open_server();
    let mut stream = TcpStream::connect(server.http()).await.unwrap();
    let request = "GET /ice-servers HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.contains("turn:127.0.0.1:") && !response.contains("evil"), "{response}");
}

/// Another implementation relays with what it was handed.
#[tokio::test]
async fn the_credentials_relay() {
    let server = closed_server();
    let headers = [("Authorization", API_TOKEN)];
    let answer = ask(&server, "GET", "/ice-servers?service=turn&username=carol", &headers).await;
    let body = answer.json();
    let of = move |key: &str| body[key].as_str().unwrap().to_owned();
    let turn: SocketAddr = server.turn();
    let command = move || {
        Command::new("turnutils_uclient")
            .args(["-u", &of("username"), "-w", &of("password"), "-s", "-y", "-c", "-n", "20"])
            .args(["-m", "2", "-p", &turn.port().to_string(), "127.0.0.1"])
            .output()
    };
    let output = match tokio::task::spawn_blocking(command).await.unwrap() {
        Ok(output) => output,
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install coturn");
            return eprintln!("not run: no turnutils_uclient on this machine (apt install coturn)");
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("tot_send_msgs=40, tot_recv_msgs=40"), "{text}");
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.head, self.body))
    }
}

async fn ask(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(server.http()).await.unwrap();
    let host = server.http();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n"
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
