//! Relaying over TCP: RFC 6062. What takes sockets to see is in `tests/it/tcp_relay.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::turn::{
    CloseReason, ConnectError, DropReason, Event, PendingConnect, Transport, limits,
};

use crate::wire::{
    self, ALLOCATE, Attr, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND, Msg, attr, connection,
    peer, raw, transport,
};
use crate::world::{Client, Mode, Outcome, PEER, PEER_V6, World};

const HERE: &str = "198.51.100.1:4000";
const OTHER_PEER: &str = "8.8.8.8:9001";
const NAME: u32 = 0x1234_5678;

fn world() -> World {
    World::with(|setup| setup.config.tcp_relay = true)
}

/// A world with a client over TCP that has an allocation for TCP.
fn allocated() -> (World, Client, SocketAddr) {
    let mut world = world();
    let mut client = Client::at(HERE).over_tcp();
    let relay = allocate(&mut world, &mut client);
    (world, client, relay)
}

fn allocate(world: &mut World, client: &mut Client) -> SocketAddr {
    let reply = client.ask(world, ALLOCATE, &[transport(6)]);
    assert_eq!(reply.code(), 0);
    reply.address(attr::XRA)
}

/// The next connection of the client to the server.
fn data_connection(port: u16) -> Client {
    Client::at(&format!("198.51.100.1:{port}")).over_tcp()
}

fn connect(world: &mut World, client: &mut Client, to: &str) -> PendingConnect {
    match client.begin(world, CONNECT, &[peer(to)]) {
        Outcome::Connecting(pending) => pending,
        other => panic!("not connecting, but {other:?}"),
    }
}

/// A connection that waits for the client under this name.
fn connected(world: &mut World, client: &mut Client, to: &str, name: u32) {
    let pending = connect(world, client, to);
    let reply = world.connected(pending, Ok(name));
    assert_eq!(reply.code(), 0);
    assert_eq!(reply.get(attr::CONNECTION_ID), Some(&name.to_be_bytes()[..]));
}

/// RFC 6062 §5.1 (1)
#[test]
fn every_transport_but_udp_and_tcp_is_442() {
    let mut world = world();
    let mut client = Client::at(HERE).over_tcp();
    for protocol in (0..=255).filter(|protocol| ![6, 17].contains(protocol)) {
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(protocol)]), 442, "{protocol}");
    }
}

/// RFC 6062 §5.1 (1), and where the operator has not asked for it
#[test]
fn tcp_is_442_where_it_is_off() {
    let mut world = World::new();
    let mut client = Client::at(HERE).over_tcp();
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(6)]), 442);
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 0);
}

/// RFC 6062 §5.1 (2)
#[test]
fn tcp_for_a_client_over_datagrams_is_400() {
    let mut world = world();
    assert_eq!(Client::at(HERE).code(&mut world, ALLOCATE, &[transport(6)]), 400);
    let mut client = Client::at(HERE);
    client.five.transport = hairpin::turn::Transport::Dtls;
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(6)]), 400, "RFC 7350 §4.6");
}

/// RFC 6062 §5.1 (2)
#[test]
fn tcp_for_a_client_over_tls_is_granted() {
    let mut world = world();
    let mut client = Client::at(HERE);
    client.five.transport = hairpin::turn::Transport::Tls;
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(6)]), 0);
}

/// RFC 6062 §5.1 (3): of DONT-FRAGMENT too, which is otherwise an unknown attribute
#[test]
fn tcp_with_what_is_for_udp_is_400() {
    for (kind, value) in
        [(attr::DONT_FRAGMENT, &[][..]), (attr::EVEN_PORT, &[0]), (attr::TOKEN, &[1; 8])]
    {
        let mut world = world();
        let mut client = Client::at(HERE).over_tcp();
        let attributes = [transport(6), raw(kind, value)];
        assert_eq!(client.code(&mut world, ALLOCATE, &attributes), 400, "{kind:#06x}");
        let reversed = [raw(kind, value), transport(6)];
        assert_eq!(client.code(&mut world, ALLOCATE, &reversed), 400, "{kind:#06x}");
        assert_eq!(world.server.allocations(), 0);
    }
}

