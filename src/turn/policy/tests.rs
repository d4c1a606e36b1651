use super::*;

/// The IPv4 addresses read out of an IPv6 one.
fn embedded(text: &str) -> Vec<String> {
    embedded_ipv4(text.parse().unwrap()).map(|ip| ip.to_string()).collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let config = Config { allow: nets(allow), deny: nets(deny), only_allowed: false };
    let host = Host {
        endpoints: vec!["[::]:3478".parse().unwrap()],
        addresses: vec!["8.8.4.4".parse().unwrap()],
        aliases: Vec::new(),
        broadcasts: vec!["10.0.0.255".parse().unwrap()],
        relay_addresses: vec!["10.0.0.5".parse().unwrap()],
        relay_ports: 50_000..=50_009,
    };
    Policy::new(config, host)
}

fn admits(policy: &Policy, peer: &str) -> bool {
    policy.admit(peer.parse().unwrap(), Port::Exact).is_ok()
}

#[test]
fn plain_addresses_embed_nothing() {
    for text in ["2a00:1450::1", "::1", "fe80::1", "2606:4700::5efe", "64:ff9c::1"] {
        assert!(embedded(text).is_empty(), "{text}");
    }
}

#[test]
fn well_known_nat64_prefix_embeds_its_last_32_bits() {
    assert_eq!(embedded("64:ff9b::192.0.2.33"), ["192.0.2.33"]);
    assert!(embedded("64:ff9b::1:0:192.0.2.33").is_empty(), "beyond the /96");
}

/// The layouts of RFC 6052 §2.4, moved into 64:ff9b:1::/48.
#[test]
fn local_use_nat64_prefix_is_read_in_every_length() {
    for text in [
        "64:ff9b:1:c000:2:2100::",
        "64:ff9b:1:3c0:0:221::",
        "64:ff9b:1:344:c0:2:2100::",
        "64:ff9b:1:344::192.0.2.33",
    ] {
        assert!(embedded(text).contains(&"192.0.2.33".to_owned()), "{text}: {:?}", embedded(text));
    }
}

#[test]
fn isatap_is_recognised_under_any_prefix_and_with_either_bit() {
    assert_eq!(embedded("2a00::5efe:10.0.0.1"), ["10.0.0.1"]);
    assert_eq!(embedded("2a00::200:5efe:10.0.0.1"), ["10.0.0.1"]);
    assert!(embedded("2a00::100:5efe:10.0.0.1").is_empty());
}

#[test]
fn ipv4_compatible_is_all_of_96_zero_bits_but_loopback() {
    for (text, compatible) in [
        ("::", true),
        ("::1", false),
        ("::2", true),
        ("::8.8.8.8", true),
        ("::ffff:ffff", true),
        ("::1:0:0", false),
        ("::ffff:8.8.8.8", false),
    ] {
        assert_eq!(is_ipv4_compatible(text.parse().unwrap()), compatible, "{text}");
    }
}

#[test]
fn tunnels_end_where_their_prefixes_do() {
    for (text, tunnelled) in [
        ("2001::", true),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:1::", false),
        ("2002::", true),
        ("2002:ffff::1", true),
        ("2003::", false),
        ("32.1.0.0", false),
    ] {
        assert_eq!(is_tunnelled(text.parse().unwrap()), tunnelled, "{text}");
    }
}

