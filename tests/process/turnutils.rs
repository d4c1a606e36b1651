//! The clients of another implementation: coturn's, as Debian ships them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::server::{
    Ended, Process, Server, Settings, dev_ports, eventually, hairpin, private_port, run,
};

#[test]
fn uclient_loses_nothing_through_a_dev_server() {
    let (_lock, server) = (dev_ports(), Process::spawn(hairpin().args(["serve", "--dev"])));
    server.stdout().wait_for("Metrics:", 1);
    // For TLS it would go to port 5349.
    for transport in [&[][..], &["-t"], &["-t", "-S", "-p", "3478"], &["-S", "-p", "3478"]] {
        if !loses_nothing(transport) {
            return;
        }
    }
    server.signal("TERM");
    assert!(server.wait().status.success());
}

/// RFC 6062, where each client connects to each other one. (Not with -P: there it counts half of
/// its messages as lost, whichever the server, although all of them arrive.)
#[test]
fn uclient_loses_nothing_over_relayed_tcp_and_all_descriptors_are_given_back() {
    let (_lock, server) = (dev_ports(), Process::spawn(hairpin().args(["serve", "--dev"])));
    server.stdout().wait_for("Metrics:", 1);
    let descriptors = format!("/proc/{}/fd", server.pid());
    let descriptors = || std::fs::read_dir(&descriptors).unwrap().count();
    let before = descriptors();
    for transport in [&["-T"][..], &["-T", "-S", "-p", "3478"]] {
        if !loses_nothing(transport) {
            return;
        }
        eventually("the descriptors of connections are back", || {
            (descriptors() == before).then_some(())
        });
    }
    server.signal("TERM");
    assert!(server.wait().status.success());
}

/// False where there is no uclient on this machine.
fn loses_nothing(transport: &[&str]) -> bool {
    // -s: Send indications, for its channel numbers are those of RFC 5766; -y: to each other;
    // -c: no RTCP, for which it wants pairs of ports.
    let options = ["-u", "dev", "-w", "dev", "-s", "-y", "-c", "-n", "200", "-m", "10"];
    let options = [transport, &options[..], &["127.0.0.1"]].concat();
    let Some(ended) = turnutils("uclient", &options) else { return false };
    assert_no_loss(&ended, 2000);
    true
}

#[test]
fn uclient_with_a_wrong_password_gets_nothing() {
    let server = Server::start(&Settings::default());
    let address = server.turn;
    let port = address.port().to_string();
    let options = ["-u", "alice", "-w", "guessed", "-s", "-y", "-c", "-n", "1", "-m", "1"];
    let options = [&options[..], &["-p", &port, "127.0.0.1"]].concat();
    let Some(ended) = turnutils("uclient", &options) else { return };
    assert!(!ended.status.success(), "{ended:?}");
    assert_eq!(server.metrics().sum(&["hairpin_allocations_total"]), 0);
}

#[test]
fn uclient_relays_over_ipv6() {
    let listen = r#"["127.0.0.1:0", "[::1]:0"]"#;
    let server = Server::start(&Settings { listen, ..Settings::default() });
    let options =
        ["-u", "alice", "-w", "wonderland", "-x", "-s", "-y", "-c", "-n", "50", "-m", "4"];
    let port = server.turn.port().to_string();
    let options = [&options[..], &["-p", &port, "127.0.0.1"]].concat();
    let Some(ended) = turnutils("uclient", &options) else { return };
    assert_no_loss(&ended, 200);
    let log = server.stop();
    let opened: Vec<_> = log.iter().filter(|line| line.contains("allocation opened")).collect();
    assert!(!opened.is_empty());
    for line in opened {
        let relayed: SocketAddr = crate::server::field(line, "relayed").parse().unwrap();
        assert!(relayed.is_ipv6(), "{line}");
    }
}

/// -X: IPv4, said explicitly. Not -Z, dual allocation: Debian's uclient asks for it under an
/// attribute number, 0x8032, that RFC 8656 §18 does not have.
#[test]
fn uclient_asks_for_ipv4() {
    let server = Server::start(&Settings::default());
    let port = server.turn.port().to_string();
    let options =
        ["-X", "-u", "alice", "-w", "wonderland", "-s", "-y", "-c", "-n", "50", "-m", "4"];
    let options = [&options[..], &["-p", &port, "127.0.0.1"]].concat();
    let Some(ended) = turnutils("uclient", &options) else { return };
    assert_no_loss(&ended, 200);
}

