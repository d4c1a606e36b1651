//! What peers say to each other, and who hears it.

use super::*;

#[test]
fn the_plain_protocol_works_without_rooms() {
    let mut world = World::open();
    let (alice, bob) = (world.plain("alice"), world.plain("bob"));
    let sdp = json!({ "type": "offer", "sdp": "v=0" });
    world.say(alice, json!({ "type": "offer", "from": "alice", "to": "bob", "payload": sdp }));
    let expected = json!({ "type": "offer", "from": "alice", "to": "bob", "payload": sdp });
    assert_eq!(world.next(bob), expected);
    world.say(alice, json!({ "type": "candidate", "from": "alice", "to": "carol" }));
    let error = world.next(alice);
    assert_eq!(error["type"], "error");
    assert_eq!(error["from"], "server");
    assert_eq!(error["to"], "alice");
    assert_eq!(error["payload"]["message"], "Target peer not online");
    assert_eq!(error["payload"]["target"], "carol");
}

#[test]
fn from_is_the_senders_own_id_whatever_it_says() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    for from in [json!("bob"), json!("server"), json!("carol"), json!(null)] {
        world.say(alice, json!({ "type": "x", "from": from, "to": "bob" }));
        assert_eq!(world.next(bob)["from"], "alice");
        world.say(alice, json!({ "type": "x", "from": from, "room": "r" }));
        assert_eq!(world.next(bob)["from"], "alice");
    }
}

#[test]
fn nobody_can_sound_like_the_server() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    for kind in ["bye", "error", "peer-joined", "peer-left", "peers", "pong", "welcome"] {
        world.say(alice, json!({ "type": kind, "to": "bob", "payload": {} }));
        world.refused(alice, Problem::ReservedType);
    }
    assert!(world.is_quiet(bob));
}

#[test]
fn a_broadcast_reaches_all_others_in_the_room_and_nobody_else() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    let (bob, carol) = (world.joined("bob", "r"), world.joined("carol", "r"));
    let dave = world.joined("dave", "s");
    world.clear();
    world.say(alice, json!({ "type": "x", "room": "r", "payload": 1 }));
    for reached in [bob, carol] {
        let message = world.next(reached);
        assert_eq!(message, json!({ "type": "x", "from": "alice", "room": "r", "payload": 1 }));
    }
    assert!(world.is_quiet(alice) && world.is_quiet(dave));
}

#[test]
fn peers_without_a_place_in_common_are_not_there_for_each_other() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    let bob = world.joined("bob", "s");
    let carol = world.plain("carol");
    for to in ["bob", "carol", "nobody"] {
        world.say(alice, json!({ "type": "x", "to": to }));
        world.refused(alice, Problem::PeerOffline);
    }
    world.say(carol, json!({ "type": "x", "to": "alice" }));
    world.refused(carol, Problem::PeerOffline);
    assert!(world.is_quiet(bob));
    world.say(alice, json!({ "type": "x", "room": "s" }));
    world.refused(alice, Problem::RoomUnavailable);
    world.say(alice, json!({ "type": "x", "room": "r", "to": "bob" }));
    world.refused(alice, Problem::PeerOffline);
}

#[test]
fn bad_messages_are_told_and_the_connection_stays() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    for (text, problem) in [
        ("nonsense", Problem::Malformed),
        ("{}", Problem::Malformed),
        (r#"{"type":"x","to":{}}"#, Problem::Malformed),
        (r#"{"type":"join","room":"r","payload":7}"#, Problem::Malformed),
        (r#"{"type":"x"}"#, Problem::MissingTarget),
        (r#"{"type":"x","to":""}"#, Problem::MissingTarget),
    ] {
        world.hub.handle_text(alice, text, world.now);
        world.refused(alice, problem);
    }
    let stranger = world.connect();
    for kind in ["offer", "leave", "ice-servers"] {
        world.say(stranger, json!({ "type": kind, "to": "alice" }));
        world.refused(stranger, Problem::NotJoined);
    }
    assert_eq!(world.hub.stats().connections, 2);
}

#[test]
fn a_payload_of_null_is_carried_as_null() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    for to in ["to", "room"] {
        let target = if to == "to" { "bob" } else { "r" };
        world.say(alice, json!({ "type": "candidate", to: target, "payload": null }));
        let expected = json!({
            "type": "candidate", "from": "alice", to: target, "payload": null,
        });
        assert_eq!(world.next(bob), expected);
    }
    let plain = world.connect();
    world.say(plain, json!({ "type": "join", "from": "carol", "payload": null }));
    assert_eq!(world.next(plain)["type"], "welcome");
}

/// Clients of the introductory protocol hang up so, and know of no `peer-left`.
#[test]
fn a_leave_with_a_target_reaches_it_and_then_is_one() {
    let mut world = World::open();
    let (alice, bob) = (world.plain("alice"), world.plain("bob"));
    world.say(alice, json!({ "type": "leave", "from": "alice", "to": "bob", "payload": 7 }));
    let expected = json!({ "type": "leave", "from": "alice", "to": "bob", "payload": 7 });
    assert_eq!(world.next(bob), expected);
    world.say(bob, json!({ "type": "x", "to": "alice" }));
    world.refused(bob, Problem::PeerOffline);

    let (carol, dave) = (world.joined("carol", "r"), world.joined("dave", "r"));
    world.say(carol, json!({ "type": "leave", "to": "dave", "room": "r" }));
    assert_eq!(world.next(dave)["type"], "leave");
    assert_eq!(world.next(dave)["type"], "peer-left");
    world.say(dave, json!({ "type": "leave", "to": "nobody" }));
    world.refused(dave, Problem::PeerOffline);
    world.say(dave, json!({ "type": "x", "room": "r" }));
    world.refused(dave, Problem::NotJoined);
}

#[test]
fn a_ping_is_answered_with_what_it_holds() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    world.say(alice, json!({ "type": "ping", "payload": [7] }));
    let pong = world.next(alice);
    assert_eq!((&pong["type"], &pong["payload"]), (&json!("pong"), &json!([7])));
}