#[test]
fn mapped_and_translated_are_never_peers_even_of_public_addresses() {
    for text in ["::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::8.8.8.8", "0.0.0.0", "ff02::1"] {
        assert!(is_never_a_peer(text.parse().unwrap()), "{text}");
    }
    for text in ["8.8.8.8", "127.0.0.1", "::1", "2a00::1", "255.255.255.254"] {
        assert!(!is_never_a_peer(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn denied_networks_hold_their_first_and_last_address() {
    for net in DENIED_IPV4 {
        assert!(is_denied(net.network().into()) && is_denied(net.broadcast().into()), "{net}");
    }
    for net in DENIED_IPV6 {
        assert!(is_denied(net.network().into()) && is_denied(net.broadcast().into()), "{net}");
    }
    for text in ["9.255.255.255", "11.0.0.0", "223.255.255.255", "2001:200::", "fbff::"] {
        assert!(!is_denied(text.parse().unwrap()), "{text}");
    }
}

/// A translator that the operator allows still may not lead where the policy does not.
#[test]
fn allowed_translator_leads_only_to_admitted_addresses() {
    let policy = policy(&["64:ff9b::/96"], &["9.9.9.0/24"]);
    assert!(admits(&policy, "[64:ff9b::1.1.1.1]:1"));
    for forbidden in ["10.0.0.1", "127.0.0.1", "9.9.9.9", "224.0.0.1", "0.0.0.0", "8.8.4.4"] {
        assert!(!admits(&policy, &format!("[64:ff9b::{forbidden}]:1")), "{forbidden}");
    }
}

#[test]
fn allowed_network_is_open_behind_its_translator_too() {
    let policy = policy(&["64:ff9b::/96", "10.0.0.0/8"], &[]);
    assert!(admits(&policy, "[64:ff9b::10.0.0.1]:1"));
}

#[test]
fn broadcast_address_of_an_own_network_is_never_open() {
    let policy = policy(&["10.0.0.0/8", "64:ff9b::/96"], &[]);
    assert!(admits(&policy, "10.0.0.254:50000"));
    assert!(!admits(&policy, "10.0.0.255:50000"));
    assert!(!admits(&policy, "[64:ff9b::10.0.0.255]:50000"));
}

#[test]
fn own_relay_address_is_open_in_its_port_range_alone() {
    let policy = policy(&[], &[]);
    for (peer, admitted) in [
        ("10.0.0.5:50000", true),
        ("10.0.0.5:50009", true),
        ("10.0.0.5:49999", false),
        ("10.0.0.5:50010", false),
        ("10.0.0.6:50000", false),
    ] {
        assert_eq!(admits(&policy, peer), admitted, "{peer}");
    }
    assert!(policy.admit("10.0.0.5:1".parse().unwrap(), Port::Any).is_ok());
}

#[test]
fn each_of_several_relay_addresses_is_open_in_the_port_range() {
    let mut policy = policy(&[], &[]);
    let shown = ["198.35.26.5", "10.0.0.6", "198.35.26.7", "2600::5"];
    let aliases = [("198.35.26.5", "10.0.0.5"), ("198.35.26.7", "10.0.0.7")];
    let alias = |(external, local): (&str, &str)| Alias {
        external: external.parse().unwrap(),
        local: local.parse().unwrap(),
    };
    let addresses = shown.map(|ip| ip.parse().unwrap()).into();
    policy.set_aliases(aliases.map(alias).into(), addresses);
    for relay in ["198.35.26.5", "10.0.0.6", "198.35.26.7", "[2600::5]"] {
        let at = |port| format!("{relay}:{port}").parse().unwrap();
        assert!(policy.admit(at(50_009), Port::Exact).unwrap().must_be_relayed(), "{relay}");
        assert!(policy.is_relayed(at(50_000)));
        assert!(policy.admit(at(50_010), Port::Exact).is_err() && !policy.is_relayed(at(50_010)));
    }
    for behind in ["10.0.0.5:50000", "10.0.0.7:50000"] {
        assert!(!admits(&policy, behind), "{behind}");
    }
    // What the tickets of mobile allocations say, and what is made of it.
    let index = |ip: &str| policy.relay_index(ip.parse().unwrap());
    assert_eq!(shown.map(index), [0, 1, 2, 3].map(Some));
    assert_eq!(policy.relay_address(2), Some("198.35.26.7".parse().unwrap()));
    assert_eq!((policy.relay_address(4), policy.relay_address(usize::MAX)), (None, None));
    assert_eq!([index("198.35.26.9"), index("2600::9")], [Some(0), Some(3)], "it has changed");
    policy.set_aliases(Vec::new(), vec!["2600::5".parse().unwrap()]);
    assert_eq!(policy.relay_index("198.35.26.9".parse().unwrap()), None);
}

#[test]
fn wildcard_listener_stands_for_own_addresses_and_loopback() {
    let policy = policy(&["0.0.0.0/0", "::/0"], &[]);
    for own in ["8.8.4.4:3478", "127.0.0.9:3478", "[::1]:3478"] {
        assert!(policy.is_endpoint(own.parse().unwrap()), "{own}");
        assert!(!admits(&policy, own), "{own}");
    }
    for other in ["8.8.8.8:3478", "[2a00::1]:3478"] {
        assert!(!policy.is_endpoint(other.parse().unwrap()), "{other}");
        assert!(admits(&policy, other), "{other}");
    }
}

#[test]
fn wide_exception_opens_neither_this_machine_nor_loopback() {
    let wide = policy(&["0.0.0.0/0", "::/0"], &[]);
    for own in ["8.8.4.4:53", "127.0.0.1:53", "[::1]:53"] {
        assert!(!admits(&wide, own), "{own}");
    }
    let exact = policy(&["8.8.4.4/32", "127.0.0.0/8", "::1/128"], &[]);
    for own in ["8.8.4.4:53", "127.0.0.1:53", "[::1]:53"] {
        assert!(admits(&exact, own), "{own}");
    }
}

#[test]
fn peer_at_our_relay_address_must_be_relayed_unless_it_is_an_exception() {
    let peer = "10.0.0.5:50000".parse().unwrap();
    let admitted = policy(&[], &[]).admit(peer, Port::Exact).unwrap();
    assert!(admitted.must_be_relayed());
    let admitted = policy(&["10.0.0.0/8"], &[]).admit(peer, Port::Exact).unwrap();
    assert!(!admitted.must_be_relayed());
    let elsewhere = policy(&[], &[]).admit("8.8.8.8:50000".parse().unwrap(), Port::Exact).unwrap();
    assert!(!elsewhere.must_be_relayed());
}

#[test]
fn new_address_of_the_machine_is_the_machine() {
    let mut policy = policy(&[], &[]);
    assert!(admits(&policy, "9.9.9.9:53"));
    policy.set_own_addresses(vec!["9.9.9.9".parse().unwrap()], Vec::new());
    assert!(!admits(&policy, "9.9.9.9:53"));
    assert!(policy.is_endpoint("9.9.9.9:3478".parse().unwrap()));
}

/// Relays from 10.0.0.5 and listens on 10.0.0.6, which a NAT shows as two public addresses.
fn behind_nat(allow: &[&str]) -> Policy {
    let mut policy = policy(allow, &[]);
    let alias = |external: &str, local: &str| Alias {
        external: external.parse().unwrap(),
        local: local.parse().unwrap(),
    };
    policy.host.endpoints.push("10.0.0.6:5000".parse().unwrap());
    let aliases = vec![alias("198.35.26.5", "10.0.0.5"), alias("198.35.26.6", "10.0.0.6")];
    policy.set_aliases(aliases, vec!["198.35.26.5".parse().unwrap()]);
    policy
}

#[test]
fn behind_nat_only_the_external_address_is_a_relayed_one() {
    let policy = behind_nat(&[]);
    for (peer, admitted) in [
        ("198.35.26.5:50000", true),
        ("198.35.26.5:50009", true),
        ("198.35.26.5:50010", false),
        ("198.35.26.5:22", false),
        ("10.0.0.5:50000", false),
        ("198.35.26.6:50000", false),
        ("198.35.26.7:50000", true),
    ] {
        assert_eq!(admits(&policy, peer), admitted, "{peer}");
    }
    let relayed = policy.admit("198.35.26.5:50000".parse().unwrap(), Port::Exact).unwrap();
    assert!(relayed.must_be_relayed());
    assert!(policy.is_relayed("198.35.26.5:50000".parse().unwrap()));
    assert!(!policy.is_relayed("10.0.0.5:50000".parse().unwrap()));
}

#[test]
fn external_addresses_lead_here_in_every_spelling() {
    let policy = behind_nat(&["198.35.26.0/24", "10.0.0.0/8", "64:ff9b::/96"]);
    for peer in [
        "198.35.26.5:22",
        "198.35.26.6:22",
        "10.0.0.5:22",
        "10.0.0.6:22",
        "[::ffff:198.35.26.5]:22",
        "[64:ff9b::198.35.26.5]:22",
        "[64:ff9b::198.35.26.6]:50000",
    ] {
        assert!(!admits(&policy, peer), "{peer}");
    }
    assert!(admits(&policy, "198.35.26.9:22") && admits(&policy, "[64:ff9b::198.35.26.9]:22"));
    assert!(admits(&behind_nat(&["198.35.26.6/32"]), "198.35.26.6:22"), "asked for by itself");
}

#[test]
fn external_addresses_of_listeners_are_listeners() {
    let policy = behind_nat(&["198.35.26.6/32"]);
    // The one on the wildcard is on every address; the policy compares no families.
    for own in ["198.35.26.6:5000", "10.0.0.6:5000", "198.35.26.5:3478", "198.35.26.6:3478"] {
        assert!(policy.is_endpoint(own.parse().unwrap()), "{own}");
        assert!(policy.admit(own.parse().unwrap(), Port::Any).is_err(), "{own}");
    }
    assert!(!policy.is_endpoint("198.35.26.5:5000".parse().unwrap()), "another address's port");
}
