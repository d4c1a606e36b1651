//! Each rule of the hub, in virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TTL: Duration = Duration::from_secs(3600);

mod joining {
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
}

mod tokens {
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
}

mod speaking {
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
}

mod losing {
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
}

mod limits {
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
}

mod time {
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
        assert_eq!(
            world.next(alice)["payload"]["iceServers"][0]["username"],
            "guest from 192.0.2.1"
        );
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
}

#[test]
fn close_reasons_are_numbered_as_they_are_listed() {
    for (at, reason) in CloseReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at, "{reason:?}");
    }
}

/// A hub, its clock, and what it has said.
struct World {
    hub: Hub,
    authority: Arc<Paper>,
    now: Instant,
    said: Vec<(ConnectionId, Value)>,
    pings: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, CloseReason)>,
    secrets: std::collections::BTreeMap<String, String>,
}

/// Tokens that say what they grant: `user`, or `user room,room`. They are good for an hour.
#[derive(Default)]
struct Paper {
    denies: Mutex<bool>,
}

impl Paper {
    fn deny(&self) {
        *self.denies.lock().unwrap() = true;
    }
}

impl Authority for Paper {
    fn grant(&self, token: &str) -> Option<Grant> {
        let (user, rooms) = match token.split_once(' ') {
            _ if token == "bad" => return None,
            None => (token, Rooms::None),
            Some((user, "*")) => (user, Rooms::All),
            Some((user, list)) => (user, Rooms::Only(list.split(',').map(str::to_owned).collect())),
        };
        Some(Grant { user: user.to_owned(), rooms, valid_for: TTL })
    }

    fn ice_servers(&self, account: Account<'_>, at_most: Duration) -> Option<IceServers> {
        if *self.denies.lock().unwrap() {
            return None;
        }
        let user = match account {
            Account::User(user) => user.to_owned(),
            Account::Guest(source) => format!("guest from {source}"),
        };
        let list = json!([{ "urls": ["stun:h"], "username": user }]);
        Some(IceServers {
            json: serde_json::value::to_raw_value(&list).unwrap(),
            ttl: TTL.min(at_most),
        })
    }
}

impl World {
    fn new(config: Config) -> Self {
        let authority = Arc::new(Paper::default());
        Self {
            hub: Hub::new(config, Arc::clone(&authority) as Arc<dyn Authority>, [7; 32]),
            authority,
            now: epoch(),
            said: Vec::new(),
            pings: Vec::new(),
            closed: Vec::new(),
            secrets: Default::default(),
        }
    }

    fn open() -> Self {
        Self::new(Config { open: true, ..Config::default() })
    }

    fn connect(&mut self) -> ConnectionId {
        self.hub.connected(FAR, None, self.now).unwrap()
    }

    /// A peer in a room, with all that was said on the way heard.
    fn joined(&mut self, id: &str, room: &str) -> ConnectionId {
        // Many of them in a row are no abuse here.
        self.now += Duration::from_secs(1) / JOINS_PER_SECOND;
        let own = self.connect();
        self.say(own, json!({ "type": "join", "from": id, "room": room }));
        let welcome = self.next(own);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let secret = welcome["payload"]["secret"].as_str().unwrap().to_owned();
        self.secrets.insert(id.to_owned(), secret);
        assert_eq!(self.next(own)["type"], "peers");
        self.said.retain(|(_, message)| message["type"] != "peer-joined");
        own
    }

    /// A peer without a room.
    fn plain(&mut self, id: &str) -> ConnectionId {
        let own = self.connect();
        self.say(own, json!({ "type": "join", "from": id }));
        let welcome = self.next(own);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let secret = welcome["payload"]["secret"].as_str().unwrap().to_owned();
        self.secrets.insert(id.to_owned(), secret);
        own
    }

    fn say(&mut self, connection: ConnectionId, message: Value) {
        self.hub.handle_text(connection, &message.to_string(), self.now);
        self.listen();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.hub.handle_timeout(self.now);
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Send { to, text } => {
                    self.said.push((to, serde_json::from_str(&text).unwrap()));
                }
                Action::Ping { to } => self.pings.push(to),
                Action::Close { connection, reason, bye } => {
                    let bye: Value = serde_json::from_str(&bye).unwrap();
                    assert_eq!(bye["payload"]["code"], reason.code());
                    self.closed.push((connection, reason));
                }
            }
        }
    }

    fn maybe(&mut self, connection: ConnectionId) -> Option<Value> {
        self.listen();
        let at = self.said.iter().position(|(to, _)| *to == connection)?;
        Some(self.said.remove(at).1)
    }

    fn next(&mut self, connection: ConnectionId) -> Value {
        self.maybe(connection).expect("something was said")
    }

    fn refused(&mut self, connection: ConnectionId, problem: Problem) {
        let message = self.next(connection);
        assert_eq!(message["type"], "error", "{message}");
        assert_eq!(message["payload"]["code"], problem.code(), "{message}");
        assert!(self.is_quiet(connection));
    }

    fn is_quiet(&mut self, connection: ConnectionId) -> bool {
        self.listen();
        !self.said.iter().any(|(to, _)| *to == connection)
    }

    fn closed(&mut self, connection: ConnectionId) -> Option<CloseReason> {
        self.listen();
        self.closed.iter().find(|(own, _)| *own == connection).map(|&(_, reason)| reason)
    }

    fn pings(&self, connection: ConnectionId) -> usize {
        self.pings.iter().filter(|own| **own == connection).count()
    }

    fn clear(&mut self) {
        self.listen();
        self.said.clear();
    }
}

fn join_with(token: &str, id: Option<&str>, room: Option<&str>) -> Value {
    json!({ "type": "join", "from": id, "room": room, "payload": { "token": token } })
}

fn resume(id: &str, secret: &str) -> Value {
    json!({ "type": "join", "from": id, "room": "r", "payload": { "secret": secret } })
}

#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn epoch() -> Instant {
    Instant::now()
}
