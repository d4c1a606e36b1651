//! What a token lets in, and where.

use super::*;

#[test]
fn without_a_token_nobody_joins() {
    let mut world = World::new(Config::default());
    let own = world.connect();
    for payload in [json!({}), json!({ "token": "bad" })] {
        world.say(own, json!({ "type": "join", "from": "alice", "payload": payload }));
        world.refused(own, Problem::Unauthorized);
    }
}

#[test]
fn a_token_gives_its_user_an_id_and_rooms() {
    let mut world = World::new(Config::default());
    for (wish, id) in [(Some("alice"), "alice"), (Some("alice#phone"), "alice#phone")] {
        let own = world.connect();
        world.say(own, join_with("alice r,s", wish, Some("r")));
        assert_eq!(world.next(own)["payload"]["id"], id);
    }
    let own = world.connect();
    world.say(own, join_with("alice r,s", None, Some("s")));
    let id = world.next(own)["payload"]["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("alice#") && id.len() > 20, "{id}");
    let own = world.connect();
    for id in ["bob", "alic", "alice2", "alicephone", "#alice"] {
        world.say(own, join_with("alice r,s", Some(id), Some("r")));
        world.refused(own, Problem::IdForbidden);
    }
}

/// Whoever asks learns nothing from the answer but that it is not for them.
#[test]
fn forbidden_and_full_rooms_answer_alike() {
    let mut world = World::new(Config::default());
    for peer in 0..PEERS_PER_ROOM {
        let own = world.connect();
        world.say(own, join_with("crowd full", Some(&format!("crowd#{peer}")), Some("full")));
    }
    world.clear();
    let mut answers = Vec::new();
    for (token, room) in [("alice full", "full"), ("alice r", "full"), ("alice r", "unknown")] {
        let own = world.connect();
        world.say(own, join_with(token, Some("alice"), Some(room)));
        answers.push(world.next(own));
    }
    let own = world.connect();
    world.say(own, join_with("bob r", Some("bob"), Some("r")));
    world.clear();
    for room in ["full", "unknown"] {
        world.say(own, json!({ "type": "x", "room": room }));
        let mut answer = world.next(own);
        assert_eq!(answer.as_object_mut().unwrap().remove("to"), Some(json!("bob")));
        answers.push(answer);
    }
    assert_eq!(answers[0]["payload"]["code"], "room-unavailable");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn joining_without_a_room_needs_a_token_without_rooms() {
    let mut world = World::new(Config::default());
    let own = world.connect();
    world.say(own, join_with("alice r", Some("alice"), None));
    world.refused(own, Problem::RoomUnavailable);
    world.say(own, join_with("alice", Some("alice"), Some("r")));
    world.refused(own, Problem::RoomUnavailable);
    world.say(own, join_with("alice", Some("alice"), None));
    assert_eq!(world.next(own)["type"], "welcome");
}

#[test]
fn a_token_that_came_with_the_connection_is_enough() {
    let mut world = World::new(Config::default());
    let grant = world.authority.grant("alice *");
    let own = world.hub.connected(FAR, grant, world.now).unwrap();
    world.say(own, json!({ "type": "join", "room": "any" }));
    assert_eq!(world.next(own)["type"], "welcome");
}

#[test]
fn when_the_token_is_over_so_is_the_connection_unless_it_is_renewed() {
    let mut world = World::new(Config::default());
    let (one, other) = (world.connect(), world.connect());
    world.say(one, join_with("alice *", Some("alice"), Some("r")));
    world.say(other, join_with("bob *", Some("bob"), Some("r")));
    world.clear();
    for _ in 0..119 {
        world.pass(Duration::from_secs(30));
        world.hub.handle_control(one, world.now);
        world.hub.handle_control(other, world.now);
    }
    world.say(other, join_with("bob *", Some("bob"), Some("r")));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.closed(one), Some(CloseReason::TokenExpired));
    assert_eq!(world.closed(other), None);
    // With a token that is good it is as if nothing had been; a call need not end for it.
    assert!(world.said.iter().all(|(_, message)| message["type"] != "peer-left"));
    world.clear();
    world.hub.handle_control(other, world.now);
    world.pass(RESUME_WINDOW);
    assert_eq!(world.next(other)["type"], "peer-left");
}

#[test]
fn another_users_token_does_not_renew() {
    let mut world = World::new(Config::default());
    let own = world.connect();
    world.say(own, join_with("alice *", Some("alice"), Some("r")));
    world.clear();
    world.say(own, join_with("bob *", None, Some("r")));
    world.refused(own, Problem::IdForbidden);
}

#[test]
fn a_token_for_fewer_rooms_ends_the_stay_in_the_others() {
    let mut world = World::new(Config::default());
    let (own, other) = (world.connect(), world.connect());
    world.say(own, join_with("alice *", Some("alice"), Some("r")));
    world.say(own, join_with("alice *", Some("alice"), Some("s")));
    world.say(other, join_with("bob *", Some("bob"), Some("r")));
    world.clear();
    world.say(own, join_with("alice s", Some("alice"), Some("s")));
    assert_eq!(world.next(other)["type"], "peer-left");
    world.clear();
    world.say(own, json!({ "type": "x", "room": "r" }));
    world.refused(own, Problem::RoomUnavailable);
}
