//! What a serving process holds in its memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use hairpin::stun::ChannelNumber;
use serde_json::Value;

use crate::client::Client;
use crate::server::{Server, Settings, hairpin, run};

const SECRET: &str = "a-shared-secret-of-32-characters";
const PIECE: usize = 1 << 20;

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
    let server = Server::start(&Settings { limits, ..Settings::default() });
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
