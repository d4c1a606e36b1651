//! What a serving process holds in its memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;

use hairpin::stun::attribute::XorPeerAddress;
use hairpin::stun::{ChannelNumber, Method};
use serde_json::Value;

use crate::client::Client;
use crate::server::{DEADLINE, Server, Settings, eventually, hairpin, run};

const SECRET: &str = "a-shared-secret-of-32-characters";
const PIECE: usize = 1 << 20;
const SCRAPES: usize = 20_000;
/// By one connection, as Prometheus keeps its own.
const SCRAPES_EACH: usize = 10;

/// RFC 8656 §6: the keys suffice. A core dump then shows nothing that opens other doors.
#[cfg(target_os = "linux")]
#[test]
fn a_serving_process_holds_no_password() {
    let auth = format!(
        r#"users = {{ alice = "down-the-rabbit-hole", bob = "can-we-fix-\u0069t-yes-we-can" }}
        secrets = ["{SECRET}"]"#
    );
    let server = Server::start(&Settings { auth: &auth, ..Settings::default() });
    for (user, password) in [("alice", "down-the-rabbit-hole"), ("bob", "can-we-fix-it-yes-we-can")]
    {
        let client = Client::allocate(server.turn, user, password).unwrap();
        client.bind(ChannelNumber::MIN, ([127, 0, 0, 1], 9).into()).unwrap();
    }
    let pid = server.process().pid();
    assert!(occurrences(pid, SECRET) > 0, "what must be there is found");
    for password in ["down-the-rabbit-hole", "can-we-fix-it-yes-we-can", r"fix-\u0069t-yes"] {
        assert_eq!(occurrences(pid, password), 0, "{password}");
    }
}

/// The budget of an allocation with one channel, in a debug build too. What is paid once is paid by
/// the allocations before.
#[cfg(target_os = "linux")]
#[test]
fn an_allocation_with_a_channel_takes_no_more_than_2_kib() {
    let limits = "unauthenticated_per_source = 0\nallocations_per_user = 0";
    // Its own: it would leave the servers of other tests hardly any of the usual ones.
    let relay_ports = "10000-17999";
    // No client may have the port of a listener, which Linux would choose from the same range.
    let (listen, http) = (r#"["127.0.0.1:29990"]"#, r#"listen = ["127.0.0.1:29991"]"#);
    let settings = Settings { listen, relay_ports, limits, http, ..Settings::default() };
    let server = Server::start(&settings);
    let (turn, pid) = (format!("turn:{}", server.turn), server.process().pid().to_string());
    let opened = |clients: &str| {
        let load = ["--user", "alice", "--pass", "wonderland", "--pid", &pid, "--json"];
        let brief = ["--clients", clients, "--rate", "100", "--duration", "100ms"];
        let ended = run(hairpin().args(["bench", &turn, "--warm-up", "0s"]).args(load).args(brief));
        assert!(ended.status.success(), "{ended:?}");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        document["results"][0]["opened"]["server_bytes_per_allocation"].as_u64().unwrap()
    };
    opened("100");
    let bytes = opened("4000");
    assert!((200..=2048).contains(&bytes), "{bytes}");
    server.stop();
}

/// H 105.
#[cfg(target_os = "linux")]
#[test]
fn so_many_scrapes_take_no_memory_and_no_descriptors() {
    let server = Server::start(&Settings::default());
    let _client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let descriptors = server.descriptors();
    scrape(server.http, SCRAPES / 10);
    let memory = server.resident();
    scrape(server.http, SCRAPES);
    let growth = server.resident().saturating_sub(memory);
    eprintln!("{SCRAPES} scrapes: +{growth} KiB");
    assert!(growth <= 1024, "{growth} KiB more");
    // The last connection may still be closing.
    eventually("descriptors are given back", || {
        (server.descriptors() <= descriptors).then_some(())
    });
    server.stop();
}

/// RFC 8656 §10.2: what is refused leaves nothing behind.
#[cfg(target_os = "linux")]
#[test]
fn permissions_beyond_what_an_allocation_may_have_take_no_memory() {
    const PEERS_EACH: u32 = 2_000;
    /// 127.1.0.0 and what follows are a million hosts of this machine.
    const FIRST: u32 = 0x7F01_0000;
    let server = Server::start(&Settings::default());
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let permitted = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.permit(permitted.local_addr().unwrap()).unwrap();
    let refused = |requests: std::ops::Range<u32>| {
        for request in requests {
            let peers = (0..PEERS_EACH).map(|at| Ipv4Addr::from(FIRST + request * PEERS_EACH + at));
            let permission = client.request(Method::CreatePermission, |builder| {
                peers.fold(builder, |it, peer| it.put(&XorPeerAddress((peer, 9).into())))
            });
            assert_eq!(permission, Err(508));
        }
    };
    refused(0..50);
    let memory = server.resident();
    refused(50..500);
    let growth = server.resident().saturating_sub(memory);
    assert!(growth <= 1024, "{growth} KiB more for a million peers");
    permitted.send_to(b"still permitted", client.relayed).unwrap();
    assert!(client.receive().ends_with(b"still permitted\0"));
    server.stop();
}

#[cfg(target_os = "linux")]
fn scrape(http: SocketAddr, scrapes: usize) {
    for _ in 0..scrapes / SCRAPES_EACH {
        let stream = TcpStream::connect(http).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut stream = BufReader::new(stream);
        for _ in 0..SCRAPES_EACH {
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n\r\n");
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            let body = answer(&mut stream);
            assert!(body.contains("\nhairpin_allocations{transport=\"udp\"} 1\n"), "{body}");
        }
    }
}

/// The body of an answer after which the connection stays.
#[cfg(target_os = "linux")]
fn answer(stream: &mut impl BufRead) -> String {
    let mut length = None;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok(),
            None if line == "\r\n" => break,
            Some(_) | None => {}
        }
        assert!(!line.is_empty(), "closed");
    }
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// How often the bytes are in the writable memory of a process.
fn occurrences(pid: u32, text: &str) -> usize {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut count = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next().unwrap(), words.next().unwrap());
        if !access.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).unwrap());
        for from in (start..end).step_by(PIECE) {
            // Overlapping, so that nothing hides where two pieces meet.
            let length = (end - from).min((PIECE + text.len() - 1) as u64) as usize;
            let mut piece = vec![0; length];
            // Memory may go away meanwhile.
            if memory.read_exact_at(&mut piece, from).is_ok() {
                let windows = piece.windows(text.len());
                count += windows.filter(|window| *window == text.as_bytes()).count();
            }
        }
    }
    count
}
