//! `hairpin bench`: against this server and against Debian's coturn, counts that add up, and one
//! line where it cannot be done.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::server::{
    ConfigFile, Ended, Process, Server, Settings, eventually, hairpin, private_port, run,
};

/// Short, and slow enough for a debug build on a busy machine.
const BRIEF: [&str; 8] =
    ["--duration", "500ms", "--warm-up", "100ms", "--rate", "400", "--clients", "4"];
const ALICE: [&str; 4] = ["--user", "alice", "--pass", "wonderland"];
const PATTERNS: [&str; 4] = ["to-peer", "to-client", "echo", "relay-to-relay"];
/// 400 a second for half a second.
const OFFERED: u64 = 200;

#[test]
fn every_pattern_over_every_transport_accounts_for_every_packet() {
    let server = server_with_tls(LIMITS);
    for (uri, trust) in uris(server.turn) {
        for pattern in PATTERNS {
            for mode in ["channel", "send"] {
                let options = ["--pattern", pattern, "--mode", mode, "--burst", "5"];
                let result = &load(&[uri.as_str()], &[&options[..], trust, &ALICE].concat())[0];
                assert_all_arrived(result, &format!("{pattern} {mode} {uri}"));
                assert_eq!(result["pattern"], pattern);
            }
        }
    }
    server.stop();
}

/// The server's own counters agree with what the generator says.
#[test]
fn the_server_has_seen_what_was_offered() {
    let server = server_with_tls(LIMITS);
    let uri = format!("turn:{}", server.turn);
    for (pattern, to_peers, to_clients) in
        [("to-peer", 1, 0), ("to-client", 0, 1), ("echo", 1, 1), ("relay-to-relay", 1, 1)]
    {
        let relayed = |to| server.metrics().sum(&["hairpin_relay_packets_total", to]);
        let before = [relayed("to_peer"), relayed("to_client")];
        let options = ["--pattern", pattern, "--warm-up", "0s"];
        let result = &load(&[&uri], &[&ALICE[..], &options].concat())[0];
        assert_all_arrived(result, pattern);
        let after = [relayed("to_peer"), relayed("to_client")];
        let seen = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(seen, [OFFERED * to_peers, OFFERED * to_clients], "{pattern}");
    }
    // And deletes what it has opened.
    eventually("no allocation is left", || {
        (server.metrics().sum(&["hairpin_allocations{"]) == 0).then_some(())
    });
    server.stop();
}

/// A server that drops is one that loses, and not one that is slow.
#[test]
fn what_a_server_drops_is_lost() {
    let limits = format!("{LIMITS}\nuser_bandwidth = \"400kbit/s\"");
    let server = server_with_tls(&limits);
    let uri = format!("turn:{}", server.turn);
    let options = ["--rate", "2000", "--size", "1000", "--duration", "1s"];
    let result = &load_with(&[&uri], &[&ALICE[..], &options].concat())[0];
    let report = &result["report"];
    let [offered, delivered, lost] = ["offered", "delivered", "lost"].map(|key| count(report, key));
    assert_eq!(offered, 2000);
    assert_eq!(offered, delivered + lost);
    assert!(lost > 1000 && delivered > 10, "{report}");
    let dropped = server.metrics().sum(&["hairpin_dropped_packets_total", "bandwidth"]);
    assert!(dropped >= lost, "{dropped} dropped, {lost} lost");
    server.stop();
}

