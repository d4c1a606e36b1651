//! `hairpin doctor` where all is well, against servers of both kinds, and its manners.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::coturn::Coturn;
use crate::pki::Pki;
use crate::server::{ConfigFile, Server, Settings, hairpin, private_port, run};
use crate::told;

const STEPS_OF_TURN: [&str; 8] = [
    "challenge",
    "allocate",
    "permission",
    "channel",
    "relay",
    "from outside",
    "release",
    "binding",
];

#[test]
fn our_server_works_over_udp_tcp_and_tls() {
    let pki = Pki::new();
    let config = ConfigFile::new(&pki.toml());
    pki.write(&config, &["localhost", "127.0.0.1"], 90);
    let server = Server::start_in(&mut hairpin(), config);
    let port = server.turn.port();
    let uris = [
        format!("stun:127.0.0.1:{port}"),
        format!("turn:127.0.0.1:{port}"),
        format!("turn:127.0.0.1:{port}?transport=tcp"),
        format!("turns:127.0.0.1:{port}"),
        format!("stuns:127.0.0.1:{port}"),
    ];
    let ca = server.config.path().with_file_name("ca.pem");
    let ca = ca.to_str().unwrap();
    let mut arguments = vec!["doctor", "--user", "alice", "--pass", "wonderland", "--ca", ca];
    arguments.extend(uris.iter().map(String::as_str));
    let (ended, told) = told(&arguments);
    assert!(ended.status.success(), "{told:#}");
    assert_eq!(told["works"], true);
    for (index, is_turn) in [false, true, true, true, false].into_iter().enumerate() {
        let steps = steps(&told["reports"][index]);
        assert!(steps.iter().all(|(_, state)| state == "ok"), "{steps:?}");
        let relays = STEPS_OF_TURN.iter().all(|name| steps.iter().any(|(step, _)| step == name));
        assert_eq!(relays, is_turn, "{steps:?}");
    }
    // What it asked for it has given back.
    assert_eq!(server.metrics().sum(&["hairpin_allocations{"]), 0);
    assert_eq!(server.metrics().sum(&["hairpin_allocations_total"]), 6);
}

#[test]
fn our_server_works_over_dtls() {
    let pki = Pki::new();
    let config = ConfigFile::new(&(pki.toml() + "dtls = true\n"));
    pki.write(&config, &["localhost", "127.0.0.1"], 90);
    let server = Server::start_in(&mut hairpin(), config);
    let ca = server.config.path().with_file_name("ca.pem");
    let ca = ca.to_str().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let uri = format!("turns:{host}:{}?transport=udp", server.turn.port());
        let user = ["--user", "alice", "--pass", "wonderland", "--ca", ca];
        let (ended, told) = told(&[&["doctor", &uri], &user[..]].concat());
        assert!(ended.status.success(), "{told:#}");
        let addresses = told["reports"][0]["addresses"].as_array().unwrap();
        let steps = addresses.iter().find(|it| it["address"] == server.turn.to_string()).unwrap();
        let steps = steps["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["state"] == "ok"), "{told:#}");
        let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert!(STEPS_OF_TURN.iter().all(|name| names.contains(name)), "{names:?}");
        assert_eq!(steps[0]["step"], "dtls");
        let detail = steps[0]["detail"].as_str().unwrap();
        assert!(detail.starts_with("DTLS 1.2, certificate for localhost, 127.0.0.1"), "{detail}");
    }
    let opened =
        server.metrics().sum(&["hairpin_requests_total", "allocate", "dtls", "code=\"200\""]);
    assert_eq!(opened, 4, "two in each run, and by no other way");
    assert_eq!(server.metrics().sum(&["hairpin_allocations{"]), 0);
}

#[test]
fn our_server_works_with_a_secret_and_over_ipv6() {
    let listen = r#"["127.0.0.1:0", "[::1]:0"]"#;
    let auth = "secrets = [\"north-of-everything-else\"]";
    let server = Server::start(&Settings { listen, auth, ..Settings::default() });
    let lines = server.process().stderr().wait_for("listening (udp)", 2);
    for line in lines {
        let address: SocketAddr = crate::server::field(&line, "address").parse().unwrap();
        let uri = format!("turn:{address}");
        let (ended, told) = told(&["doctor", &uri, "--secret", "north-of-everything-else"]);
        assert!(ended.status.success(), "{told:#}");
    }
}

/// coturn lets no client reach loopback unless told to.
#[test]
fn coturn_works_over_udp_and_tcp() {
    let options = ["-u", "alice:secret", "--allow-loopback-peers"];
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &options) else { return };
    let udp = format!("turn:{}", coturn.address);
    let tcp = format!("turn:{}?transport=tcp", coturn.address);
    let (ended, told) = told(&["doctor", &udp, &tcp, "--user", "alice", "--pass", "secret"]);
    assert!(ended.status.success(), "{told:#}");
}

