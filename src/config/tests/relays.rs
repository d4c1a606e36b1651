//! The addresses of relays, and those that clients see from outside.

use super::*;

#[test]
fn external_addresses_are_for_relay_addresses_and_listeners() {
    let listen = "listen = [\"10.0.0.4:3478\", \"10.0.0.5:3478\", \"[fd00::4]:3478\"]\n[relay]\n";
    let config = accepted(&format!(
        "{listen}external = [\"203.0.113.4\", \"203.0.113.5/10.0.0.5\", \"2600::4\"]"
    ));
    let aliases = config.net.external.aliases(&config.net.relays_from());
    let shown: Vec<_> =
        aliases.iter().map(|alias| format!("{} {}", alias.external, alias.local)).collect();
    assert_eq!(shown, ["203.0.113.4 10.0.0.4", "203.0.113.5 10.0.0.5", "2600::4 fd00::4"]);
    assert!(config.net.external.unknown(&config.net.relays_from()).is_empty());

    let auto = accepted(&format!(
        "{listen}external = [\"auto\", \"203.0.113.4\"]\nexternal_stun = \"stun.example.org:3478\""
    ));
    let asked = auto.net.external.unknown(&auto.net.relays_from());
    assert_eq!(asked, ["fd00::4".parse::<std::net::IpAddr>().unwrap()], "what nobody has told");
    let public = "listen = [\"192.0.9.1:3478\"]\n[relay]\nexternal = [\"auto\"]\n\
                  external_stun = \"192.0.9.9:3478\"";
    let public = accepted(public).net;
    assert!(public.external.unknown(&public.relays_from()).is_empty(), "no NAT, no question");
}

#[test]
fn relay_addresses_are_sixteen_at_most() {
    let listed = |count: u8| {
        let addresses = (1..=count).map(|last| format!("\"10.0.0.{last}\""));
        format!("[relay]\naddresses = [{}]", addresses.collect::<Vec<_>>().join(", "))
    };
    let addresses = accepted(&listed(16)).net.relays_from();
    assert_eq!((addresses.len(), addresses[15].to_string().as_str()), (16, "10.0.0.16"));
    let problem = "c.toml:2: relay.addresses[16]: more than 16 relay addresses";
    assert_eq!(refused(&listed(17)), problem);
}

#[test]
fn each_of_several_relay_addresses_has_its_own_external_one() {
    let at = |external: &str| {
        format!(
            "[relay]\naddresses = [\"10.0.0.4\", \"10.0.0.5\", \"fd00::4\"]\n\
             external_stun = \"stun.example.org:3478\"\nexternal = [\"auto\", {external}]"
        )
    };
    let net = accepted(&at("\"203.0.113.5/10.0.0.5\", \"2600::4\"")).net;
    let aliases = net.external.aliases(&net.relays_from());
    let shown: Vec<_> =
        aliases.iter().map(|alias| format!("{} {}", alias.external, alias.local)).collect();
    assert_eq!(shown, ["203.0.113.5 10.0.0.5", "2600::4 fd00::4"]);
    let asked = net.external.unknown(&net.relays_from());
    assert_eq!(asked, ["10.0.0.4".parse::<std::net::IpAddr>().unwrap()]);
    let both = accepted(&at("\"2600::4\"")).net;
    assert_eq!(both.external.unknown(&both.relays_from()).len(), 2, "auto asks for each");
    for (external, problem) in [
        (
            "\"203.0.113.4\"",
            "[1]: \"203.0.113.4\" may be for any of several relay addresses of IPv4; write \
             \"203.0.113.4/10.0.0.4\" (external/local) if it is for 10.0.0.4",
        ),
        (
            "\"203.0.113.4/10.0.0.4\", \"203.0.113.4/10.0.0.5\"",
            "[2]: \"203.0.113.4\" is listed twice",
        ),
        ("\"10.0.0.5/10.0.0.4\"", "[1]: \"10.0.0.5\" is itself a relay address"),
    ] {
        assert_eq!(refused(&at(external)), format!("c.toml:4: relay.external{problem}"));
    }
}

#[test]
fn external_addresses_that_cannot_serve_are_refused() {
    let at =
        |external: &str| format!("listen = [\"10.0.0.4:3478\"]\n[relay]\nexternal = {external}");
    for (external, problem) in [
        ("[\"2600::4\"]", "relay.external[0]: \"2600::4\" is for no relay address of IPv6"),
        (
            "[\"203.0.113.4/10.0.0.9\"]",
            "relay.external[0]: \"10.0.0.9\" is neither a relay address nor listened on",
        ),
        (
            "[\"203.0.113.4\", \"203.0.113.5/10.0.0.4\"]",
            "relay.external[1]: \"203.0.113.5\" is a second one for 10.0.0.4",
        ),
        (
            "[\"203.0.113.4/2600::4\"]",
            "relay.external[0]: \"203.0.113.4/2600::4\" joins an IPv4 with an IPv6 address",
        ),
        (
            "[\"auto\"]",
            "relay.external: \"auto\" needs a STUN server to ask, such as \"stun.example.org:3478\"",
        ),
        (
            "[\"auto\"]\nexternal_stun = \"stun.example.org\"",
            "relay.external_stun: \"stun.example.org\" is not a host with a port; write it like \
             \"stun.example.org:3478\"",
        ),
        (
            "[]\nexternal_stun = \"stun.example.org:3478\"",
            "relay.external_stun: is of no use without \"auto\" in relay.external",
        ),
    ] {
        let line = if problem.contains("external_stun:") { 4 } else { 3 };
        assert_eq!(refused(&at(external)), format!("c.toml:{line}: {problem}"));
    }
    for external in ["\"0.0.0.0\"", "\"::ffff:203.0.113.4\"", "\"203.0.113.4/\"", "\"Auto\""] {
        let problem = refused(&at(&format!("[{external}]")));
        assert!(problem.starts_with("c.toml:3: relay.external[0]: "), "{problem}");
    }
}
