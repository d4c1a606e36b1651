//! Mobility: RFC 8016, in one shard and between two.

use hairpin::turn::{
    CloseReason, DropReason, Event, FiveTuple, Server, Transport, Verdict, mobility,
};

use crate::wire::{self, ALLOCATE, Attr, Parsed, REFRESH, attr, raw};
use crate::world::{
    Client, Delivery, Mode, Outcome, PEER, PEER_V6, RELAY_V4, RELAY_V6, Setup, World, ip,
};

const HOME: &str = "198.51.100.1:4000";
const AWAY: &str = "198.51.100.2:5000";
const THIRD: &str = "198.51.100.3:6000";

fn mobile(setup: &mut Setup) {
    setup.config.mobility = Some(mobility::Key([9; 32]));
}

fn ticket_of(reply: &Parsed) -> Vec<u8> {
    reply.get(attr::TICKET).expect("a ticket").to_vec()
}

fn shown(ticket: &[u8]) -> Attr {
    raw(attr::TICKET, ticket)
}

/// A mobile client with a channel to `PEER`, its relayed address and its ticket.
fn allocated() -> (World, Client, std::net::SocketAddr, Vec<u8>) {
    let mut world = World::with(mobile);
    let (client, relay, ticket) = allocate(&mut world);
    (world, client, relay, ticket)
}

fn allocate(world: &mut World) -> (Client, std::net::SocketAddr, Vec<u8>) {
    let mut client = Client::at(HOME);
    let reply = client.ask(world, ALLOCATE, &[wire::transport(17), shown(&[])]);
    assert_eq!(reply.code(), 0);
    assert_eq!(client.bind(world, 0x4000, PEER), 0);
    (client, reply.address(attr::XRA), ticket_of(&reply))
}

fn resume(world: &mut World, client: &mut Client, ticket: &[u8]) -> Parsed {
    client.ask(world, REFRESH, &[shown(ticket)])
}

fn moved(world: &mut World, at: &str, ticket: &[u8]) -> (Client, Vec<u8>) {
    let mut client = Client::at(at);
    let reply = resume(world, &mut client, ticket);
    assert_eq!((reply.code(), reply.lifetime()), (0, 600));
    let new = ticket_of(&reply);
    assert_ne!(new, ticket, "a new ticket");
    (client, new)
}

fn reached(world: &mut World, relay: std::net::SocketAddr) -> String {
    match world.peer_sends(relay, PEER, b"hello") {
        Delivery::Channel { client, number: 0x4000, data } if data == b"hello" => {
            client.to_string()
        }
        other => panic!("{other:?}"),
    }
}

/// Two relayed addresses and connections of peers stay where they are.
#[test]
fn allocations_that_cannot_move_get_405_for_a_ticket_and_nothing_else() {
    let mut world = World::with(|setup| {
        mobile(setup);
        setup.config.tcp_relay = true;
    });
    for (transport, what) in [
        (Transport::Udp, vec![wire::transport(17), both_families()]),
        (Transport::Tcp, vec![wire::transport(6)]),
    ] {
        let mut client = over(transport, Client::at(HOME));
        let asking: Vec<Attr> = what.iter().cloned().chain([shown(&[])]).collect();
        assert_eq!(client.code(&mut world, ALLOCATE, &asking), 405, "{transport:?}");
        assert_eq!(world.server.allocations(), 0);
        let reply = client.ask(&mut world, ALLOCATE, &what);
        assert_eq!((reply.code(), reply.has(attr::TICKET)), (0, false), "without a ticket");
        assert_eq!(client.code(&mut world, REFRESH, &[wire::lifetime(0)]), 0);
    }
}

fn both_families() -> Attr {
    raw(attr::AAF, &[2, 0, 0, 0])
}

/// RFC 8656 §7.2 (9): where there is no IPv6, whoever asks for both gets one, which moves.
#[test]
fn single_address_of_who_asks_for_both_moves() {
    let mut world = World::with(|setup| {
        mobile(setup);
        setup.host.relay_addresses.truncate(1);
    });
    let mut client = Client::at(HOME);
    let asking = [wire::transport(17), both_families(), shown(&[])];
    let reply = client.ask(&mut world, ALLOCATE, &asking);
    assert_eq!((reply.code(), reply.addresses(attr::XRA).len()), (0, 1));
    assert!(reply.has(attr::ADDRESS_ERROR_CODE));
    moved(&mut world, AWAY, &ticket_of(&reply));
}

