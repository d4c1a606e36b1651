//! Refresh: RFC 8656 §8.

use std::time::Duration;

use hairpin::turn::{CloseReason, DropReason, Event};

use crate::wire::{self, REFRESH, attr, family, raw};
use crate::world::{Client, Delivery, PEER, World, allocated, allocated_v6};

/// RFC 8656 §5
#[test]
fn request_without_an_allocation_is_437() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    assert_eq!(client.refresh(&mut world, 0).code(), 437);
    assert_eq!(client.permit(&mut world, &[PEER]), 437);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 437);
}

/// RFC 8656 §5: the server's address is part of the five-tuple
#[test]
fn allocation_belongs_to_the_address_it_was_made_on() {
    let (mut world, mut client, _) = allocated();
    client.five.server = "203.0.113.6:3478".parse().unwrap();
    assert_eq!(client.refresh(&mut world, 0).code(), 437);
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8656 §8.2
#[test]
fn refresh_with_another_family_is_443() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.code(&mut world, REFRESH, &[wire::lifetime(0), family(2)]), 443);
    assert_eq!(client.code(&mut world, REFRESH, &[family(1)]), 0);
    let (mut world, mut client, _) = allocated_v6();
    assert_eq!(client.code(&mut world, REFRESH, &[family(1)]), 443);
    assert_eq!(client.code(&mut world, REFRESH, &[family(2)]), 0);
}

/// RFC 8656 §18.6, our choice: a value that no family has is malformed, where Allocate says 440
#[test]
fn refresh_with_a_family_that_does_not_exist_is_400() {
    let (mut world, mut client, _) = allocated();
    for byte in [0, 3, 4, 255] {
        let attributes = [wire::lifetime(0), family(byte)];
        assert_eq!(client.code(&mut world, REFRESH, &attributes), 400, "{byte}");
    }
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8656 §8.2
#[test]
fn lifetime_of_zero_deletes_the_allocation() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    client.bind(&mut world, 0x4000, PEER);
    assert_eq!(client.refresh(&mut world, 0).lifetime(), 0);
    assert_eq!((world.server.allocations(), world.relay_count()), (0, 0));
    assert_eq!(world.server.relayed_at(relay), None);
    assert_eq!(client.permit(&mut world, &[PEER]), 437);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoAllocation);
    let dropped = client.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::NoAllocation);
    let closed = world.events.last().unwrap();
    assert!(matches!(closed, Event::Closed { reason: CloseReason::Deleted, .. }));
    client.allocate(&mut world);
}

/// RFC 8489 §6.3.1: of a deleting Refresh, success or 437 are both right; here it is 437
#[test]
fn retransmitted_deletion_is_437() {
    let (mut world, mut client, _) = allocated();
    let request = client.request(REFRESH, &[wire::lifetime(0)]);
    assert!(world.deliver(client.five, &request).reply().is_success());
    assert_eq!(world.deliver(client.five, &request).reply().code(), 437);
}

