//! Whoever wants too much.

use super::*;

#[test]
fn whoever_says_too_much_is_closed() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    let bob = world.joined("bob", "r");
    world.clear();
    for _ in 0..MESSAGE_BURST + 1 {
        world.say(alice, json!({ "type": "ping" }));
    }
    assert_eq!(world.closed(alice), Some(CloseReason::RateLimited));
    assert_eq!(world.next(bob)["type"], "peer-left");
    assert_eq!(world.closed(bob), None);
}

#[test]
fn pings_of_the_protocol_below_count_too() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    for _ in 0..MESSAGE_BURST + 1 {
        world.hub.handle_control(alice, world.now);
    }
    assert_eq!(world.closed(alice), Some(CloseReason::RateLimited));
}

#[test]
fn a_steady_talker_is_not_closed() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    for _ in 0..5000 {
        world.pass(Duration::from_secs(1) / MESSAGES_PER_SECOND);
        world.say(alice, json!({ "type": "ping" }));
        world.clear();
    }
    assert_eq!(world.hub.stats().connections, 1);
}

/// A room's name is all it takes to get in, so names must not be tried by the thousand.
#[test]
fn joins_are_dear() {
    let mut world = World::open();
    let own = world.connect();
    let tried = (0..1000)
        .take_while(|room| {
            world.say(own, json!({ "type": "join", "room": format!("{room}") }));
            world.say(own, json!({ "type": "leave" }));
            world.closed(own).is_none()
        })
        .count();
    assert!(tried < (MESSAGE_BURST / JOIN_COST) as usize, "{tried}");
}

#[test]
fn joins_are_counted_by_source_over_all_connections() {
    let mut world = World::open();
    let mut admitted = 0;
    for _ in 0..200 {
        let own = world.connect();
        world.say(own, json!({ "type": "join" }));
        admitted += usize::from(world.next(own)["type"] == "welcome");
    }
    assert_eq!(admitted, JOINS_PER_SECOND as usize * 5);
}

#[test]
fn connections_are_counted_by_source_and_ipv6_by_network() {
    let mut world = World::open();
    let of = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (source, same, other) in [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
    ] {
        let mut all = Vec::new();
        for _ in 0..CONNECTIONS_PER_SOURCE {
            all.push(world.hub.connected(of(source), None, world.now).unwrap());
        }
        let refused = world.hub.connected(of(same), None, world.now);
        assert_eq!(refused, Err(Refused::SourceFull));
        assert!(world.hub.connected(of(other), None, world.now).is_ok());
        world.hub.disconnected(all[0], CloseReason::Left, world.now);
        assert!(world.hub.connected(of(source), None, world.now).is_ok());
    }
}

#[test]
fn there_is_a_last_connection() {
    let mut world = World::open();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for _ in 0..CONNECTIONS {
        world.hub.connected(loopback, None, world.now).unwrap();
    }
    assert_eq!(world.hub.connected(FAR, None, world.now), Err(Refused::Full));
    world.pass(JOIN_DEADLINE);
    assert!(world.hub.connected(FAR, None, world.now).is_ok());
}

#[test]
fn a_slow_reader_is_closed_and_may_come_back() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let secret = world.secrets["alice"].clone();
    world.hub.overflowed(alice, world.now);
    assert_eq!(world.closed(alice), Some(CloseReason::Slow));
    assert!(world.is_quiet(bob));
    let back = world.connect();
    world.say(back, resume("alice", &secret));
    assert_eq!(world.next(back)["payload"]["resumed"], true);
}