#[test]
fn allocation_moves_into_a_session_of_dtls_and_out_of_it() {
    let (mut world, mut client, relay, ticket) = allocated();
    let mut away = over(Transport::Dtls, Client::at(AWAY));
    let ticket = ticket_of(&resume(&mut world, &mut away, &ticket));
    assert_eq!(reached(&mut world, relay), HOME);
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    away.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(reached(&mut world, relay), AWAY);
    let (third, _) = moved(&mut world, THIRD, &ticket);
    // The end of the session completes the move.
    assert!(world.server.client_gone(away.five, world.now).is_none());
    world.pass_secs(0);
    assert_eq!(reached(&mut world, relay), THIRD);
    third.channel_data(&mut world, 0x4000, b"x").relayed();
}

/// RFC 8016 §3.1.2
#[test]
fn allocate_with_an_empty_ticket_gets_one_where_mobility_is_on_and_405_where_it_is_off() {
    let (_, _, _, ticket) = allocated();
    assert!(ticket.len() < 100, "{} bytes", ticket.len());
    let mut world = World::new();
    let mut client = Client::at(HOME);
    let asking = [wire::transport(17), shown(&[])];
    assert_eq!(client.code(&mut world, ALLOCATE, &asking), 405);
    assert_eq!(world.server.allocations(), 0);
    assert_eq!(client.code(&mut world, ALLOCATE, &[wire::transport(17), shown(&[1])]), 400);
    client.allocate(&mut world);
    assert_eq!(resume(&mut world, &mut Client::at(AWAY), &ticket).code(), 405);
}

/// RFC 8016 §3.1.2
#[test]
fn allocate_with_a_ticket_that_is_not_empty_is_400() {
    let mut world = World::with(mobile);
    let mut client = Client::at(HOME);
    for ticket in [&[0][..], &[7; 59]] {
        assert_eq!(client.code(&mut world, ALLOCATE, &[wire::transport(17), shown(ticket)]), 400);
    }
    let reply = client.ask(&mut world, ALLOCATE, &[wire::transport(17)]);
    assert!(reply.is_success() && !reply.has(attr::TICKET), "who does not ask gets none");
    let refreshed = client.refresh(&mut world, 600);
    assert!(refreshed.is_success() && !refreshed.has(attr::TICKET));
}

#[test]
fn retransmitted_allocate_gets_a_ticket_for_the_same_allocation() {
    let mut world = World::with(mobile);
    let mut client = Client::at(HOME);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[wire::transport(17), shown(&[])]);
    let first = world.deliver(client.five, &request).reply();
    let again = world.deliver(client.five, &request).reply();
    assert_eq!(first.address(attr::XRA), again.address(attr::XRA));
    let (_, ticket) = moved(&mut world, AWAY, &ticket_of(&first));
    assert_eq!(resume(&mut world, &mut Client::at(THIRD), &ticket_of(&again)).code(), 400);
    moved(&mut world, THIRD, &ticket);
}

