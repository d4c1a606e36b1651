//! Peer policy: the bypass matrix, our own addresses, the operator's exceptions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hairpin::turn::policy::{Config, Host, Policy, Port};
use hairpin::turn::{DropReason, FiveTuple};
use proptest::prelude::*;

use crate::wire::{self, family};
use crate::world::{Client, Outcome, PEER, RELAY_V4, RELAY_V6, Setup, World, ip};

/// Nothing of this may be reached, in any way, with the default policy.
const FORBIDDEN: [&str; 89] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.1.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.77",
    "224.0.0.1",
    "239.255.255.254",
    "240.0.0.1",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:127.0.0.2",
    "::ffff:0.0.0.0",
    "::ffff:8.8.8.8",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:5",
    "64:ff9b::808:808",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:0:7f:0:100:0",
    "64:ff9b:1::808:808",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:53aa:64c:0:fb1:80ff:fffe",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:5::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2620:4f:8000::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fdff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff00::1",
    "ff02::1",
    "ff0e::1",
    "ffff::1",
    "2a00::5efe:7f00:1",
    "2a00::200:5efe:a00:1",
    "2a00::5efe:169.254.169.254",
    "2a00::5efe:0.0.0.0",
    "fe80::5efe:8.8.8.8",
    "2a00::5efe:224.0.0.1",
];

/// Public unicast, some of it right beside what is forbidden.
const ALLOWED: [&str; 27] = [
    "1.0.0.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "2620:4f:8001::1",
    "2a00:1450::1",
    "3ffe::1",
    "2a00::5efe:8.8.8.8",
    "3fff:1000::1",
];

fn world_v4_and_v6(change: impl Fn(&mut Setup)) -> [(World, Client); 2] {
    [1, 2].map(|byte| {
        let mut world = World::with(&change);
        let mut client = Client::at("198.51.100.1:4000");
        client.allocate_with(&mut world, &[family(byte)]);
        (world, client)
    })
}

/// The codes of CreatePermission and ChannelBind, and why Send was dropped, if it was.
fn attempt(world: &mut World, client: &mut Client, peer: SocketAddr) -> [u16; 2] {
    let peer = peer.to_string();
    let codes = [client.permit(world, &[&peer]), client.bind(world, 0x4000, &peer)];
    let sent = client.send(world, &peer, b"x");
    if codes == [0, 0] {
        sent.relayed();
    } else {
        assert_eq!(sent.dropped(), DropReason::PeerForbidden, "Send to {peer}");
        let dropped = client.channel_data(world, 0x4000, b"x").dropped();
        assert_eq!(dropped, DropReason::ChannelUnbound, "ChannelData to {peer}");
    }
    codes
}

/// The matrix on CreatePermission, ChannelBind, Send and ChannelData
#[test]
fn forbidden_peers_are_403_or_443_on_every_path() {
    let mut worlds = world_v4_and_v6(|_| {});
    for text in FORBIDDEN {
        let peer = SocketAddr::new(ip(text), 9000);
        for (v6, (world, client)) in [false, true].into_iter().zip(&mut worlds) {
            let code = if peer.is_ipv6() == v6 { 403 } else { 443 };
            assert_eq!(attempt(world, client, peer), [code; 2], "{text}, relay v6: {v6}");
        }
    }
}

/// RFC 6062 §5.2: the matrix on Connect, and nothing is ever begun
#[test]
fn forbidden_peers_are_403_or_443_on_connect() {
    for v6 in [false, true] {
        let mut world = World::with(|setup| setup.config.tcp_relay = true);
        let mut client = Client::at("198.51.100.1:4000").over_tcp();
        let asking = [wire::transport(6), family(if v6 { 2 } else { 1 })];
        assert_eq!(client.code(&mut world, wire::ALLOCATE, &asking), 0);
        for text in FORBIDDEN.into_iter().chain(["203.0.113.5", "2606:4700::5"]) {
            let peer = SocketAddr::new(ip(text), 9000);
            let code = if peer.is_ipv6() == v6 { 403 } else { 443 };
            let asked = client.code(&mut world, wire::CONNECT, &[wire::peer(&peer.to_string())]);
            assert_eq!(asked, code, "{text}, relay v6: {v6}");
        }
        assert_eq!(world.server.stats().peer_connections, 0);
        for text in ALLOWED.into_iter().filter(|text| ip(text).is_ipv6() == v6) {
            let peer = SocketAddr::new(ip(text), 9000).to_string();
            let begun = client.begin(&mut world, wire::CONNECT, &[wire::peer(&peer)]);
            assert!(matches!(begun, Outcome::Connecting(_)), "{text}");
        }
    }
}

#[test]
fn public_unicast_peers_are_allowed() {
    for text in ALLOWED {
        let peer = SocketAddr::new(ip(text), 9000);
        let mut worlds = world_v4_and_v6(|_| {});
        let (world, client) = &mut worlds[usize::from(peer.is_ipv6())];
        assert_eq!(attempt(world, client, peer), [0; 2], "{text}");
    }
}