/// RFC 6062 §5.1 (5)
#[test]
fn success_has_no_reservation_token_and_lifetimes_as_ever() {
    let mut world = world();
    let mut client = Client::at(HERE).over_tcp();
    let reply = client.ask(&mut world, ALLOCATE, &[transport(6), wire::lifetime(1200)]);
    assert_eq!((reply.code(), reply.lifetime()), (0, 1200));
    assert!(!reply.has(attr::TOKEN));
    assert_eq!(reply.address(attr::XMA), client.five.client);
    assert_eq!(client.refresh(&mut world, 700).lifetime(), 700);
    assert_eq!(client.refresh(&mut world, 0).lifetime(), 0);
}

/// RFC 6062 §5.2: 401 before everything, and never 400
#[test]
fn unauthenticated_connect_and_connection_bind_are_401() {
    let (mut world, mut client, _) = allocated();
    for kind in [CONNECT, CONNECTION_BIND] {
        let bare = Msg::new(kind, client.id()).finish();
        assert_eq!(world.deliver(client.five, &bare).reply().code(), 401, "{kind:#06x}");
        let mut forger = Client::named(HERE, "alice", "guessed").over_tcp();
        let attributes = [peer(PEER), connection(NAME)];
        assert_eq!(forger.begin(&mut world, kind, &attributes).reply().code(), 401);
    }
}

/// RFC 6062 §5.2
#[test]
fn connect_without_an_allocation_is_437() {
    let mut world = world();
    let mut client = Client::at(HERE).over_tcp();
    assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER)]), 437);
    assert_eq!(client.code(&mut world, CONNECT, &[]), 437);
}

/// Our choice: an allocation for UDP is none for Connect
#[test]
fn connect_with_an_allocation_for_udp_is_437() {
    let mut world = world();
    for mut client in [Client::at(HERE), Client::at(HERE).over_tcp()] {
        client.allocate(&mut world);
        client.permit(&mut world, &[PEER]);
        assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER)]), 437);
    }
    assert_eq!(world.server.stats().peer_connections, 0);
}

/// RFC 8656 §5
#[test]
fn connect_as_another_user_is_441() {
    let (mut world, _client, _) = allocated();
    let mut bob = Client::bob(HERE).over_tcp();
    assert_eq!(bob.code(&mut world, CONNECT, &[peer(PEER)]), 441);
}

/// RFC 6062 §5.2
#[test]
fn connect_to_nobody_is_400() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.code(&mut world, CONNECT, &[]), 400);
    for length in [0, 4, 7, 9, 20] {
        let malformed = raw(attr::XPA, &[1, 1, 1, 1, 1].repeat(4)[..length]);
        assert_eq!(client.code(&mut world, CONNECT, &[malformed]), 400, "{length} bytes");
    }
    assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER_V6)]), 443);
}

/// RFC 6062 §5.2: the policy of every other path; a permission is no way around it
#[test]
fn connect_to_a_forbidden_peer_is_403() {
    let (mut world, mut client, relay) = allocated();
    let (own, http) = (crate::world::LISTENER, crate::world::HTTP);
    let itself = relay.to_string();
    for forbidden in [
        "0.0.0.0:80",
        "127.0.0.1:80",
        "10.0.0.1:80",
        "169.254.169.254:80",
        "100.64.0.1:80",
        "192.168.0.1:22",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "203.0.113.5:22",
        "8.8.8.8:0",
        own,
        http,
        &itself,
    ] {
        assert_eq!(client.code(&mut world, CONNECT, &[peer(forbidden)]), 403, "{forbidden}");
    }
    assert_eq!(world.server.stats().peer_connections, 0);
    let mut client = Client::at("198.51.100.1:4001").over_tcp();
    client.ask(&mut world, ALLOCATE, &[transport(6), wire::family(2)]);
    for forbidden in [
        "[::]:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::7f00:1]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::]:80",
        "[fe80::1]:80",
        "[fd00::1]:80",
        "[2606:4700::5]:80",
    ] {
        assert_eq!(client.code(&mut world, CONNECT, &[peer(forbidden)]), 403, "{forbidden}");
    }
}