/// RFC 8016 §3.2.2: make before break
#[test]
fn client_is_reached_where_it_was_until_it_sends_data_from_where_it_is() {
    let (mut world, mut old, relay, ticket) = allocated();
    let (mut new, _) = moved(&mut world, AWAY, &ticket);
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(reached(&mut world, relay), HOME);
    assert_eq!(old.channel_data(&mut world, 0x4000, b"still").relayed().1, b"still");
    // Requests may come from both, and move nothing.
    assert_eq!(new.permit(&mut world, &[PEER]), 0);
    assert_eq!(new.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(new.refresh(&mut world, 700).lifetime(), 700);
    assert_eq!(old.permit(&mut world, &[PEER]), 0);
    assert_eq!(reached(&mut world, relay), HOME);
    let (peer, data) = new.channel_data(&mut world, 0x4000, b"here").relayed();
    assert_eq!((peer.to_string().as_str(), &data[..]), (PEER, &b"here"[..]));
    assert_eq!(reached(&mut world, relay), AWAY);
    let late = old.channel_data(&mut world, 0x4000, b"late").dropped();
    assert_eq!(late, DropReason::NoAllocation);
    assert_eq!(old.permit(&mut world, &[PEER]), 437);
    assert_eq!(new.refresh(&mut world, 0).lifetime(), 0);
}

/// RFC 8016 §3.2.2: a Send indication is data too, even to a peer without a permission
#[test]
fn a_send_indication_moves_the_client_as_well() {
    let (mut world, _, relay, ticket) = allocated();
    let (mut new, _) = moved(&mut world, AWAY, &ticket);
    let dropped = new.send(&mut world, "9.9.9.9:9", b"x").dropped();
    assert_eq!(dropped, DropReason::NoPermission);
    assert_eq!(reached(&mut world, relay), AWAY);
}

/// RFC 8016 §3.2.2
#[test]
fn tickets_that_are_none_are_400() {
    let (mut world, _, _, ticket) = allocated();
    let mut other = World::with(|setup| setup.config.mobility = Some(mobility::Key([8; 32])));
    let (_, _, foreign) = allocate(&mut other);
    let mut stranger = Client::at(AWAY);
    assert_eq!(resume(&mut world, &mut stranger, &foreign).code(), 400, "another process's");
    for at in 0..ticket.len() {
        let mut flipped = ticket.clone();
        flipped[at] ^= 1;
        assert_eq!(resume(&mut world, &mut stranger, &flipped).code(), 400, "byte {at}");
    }
    for bad in [&[][..], &ticket[1..], &[0; 1000]] {
        assert_eq!(resume(&mut world, &mut stranger, bad).code(), 400, "{} bytes", bad.len());
    }
    moved(&mut world, AWAY, &ticket);
}

/// Two relayed addresses may differ in nothing but which of the server's addresses they are at.
#[test]
fn ticket_tells_relay_addresses_apart_that_have_the_same_port() {
    let mut world = World::with(|setup| {
        mobile(setup);
        setup.host.relay_addresses = [RELAY_V4, "203.0.113.6", RELAY_V6].map(ip).into();
        setup.host.relay_ports = 50_000..=50_000;
    });
    let mut relays = Vec::new();
    for (number, requested) in [(1, 1), (2, 1), (3, 2)] {
        let mut client = Client::at(&format!("198.51.100.{number}:4000"));
        let what = [wire::transport(17), wire::family(requested), shown(&[])];
        let reply = client.ask(&mut world, ALLOCATE, &what);
        assert_eq!(reply.code(), 0);
        relays.push((number, requested, reply.address(attr::XRA), ticket_of(&reply)));
    }
    for (number, requested, relay, ticket) in relays {
        let mut client = Client::at(&format!("198.51.100.{number}:5000"));
        let other = wire::family(3 - requested);
        assert_eq!(client.code(&mut world, REFRESH, &[shown(&ticket), other]), 443);
        assert_eq!(resume(&mut world, &mut client, &ticket).code(), 0);
        let peer = if relay.is_ipv4() { PEER } else { PEER_V6 };
        assert_eq!(client.bind(&mut world, 0x4000, peer), 0);
        client.channel_data(&mut world, 0x4000, b"here").relayed();
        match world.peer_sends(relay, peer, b"hello") {
            Delivery::Channel { client: reached, .. } => assert_eq!(reached, client.five.client),
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 8016 §3.2.2
#[test]
fn refresh_with_a_ticket_from_where_the_client_is_is_400() {
    let (mut world, mut old, _, ticket) = allocated();
    assert_eq!(resume(&mut world, &mut old, &ticket).code(), 400);
    let (mut new, ticket) = moved(&mut world, AWAY, &ticket);
    assert_eq!(resume(&mut world, &mut old, &ticket).code(), 400, "still reached there");
    assert_eq!(resume(&mut world, &mut new, &ticket).code(), 400, "expected there already");
}

/// RFC 8016 §3.2.2
#[test]
fn ticket_of_an_allocation_that_is_gone_is_437() {
    let (mut world, mut old, relay, ticket) = allocated();
    assert_eq!(old.refresh(&mut world, 0).lifetime(), 0);
    let mut new = Client::at(AWAY);
    assert_eq!(resume(&mut world, &mut new, &ticket).code(), 437, "deleted");
    // Its port is another one's by now.
    let range = relay.port()..=relay.port();
    let mut world = World::with(|setup| {
        mobile(setup);
        setup.host.relay_ports = range;
    });
    let (mut first, _, ticket) = allocate(&mut world);
    first.refresh(&mut world, 0);
    let (_, again, _) = allocate(&mut world);
    assert_eq!(again, relay);
    assert_eq!(resume(&mut world, &mut new, &ticket).code(), 437, "of the last one");
    world.pass_secs(601);
    assert_eq!(resume(&mut world, &mut new, &ticket).code(), 437, "expired");
}

/// RFC 8016 §3.2.2
#[test]
fn ticket_of_another_user_is_441_and_moves_nothing() {
    let (mut world, _, relay, ticket) = allocated();
    let mut thief = Client::bob(AWAY);
    assert_eq!(resume(&mut world, &mut thief, &ticket).code(), 441);
    assert_eq!(reached(&mut world, relay), HOME);
    let stolen = thief.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(stolen, DropReason::NoAllocation);
    moved(&mut world, AWAY, &ticket);
}

#[test]
fn forged_refresh_with_a_ticket_changes_nothing() {
    let (mut world, _, relay, ticket) = allocated();
    let mut forger = Client::named(AWAY, "alice", "guessed");
    for _ in 0..100 {
        assert_eq!(resume(&mut world, &mut forger, &ticket).code(), 401);
    }
    assert_eq!(forger.permit(&mut world, &[PEER]), 401);
    assert_eq!(reached(&mut world, relay), HOME);
    let data = forger.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(data, DropReason::NoAllocation);
    assert_eq!(world.server.allocations(), 1);
    moved(&mut world, AWAY, &ticket);
}

/// RFC 8016 §3.2.2
#[test]
fn old_ticket_is_good_for_retransmissions_only() {
    let (mut world, _, _, ticket) = allocated();
    let mut new = Client::at(AWAY);
    new.greet(&mut world);
    let request = new.request(REFRESH, &[shown(&ticket)]);
    let first = world.deliver(new.five, &request).reply();
    assert!(first.is_success());
    world.pass_secs(30);
    let again = world.deliver(new.five, &request).reply();
    assert_eq!((again.code(), again.lifetime()), (0, 570), "still the first one's answer");
    assert_eq!(resume(&mut world, &mut new, &ticket).code(), 400, "another request");
    assert_eq!(resume(&mut world, &mut Client::at(THIRD), &ticket).code(), 400);
    // Both answers carry the ticket that is good.
    let (_, third) = moved(&mut world, THIRD, &ticket_of(&again));
    assert_eq!(world.deliver(new.five, &request).reply().code(), 400, "two moves ago");
    let mut world_of = world;
    world_of.pass_secs(41);
    moved(&mut world_of, AWAY, &third);
}

#[test]
fn retransmission_after_the_data_is_answered_too() {
    let (mut world, _, relay, ticket) = allocated();
    let mut new = Client::at(AWAY);
    new.greet(&mut world);
    let request = new.request(REFRESH, &[shown(&ticket)]);
    assert!(world.deliver(new.five, &request).reply().is_success());
    let _ = new.channel_data(&mut world, 0x4000, b"x").relayed();
    assert!(world.deliver(new.five, &request).reply().is_success());
    assert_eq!(reached(&mut world, relay), AWAY);
    world.pass_secs(40);
    assert_eq!(world.deliver(new.five, &request).reply().code(), 400, "too late for one");
}

/// One place to go to at a time.
#[test]
fn a_second_move_replaces_one_that_was_not_completed() {
    let (mut world, mut old, relay, ticket) = allocated();
    let (mut second, ticket) = moved(&mut world, AWAY, &ticket);
    let (third, _) = moved(&mut world, THIRD, &ticket);
    let data = second.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(data, DropReason::NoAllocation);
    assert_eq!(second.permit(&mut world, &[PEER]), 437);
    assert_eq!(old.permit(&mut world, &[PEER]), 0);
    assert_eq!(reached(&mut world, relay), HOME);
    let _ = third.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(reached(&mut world, relay), THIRD);
    assert_eq!(world.server.allocations(), 1);
    second.allocate(&mut world);
    old.allocate(&mut world);
}

#[test]
fn a_five_tuple_with_an_allocation_of_its_own_takes_no_other() {
    let (mut world, _, relay, ticket) = allocated();
    let mut busy = Client::at(AWAY);
    busy.allocate(&mut world);
    assert_eq!(resume(&mut world, &mut busy, &ticket).code(), 437);
    assert_eq!(reached(&mut world, relay), HOME);
    moved(&mut world, THIRD, &ticket);
}

#[test]
fn refresh_with_a_ticket_of_the_other_family_is_443_and_of_no_lifetime_deletes() {
    let (mut world, mut old, _, ticket) = allocated();
    let mut new = Client::at(AWAY);
    assert_eq!(new.code(&mut world, REFRESH, &[shown(&ticket), wire::family(2)]), 443);
    let both = [shown(&ticket), wire::lifetime(0), wire::family(1)];
    let reply = new.ask(&mut world, REFRESH, &both);
    assert_eq!((reply.code(), reply.lifetime(), reply.has(attr::TICKET)), (0, 0, false));
    assert_eq!((world.server.allocations(), world.relay_count()), (0, 0));
    assert_eq!(old.permit(&mut world, &[PEER]), 437);
}

fn over(transport: Transport, mut client: Client) -> Client {
    client.five = FiveTuple { transport, ..client.five };
    client
}

#[test]
fn connection_that_ends_leaves_the_allocation_to_its_lifetime() {
    let mut world = World::with(mobile);
    let mut old = over(Transport::Tcp, Client::at(HOME));
    let reply = old.ask(&mut world, ALLOCATE, &[wire::transport(17), shown(&[])]);
    let relay = reply.address(attr::XRA);
    assert_eq!(old.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(world.server.client_gone(old.five, world.now), None);
    assert_eq!(world.server.allocations(), 1, "quota and port stay with it");
    let lost = world.peer_sends(relay, PEER, b"x");
    assert_eq!(lost, Delivery::Dropped(DropReason::ClientAway));
    // The same port again, by chance: not the client until it shows its ticket.
    assert_eq!(old.permit(&mut world, &[PEER]), 437);
    let reply = resume(&mut world, &mut old, &ticket_of(&reply));
    assert_eq!(reply.code(), 0);
    assert_eq!(reached_over_stream(&mut world, relay), b"hello", "at once, as it is nowhere else");
    let tcp = world.server.stats().allocations[Transport::Tcp as usize];
    assert_eq!(tcp, 1);
    assert_eq!(world.server.client_gone(old.five, world.now), None);
    world.pass_secs(599);
    assert_eq!(world.server.allocations(), 1);
    world.pass_secs(1);
    assert_eq!(world.server.allocations(), 0);
    let Some(Event::Closed { reason, .. }) = world.events.last() else { panic!("closed") };
    assert_eq!(*reason, CloseReason::Expired);
}

/// ChannelData over a stream is padded.
fn reached_over_stream(world: &mut World, relay: std::net::SocketAddr) -> Vec<u8> {
    let id = world.server.relayed_at(relay).unwrap();
    let peer = PEER.parse().unwrap();
    match world.server.handle_peer(id, peer, b"hello", world.now) {
        Verdict::ToClient { padding: 3, .. } => b"hello".to_vec(),
        other => panic!("{other:?}"),
    }
}

/// RFC 8016 §3.2.2: the end of the old connection completes a move, that of the new one undoes it
#[test]
fn connections_that_end_during_a_move() {
    let mut world = World::with(mobile);
    let mut old = over(Transport::Tcp, Client::at(HOME));
    let reply = old.ask(&mut world, ALLOCATE, &[wire::transport(17), shown(&[])]);
    let relay = reply.address(attr::XRA);
    assert_eq!(old.bind(&mut world, 0x4000, PEER), 0);
    let mut tls = over(Transport::Tls, Client::at(AWAY));
    let ticket = ticket_of(&resume(&mut world, &mut tls, &ticket_of(&reply)));
    world.server.client_gone(tls.five, world.now);
    assert_eq!(old.permit(&mut world, &[PEER]), 0, "never left");
    let (_, _) = moved(&mut world, THIRD, &ticket);
    world.server.client_gone(old.five, world.now);
    world.pass_secs(1);
    assert_eq!(reached(&mut world, relay), THIRD);
    let gauge = world.server.stats().allocations;
    assert_eq!((gauge[Transport::Udp as usize], gauge.iter().sum::<u64>()), (1, 1));
}

/// Two shards of one process.
struct Pair {
    near: World,
    far: World,
}

impl Pair {
    fn new() -> Self {
        Self { near: World::with(mobile), far: World::with(mobile) }
    }

    /// A client at `far` shows a ticket of an allocation at `near`.
    fn resume(&mut self, client: &mut Client, ticket: &[u8]) -> Parsed {
        client.greet(&mut self.far);
        let request = client.request(REFRESH, &[shown(ticket)]);
        let mut reply = Vec::new();
        let (near, far): (&mut Server, &mut Server) = (&mut self.near.server, &mut self.far.server);
        let verdict = far.handle_client(client.five, &request, self.far.now, &mut reply);
        let Verdict::Resume(pending) = verdict else { panic!("{verdict:?}") };
        let moved = near.release(&pending.claim(), self.near.now).map(|(_, moved)| moved);
        far.resumed(pending, moved, self.far.now, &mut reply);
        Parsed::strict(&reply)
    }

    fn counts(&self) -> (usize, usize) {
        (self.near.server.allocations(), self.far.server.allocations())
    }
}

#[test]
fn allocation_moves_between_shards_with_all_that_is_in_it() {
    let mut pair = Pair::new();
    let (old, relay, ticket) = allocate(&mut pair.near);
    let mut new = Client::at(AWAY);
    let reply = pair.resume(&mut new, &ticket);
    assert_eq!((reply.code(), reply.lifetime()), (0, 600));
    assert_eq!(pair.counts(), (0, 1));
    // What comes from where the client was is passed on, whatever it is.
    let data = wire::channel_data(0x4000, b"old");
    let mut none = Vec::new();
    for packet in [&data[..], &new.request(wire::CREATE_PERMISSION, &[wire::peer(PEER)])] {
        let verdict = pair.near.server.handle_client(old.five, packet, pair.near.now, &mut none);
        let Verdict::Elsewhere(to) = verdict else { panic!("{verdict:?}") };
        assert_eq!((to.0, none.len()), (relay, 0));
    }
    let far = &mut pair.far.server;
    assert!(far.is_home_of(&old.five, pair.far.now) && far.is_home_of(&new.five, pair.far.now));
    let mut to_peer = |from| match far.handle_client(from, &data, pair.far.now, &mut none) {
        Verdict::ToPeer { peer, .. } => peer.address().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(to_peer(old.five), PEER);
    assert_eq!(to_peer(new.five), PEER);
    let late = far.handle_client(old.five, &data, pair.far.now, &mut none);
    assert!(matches!(late, Verdict::Drop(DropReason::NoAllocation)), "{late:?}");
    // Told to a second data path, in order.
    let mut events = Vec::new();
    while let Some(event) = far.poll_event() {
        events.push(event);
    }
    let told = |wanted: fn(&Event) -> bool| events.iter().position(wanted).expect("an event");
    let arrived = told(|event| matches!(event, Event::Arrived { .. }));
    let bound = told(|event| matches!(event, Event::ChannelBound { .. }));
    let switched = told(|event| matches!(event, Event::Switched { .. }));
    assert!(arrived < bound && bound < switched);
    pair.near.server.forget(&old.five);
    let fresh = pair.near.server.handle_client(old.five, &data, pair.near.now, &mut none);
    assert!(matches!(fresh, Verdict::Drop(DropReason::NoAllocation)), "{fresh:?}");
}

#[test]
fn shards_refuse_each_other_what_one_of_them_would_refuse() {
    let mut pair = Pair::new();
    let (mut old, relay, ticket) = allocate(&mut pair.near);
    assert_eq!(pair.resume(&mut Client::bob(AWAY), &ticket).code(), 441);
    assert_eq!(pair.resume(&mut Client::at(HOME), &ticket).code(), 400, "where it is");
    assert_eq!(pair.counts(), (1, 0));
    assert_eq!(reached(&mut pair.near, relay), HOME);
    old.refresh(&mut pair.near, 0);
    assert_eq!(pair.resume(&mut Client::at(THIRD), &ticket).code(), 437);
    assert_eq!(pair.counts(), (0, 0));
}

#[test]
fn old_connection_on_another_shard_completes_the_move_when_it_ends() {
    let mut pair = Pair::new();
    let mut old = over(Transport::Tcp, Client::at(HOME));
    let reply = old.ask(&mut pair.near, ALLOCATE, &[wire::transport(17), shown(&[])]);
    let relay = reply.address(attr::XRA);
    let mut new = Client::at(AWAY);
    assert_eq!(pair.resume(&mut new, &ticket_of(&reply)).code(), 0);
    assert!(pair.near.server.has_allocation(&old.five), "not idle");
    let gone = pair.near.server.client_gone(old.five, pair.near.now);
    assert_eq!(gone.map(|relayed| relayed.0), Some(relay), "to be told to the other shard");
    assert!(!pair.near.server.has_allocation(&old.five));
    assert_eq!(pair.far.server.client_gone(old.five, pair.far.now), None);
    let gauge = pair.far.server.stats().allocations;
    assert_eq!((gauge[Transport::Udp as usize], gauge.iter().sum::<u64>()), (1, 1));
    assert_eq!(pair.near.server.stats().allocations.iter().sum::<u64>(), 0);
}

#[test]
fn pending_resume_that_loses_its_allocation_is_437() {
    let mut pair = Pair::new();
    let (_, _, ticket) = allocate(&mut pair.near);
    let mut new = Client::at(AWAY);
    new.greet(&mut pair.far);
    let request = new.request(REFRESH, &[shown(&ticket)]);
    let Outcome::Reply(reply) = pair.far.deliver(new.five, &request) else { panic!("no reply") };
    assert_eq!(reply.code(), 437);
}

/// RFC 8489 §9.2.4: who signs with SHA-256 is answered so, moves and refusals included
#[test]
fn answers_to_moves_are_signed_as_the_requests_are() {
    let is_signed = |client: &Client, reply: &Parsed, code: u16| {
        assert_eq!((reply.code(), reply.count(attr::MI2), reply.count(attr::MI)), (code, 1, 0));
        assert!(reply.verifies(attr::MI2, &client.key()), "{code}");
    };
    for mode in [Mode::Sha256, Mode::Md5] {
        let mut world = World::with(mobile);
        let mut client = Client::at(HOME).mode(mode);
        let asking = [wire::transport(17), shown(&[])];
        let stays = [wire::transport(17), both_families(), shown(&[])];
        is_signed(&client.clone(), &client.ask(&mut world, ALLOCATE, &stays), 405);
        let reply = client.ask(&mut world, ALLOCATE, &asking);
        is_signed(&client, &reply, 0);
        let ticket = ticket_of(&reply);
        let mut away = Client::at(AWAY).mode(mode);
        is_signed(&away.clone(), &resume(&mut world, &mut away, b"no ticket"), 400);
        is_signed(&away.clone(), &resume(&mut world, &mut away, &ticket), 0);
        let mut thief = Client::bob(THIRD).mode(mode);
        is_signed(&thief.clone(), &resume(&mut world, &mut thief, &ticket), 441);
        let mut off = World::new();
        let mut client = Client::at(HOME).mode(mode);
        is_signed(&client.clone(), &client.ask(&mut off, ALLOCATE, &asking), 405);
    }
}