#[test]
fn binding_requests_and_allocations_are_counted() {
    let server = server_with_tls(LIMITS);
    let stun = format!("stun:{}", server.turn);
    let result = &load(&[&stun], &[])[0];
    assert_eq!(result["pattern"], "binding");
    assert_all_arrived(result, "binding");
    let answered = ["hairpin_requests_total", r#"method="binding""#, r#"code="200""#];
    assert!(
        server.metrics().sum(&answered) >= OFFERED,
        "{}",
        server.metrics().rows("hairpin_requests_total")
    );

    for (uri, trust) in uris(server.turn) {
        let before = server.metrics().sum(&["hairpin_allocations_total"]);
        let options = ["--pattern", "allocate", "--rate", "40", "--warm-up", "0s"];
        let options = [&ALICE[..], trust, &options, &["--duration", "500ms", "--clients", "4"]];
        let result = &load_with(&[&uri], &options.concat())[0];
        let report = &result["report"];
        assert_eq!((count(report, "offered"), count(report, "lost")), (20, 0), "{uri}: {report}");
        let opened = server.metrics().sum(&["hairpin_allocations_total"]) - before;
        assert_eq!(opened, 20, "{uri}");
    }
    server.stop();
}

#[test]
fn the_servers_process_is_looked_at() {
    let server = server_with_tls(LIMITS);
    let uri = format!("turn:{}", server.turn);
    let pid = server.process().pid().to_string();
    let result = &load(&[&uri], &[&ALICE[..], &["--pid", &pid]].concat())[0];
    let used = &result["report"]["server"];
    assert!(used["cpu_ns_per_packet"].as_f64().unwrap() > 100.0, "{used}");
    assert!(count(used, "resident_bytes") > 1 << 20, "{used}");
    let opened = &result["opened"];
    assert!(count(opened, "server_cpu_ns_per_allocation") > 1000, "{opened}");
    let gone = bench(&[&uri], &[&ALICE[..], &["--pid", "4194305"]].concat());
    assert_refused(&gone, "cannot look at process 4194305");
    server.stop();
}

#[test]
fn a_search_finds_a_rate_that_is_lossless() {
    // 800 kbit/s are 100 packets of 1000 bytes each second.
    let limits = format!("{LIMITS}\nuser_bandwidth = \"800kbit/s\"");
    let server = server_with_tls(&limits);
    let uri = format!("turn:{}", server.turn);
    let options = ["--search", "--rate", "50", "--duration", "1s", "--warm-up", "0s"];
    let result = &load_with(&[&uri], &[&ALICE[..], &options].concat())[0];
    let highest = count(&result["search"], "highest_rate");
    assert!((25..400).contains(&highest), "{result}");
    assert_eq!(count(result, "rate"), highest);
    server.stop();
}

#[test]
fn several_uris_and_shared_secrets_and_a_table() {
    let auth = "secrets = [\"a secret of the bench test\"]";
    let server = Server::start(&Settings { auth, limits: LIMITS, ..Settings::default() });
    let uris = [format!("turn:{}", server.turn), format!("turn:{}?transport=tcp", server.turn)];
    let uris = uris.each_ref().map(String::as_str);
    let secret = ["--secret", "a secret of the bench test"];
    assert_eq!(load(&uris, &secret).len(), 2);
    let ended = bench(&uris, &[&secret[..], &BRIEF].concat());
    assert!(ended.status.success(), "{ended:?}");
    for uri in uris {
        assert!(ended.stdout.contains(&format!("{uri} (")), "{}", ended.stdout);
    }
    for name in ["opened", "offered", "delivered", "lost", "latency", "generator"] {
        assert_eq!(ended.stdout.matches(&format!("\n  {name} ")).count(), 2, "{}", ended.stdout);
    }
    server.stop();
}

#[test]
fn ipv6_is_loaded_too() {
    let listen = r#"["[::1]:0"]"#;
    let server = Server::start(&Settings { listen, limits: LIMITS, ..Settings::default() });
    for mode in ["channel", "send"] {
        let uri = format!("turn:{}", server.turn);
        let options = ["--pattern", "echo", "--mode", mode];
        assert_all_arrived(&load(&[&uri], &[&ALICE[..], &options].concat())[0], mode);
    }
    server.stop();
}

#[test]
fn a_server_that_is_down_is_one_line() {
    let port = private_port();
    for (uri, problem) in [
        (format!("turn:127.0.0.1:{port}"), "over UDP"),
        (format!("turn:127.0.0.1:{port}?transport=tcp"), "over TCP"),
        (format!("turns:127.0.0.1:{port}"), "over TCP"),
        (format!("stun:127.0.0.1:{port}"), "over UDP"),
    ] {
        let ended = bench(&[&uri], &[&ALICE[..], &["--insecure"]].concat());
        assert_refused(&ended, &format!("cannot reach 127.0.0.1:{port} {problem}"));
    }
    let nobody = bench(&["turn:no-such-host.invalid"], &ALICE);
    assert_refused(&nobody, "cannot resolve no-such-host.invalid");
}

#[test]
fn what_is_no_turn_server_is_one_line() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (uri, answering) =
        (format!("turn:{}", udp.local_addr().unwrap()), udp.try_clone().unwrap());
    thread::spawn(move || {
        let mut request = [0; 1500];
        while let Ok((_, from)) = answering.recv_from(&mut request) {
            let _ = answering.send_to(b"what do you want?", from);
        }
    });
    assert_refused(&bench(&[&uri], &ALICE), "is no STUN or TURN server");

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
            thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    let uri = format!("turn:{address}?transport=tcp");
    assert_refused(&bench(&[&uri], &ALICE), "is no STUN or TURN server");
    let uri = format!("turns:{address}");
    let ended = bench(&[&uri], &[&ALICE[..], &["--insecure"]].concat());
    assert_refused(&ended, &format!("TLS with {address} failed"));
}