/// RFC 8656 §8.2
#[test]
fn granted_lifetime_is_between_default_and_maximum() {
    let (mut world, mut client, _) = allocated();
    for (asked, granted) in [(1, 600), (600, 600), (1200, 1200), (3601, 3600), (u32::MAX, 3600)] {
        assert_eq!(client.refresh(&mut world, asked).lifetime(), granted, "{asked}");
    }
    assert_eq!(client.ask(&mut world, REFRESH, &[]).lifetime(), 600);
    world.pass_secs(599);
    assert_eq!(world.server.allocations(), 1);
    world.pass_secs(1);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn refresh_with_a_lifetime_of_wrong_length_is_400_and_changes_nothing() {
    let (mut world, mut client, _) = allocated();
    for length in [0, 2, 3, 5, 8] {
        let lifetime = raw(attr::LIFETIME, &vec![0; length]);
        assert_eq!(client.code(&mut world, REFRESH, &[lifetime]), 400, "{length} bytes");
    }
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8656 §8
#[test]
fn allocation_expires_on_time_whatever_flows() {
    let (mut world, mut client, relay) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    for _ in 0..599 {
        world.pass_secs(1);
        if world.now.instant - world.start == Duration::from_secs(250) {
            client.permit(&mut world, &[PEER]);
        }
        let _ = client.channel_data(&mut world, 0x4000, b"x");
        let _ = world.peer_sends(relay, PEER, b"x");
    }
    assert_eq!(world.server.allocations(), 1);
    world.pass_secs(1);
    assert_eq!((world.server.allocations(), world.relay_count()), (0, 0));
    let closed = world.events.last().unwrap();
    let Event::Closed { reason, lived, .. } = closed else { panic!("{closed:?}") };
    assert_eq!((*reason, lived.as_secs()), (CloseReason::Expired, 600));
}

/// RFC 8656 §8: not a millisecond longer, even where the driver's timer is late
#[test]
fn expired_allocation_is_dead_before_its_timer_is_handled() {
    let (mut world, mut client, relay) = allocated();
    world.pass_secs(500);
    client.bind(&mut world, 0x4000, PEER);
    world.now.instant += Duration::from_secs(100);
    let channel_data = wire::channel_data(0x4000, b"x");
    assert_eq!(world.deliver(client.five, &channel_data).dropped(), DropReason::NoAllocation);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoAllocation);
    let from_peer = world.peer_sends(relay, PEER, b"x");
    assert_eq!(from_peer, Delivery::Dropped(DropReason::NoAllocation));
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    assert_eq!(world.server.allocations(), 0);
    client.allocate(&mut world);
}

/// Those who wait meanwhile should not notice.
#[test]
fn many_that_expire_at_once_end_a_turn_at_a_time_and_are_dead_meanwhile() {
    let mut world = World::with(|setup| setup.quota = 1000);
    let mut clients: Vec<Client> =
        (4000..4200).map(|port| Client::at(&format!("198.51.100.1:{port}"))).collect();
    let relays: Vec<_> = clients.iter_mut().map(|client| client.allocate(&mut world)).collect();
    world.now.instant += Duration::from_secs(600);
    world.server.handle_timeout(world.now);
    assert_eq!(world.server.allocations(), 200 - 64);
    assert_eq!(world.server.poll_timeout(), Some(world.now.instant), "there is more");
    let last = clients.last_mut().unwrap();
    assert_eq!(last.refresh(&mut world, 600).code(), 437, "though it is not its turn");
    assert!(world.server.allocations() > 0, "there are others still");
    let from_peer = world.peer_sends(relays[198], PEER, b"x");
    assert_eq!(from_peer, Delivery::Dropped(DropReason::NoAllocation));
    last.allocate(&mut world);
    while world.server.poll_timeout() == Some(world.now.instant) {
        world.server.handle_timeout(world.now);
    }
    assert_eq!(world.server.allocations(), 1, "the new one");
}

/// RFC 8656 §8.2: a Refresh gives no permission more time
#[test]
fn refresh_does_not_refresh_permissions_or_channels() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    world.pass_secs(299);
    client.refresh(&mut world, 3600);
    world.pass_secs(1);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    world.pass_secs(300);
    let dropped = client.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::ChannelUnbound);
}

/// The driver cannot hear peers there any more, and the client should learn of it.
#[test]
fn an_allocation_that_lost_its_socket_is_over_and_the_next_request_is_437() {
    let (mut world, mut client, relay) = allocated();
    let id = world.server.relayed_at(relay).unwrap();
    world.server.socket_lost(id, world.now);
    assert_eq!((world.server.allocations(), world.server.relayed_at(relay)), (0, None));
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    let closed = world.events.iter().any(|event| {
        matches!(event, Event::Closed { id: lost, reason: CloseReason::SocketLost, .. } if *lost == id)
    });
    assert!(closed, "{:?}", world.events);
    client.allocate(&mut world);
}

/// The timers are due exactly when something ends.
#[test]
fn next_timeout_is_the_earliest_expiry() {
    let mut world = World::new();
    assert_eq!(world.server.poll_timeout(), None);
    let mut first = Client::at("198.51.100.1:4000");
    first.allocate(&mut world);
    world.pass_secs(10);
    let lifetime = wire::lifetime(1200);
    Client::at("198.51.100.1:4001").allocate_with(&mut world, &[lifetime]);
    let due = |world: &World| (world.server.poll_timeout().unwrap() - world.start).as_secs();
    assert_eq!(due(&world), 600);
    first.refresh(&mut world, 3600);
    assert_eq!(due(&world), 1210);
    first.refresh(&mut world, 0);
    assert_eq!(due(&world), 1210);
    world.server.shutdown(world.now);
    assert_eq!(world.server.poll_timeout(), None);
}
