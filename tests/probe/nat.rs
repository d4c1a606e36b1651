//! `hairpin nat` as a program, against servers of both kinds.

use serde_json::Value;

use crate::coturn::Coturn;
use crate::server::{Server, Settings, hairpin, private_port, run};
use crate::told;

#[test]
fn coturn_with_two_addresses_tells_everything() {
    let Some(coturn) = Coturn::start(&["127.0.0.1", "127.0.0.2"], &[]) else { return };
    let (ended, told) = told(&["nat", "--server", &coturn.address.to_string()]);
    assert!(ended.status.success(), "{ended:?}");
    let result = &told["results"][0];
    assert_eq!(result["type"], "open");
    assert_eq!(result["mapping"], "endpoint-independent");
    assert_eq!(result["filtering"], "endpoint-independent");
    assert_eq!(result["local"], result["mapped"]);
    assert_eq!(result["tcp"]["mapping"], "endpoint-independent");
}

#[test]
fn coturn_with_one_address_tells_what_can_be_known() {
    let Some(coturn) = Coturn::start(&["::1"], &[]) else { return };
    let server = coturn.address.to_string();
    assert_tells_no_more_than_the_address(&server);
}

#[test]
fn our_own_server_with_two_addresses_tells_everything() {
    let ports = [private_port(), private_port()];
    let listen = &format!("[\"127.0.78.1:{}\"]", ports[0]);
    let stun = &format!("nat_discovery = true\nalternate = \"127.0.78.2:{}\"", ports[1]);
    let server = Server::start(&Settings { listen, stun, ..Settings::default() });
    let (ended, told) = told(&["nat", "--server", &server.turn.to_string()]);
    assert!(ended.status.success(), "{ended:?}");
    let result = &told["results"][0];
    assert_eq!(result["type"], "open", "{told:#}");
    assert_eq!(result["filtering"], "endpoint-independent");
    assert_eq!(result["tcp"]["mapping"], "endpoint-independent");
}

#[test]
fn our_own_server_tells_its_address() {
    let listen = r#"["127.0.0.1:0", "[::1]:0"]"#;
    let server = Server::start(&Settings { listen, ..Settings::default() });
    assert_tells_no_more_than_the_address(&server.turn.to_string());
}

fn assert_tells_no_more_than_the_address(server: &str) {
    let (ended, told) = told(&["nat", "--server", server]);
    assert!(ended.status.success(), "{ended:?}");
    let result = &told["results"][0];
    assert_eq!(result["type"], "not-translated");
    let why = "the server has no second address (no OTHER-ADDRESS, RFC 5780)";
    assert_eq!(result["filtering_unknown"], why);
    assert_eq!(result["local"], result["mapped"]);
    let text = run(hairpin().args(["nat", "--server", server])).stdout;
    assert!(text.contains(&format!("filtering    not known: {why}\n")), "{text}");
}

#[test]
fn server_that_is_down_is_not_taken_for_the_network() {
    let port = private_port();
    let server = format!("127.0.0.1:{port}");
    let (ended, told) = told(&["nat", "--server", &server, "--timeout", "1s"]);
    assert_eq!(ended.status.code(), Some(1));
    let line = format!("error: {server}: nothing listens on UDP port {port}");
    assert_eq!(ended.stderr, [line]);
    assert_eq!(told["results"][0]["type"], Value::Null);
    assert_eq!(told["results"][0]["refused"], true);
}

#[test]
fn bad_input_is_one_line_and_no_success() {
    for (server, part) in [
        ("nosuch.invalid", "error: nosuch.invalid: cannot find this host"),
        ("[::1", "is no HOST[:PORT]"),
        ("127.0.0.1:70000", "is no HOST[:PORT]"),
        ("stun:127.0.0.1", "is no HOST[:PORT]"),
    ] {
        let ended = run(hairpin().args(["nat", "--server", server]));
        assert!(!ended.status.success(), "{server}");
        assert!(ended.stderr[0].contains(part), "{ended:?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.join("").contains("panicked"));
    }
}

#[test]
fn deadlines_are_shown_and_nothing_is_coloured_in_a_pipe() {
    let server = Server::start(&Settings::default());
    let server = server.turn.to_string();
    let ended = run(hairpin().args(["nat", "--server", &server, "--timeout", "7s"]));
    assert!(ended.stdout.contains("each step waits for 7 s at most"), "{ended:?}");
    assert!(!ended.stdout.contains('\u{1b}') && ended.stderr.is_empty(), "{ended:?}");
}
