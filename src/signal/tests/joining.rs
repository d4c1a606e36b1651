//! Coming and going.

use super::*;

#[test]
fn a_welcome_has_id_secret_and_ice_servers() {
    let mut world = World::open();
    let alice = world.connect();
    world.say(alice, json!({ "type": "join", "from": "alice", "room": "r" }));
    let welcome = world.next(alice);
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["from"], "server");
    assert_eq!(welcome["to"], "alice");
    let payload = &welcome["payload"];
    assert_eq!(payload["id"], "alice");
    assert_eq!(
        payload["iceServers"],
        json!([{ "urls": ["stun:h"], "username": "guest from 192.0.2.1" }])
    );
    assert_eq!(payload["ttl"], 3600);
    assert_eq!(payload["heartbeat"], 25);
    assert_eq!(payload["resumed"], false);
    assert_eq!(payload["secret"].as_str().unwrap().len(), 22);
    let peers = world.next(alice);
    assert_eq!(
        peers,
        json!({ "type": "peers", "from": "server", "room": "r", "payload": { "peers": [] } })
    );
}

#[test]
fn an_id_that_is_not_wished_for_is_random() {
    let mut world = World::open();
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let own = world.connect();
            world.say(own, json!({ "type": "join" }));
            world.next(own)["payload"]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(ids[0].len() == 22 && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn exactly_one_of_two_peers_is_polite() {
    let mut world = World::open();
    for (first, second) in [("a", "b"), ("d", "c")] {
        let one = world.joined(first, "r");
        let other = world.connect();
        world.say(other, json!({ "type": "join", "from": second, "room": "r" }));
        let told = world.next(one);
        assert_eq!(told["type"], "peer-joined");
        assert_eq!(told["payload"]["id"], second);
        world.next(other);
        let peers = world.next(other);
        let seen = peers["payload"]["peers"].as_array().unwrap();
        let entry = seen.iter().find(|peer| peer["id"] == first).unwrap();
        let polite = [&told["payload"]["polite"], &entry["polite"]];
        assert!(polite.contains(&&json!(true)) && polite.contains(&&json!(false)));
        world.clear();
    }
}

#[test]
fn what_a_peer_tells_about_itself_reaches_the_room() {
    let mut world = World::open();
    let alice = world.connect();
    let meta = json!({ "name": "Alice" });
    world.say(
        alice,
        json!({ "type": "join", "from": "a", "room": "r", "payload": { "meta": meta } }),
    );
    world.clear();
    let bob = world.connect();
    world.say(bob, json!({ "type": "join", "from": "b", "room": "r" }));
    world.next(bob);
    assert_eq!(world.next(bob)["payload"]["peers"][0]["meta"], meta);

    let long = "x".repeat(MAX_META_BYTES);
    let carol = world.connect();
    world.say(
        carol,
        json!({ "type": "join", "from": "c", "room": "r", "payload": { "meta": long } }),
    );
    world.refused(carol, Problem::Malformed);
}

#[test]
fn the_name_of_the_server_is_no_peers() {
    let mut world = World::open();
    let own = world.connect();
    world.say(own, json!({ "type": "join", "from": "server" }));
    world.refused(own, Problem::IdForbidden);
}

#[test]
fn a_second_join_adds_a_room_and_keeps_the_id() {
    let mut world = World::open();
    let alice = world.joined("alice", "r");
    world.say(alice, json!({ "type": "join", "from": "alice", "room": "s" }));
    assert_eq!(world.next(alice)["room"], "s");
    world.say(alice, json!({ "type": "join", "from": "bob", "room": "s" }));
    world.refused(alice, Problem::IdForbidden);
}

#[test]
fn a_peer_may_be_in_so_many_rooms_and_a_room_hold_so_many_peers() {
    let mut world = World::open();
    let own = world.joined("own", "room-0");
    for room in 1..ROOMS_PER_CONNECTION {
        world.say(own, json!({ "type": "join", "room": format!("room-{room}") }));
        assert_eq!(world.next(own)["type"], "peers");
    }
    world.say(own, json!({ "type": "join", "room": "one-more" }));
    world.refused(own, Problem::TooManyRooms);

    for peer in 0..PEERS_PER_ROOM {
        world.joined(&format!("p{peer}"), "full");
    }
    let late = world.connect();
    world.say(late, json!({ "type": "join", "from": "late", "room": "full" }));
    world.refused(late, Problem::RoomUnavailable);
    assert_eq!(world.hub.stats().peers, PEERS_PER_ROOM + 1);
}

#[test]
fn whoever_does_not_join_is_closed() {
    let mut world = World::open();
    let own = world.connect();
    world.pass(JOIN_DEADLINE);
    assert_eq!(world.closed(own), Some(CloseReason::NotJoined));
    assert!(world.hub.is_empty());
}

#[test]
fn leaving_a_room_tells_the_others_and_leaving_all_frees_the_id() {
    let mut world = World::open();
    let (alice, bob) = (world.joined("alice", "r"), world.joined("bob", "r"));
    world.say(alice, json!({ "type": "leave", "room": "r" }));
    let expected = json!({
        "type": "peer-left", "from": "server", "room": "r", "payload": { "id": "alice" },
    });
    assert_eq!(world.next(bob), expected);
    world.say(alice, json!({ "type": "leave", "room": "r" }));
    world.refused(alice, Problem::RoomUnavailable);
    world.say(alice, json!({ "type": "leave" }));
    world.say(alice, json!({ "type": "x", "room": "r" }));
    world.refused(alice, Problem::NotJoined);
    let other = world.connect();
    world.say(other, json!({ "type": "join", "from": "alice" }));
    assert_eq!(world.next(other)["type"], "welcome");
}
