//! NAT behaviour discovery: RFC 5780 §6 and §7.

use std::net::{IpAddr, SocketAddr};

use hairpin::turn::policy::Alias;
use hairpin::turn::{Discovery, FiveTuple, Transport};

use crate::wire::{self, Attr, BINDING, Msg, Parsed, attr, raw};
use crate::world::{Client, LISTENER, Outcome, World, ip, other};

const HERE: &str = "198.51.100.1:4000";
const ALTERNATE: &str = "203.0.113.9:3479";
const FOUR: [&str; 4] = [LISTENER, "203.0.113.5:3479", "203.0.113.9:3478", ALTERNATE];
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;

fn world() -> World {
    World::with(|setup| {
        let discovery = Discovery::new(LISTENER.parse().unwrap(), ALTERNATE.parse().unwrap());
        setup.config.discovery = discovery;
        setup.host.endpoints = FOUR.map(|address| address.parse().unwrap()).into();
    })
}

fn ask_over(transport: Transport, world: &mut World, at: &str, attributes: &[Attr]) -> Outcome {
    let from = FiveTuple { transport, client: HERE.parse().unwrap(), server: at.parse().unwrap() };
    let request = Msg::new(BINDING, *b"twelve bytes").add(attributes).finish();
    world.deliver(from, &request)
}

fn ask(world: &mut World, at: &str, attributes: &[Attr]) -> Outcome {
    ask_over(Transport::Udp, world, at, attributes)
}

fn change(flags: u8) -> Attr {
    raw(attr::CHANGE_REQUEST, &[0, 0, 0, flags])
}

/// An address attribute that is not XOR-ed.
fn plain(reply: &Parsed, kind: u16) -> SocketAddr {
    assert_eq!(reply.count(kind), 1, "{kind:#06x}");
    let value = reply.get(kind).unwrap();
    assert_eq!(value[..2], [0, 1]);
    let ip: [u8; 4] = value[4..].try_into().unwrap();
    (IpAddr::from(ip), u16::from_be_bytes([value[2], value[3]])).into()
}

/// RFC 5780 §6.1, table 1: all targets, all flags.
#[test]
fn response_leaves_from_where_change_request_asks() {
    let (ips, ports) = (["203.0.113.5", "203.0.113.9"], ["3478", "3479"]);
    let mut world = world();
    for case in 0..16_u8 {
        let [ip, port] = [case & 1, case >> 1 & 1].map(usize::from);
        let flags = (case >> 2) * 2;
        let at = format!("{}:{}", ips[ip], ports[port]);
        let other = format!("{}:{}", ips[1 - ip], ports[1 - port]);
        let ip = if flags & CHANGE_IP == 0 { ip } else { 1 - ip };
        let port = if flags & CHANGE_PORT == 0 { port } else { 1 - port };
        let expected: SocketAddr = format!("{}:{}", ips[ip], ports[port]).parse().unwrap();
        let (origin, reply) = match ask(&mut world, &at, &[change(flags)]) {
            Outcome::Reply(reply) => (at.parse().unwrap(), reply),
            Outcome::ReplyFrom(origin, reply) => (origin, reply),
            outcome => panic!("{outcome:?}"),
        };
        assert_eq!(origin, expected, "{at} with {flags}");
        assert_eq!(plain(&reply, attr::RESPONSE_ORIGIN), expected, "{at} with {flags}");
        assert_eq!(plain(&reply, attr::OTHER_ADDRESS), other.parse().unwrap(), "{at}");
        assert_eq!(reply.address(attr::XMA), HERE.parse().unwrap());
        assert_eq!(plain(&reply, attr::MAPPED_ADDRESS), HERE.parse().unwrap());
    }
}

