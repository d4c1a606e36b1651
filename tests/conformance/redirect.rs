//! 300 with ALTERNATE-SERVER: RFC 8489 §10 and §14.15, RFC 8656 §7.2 (11).

use std::collections::BTreeSet;

use hairpin::turn::{FiveTuple, Transport};

use crate::wire::{
    ALLOCATE, BINDING, CREATE_PERMISSION, Msg, Parsed, attr, family, raw, transport,
};
use crate::world::{Client, Mode, PEER, World, five_tuple, other};

const HERE: &str = "198.51.100.1:4000";
const ALTERNATES: [&str; 3] = ["203.0.113.7:3478", "203.0.113.8:3479", "[2606:4700::7]:3478"];

fn world() -> World {
    let alternates = ALTERNATES.map(other);
    World::with(|setup| setup.config.alternates = alternates.into())
}

/// The value of ALTERNATE-SERVER, as text.
fn alternate(reply: &Parsed) -> String {
    assert_eq!((reply.code(), reply.count(attr::ALTERNATE_SERVER)), (300, 1));
    let value = reply.get(attr::ALTERNATE_SERVER).unwrap();
    let port = u16::from_be_bytes([value[2], value[3]]);
    let ip: std::net::IpAddr = match value[1] {
        1 => <[u8; 4]>::try_from(&value[4..]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&value[4..]).unwrap().into(),
    };
    std::net::SocketAddr::new(ip, port).to_string()
}

/// RFC 8489 §14.8: the harness holds every 300 to its signature.
#[test]
fn authenticated_allocate_is_sent_to_a_server_of_its_family() {
    let mut world = world();
    let mut seen = BTreeSet::new();
    for client in 1..100 {
        for here in [format!("198.51.100.1:{}", 1000 + client), format!("[2a00:99::{client}]:4000")]
        {
            let reply = Client::at(&here).ask(&mut world, ALLOCATE, &[transport(17)]);
            assert!(reply.has(attr::MI));
            let server = alternate(&reply);
            assert_eq!(server.starts_with('['), here.starts_with('['), "{here} to {server}");
            seen.insert(server);
        }
    }
    assert!(seen.len() >= 2 && seen.iter().all(|server| ALTERNATES.contains(&&server[..])));
    assert_eq!(world.server.allocations(), 0);
}

/// RFC 8489 §14.8: nobody is sent anywhere before it is known who asks.
#[test]
fn strangers_are_challenged_and_binding_is_answered() {
    let mut world = world();
    let bare = Msg::new(ALLOCATE, [1; 12]).add(&[transport(17)]).finish();
    assert_eq!(world.deliver(five_tuple(HERE), &bare).reply().code(), 401);
    let binding = Msg::new(BINDING, [1; 12]).finish();
    assert!(world.deliver(five_tuple(HERE), &binding).reply().is_success());
}

#[test]
fn retransmission_is_sent_to_the_same_server() {
    let mut world = world();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[transport(17)]);
    let told: BTreeSet<String> =
        (0..5).map(|_| alternate(&world.deliver(client.five, &request).reply())).collect();
    assert_eq!(told.len(), 1);
}

/// What is wrong with a request is wrong everywhere, and is said here.
#[test]
fn refusals_come_before_the_redirection() {
    let mut world = world();
    let mut client = Client::at(HERE);
    assert_eq!(client.code(&mut world, ALLOCATE, &[]), 400);
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(132)]), 442);
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17), family(3)]), 440);
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &[crate::wire::peer(PEER)]), 437);
    let token = [transport(17), raw(attr::TOKEN, &[1; 8])];
    assert_eq!(client.code(&mut world, ALLOCATE, &token), 508, "a token is good here or nowhere");
}

/// RFC 8489 §14.15: the same family, or none.
#[test]
fn client_of_a_family_without_alternate_is_served() {
    let mut world = World::with(|setup| {
        setup.config.alternates = vec![other(ALTERNATES[2])];
    });
    let mut client = Client::at(HERE);
    client.allocate(&mut world);
    assert!(client.refresh(&mut world, 600).is_success());
}

/// What an Allocate over `transport` gets.
fn over(transport_of_client: Transport, world: &mut World) -> Parsed {
    let mut client = Client::at(HERE).mode(Mode::Sha256);
    client.five = FiveTuple { transport: transport_of_client, ..client.five };
    client.ask(world, ALLOCATE, &[transport(17)])
}

/// RFC 8489 §10, §14.16: by the name that the other server's certificate is for.
#[test]
fn client_over_tls_and_dtls_is_told_the_name_of_the_certificate() {
    let named = "203.0.113.7:3478/turn-2.example.org";
    let mut world = World::with(|setup| setup.config.alternates = vec![other(named)]);
    for transport in [Transport::Tls, Transport::Dtls] {
        let reply = over(transport, &mut world);
        assert_eq!(alternate(&reply), "203.0.113.7:3478");
        assert_eq!(reply.count(attr::ALTERNATE_DOMAIN), 1, "{transport:?}");
        assert_eq!(reply.text(attr::ALTERNATE_DOMAIN), "turn-2.example.org");
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        let reply = over(transport, &mut world);
        assert_eq!(alternate(&reply), "203.0.113.7:3478");
        assert!(!reply.has(attr::ALTERNATE_DOMAIN), "there is no certificate: {transport:?}");
    }
}

/// It would look for the name it came by, and find another one.
#[test]
fn client_over_tls_and_dtls_is_sent_to_no_server_without_a_name() {
    for transport in [Transport::Tls, Transport::Dtls] {
        let mut world = World::with(|setup| {
            setup.config.alternates = vec![other("203.0.113.7:3478")];
        });
        assert!(over(transport, &mut world).is_success(), "served here: {transport:?}");
        let mut world = World::with(|setup| {
            setup.config.drain_to = vec![other("203.0.113.7:3478")];
        });
        world.server.drain();
        assert_eq!(over(transport, &mut world).code(), 508, "or nowhere: {transport:?}");
    }
}

/// Of several, those that will do.
#[test]
fn client_over_tls_is_sent_to_the_server_with_a_name() {
    let servers = ["203.0.113.7:3478", "203.0.113.8:3478/b.test", "203.0.113.9:3478"];
    let mut world = World::with(|setup| setup.config.alternates = servers.map(other).into());
    for port in 1..50 {
        let mut client = Client::at(&format!("198.51.100.1:{}", 1000 + port));
        client.five.transport = Transport::Tls;
        let reply = client.ask(&mut world, ALLOCATE, &[transport(17)]);
        assert_eq!(alternate(&reply), "203.0.113.8:3478");
    }
}

/// RFC 8489 §9.2.4: who signs with SHA-256 is answered so
#[test]
fn redirection_is_signed_as_the_request_is() {
    for mode in [Mode::Sha256, Mode::Md5] {
        let mut world = world();
        let mut client = Client::at(HERE).mode(mode);
        let reply = client.ask(&mut world, ALLOCATE, &[transport(17)]);
        assert_eq!((reply.code(), reply.count(attr::MI2), reply.count(attr::MI)), (300, 1, 0));
        assert!(reply.verifies(attr::MI2, &client.key()));
    }
}