#[test]
fn what_a_server_refuses_is_one_line() {
    let server = server_with_tls("allocations_per_user = 2\nunauthenticated_per_source = 0");
    let uri = format!("turn:{}", server.turn);
    let guessed = ["--user", "alice", "--pass", "guessed"];
    assert_refused(&bench(&[&uri], &guessed), "401");
    let expired = ["--secret", "not the server's secret"];
    assert_refused(&bench(&[&uri], &expired), "401");
    assert_refused(&bench(&[&uri], &ALICE), "486");
    let strange = ["--ca", "/dev/null"];
    let tls = format!("turns:{}", server.turn);
    assert_refused(&bench(&[&tls], &[&ALICE[..], &strange].concat()), "holds no certificate");
    let file = server.config.path();
    let not_it = file.with_file_name("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(["other".to_owned()]).unwrap();
    let other = other.self_signed(&key).unwrap();
    server.config.write("other.pem", &crate::tls::pem("CERTIFICATE", other.der()));
    let not_it = ["--ca", not_it.to_str().unwrap()];
    let ended = bench(&[&tls], &[&ALICE[..], &not_it].concat());
    assert_refused(&ended, "invalid peer certificate");
    server.stop();

    // A server for the public: this machine is no peer of its.
    let toml = Settings { limits: LIMITS, ..Settings::default() }.toml();
    let strict = ConfigFile::new(&toml.replace("[peers]\nallow", "[peers]\ndeny"));
    let strict = Server::start_in(&mut hairpin(), strict);
    assert_refused(&bench(&[&format!("turn:{}", strict.turn)], &ALICE), "403");
    strict.stop();
}

#[test]
fn public_targets_need_to_be_meant() {
    for uri in ["turn:192.0.2.1", "turn:[2001:db8::1]?transport=tcp", "stun:198.51.100.1:80"] {
        assert_refused(&bench(&[uri], &ALICE), "--yes-really");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let uri = "turn:127.0.0.1";
    assert_refused(&bench(&[uri], &[]), "needs --user and --pass, or --secret");
    assert_refused(&bench(&["turns:127.0.0.1"], &ALICE), "--insecure");
    assert_refused(&bench(&["http://127.0.0.1"], &ALICE), "must begin with turn:");
    let mixed = [&ALICE[..], &["--pattern", "echo"]].concat();
    assert_refused(&bench(&["stun:127.0.0.1"], &mixed), "use turn:");
    for beyond in [
        ["--rate", "10000001"],
        ["--rate", "0"],
        ["--duration", "241s"],
        ["--duration", "5"],
        ["--clients", "100001"],
        ["--clients", "0"],
        ["--burst", "1025"],
        ["--size", "11"],
        ["--size", "65508"],
        ["--threads", "65"],
        ["--loss", "1"],
        ["--mode", "dtls"],
    ] {
        let ended = bench(&[uri], &[&ALICE[..], &beyond].concat());
        assert_eq!(ended.status.code(), Some(2), "{beyond:?} {ended:?}");
    }
}

#[test]
fn another_server_is_loaded_the_same() {
    let (port, tls_port) = (private_port(), private_port());
    let config = ConfigFile::new("");
    crate::tls::write_pair(&config, "cert.pem", "key.pem", 3600);
    let file = |name| config.path().with_file_name(name).to_str().unwrap().to_owned();
    let mut command = Command::new("turnserver");
    command
        .args(["-n", "--no-dtls", "--no-cli", "--lt-cred-mech", "--realm", "test"])
        .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
        .args(["--min-port", "61000", "--max-port", "65535", "--allow-loopback-peers"])
        .args(["--listening-port", &port.to_string()])
        .args(["--tls-listening-port", &tls_port.to_string()])
        .args(["--user", "alice:wonderland", "--no-stdout-log", "--log-file", "/dev/null"])
        .args(["--cert", &file("cert.pem"), "--pkey", &file("key.pem")])
        .args(["--pidfile", &file("pid"), "--userdb", &file("turndb")])
        .stdin(Stdio::null());
    let there = Command::new("turnserver").arg("--version").stdout(Stdio::null()).status();
    if there.is_err() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install coturn");
        eprintln!("not run: no turnserver on this machine (apt install coturn)");
        return;
    }
    let _coturn = Process::spawn(&mut command);
    let plain = format!("turn:127.0.0.1:{port}");
    eventually("coturn serves", || {
        let stun = format!("stun:127.0.0.1:{port}");
        bench(&[&stun], &BRIEF).status.success().then_some(())
    });
    let tcp = format!("{plain}?transport=tcp");
    let tls = format!("turns:127.0.0.1:{tls_port}");
    for uri in [plain, tcp, tls] {
        for pattern in PATTERNS {
            let options = ["--pattern", pattern, "--insecure"];
            let result = &load(&[&uri], &[&ALICE[..], &options].concat())[0];
            assert_all_arrived(result, &format!("{pattern} {uri}"));
        }
    }
}

const LIMITS: &str = "unauthenticated_per_source = 0\nallocations_per_user = 0";

fn server_with_tls(limits: &str) -> Server {
    let settings = Settings { limits, ..Settings::default() };
    let tls = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    let config = ConfigFile::new(&(settings.toml() + tls));
    crate::tls::write_pair(&config, "cert.pem", "key.pem", 3600);
    Server::start_in(&mut hairpin(), config)
}

/// With what each needs to be trusted.
fn uris(server: SocketAddr) -> [(String, &'static [&'static str]); 3] {
    [
        (format!("turn:{server}"), &[]),
        (format!("turn:{server}?transport=tcp"), &[]),
        (format!("turns:{server}"), &["--insecure"]),
    ]
}