#[test]
fn stunclient_learns_its_address() {
    let server = Server::start(&Settings::default());
    let port = server.turn.port().to_string();
    let Some(ended) = turnutils("stunclient", &["-p", &port, "127.0.0.1"]) else { return };
    assert!(ended.status.success(), "{ended:?}");
    let all = all(&ended);
    assert!(all.contains("UDP reflexive addr: 127.0.0.1:"), "{all}");
}

/// A server with NAT discovery, and its port.
fn discovering() -> (Server, String) {
    let [port, other] = [private_port(), private_port()];
    let listen = format!(r#"["127.0.0.1:{port}"]"#);
    let stun = format!("nat_discovery = true\nalternate = \"127.0.0.2:{other}\"");
    let server = Server::start(&Settings { listen: &listen, stun: &stun, ..Settings::default() });
    (server, port.to_string())
}

#[test]
fn natdiscovery_finds_neither_mapping_nor_filtering_on_loopback() {
    let (server, port) = discovering();
    // -P: with padding; -H: hairpinning; -c: from two addresses.
    let tests: [(&[&str], &[&str]); 5] = [
        (&["-m"], &["Endpoint Independent Mapping!"]),
        (&["-f"], &["Endpoint Independent Filtering!"]),
        (&["-m", "-f", "-P"], &["Independent Mapping!", "Independent Filtering!"]),
        (&["-H"], &["maybe a successful hairpinning"]),
        (&["-c", "-A", "127.0.0.3", "-L", "127.0.0.1"], &["addr: 127.0.0.3:"]),
    ];
    for (options, findings) in tests {
        let options = [options, &["-p", &port, "127.0.0.1"]].concat();
        let Some(ended) = turnutils("natdiscovery", &options) else { return };
        assert!(ended.status.success(), "{ended:?}");
        let all = all(&ended);
        assert!(findings.iter().all(|finding| all.contains(finding)), "{options:?}: {all}");
    }
    server.stop();
}

/// It goes on to ask for a response to another port, which RFC 5780 §7.5 leaves to the server and
/// this one refuses; then it waits there for ever.
#[test]
fn stunclient_learns_the_other_address() {
    let (_server, port) = discovering();
    if !is_installed("turnutils_stunclient") {
        return;
    }
    // In a pipe it would show nothing until its end.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "turnutils_stunclient", "-p", &port, "127.0.0.1"]);
    let process = Process::spawn(&mut command);
    process.stdout().wait_for(&format!("Response origin: : 127.0.0.1:{port}"), 1);
    process.stdout().wait_for("Other addr: : 127.0.0.2:", 1);
    process.stdout().wait_for("UDP reflexive addr: 127.0.0.1:", 1);
}

/// By default it wants two ports for each client, one for RTP and the next one for RTCP.
#[test]
fn uclient_has_pairs_of_ports() {
    let server = Server::start(&Settings::default());
    let port = server.turn.port().to_string();
    for transport in [&[][..], &["-t"]] {
        let options = ["-u", "alice", "-w", "wonderland", "-s", "-y", "-n", "50", "-m", "4"];
        let options = [transport, &options, &["-p", &port, "127.0.0.1"]].concat();
        let Some(ended) = turnutils("uclient", &options) else { return };
        assert_no_loss(&ended, 200);
    }
    let log = server.stop();
    let opened = log.iter().filter(|line| line.contains("allocation opened"));
    let mut ports: Vec<SocketAddr> =
        opened.map(|line| crate::server::field(line, "relayed").parse().unwrap()).collect();
    ports.sort();
    let pairs = ports
        .windows(2)
        .filter(|pair| pair[0].port().is_multiple_of(2) && pair[0].port() + 1 == pair[1].port());
    assert!(pairs.count() >= 4, "{ports:?}");
}

/// -g: DONT-FRAGMENT.
#[test]
fn uclient_forbids_fragments() {
    let server = Server::start(&Settings::default());
    let port = server.turn.port().to_string();
    for transport in [&[][..], &["-t"]] {
        let options = ["-g", "-u", "alice", "-w", "wonderland", "-s", "-y", "-c", "-n", "50"];
        let options = [transport, &options, &["-m", "4", "-p", &port, "127.0.0.1"]].concat();
        let Some(ended) = turnutils("uclient", &options) else { return };
        assert_no_loss(&ended, 200);
    }
}

#[test]
fn uclient_uses_the_channel_numbers_of_rfc5766() {
    let stun = "rfc5766_channels = true";
    let server = Server::start(&Settings { stun, ..Settings::default() });
    let port = server.turn.port().to_string();
    for transport in [&[][..], &["-t"]] {
        let options = ["-u", "alice", "-w", "wonderland", "-y", "-c", "-n", "100", "-m", "8"];
        let options = [transport, &options, &["-p", &port, "127.0.0.1"]].concat();
        let Some(ended) = turnutils("uclient", &options) else { return };
        assert_no_loss(&ended, 800);
    }
}

/// -M: when it has its allocation it closes its socket, or its connection, and goes on from another
/// one, with its ticket. It speaks with an echo: in a pair it would lose what the other half sends
/// before it has sent anything itself, since until then it is reached where it was (RFC 8016 §3.2.2).
#[test]
fn uclient_moves_and_keeps_its_allocations() {
    // The peer comes in the same package, and asked for its options it would serve.
    if !is_installed("turnutils_uclient") {
        return;
    }
    let echo = private_port();
    let mut peer = Command::new("turnutils_peer");
    let _peer = Process::spawn(peer.args(["-L", "127.0.0.1", "-p", &echo.to_string()]));
    let stun = "rfc5766_channels = true\n[mobility]\nenabled = true";
    let server = Server::start(&Settings { stun, ..Settings::default() });
    let port = server.turn.port().to_string();
    for transport in [&[][..], &["-s"], &["-t"]] {
        let options = ["-M", "-u", "alice", "-w", "wonderland", "-c", "-n", "100", "-m", "4"];
        let echo = ["-e", "127.0.0.1", "-r", &echo.to_string()];
        let options = [transport, &options, &echo, &["-p", &port, "127.0.0.1"]].concat();
        let Some(ended) = turnutils("uclient", &options) else { return };
        assert_no_loss(&ended, 400);
    }
    let log = server.stop();
    let resumed = log.iter().filter(|line| line.contains("allocation resumed")).count();
    assert!(resumed >= 3 * 4, "{resumed} moves: {log:#?}");
}

/// Runs `turnutils_…`; none where it is not installed, which CI does not accept.
fn turnutils(name: &str, options: &[&str]) -> Option<Ended> {
    let tool = format!("turnutils_{name}");
    let mut command = Command::new(&tool);
    command.args(options).stdin(Stdio::null());
    is_installed(&tool).then(|| run(&mut command))
}

fn is_installed(tool: &str) -> bool {
    let probe = Command::new(tool).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut probe) = probe else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install coturn");
        eprintln!("not run: no {tool} on this machine (apt install coturn)");
        return false;
    };
    probe.wait().unwrap();
    true
}

fn assert_no_loss(ended: &Ended, messages: usize) {
    let all = all(ended);
    assert!(ended.status.success(), "{all}");
    // Over TLS it also tries suites of its own choice, old ones among them, until one is accepted.
    // And over DTLS an old version first.
    let alerts = ["sslv3 alert handshake failure", "tlsv1 alert protocol version"];
    let refused = |line: &&str| alerts.iter().any(|alert| line.contains(alert));
    let mut lines = all.lines().filter(|line| !refused(line));
    assert!(lines.all(|line| !line.to_lowercase().contains("error")), "{all}");
    assert!(!all.contains("not enough"), "a connection is missing: {all}");
    assert!(all.contains("Total lost packets 0 (0.000000%)"), "{all}");
    let totals = format!("tot_send_msgs={messages}, tot_recv_msgs={messages}\n");
    assert!(all.contains(&totals), "not {totals}{all}");
}

fn all(ended: &Ended) -> String {
    ended.stdout.clone() + &ended.stderr.join("\n") + "\n"
}
