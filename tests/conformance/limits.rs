//! Caps and the unauthenticated replies a source may have.

use hairpin::turn::DropReason;

use crate::wire::{self, ALLOCATE, BINDING, CREATE_PERMISSION, Msg, REFRESH, attr, raw};
use crate::world::{Client, Outcome, PEER, World, five_tuple};

fn capped(permissions: usize, channels: usize) -> (World, Client) {
    let mut world = World::with(|setup| {
        setup.config.limits.permissions_per_allocation = permissions;
        setup.config.limits.channels_per_allocation = channels;
    });
    let mut client = Client::at("198.51.100.1:4000");
    client.allocate(&mut world);
    (world, client)
}

fn peers(count: u32) -> Vec<wire::Attr> {
    (0..count)
        .map(|host| {
            let address = std::net::Ipv4Addr::from_bits(0x0808_0000 + host);
            wire::Attr::Xor(attr::XPA, (address, 9000).into())
        })
        .collect()
}

/// RFC 8656 §10.2
#[test]
fn permissions_beyond_the_cap_are_508() {
    let (mut world, mut client) = capped(3, 0);
    assert_eq!(client.permit(&mut world, &["8.8.8.1:1", "8.8.8.2:1", "8.8.8.3:1"]), 0);
    assert_eq!(client.permit(&mut world, &["8.8.8.4:1"]), 508);
    assert_eq!(client.permit(&mut world, &["8.8.8.1:1", "8.8.8.4:1"]), 508);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.4:1"), 508);
    let dropped = client.send(&mut world, "8.8.8.4:1", b"x").dropped();
    assert_eq!(dropped, DropReason::NoPermission);
    assert_eq!(client.permit(&mut world, &["8.8.8.2:9"]), 0, "those there are refreshed");
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.3:1"), 0);
}

/// RFC 8656 §10.2: expired permissions hold no place
#[test]
fn expired_permissions_do_not_count() {
    let (mut world, mut client) = capped(2, 0);
    assert_eq!(client.permit(&mut world, &["8.8.8.1:1", "8.8.8.2:1"]), 0);
    world.pass_secs(299);
    assert_eq!(client.permit(&mut world, &["8.8.8.3:1"]), 508);
    world.pass_secs(1);
    assert_eq!(client.permit(&mut world, &["8.8.8.3:1", "8.8.8.4:1"]), 0);
}

/// RFC 8656 §10.2: a request that finds no room refreshes nothing
#[test]
fn request_over_the_cap_is_atomic() {
    let (mut world, mut client) = capped(2, 0);
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    world.pass_secs(200);
    assert_eq!(client.permit(&mut world, &[PEER, "8.8.4.4:1", "8.8.4.5:1"]), 508);
    let dropped = client.send(&mut world, "8.8.4.4:1", b"x").dropped();
    assert_eq!(dropped, DropReason::NoPermission);
    world.pass_secs(100);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
}

/// The same address twice in one request is one permission.
#[test]
fn duplicate_peers_count_once() {
    let (mut world, mut client) = capped(1, 0);
    assert_eq!(client.permit(&mut world, &["8.8.8.8:1", "8.8.8.8:2", "8.8.8.8:1"]), 0);
}

/// Also all in one datagram, and again and again
#[test]
fn thousands_of_permissions_are_508_at_the_cap() {
    let (mut world, mut client) = capped(256, 256);
    for _ in 0..20 {
        assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers(5_000)), 508);
    }
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers(256)), 0);
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers(257)), 508);
    let (mut world, mut client) = capped(0, 0);
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers(2_000)), 0, "0 is no limit");
}

#[test]
fn channels_beyond_the_cap_are_508() {
    let (mut world, mut client) = capped(0, 3);
    for number in 0..3 {
        let peer = format!("8.8.8.8:{}", 1 + number);
        assert_eq!(client.bind(&mut world, 0x4000 + number, &peer), 0);
    }
    assert_eq!(client.bind(&mut world, 0x4003, "8.8.8.8:4"), 508);
    assert_eq!(client.bind(&mut world, 0x4002, "8.8.8.8:3"), 0, "a renewal finds its place");
    client.refresh(&mut world, 3600);
    world.pass_secs(600);
    assert_eq!(client.bind(&mut world, 0x4003, "8.8.8.8:4"), 0, "expired ones hold no place");
}