#[test]
fn coturn_takes_what_is_made_of_its_secret() {
    let options = [
        "--use-auth-secret",
        "--static-auth-secret",
        "north-of-everything",
        "--allow-loopback-peers",
    ];
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &options) else { return };
    let uri = format!("turn:{}", coturn.address);
    let (ended, told) = told(&["doctor", &uri, "--secret", "north-of-everything"]);
    assert!(ended.status.success(), "{told:#}");
}

/// One allocation per user is a setting, not a fault: the peer is this machine then.
#[test]
fn quota_of_one_is_enough() {
    let limits = "allocations_per_user = 1";
    let server = Server::start(&Settings { limits, ..Settings::default() });
    let uri = format!("turn:{}", server.turn);
    let (ended, told) = told(&["doctor", &uri, "--user", "alice", "--pass", "wonderland"]);
    assert!(ended.status.success(), "{told:#}");
    let text = told.to_string();
    assert!(text.contains("no second allocation to talk to (486"), "{told:#}");
}

#[test]
fn text_shows_deadlines_causes_and_no_colour_in_a_pipe() {
    let server = Server::start(&Settings::default());
    let good = format!("stun:{}", server.turn);
    let bad = format!("turn:127.0.0.1:{}?transport=tcp", private_port());
    let ended = run(hairpin().args(["doctor", &good, &bad, "--timeout", "7s", "--count", "3"]));
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, ["error: 1 of 2 do not work"]);
    let text = ended.stdout;
    assert!(text.contains(" of 7 s)") && text.contains("3 of 3 came back, 0 % lost"), "{text}");
    assert!(text.contains("  works\n") && text.contains("  does not work\n"), "{text}");
    assert!(text.contains("cause") && text.contains("change"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

/// `script` gives the program a terminal.
#[test]
fn colour_is_for_terminals_and_for_those_who_want_it() {
    const GREEN: &str = "\u{1b}[32m";
    let server = Server::start(&Settings::default());
    let program = env!("CARGO_BIN_EXE_hairpin");
    let line = format!("{program} doctor stun:{} --count 1", server.turn);
    let on_a_terminal = |no_color: &str, term: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        let ended = run(script.env("NO_COLOR", no_color).env("TERM", term));
        assert!(ended.status.success() && ended.stdout.contains("works"), "{ended:?}");
        ended.stdout
    };
    assert!(on_a_terminal("", "xterm").contains(GREEN));
    assert!(!on_a_terminal("1", "xterm").contains(GREEN));
    assert!(!on_a_terminal("", "dumb").contains(GREEN));
}

#[test]
fn bad_input_is_told_in_a_line() {
    for (arguments, part) in [
        (&["turn.example.org"][..], "not a URI"),
        (&["http://a.test"], "is no HOST[:PORT]"),
        (&["sip:a.test"], "the scheme must be stun, stuns, turn or turns"),
        (&["turn:a.test:0"], "is no HOST[:PORT]"),
        (&["stuns:a.test?transport=udp"], "stun URIs have no transport"),
        (&["turn:a.test", "--user", "a"], "--pass"),
        (&["turn:a.test", "--secret", "x", "--user", "a", "--pass", "b"], "cannot be used with"),
        (&["turns:a.test", "--ca", "/nosuch.pem"], "cannot read"),
        (&[], "<URI>"),
    ] {
        let ended = run(hairpin().arg("doctor").args(arguments));
        assert!(!ended.status.success(), "{arguments:?}");
        let stderr = ended.stderr.join("\n");
        assert!(stderr.starts_with("error: ") && stderr.contains(part), "{stderr}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

/// Names and states of all steps of a report's only address.
fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = report["addresses"][0]["steps"].as_array().unwrap();
    steps.iter().map(|step| (text(&step["step"]), text(&step["state"]))).collect()
}