fn bench(uris: &[&str], options: &[&str]) -> Ended {
    run(hairpin().arg("bench").args(uris).args(options))
}

/// A brief load; its results.
fn load(uris: &[&str], options: &[&str]) -> Vec<Value> {
    // What is given twice counts the last time only if clap is told so, and it is not.
    let given = |name: &&str| options.contains(name);
    let brief = BRIEF.chunks(2).filter(|pair| !given(&pair[0])).flatten().copied();
    load_with(uris, &brief.chain(options.iter().copied()).collect::<Vec<_>>())
}

fn load_with(uris: &[&str], options: &[&str]) -> Vec<Value> {
    let ended = bench(uris, &[options, &["--json"]].concat());
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    document["results"].as_array().unwrap().clone()
}

fn assert_all_arrived(result: &Value, what: &str) {
    let report = &result["report"];
    let counts = ["offered", "delivered", "lost", "unsent", "duplicates"];
    let counts = counts.map(|key| count(report, key));
    assert_eq!(counts, [OFFERED, OFFERED, 0, 0, 0], "{what}: {report}");
    let [p50, p99, max] = ["p50_us", "p99_us", "max_us"].map(|key| report["latency"][key].as_f64());
    assert!(p50 > Some(0.0) && p50 <= p99 && p99 <= max, "{what}: {report}");
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no count {key} in {value}"))
}

/// One line, and the exit code of a failure.
fn assert_refused(ended: &Ended, problem: &str) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let [only] = ended.stderr.as_slice() else { panic!("one line: {ended:?}") };
    assert!(only.starts_with("error: ") && only.contains(problem), "not {problem:?}: {only}");
}