/// Without a cap all 4,096 numbers can be bound, and no more
#[test]
fn all_channel_numbers_can_be_bound() {
    let (mut world, mut client) = capped(0, 0);
    for number in 0x4000..=0x4FFF {
        let peer = format!("8.8.8.8:{}", number - 0x3FFF);
        assert_eq!(client.bind(&mut world, number, &peer), 0);
    }
    assert_eq!(client.bind(&mut world, 0x5000, "8.8.8.9:1"), 400);
}

fn limited(per_second: u32) -> World {
    World::with(|setup| setup.config.limits.unauthenticated_per_source = per_second)
}

/// How many of `count` packets from each of `sources` in turn are answered.
fn answered(world: &mut World, sources: &[&str], packet: &[u8], count: usize) -> usize {
    let mut answers = 0;
    for source in sources.iter().cycle().take(count) {
        match world.deliver(five_tuple(source), packet) {
            Outcome::Reply(_) => answers += 1,
            outcome => assert_eq!(outcome.dropped(), DropReason::RateLimited),
        }
    }
    answers
}

/// Who sends under other people's addresses gets little out of us for each of them.
#[test]
fn unauthenticated_replies_are_limited_for_each_source() {
    let packets = [
        Msg::new(BINDING, [1; 12]).finish(),
        Msg::new(BINDING, [1; 12]).attr(0x7F00, b"").finish(),
        Msg::new(ALLOCATE, [1; 12]).finish(),
        Msg::new(REFRESH, [1; 12]).attr(attr::USERNAME, b"alice").mi(b"x").finish(),
        Client::at("198.51.100.1:4000").request(REFRESH, &[]),
    ];
    for packet in packets {
        let mut world = limited(20);
        let ports = ["198.51.100.1:4000", "198.51.100.1:4001", "198.51.100.1:65535"];
        assert_eq!(answered(&mut world, &ports, &packet, 1000), 20, "ports share one budget");
        assert_eq!(answered(&mut world, &["192.0.2.9:4000"], &packet, 5), 5, "others have theirs");
        world.pass_secs(1);
        assert_eq!(answered(&mut world, &ports, &packet, 1000), 20);
    }
}

/// One budget for all kinds of unauthenticated replies together
#[test]
fn kinds_of_unauthenticated_replies_share_a_budget() {
    let mut world = limited(10);
    let source = ["198.51.100.1:4000"];
    let binding = Msg::new(BINDING, [1; 12]).finish();
    let allocate = Msg::new(ALLOCATE, [1; 12]).finish();
    assert_eq!(answered(&mut world, &source, &binding, 6), 6);
    assert_eq!(answered(&mut world, &source, &allocate, 6), 4);
}

/// An IPv6 host has a /64.
#[test]
fn ipv6_source_is_its_64_bit_prefix() {
    let mut world = limited(10);
    let packet = Msg::new(BINDING, [1; 12]).finish();
    let near = ["[2a00:1:2:3::1]:1000", "[2a00:1:2:3:ffff::9]:1000"];
    assert_eq!(answered(&mut world, &near, &packet, 100), 10);
    assert_eq!(answered(&mut world, &["[2a00:1:2:4::1]:1000"], &packet, 100), 10);
}

/// Who is authenticated is not slowed down by what strangers at the same address do.
#[test]
fn authenticated_requests_are_not_limited() {
    let mut world = limited(5);
    let mut client = Client::at("198.51.100.1:4000");
    client.allocate(&mut world);
    let packet = Msg::new(BINDING, [1; 12]).finish();
    answered(&mut world, &["198.51.100.1:9999"], &packet, 100);
    for _ in 0..100 {
        assert_eq!(client.permit(&mut world, &[PEER]), 0);
        assert_eq!(client.code(&mut world, REFRESH, &[raw(0x7F00, b"")]), 420);
    }
}