/// RFC 6062 §5.2: no permission is needed, and none comes of it
#[test]
fn connect_needs_no_permission_and_makes_none() {
    let (mut world, mut client, relay) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    let refused = world.peer_connects(relay, "8.8.8.8:1", NAME + 1).unwrap_err();
    assert_eq!(refused, DropReason::NoPermission);
}

/// RFC 6062 §5.2: in progress, waiting, and bound
#[test]
fn second_connect_to_a_peer_is_446_until_the_connection_has_ended() {
    let (mut world, mut client, relay) = allocated();
    let again = |world: &mut World, client: &mut Client| client.code(world, CONNECT, &[peer(PEER)]);
    let pending = connect(&mut world, &mut client, PEER);
    assert_eq!(again(&mut world, &mut client), 446, "in progress");
    let other = connect(&mut world, &mut client, OTHER_PEER);
    world.connected(pending, Ok(NAME));
    assert_eq!(again(&mut world, &mut client), 446, "waiting");
    assert_eq!(data_connection(5000).code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 0);
    assert_eq!(again(&mut world, &mut client), 446, "bound");
    world.connected(other, Ok(NAME + 1));
    world.disconnected(relay, PEER);
    connected(&mut world, &mut client, PEER, NAME + 2);
}

/// RFC 6062 §5.2: an allocation has one connection to a peer, whoever began it
#[test]
fn connect_to_a_peer_that_has_connected_is_446() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    world.peer_connects(relay, PEER, NAME).unwrap();
    assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER)]), 446);
}

/// RFC 6062 §5.2
#[test]
fn failed_connect_is_447_and_may_be_tried_again() {
    let (mut world, mut client, _) = allocated();
    for _ in 0..3 {
        let pending = connect(&mut world, &mut client, PEER);
        assert_eq!(world.connected(pending, Err(ConnectError::Failed)).code(), 447);
    }
    let pending = connect(&mut world, &mut client, PEER);
    assert_eq!(world.connected(pending, Err(ConnectError::NoCapacity)).code(), 508);
    assert_eq!(world.server.stats().peer_connections, 0);
}

/// RFC 6062 §5.2, §5.3: what the driver is told
#[test]
fn connecting_may_take_30_to_60_seconds_and_waiting_30() {
    let (mut world, mut client, _) = allocated();
    let pending = connect(&mut world, &mut client, PEER);
    assert!((30..=60).contains(&pending.deadline().as_secs()));
    assert_eq!(world.server.unbound_lifetime(), Duration::from_secs(30));
}

/// RFC 6062 §5.5: an allocation that ends while it connects wants no connection
#[test]
fn connect_that_outlives_its_allocation_is_437() {
    let (mut world, mut client, _) = allocated();
    let pending = connect(&mut world, &mut client, PEER);
    let late = connect(&mut world, &mut client, OTHER_PEER);
    client.refresh(&mut world, 0);
    assert_eq!(world.connected(pending, Ok(NAME)).code(), 437);
    assert_eq!(world.connected(late, Err(ConnectError::Failed)).code(), 437);
    let bind = [connection(NAME)];
    assert_eq!(data_connection(5000).code(&mut world, CONNECTION_BIND, &bind), 400);
    assert_eq!(world.server.stats().peer_connections, 0);
}

/// D.66: connections of an allocation are bounded, those that never come about too
#[test]
fn too_many_connections_are_508() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let to = |port: usize| format!("8.8.8.8:{port}");
    let mut pending: Vec<_> = (1..=limits::PEER_CONNECTIONS_MAX)
        .map(|port| connect(&mut world, &mut client, &to(port)))
        .collect();
    assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER)]), 508);
    let refused = world.peer_connects(relay, PEER, NAME).unwrap_err();
    assert_eq!(refused, DropReason::ConnectionLimit);
    assert_eq!(world.server.stats().dropped(DropReason::ConnectionLimit), 1);
    world.connected(pending.pop().unwrap(), Err(ConnectError::Failed));
    world.peer_connects(relay, PEER, NAME).unwrap();
    assert_eq!(client.code(&mut world, CONNECT, &[peer(OTHER_PEER)]), 508);
    assert_eq!(world.server.stats().peer_connections, limits::PEER_CONNECTIONS_MAX as u64);
    client.refresh(&mut world, 0);
    assert_eq!(world.server.stats().peer_connections, 0);
}