/// RFC 5780 §6.1
#[test]
fn binding_without_attributes_is_told_the_other_address_too() {
    for at in FOUR {
        let reply = ask(&mut world(), at, &[]).reply();
        assert_eq!(plain(&reply, attr::RESPONSE_ORIGIN), at.parse().unwrap());
        assert!(reply.has(attr::OTHER_ADDRESS) && reply.has(attr::MAPPED_ADDRESS));
        assert!(!reply.has(attr::PADDING));
        assert!(reply.bytes.len() <= 68);
    }
}

/// Behind 1:1 NAT clients know the four by other names; the driver sends from its own.
#[test]
fn addresses_are_told_as_the_nat_in_front_shows_them() {
    let mut world = World::with(|setup| {
        let four = ["10.0.0.5:3478", "10.0.0.9:3479"].map(|address| address.parse().unwrap());
        setup.config.discovery = Discovery::new(four[0], four[1]);
        setup.host.endpoints = setup.config.discovery.unwrap().addresses().into();
        setup.host.aliases = [("203.0.113.5", "10.0.0.5"), ("203.0.113.9", "10.0.0.9")]
            .map(|(external, local)| Alias { external: ip(external), local: ip(local) })
            .into();
    });
    let reply = ask(&mut world, "10.0.0.5:3478", &[]).reply();
    assert_eq!(plain(&reply, attr::RESPONSE_ORIGIN).to_string(), "203.0.113.5:3478");
    assert_eq!(plain(&reply, attr::OTHER_ADDRESS).to_string(), "203.0.113.9:3479");
    let changed = ask(&mut world, "10.0.0.5:3478", &[change(CHANGE_IP)]);
    let Outcome::ReplyFrom(origin, reply) = changed else { panic!("{changed:?}") };
    assert_eq!(origin.to_string(), "10.0.0.9:3478", "what the driver has");
    assert_eq!(plain(&reply, attr::RESPONSE_ORIGIN).to_string(), "203.0.113.9:3478");
    assert_eq!(plain(&reply, attr::OTHER_ADDRESS).to_string(), "203.0.113.9:3479");
}

/// RFC 5780 §6
#[test]
fn without_a_second_address_there_is_no_other_address_and_change_request_is_420() {
    let mut world = World::new();
    let reply = ask(&mut world, LISTENER, &[]).reply();
    for kind in [attr::OTHER_ADDRESS, attr::RESPONSE_ORIGIN, attr::MAPPED_ADDRESS] {
        assert!(!reply.has(kind), "{kind:#06x}");
    }
    for attribute in [change(0), change(6), raw(attr::PADDING, b"x")] {
        let reply = ask(&mut world, LISTENER, std::slice::from_ref(&attribute)).reply();
        assert_eq!(reply.code(), 420, "{attribute:?}");
    }
}

/// A further listener, which is none of the four, knows nothing of them.
#[test]
fn elsewhere_change_request_is_420_and_there_is_no_other_address() {
    let mut world = world();
    for at in ["203.0.113.7:3478", "203.0.113.5:443", "[2606:4700::5]:3478"] {
        let reply = ask(&mut world, at, &[change(CHANGE_PORT)]).reply();
        assert_eq!((reply.code(), reply.unknown()), (420, vec![attr::CHANGE_REQUEST]), "{at}");
        assert!(!ask(&mut world, at, &[]).reply().has(attr::OTHER_ADDRESS), "{at}");
    }
}

/// Over a connection the response cannot come from elsewhere; the addresses are told all the same,
/// for mapping tests.
#[test]
fn change_request_over_anything_but_udp_is_420() {
    let mut world = world();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        for flags in [0, 2, 4, 6] {
            let reply = ask_over(transport, &mut world, LISTENER, &[change(flags)]).reply();
            assert_eq!((reply.code(), reply.unknown()), (420, vec![attr::CHANGE_REQUEST]));
        }
        let reply = ask_over(transport, &mut world, LISTENER, &[]).reply();
        assert_eq!(plain(&reply, attr::OTHER_ADDRESS), ALTERNATE.parse().unwrap());
    }
}

