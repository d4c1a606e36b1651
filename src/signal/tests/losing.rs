//! Lost connections: what is kept, and for how long.

use super::*;

#[test]
fn a_short_loss_is_no_leave_and_what_came_in_it_is_delivered() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let secret = world.secrets["alice"].clone();
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    world.pass(KEEP - Duration::from_millis(1));
    world.say(bob, json!({ "type": "x", "to": "alice", "payload": 1 }));
    world.say(bob, json!({ "type": "x", "room": "r", "payload": 2 }));
    assert!(world.is_quiet(bob));
    let back = world.connect();
    world.say(back, resume("alice", &secret));
    let welcome = world.next(back);
    assert_eq!(welcome["payload"]["resumed"], true);
    assert_eq!(welcome["payload"]["secret"], secret.as_str());
    assert_eq!(world.next(back)["payload"]["peers"][0]["id"], "bob");
    assert_eq!(world.next(back)["payload"], 1);
    assert_eq!(world.next(back)["payload"], 2);
    assert!(world.is_quiet(bob));
    world.say(bob, json!({ "type": "x", "to": "alice", "payload": 3 }));
    assert_eq!(world.next(back)["payload"], 3);
}

#[test]
fn a_message_nobody_comes_for_is_an_error_after_five_seconds() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    world.say(bob, json!({ "type": "x", "to": "alice" }));
    world.pass(KEEP - Duration::from_millis(1));
    assert!(world.is_quiet(bob));
    world.pass(Duration::from_millis(1));
    let error = world.next(bob);
    assert_eq!(error["payload"]["code"], "peer-offline");
    assert_eq!(error["payload"]["target"], "alice");
    assert_eq!(world.hub.stats().kept_messages, 0);
}

#[test]
fn after_the_window_the_peer_has_left_and_the_id_is_free() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let secret = world.secrets["alice"].clone();
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    world.pass(RESUME_WINDOW - Duration::from_millis(1));
    assert!(world.is_quiet(bob));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.next(bob)["type"], "peer-left");
    let back = world.connect();
    world.say(back, resume("alice", &secret));
    let welcome = world.next(back);
    assert_eq!(welcome["payload"]["resumed"], false);
    assert_ne!(welcome["payload"]["secret"], secret.as_str());
}

#[test]
fn goodbye_and_abuse_are_leaves_at_once() {
    for reason in [CloseReason::Left, CloseReason::ProtocolError] {
        let mut world = World::open();
        let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
        world.hub.disconnected(alice, reason, world.now);
        assert_eq!(world.next(bob)["type"], "peer-left");
    }
}

#[test]
fn the_secret_takes_over_from_a_half_open_connection() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let secret = world.secrets["alice"].clone();
    let thief = world.connect();
    for secret in ["", "x", &secret[1..], &secret.to_uppercase()] {
        world.say(thief, resume("alice", secret));
        world.refused(thief, Problem::IdTaken);
    }
    world.say(thief, json!({ "type": "join", "from": "alice" }));
    world.refused(thief, Problem::IdTaken);
    let new = world.connect();
    world.say(new, resume("alice", &secret));
    assert_eq!(world.closed(alice), Some(CloseReason::Replaced));
    assert!(world.is_quiet(bob));
    world.clear();
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    world.say(bob, json!({ "type": "x", "to": "alice" }));
    assert_eq!(world.next(new)["type"], "x");
}

#[test]
fn where_it_is_configured_the_last_join_has_the_id() {
    let config = Config { open: true, replace: Replace::Always, ..Config::default() };
    let mut world = World::new(config);
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    let new = world.connect();
    world.say(new, json!({ "type": "join", "from": "alice", "room": "r" }));
    assert_eq!(world.closed(alice), Some(CloseReason::Replaced));
    assert_eq!(world.next(bob)["type"], "peer-left");
    assert_eq!(world.next(bob)["type"], "peer-joined");
    world.clear();
    world.say(bob, json!({ "type": "x", "to": "alice" }));
    assert_eq!(world.next(new)["type"], "x");
}

#[test]
fn so_many_messages_are_kept_and_the_next_is_refused() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    for _ in 0..KEPT_MESSAGES {
        world.say(bob, json!({ "type": "x", "to": "alice" }));
    }
    assert!(world.is_quiet(bob));
    world.say(bob, json!({ "type": "x", "to": "alice" }));
    world.refused(bob, Problem::PeerOffline);
    world.pass(RESUME_WINDOW);
    assert_eq!(world.hub.kept_bytes, 0);
}

#[test]
fn so_many_bytes_are_kept_and_the_next_are_refused() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    world.hub.disconnected(alice, CloseReason::Gone, world.now);
    let large = "x".repeat(KEPT_BYTES / 4);
    for _ in 0..3 {
        world.say(bob, json!({ "type": "x", "to": "alice", "payload": large }));
    }
    assert!(world.is_quiet(bob));
    world.say(bob, json!({ "type": "x", "to": "alice", "payload": large }));
    world.refused(bob, Problem::PeerOffline);
}

/// Of more lost peers than there is room for, each with less than it may have.
#[test]
fn so_many_bytes_are_kept_for_all_together_and_the_next_are_refused() {
    const LARGE: usize = KEPT_BYTES / 4 - 1000;
    let mut world = World::open();
    let bob = world.plain("bob");
    let lost: Vec<_> =
        (0..KEPT_BYTES_IN_ALL / (4 * LARGE) + 2).map(|at| format!("p{at}")).collect();
    for id in &lost {
        let own = world.plain(id);
        world.hub.disconnected(own, CloseReason::Gone, world.now);
    }
    let large = "x".repeat(LARGE);
    let mut kept = 0;
    for (at, id) in lost.iter().flat_map(|id| [id; 4]).enumerate() {
        // So that the sender may say it all.
        world.now += Duration::from_millis(10);
        world.say(bob, json!({ "type": "x", "to": id, "payload": large }));
        if world.is_quiet(bob) {
            assert_eq!(kept, at, "what came later is not kept instead");
            kept += 1;
        } else {
            world.refused(bob, Problem::PeerOffline);
        }
    }
    let bytes = world.hub.kept_bytes;
    assert!(bytes <= KEPT_BYTES_IN_ALL && bytes + LARGE + 1000 > KEPT_BYTES_IN_ALL, "{bytes}");
    assert_eq!(world.hub.stats().kept_messages, kept);
    let last = lost.last().unwrap();
    // With those that somebody comes for, or nobody in time, room for others is there again.
    let secret = world.secrets[&lost[0]].clone();
    let back = world.connect();
    let payload = json!({ "secret": secret });
    world.say(back, json!({ "type": "join", "from": lost[0], "payload": payload }));
    assert_eq!(world.next(back)["payload"]["resumed"], true);
    assert!((0..4).all(|_| world.next(back)["payload"] == large));
    world.say(bob, json!({ "type": "x", "to": last, "payload": large }));
    assert!(world.is_quiet(bob));
    world.pass(KEEP);
    assert_eq!((world.hub.kept_bytes, world.hub.stats().kept_messages), (0, 0));
}