/// RFC 6062 §5.3
#[test]
fn permitted_peer_is_announced_with_its_address_and_name() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let attempt = world.peer_connects(relay, OTHER_PEER, NAME).unwrap();
    assert_eq!(attempt.kind, CONNECTION_ATTEMPT);
    assert_eq!(attempt.address(attr::XPA), OTHER_PEER.parse().unwrap());
    assert_eq!(attempt.get(attr::CONNECTION_ID), Some(&NAME.to_be_bytes()[..]));
    assert_eq!(attempt.attributes.len(), 2);
    let connected =
        |event: &Event| matches!(event, Event::Connected { peer, .. } if peer.port() == 9001);
    assert!(world.events.iter().any(connected));
}

/// RFC 6062 §5.3
#[test]
fn peer_without_a_permission_is_turned_away_in_silence() {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(world.peer_connects(relay, PEER, NAME).unwrap_err(), DropReason::NoPermission);
    client.permit(&mut world, &["8.8.4.4:1"]);
    assert_eq!(world.peer_connects(relay, PEER, NAME).unwrap_err(), DropReason::NoPermission);
    client.permit(&mut world, &[PEER]);
    world.pass_secs(300);
    assert_eq!(world.peer_connects(relay, PEER, NAME).unwrap_err(), DropReason::NoPermission);
    assert_eq!(world.server.stats().peer_connections, 0);
}

/// RFC 6062 §5.3, with the policy asked on every path: a permission is for an address, and says
/// nothing of ports
#[test]
fn forbidden_port_of_a_permitted_peer_is_turned_away() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &["203.0.113.5:50000"]);
    for from in ["203.0.113.5:3478", "203.0.113.5:8080", "203.0.113.5:22"] {
        let turned_away = world.peer_connects(relay, from, NAME).unwrap_err();
        assert_eq!(turned_away, DropReason::PeerForbidden, "{from}");
    }
}

/// RFC 6062 §5.3: a relayed address for UDP has no connections
#[test]
fn peer_of_an_allocation_for_udp_is_turned_away() {
    let mut world = world();
    let mut client = Client::at(HERE);
    let relay = client.allocate(&mut world);
    client.permit(&mut world, &[PEER]);
    assert_eq!(world.peer_connects(relay, PEER, NAME).unwrap_err(), DropReason::NoAllocation);
}

/// RFC 6062 §5.4, and DTLS, which is datagrams too
#[test]
fn connection_bind_over_datagrams_is_400() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut datagrams = Client::at("198.51.100.1:5000");
        datagrams.five.transport = transport;
        assert_eq!(datagrams.code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 400);
    }
    assert_eq!(data_connection(5001).code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 0);
}

/// RFC 6062 §5.4
#[test]
fn connection_bind_without_a_name_or_with_a_wrong_one_is_400() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    let mut data = data_connection(5000);
    let mut code = |attributes: &[Attr]| data.code(&mut world, CONNECTION_BIND, attributes);
    assert_eq!(code(&[]), 400, "missing");
    for length in [0, 1, 3, 5, 8] {
        assert_eq!(code(&[raw(attr::CONNECTION_ID, &vec![0; length])]), 400, "{length} bytes");
    }
    assert_eq!(code(&[connection(NAME + 1)]), 400, "unknown");
    assert_eq!(code(&[connection(NAME)]), 0);
    let mut next = data_connection(5001);
    assert_eq!(next.code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 400, "used");
}

/// RFC 6062 §5.4, D.67: a wrong guess of somebody else leaves the connection waiting
#[test]
fn connection_bind_as_another_user_is_441() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    let mut bob = Client::bob("198.51.100.9:5000").over_tcp();
    assert_eq!(bob.code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 441);
    assert_eq!(data_connection(5001).code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 0);
}

/// Our choice: a connection that controls an allocation carries no data
#[test]
fn connection_bind_on_a_control_connection_is_400() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    assert_eq!(client.code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 400);
}

/// RFC 6062 §3: the control connection takes messages, not data; our choice of 437
#[test]
fn channels_and_indications_are_not_for_tcp() {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 437);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoAllocation);
    let channel_data = client.channel_data(&mut world, 0x4000, b"x");
    assert_eq!(channel_data.dropped(), DropReason::NoAllocation);
    let datagram = world.peer_sends(relay, PEER, b"x");
    assert_eq!(datagram, crate::world::Delivery::Dropped(DropReason::NoAllocation));
}

