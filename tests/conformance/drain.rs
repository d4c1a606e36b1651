//! A server that drains: newcomers go elsewhere or get 508, and who is there stays.

use crate::wire::{ALLOCATE, BINDING, Msg, attr, raw, transport};
use crate::world::{Client, Delivery, PEER, World, five_tuple, other};

const HERE: &str = "198.51.100.1:4000";
const NEWCOMER: &str = "198.51.100.2:5000";
const NEWCOMER_V6: &str = "[2a00:99::1]:4000";
/// 203.0.113.7:3478, as ALTERNATE-SERVER says it (RFC 8489 §14.15).
const OTHER: &[u8] = b"\0\x01\x0d\x96\xcb\0\x71\x07";

fn alternate(world: &mut World, here: &str) -> (u16, Option<Vec<u8>>) {
    let reply = Client::at(here).ask(world, ALLOCATE, &[transport(17)]);
    assert!(reply.has(attr::MI), "what it says is signed");
    (reply.code(), reply.get(attr::ALTERNATE_SERVER).map(<[u8]>::to_vec))
}

#[test]
fn newcomer_without_another_server_is_told_that_there_is_no_capacity() {
    let mut world = World::new();
    world.server.drain();
    assert_eq!(alternate(&mut world, NEWCOMER), (508, None));
    assert_eq!(alternate(&mut world, NEWCOMER_V6), (508, None));
    assert_eq!(world.server.allocations(), 0);
}

/// RFC 8489 §10: the same family, or none.
#[test]
fn newcomer_is_sent_to_the_server_of_its_family_that_is_drained_to() {
    let mut world = World::with(|setup| {
        setup.config.drain_to = vec![other("203.0.113.7:3478")];
    });
    let served = Client::at("198.51.100.3:6000").allocate(&mut world);
    assert!(world.server.relayed_at(served).is_some(), "before it drains, it serves");
    world.server.drain();
    assert_eq!(alternate(&mut world, NEWCOMER), (300, Some(OTHER.to_vec())));
    assert_eq!(alternate(&mut world, NEWCOMER_V6), (508, None));
}

/// Where both lists know a server, the one for draining decides.
#[test]
fn newcomer_is_sent_to_an_alternate_that_is_there_anyway() {
    let mut world = World::with(|setup| {
        setup.config.alternates = ["203.0.113.8:3478", "[2606:4700::7]:3478"].map(other).into();
        setup.config.drain_to = vec![other("203.0.113.7:3478")];
    });
    world.server.drain();
    assert_eq!(alternate(&mut world, NEWCOMER), (300, Some(OTHER.to_vec())));
    assert_eq!(alternate(&mut world, NEWCOMER_V6).0, 300);
}

#[test]
fn strangers_are_challenged_and_binding_is_answered() {
    let mut world = World::new();
    world.server.drain();
    let bare = Msg::new(ALLOCATE, [1; 12]).add(&[transport(17)]).finish();
    assert_eq!(world.deliver(five_tuple(HERE), &bare).reply().code(), 401);
    let binding = Msg::new(BINDING, [1; 12]).finish();
    assert!(world.deliver(five_tuple(HERE), &binding).reply().is_success());
}

/// Its retransmission is answered like the request, and all it may do later it still may.
#[test]
fn allocation_lives_on() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[transport(17)]);
    let relay = world.deliver(client.five, &request).reply().address(attr::XRA);
    world.server.drain();
    assert_eq!(world.deliver(client.five, &request).reply().address(attr::XRA), relay);
    for _ in 0..5 {
        world.pass_secs(500);
        assert_eq!(client.refresh(&mut world, 600).lifetime(), 600);
    }
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    let (peer, data) = client.channel_data(&mut world, 0x4000, b"out").relayed();
    assert_eq!((peer, data.as_slice()), (PEER.parse().unwrap(), &b"out"[..]));
    let expected =
        Delivery::Channel { client: client.five.client, number: 0x4000, data: b"in".to_vec() };
    assert_eq!(world.peer_sends(relay, PEER, b"in"), expected);
}

#[test]
fn client_that_has_left_is_not_let_in_again() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.allocate(&mut world);
    world.server.drain();
    assert_eq!(client.refresh(&mut world, 0).lifetime(), 0);
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 508);
}

/// RFC 8656 §7.2: the pair belongs to a call that has begun.
#[test]
fn reserved_port_can_be_claimed() {
    let mut world = World::with(|setup| {
        setup.config.drain_to = vec![other("203.0.113.7:3478")];
    });
    let pair = [transport(17), raw(attr::EVEN_PORT, &[0x80])];
    let first = Client::at(HERE).ask(&mut world, ALLOCATE, &pair);
    world.server.drain();
    let token = [transport(17), raw(attr::TOKEN, first.get(attr::TOKEN).unwrap())];
    let second = Client::at(NEWCOMER).ask(&mut world, ALLOCATE, &token);
    assert_eq!(second.address(attr::XRA).port(), first.address(attr::XRA).port() + 1);
}