#[test]
fn port_0_of_a_peer_is_403_where_packets_would_go_there() {
    let [(mut world, mut client), _] = world_v4_and_v6(|_| {});
    assert_eq!(client.permit(&mut world, &["8.8.8.8:0"]), 0);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.8:0"), 403);
    assert_eq!(client.send(&mut world, "8.8.8.8:0", b"x").dropped(), DropReason::PeerForbidden);
}

#[test]
fn own_listeners_are_403() {
    let [(mut world, mut client), _] = world_v4_and_v6(|_| {});
    for own in ["203.0.113.5:3478", "203.0.113.5:8080"] {
        assert_eq!(attempt(&mut world, &mut client, own.parse().unwrap()), [403; 2], "{own}");
    }
}

/// Outside the relay range nothing of ours can be reached
#[test]
fn own_relay_address_outside_the_relay_ports_is_403() {
    let [(mut world, mut client), _] = world_v4_and_v6(|_| {});
    for port in [22, 80, 1024, 49151] {
        let own = format!("{RELAY_V4}:{port}");
        assert_eq!(client.bind(&mut world, 0x4000, &own), 403, "{own}");
        assert_eq!(client.send(&mut world, &own, b"x").dropped(), DropReason::PeerForbidden);
    }
}

/// Two clients of one server reach each other, and one reaches itself
#[test]
fn own_relayed_addresses_are_allowed() {
    for (byte, (mut world, mut alice)) in (1..).zip(world_v4_and_v6(|_| {})) {
        let mut bob = Client::bob("198.51.100.1:5000");
        let relay = bob.allocate_with(&mut world, &[family(byte)]);
        assert_eq!(attempt(&mut world, &mut alice, relay), [0; 2], "{relay}");
        assert!(world.server.relayed_at(relay).is_some());
    }
}

#[test]
fn host_addresses_that_are_public_are_403() {
    let change = |setup: &mut Setup| setup.host.addresses.push(ip("8.8.8.8"));
    let [(mut world, mut client), _] = world_v4_and_v6(change);
    assert_eq!(attempt(&mut world, &mut client, PEER.parse().unwrap()), [403; 2]);
}

/// A listener on a wildcard address is there on every address of the machine, loopback included.
#[test]
fn wildcard_listener_is_403_on_each_own_address() {
    let change = |setup: &mut Setup| {
        setup.host.endpoints = vec!["0.0.0.0:3478".parse().unwrap()];
        setup.host.addresses = vec![ip("10.1.2.3"), ip("127.0.0.1"), ip(RELAY_V4)];
        setup.config.policy.allow =
            vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
    };
    let [(mut world, mut client), _] = world_v4_and_v6(change);
    for own in ["10.1.2.3:3478", "127.0.0.1:3478", "127.0.0.2:3478", "203.0.113.5:3478"] {
        assert_eq!(attempt(&mut world, &mut client, own.parse().unwrap()), [403; 2], "{own}");
    }
    assert_eq!(attempt(&mut world, &mut client, "10.1.2.4:3478".parse().unwrap()), [0; 2]);
}

/// The order of deny, allow and the built-in list
#[test]
fn allow_opens_the_built_in_list_and_deny_wins_over_allow() {
    let change = |setup: &mut Setup| {
        setup.config.policy.allow =
            vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        setup.config.policy.deny =
            vec!["10.9.0.0/16".parse().unwrap(), "8.8.0.0/16".parse().unwrap()];
    };
    let cases = [
        ("10.1.1.1", 0),
        ("10.9.1.1", 403),
        ("8.8.8.8", 403),
        ("9.9.9.9", 0),
        ("192.168.0.1", 403),
        ("127.0.0.1", 403),
        ("fd00::1", 0),
        ("fc00::1", 403),
    ];
    for (text, code) in cases {
        let peer = SocketAddr::new(ip(text), 9000);
        let mut worlds = world_v4_and_v6(change);
        let (world, client) = &mut worlds[usize::from(peer.is_ipv6())];
        assert_eq!(attempt(world, client, peer), [code; 2], "{text}");
    }
}

/// The setting for SFU deployments
#[test]
fn only_allowed_is_nothing_but_allow() {
    let change = |setup: &mut Setup| {
        setup.config.policy.allow =
            vec!["8.8.8.0/24".parse().unwrap(), "10.0.0.7/32".parse().unwrap()];
        setup.config.policy.deny = vec!["8.8.8.9/32".parse().unwrap()];
        setup.config.policy.only_allowed = true;
    };
    let cases = [
        ("8.8.8.8:1", 0),
        ("8.8.8.9:1", 403),
        ("9.9.9.9:1", 403),
        ("10.0.0.7:1", 0),
        ("10.0.0.8:1", 403),
        ("203.0.113.5:50000", 403),
    ];
    for (peer, code) in cases {
        let [(mut world, mut client), _] = world_v4_and_v6(change);
        assert_eq!(attempt(&mut world, &mut client, peer.parse().unwrap()), [code; 2], "{peer}");
    }
}