/// RFC 6062 §4.3: the same credentials, so the nonce too; but of this very client
#[test]
fn data_connection_may_use_the_nonce_of_the_control_connection() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    let with_its_nonce = |mut data: Client| {
        data.nonce.clone_from(&client.nonce);
        data
    };
    let bind = [connection(NAME)];
    let mut elsewhere = with_its_nonce(Client::at("198.51.100.2:5000").over_tcp());
    let mut datagrams = with_its_nonce(Client::at("198.51.100.1:5000"));
    for stranger in [&mut elsewhere, &mut datagrams] {
        let refused = stranger.begin(&mut world, CONNECTION_BIND, &bind).reply();
        assert_eq!(refused.code(), 438);
    }
    let mut data = with_its_nonce(data_connection(5000));
    assert_eq!(data.begin(&mut world, CONNECTION_BIND, &bind).reply().code(), 0);
}

#[test]
fn connection_attempt_from_a_client_is_dropped() {
    let (mut world, mut client, _) = allocated();
    for kind in [CONNECTION_ATTEMPT, 0x000C] {
        let message = Msg::new(kind, client.id()).add(&[peer(PEER), connection(NAME)]).finish();
        let dropped = world.deliver(client.five, &message).dropped();
        assert_eq!(dropped, DropReason::ClassNotAllowed, "{kind:#06x}");
    }
}

/// RFC 6062 §5.5: everything ends with the allocation, and its account holds what was relayed
#[test]
fn closed_allocation_tells_what_its_connections_relayed() {
    let (mut world, mut client, _) = allocated();
    connected(&mut world, &mut client, PEER, NAME);
    world.pass_secs(600);
    let closed = world.events.last().unwrap();
    let Event::Closed { reason, to_peer, to_client, .. } = closed else { panic!("{closed:?}") };
    assert_eq!(*reason, CloseReason::Expired);
    assert_eq!((to_peer.bytes, to_peer.packets), (1_000, 3));
    assert_eq!((to_client.bytes, to_client.packets), (70, 2));
    assert_eq!(world.server.stats().allocation_relayed.sum, 1_070.0);
    assert_eq!(world.server.stats().peer_connections, 0);
    assert_eq!(data_connection(5000).code(&mut world, CONNECTION_BIND, &[connection(NAME)]), 400);
}

/// RFC 8489 §9.2.4: who signs with SHA-256 is answered so, whatever the answer
#[test]
fn answers_to_who_signs_with_sha256_are_signed_so() {
    for mode in [Mode::Sha256, Mode::Md5] {
        let mut world = world();
        let is_signed = |client: &Client, reply: &wire::Parsed, code: u16| {
            assert_eq!(reply.code(), code);
            assert_eq!((reply.count(attr::MI2), reply.count(attr::MI)), (1, 0), "{code}");
            assert!(reply.verifies(attr::MI2, &client.key()), "{code}");
        };
        let mut client = Client::at(HERE).over_tcp().mode(mode);
        is_signed(&client.clone(), &client.ask(&mut world, ALLOCATE, &[transport(6)]), 0);
        let to = [peer(PEER)];
        let pending = connect(&mut world, &mut client, PEER);
        is_signed(&client.clone(), &client.ask(&mut world, CONNECT, &to), 446);
        is_signed(&client, &world.connected(pending, Ok(NAME)), 0);
        let pending = connect(&mut world, &mut client, OTHER_PEER);
        is_signed(&client, &world.connected(pending, Err(ConnectError::Failed)), 447);
        let pending = connect(&mut world, &mut client, OTHER_PEER);
        is_signed(&client, &world.connected(pending, Err(ConnectError::NoCapacity)), 508);
        let mut data = data_connection(5000).mode(mode);
        let bound = data.ask(&mut world, CONNECTION_BIND, &[connection(NAME)]);
        is_signed(&data, &bound, 0);
        let mut data = data_connection(5001).mode(mode);
        let unknown = data.ask(&mut world, CONNECTION_BIND, &[connection(NAME)]);
        is_signed(&data, &unknown, 400);
    }
}
