//! What is due without anybody's word.

use super::*;

#[test]
fn connections_are_pinged_and_silent_ones_are_lost() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    world.pass(HEARTBEAT);
    assert_eq!((world.pings(alice), world.pings(bob)), (1, 1));
    world.hub.handle_control(bob, world.now);
    world.pass(HEARTBEAT);
    world.hub.handle_control(bob, world.now);
    assert_eq!((world.pings(alice), world.pings(bob)), (2, 2));
    world.pass(SILENCE - 2 * HEARTBEAT);
    assert_eq!(world.closed(alice), Some(CloseReason::Silent));
    assert_eq!(world.closed(bob), None);
    assert_eq!(world.hub.stats().lost_peers, 1);
}

#[test]
fn ice_servers_are_renewed_before_they_expire() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    let mut passed = Duration::ZERO;
    let renewed = loop {
        world.pass(Duration::from_secs(20));
        passed += Duration::from_secs(20);
        world.hub.handle_control(alice, world.now);
        if let Some(message) = world.maybe(alice) {
            break message;
        }
        assert!(passed < TTL, "not renewed");
    };
    assert_eq!(renewed["type"], "ice-servers");
    assert_eq!(renewed["payload"]["ttl"], 3600);
    assert!(passed >= TTL / 2, "{passed:?}");
}

#[test]
fn ice_servers_can_be_asked_for_but_not_all_the_time() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    world.say(alice, json!({ "type": "ice-servers" }));
    assert_eq!(world.next(alice)["payload"]["iceServers"][0]["username"], "guest from 192.0.2.1");
    world.authority.deny();
    world.say(alice, json!({ "type": "ice-servers" }));
    world.refused(alice, Problem::RateLimited);
    let bob = world.connect();
    world.say(bob, json!({ "type": "join", "from": "bob", "room": "r" }));
    world.refused(bob, Problem::RateLimited);
    assert_eq!(world.hub.stats().peers, 1);
}

#[test]
fn credentials_do_not_outlive_the_token() {
    let mut world = World::new(Config::default());
    let own = world.connect();
    world.say(own, join_with("alice *", None, Some("r")));
    world.clear();
    for _ in 0..100 {
        world.pass(Duration::from_secs(30));
        world.hub.handle_control(own, world.now);
    }
    world.clear();
    world.say(own, json!({ "type": "ice-servers" }));
    assert_eq!(world.next(own)["payload"]["ttl"], 600);
}

#[test]
fn shutting_down_says_goodbye_to_all_and_leaves_nothing() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let gone = world.joined("gone", "r");
    world.hub.disconnected(gone, CloseReason::Gone, world.now);
    world.hub.shut_down(world.now);
    assert_eq!(world.closed(alice), Some(CloseReason::Shutdown));
    assert_eq!(world.closed(bob), Some(CloseReason::Shutdown));
    assert!(world.said.is_empty(), "nobody has left: {:?}", world.said);
    world.pass(RESUME_WINDOW);
    world.clear();
    assert!(world.hub.is_empty(), "{:?}", world.hub);
}