/// Whatever is allowed, these are no peers.
#[test]
fn allow_opens_no_tunnels_and_no_ipv4_in_disguise() {
    let everything = |setup: &mut Setup| {
        setup.config.policy.allow = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    };
    let never = [
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "2001::1",
        "2002:808:808::1",
    ];
    let mut worlds = world_v4_and_v6(everything);
    for text in never {
        let peer = SocketAddr::new(ip(text), 9000);
        let (world, client) = &mut worlds[usize::from(peer.is_ipv6())];
        assert_eq!(attempt(world, client, peer), [403; 2], "{text}");
    }
}

/// Who is forbidden as a peer for being ourselves is no client either.
#[test]
fn own_listeners_are_no_clients() {
    let mut world = World::new();
    for own in ["203.0.113.5:3478", "203.0.113.5:8080"] {
        let request = wire::Msg::new(wire::BINDING, [1; 12]).finish();
        let five = FiveTuple { client: own.parse().unwrap(), ..Client::at("1.1.1.1:1").five };
        assert_eq!(world.deliver(five, &request).dropped(), DropReason::SourceForbidden);
    }
}

fn policy(allow: &[&str]) -> Policy {
    let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
    let host = Host {
        endpoints: Vec::new(),
        addresses: Vec::new(),
        aliases: Vec::new(),
        broadcasts: Vec::new(),
        relay_addresses: vec![ip(RELAY_V4), ip(RELAY_V6)],
        relay_ports: 49152..=65535,
    };
    Policy::new(Config { allow, ..Config::default() }, host)
}

/// Some address of a forbidden IPv4 network.
fn forbidden_v4() -> impl Strategy<Value = Ipv4Addr> {
    let nets: Vec<Ipv4Addr> = FORBIDDEN.iter().filter_map(|text| text.parse().ok()).collect();
    let listed = prop::sample::select(nets);
    let wide = (prop::sample::select(vec![0_u8, 10, 127, 224, 239, 240, 255]), any::<[u8; 3]>());
    prop_oneof![listed, wide.prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))]
}

/// Each way to put an IPv4 address into an IPv6 one, with `filler` where bits are free.
fn encodings(v4: Ipv4Addr, filler: u16) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = v4.octets();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    let (ab, cd) = (pair(a, b), pair(c, d));
    [
        [0, 0, 0, 0, 0, 0, ab, cd],
        [0, 0, 0, 0, 0, 0xffff, ab, cd],
        [0, 0, 0, 0, 0xffff, 0, ab, cd],
        [0x64, 0xff9b, 0, 0, 0, 0, ab, cd],
        [0x64, 0xff9b, 1, filler, filler & 0xFF, filler, ab, cd],
        [0x64, 0xff9b, 1, ab, pair(0, c), pair(d, 0), filler, filler],
        [0x64, 0xff9b, 1, pair(1, a), pair(0, b), cd, filler, filler],
        [0x64, 0xff9b, 1, filler, pair(0, a), pair(b, c), pair(d, 1), filler],
        [0x2002, ab, cd, filler, filler, filler, filler, filler],
        [0x2001, 0, filler, filler, filler, filler, !ab, !cd],
        [0x2a00, filler, filler, filler, 0, 0x5efe, ab, cd],
        [0x2a00, filler, filler, filler, 0x200, 0x5efe, ab, cd],
        [0xfe80, 0, 0, 0, 0, 0x5efe, ab, cd],
    ]
    .map(Ipv6Addr::from)
    .to_vec()
}

proptest! {
    /// Also where the operator opened all of IPv6
    #[test]
    fn no_encoding_of_a_forbidden_ipv4_address_passes(v4 in forbidden_v4(), filler: u16) {
        let peer = SocketAddr::new(IpAddr::V4(v4), 9000);
        prop_assert!(policy(&[]).admit(peer, Port::Exact).is_err());
        for v6 in encodings(v4, filler) {
            let peer = SocketAddr::new(IpAddr::V6(v6), 9000);
            prop_assert!(policy(&[]).admit(peer, Port::Exact).is_err(), "{v6}");
            prop_assert!(policy(&[]).admit(peer, Port::Any).is_err(), "{v6}");
            // `::1` is loopback in its own right, and `fe80::/10` link-local.
            let opened = policy(&["::/0"]).admit(peer, Port::Exact).is_ok();
            prop_assert!(!opened || v6.is_loopback(), "{v6}, with ::/0 allowed");
        }
    }

    #[test]
    fn local_and_multicast_ipv6_never_passes(low: u128) {
        for (prefix, length) in [(0xfc00_u128, 7), (0xfe80, 10), (0xff00, 8), (0x2002, 16)] {
            let address = prefix << 112 | low >> length;
            let peer = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(address)), 9000);
            prop_assert!(policy(&[]).admit(peer, Port::Exact).is_err(), "{peer}");
        }
    }
}