/// RFC 5780 §7.5: optional, and a way to send datagrams to any port of somebody else.
#[test]
fn response_port_is_420_and_with_padding_400() {
    let mut world = world();
    let port = raw(attr::RESPONSE_PORT, &[0x30, 0x39, 0, 0]);
    let reply = ask(&mut world, LISTENER, std::slice::from_ref(&port)).reply();
    assert_eq!((reply.code(), reply.unknown()), (420, vec![attr::RESPONSE_PORT]));
    let padding = raw(attr::PADDING, &[0; 100]);
    for both in [vec![port.clone(), padding.clone()], vec![padding, port]] {
        assert_eq!(ask(&mut world, LISTENER, &both).reply().code(), 400);
    }
}

/// RFC 5780 §6.1, and no longer than what was sent: padding is no way to make traffic.
#[test]
fn padding_is_answered_with_as_much_up_to_a_frame() {
    let mut world = world();
    for (asked, answered) in
        [(0, 0), (1, 1), (1000, 1000), (1500, 1500), (1501, 1500), (60_000, 1500)]
    {
        let reply = ask(&mut world, LISTENER, &[raw(attr::PADDING, &vec![7; asked])]).reply();
        assert_eq!(reply.get(attr::PADDING).unwrap(), vec![0; answered], "{asked}");
    }
}

/// RFC 5780 §7.2: 32 bits.
#[test]
fn change_request_of_another_length_is_400() {
    let mut world = world();
    for length in [0, 1, 3, 5, 8] {
        let malformed = raw(attr::CHANGE_REQUEST, &vec![0; length]);
        assert_eq!(ask(&mut world, LISTENER, &[malformed]).reply().code(), 400, "{length}");
    }
}

/// RFC 5780 §7.2: allowed in Binding requests only.
#[test]
fn change_request_in_an_allocate_is_420() {
    let mut world = world();
    let mut client = Client::at(HERE);
    let attributes = [wire::transport(17), change(CHANGE_IP)];
    let reply = client.ask(&mut world, wire::ALLOCATE, &attributes);
    assert_eq!((reply.code(), reply.unknown()), (420, vec![attr::CHANGE_REQUEST]));
}

/// A request that is refused is answered from where it was asked.
#[test]
fn refusal_does_not_move() {
    let mut world = world();
    let attributes = [change(CHANGE_IP | CHANGE_PORT), raw(0x7F00, b"")];
    let reply = ask(&mut world, LISTENER, &attributes).reply();
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x7F00]));
}

/// Changing the source is no way around the limit on strangers.
#[test]
fn changed_replies_count_against_the_source() {
    let discovery = Discovery::new(LISTENER.parse().unwrap(), ALTERNATE.parse().unwrap());
    let mut world = World::with(|setup| {
        setup.config.discovery = discovery;
        setup.config.limits.unauthenticated_per_source = 5;
    });
    let answered = (0..100)
        .filter(|_| matches!(ask(&mut world, LISTENER, &[change(6)]), Outcome::ReplyFrom(..)));
    assert_eq!(answered.count(), 5);
}

/// RFC 5780 §6.1: who asks what its NAT does is not sent elsewhere.
#[test]
fn discovering_client_is_sent_to_no_alternate_server() {
    let mut world = World::with(|setup| {
        let discovery = Discovery::new(LISTENER.parse().unwrap(), ALTERNATE.parse().unwrap());
        setup.config.discovery = discovery;
        setup.config.alternates = vec![other("203.0.113.7:3478")];
    });
    for flags in [0, CHANGE_IP, CHANGE_PORT, CHANGE_IP | CHANGE_PORT] {
        let (Outcome::Reply(reply) | Outcome::ReplyFrom(_, reply)) =
            ask(&mut world, LISTENER, &[change(flags)])
        else {
            panic!("no answer");
        };
        assert!(reply.is_success() && !reply.has(attr::ALTERNATE_SERVER));
        assert_eq!(plain(&reply, attr::OTHER_ADDRESS).to_string(), ALTERNATE);
    }
}
