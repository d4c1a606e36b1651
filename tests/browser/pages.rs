//! The pages in real browsers: what they show, and that they can be looked at.

use serde_json::{Value, json};

use super::browser::Browser;
use super::site::{HOST, SCREENSHOTS, Site};
use super::{Way, patiently};

#[tokio::test]
async fn test_page_finds_every_transport_working() {
    patiently(once::test_page_finds_every_transport_working).await;
}

#[tokio::test]
async fn test_page_names_the_cause_where_credentials_are_wrong() {
    patiently(once::test_page_names_the_cause_where_credentials_are_wrong).await;
}

#[tokio::test]
async fn test_page_finds_typed_urls_working_with_the_right_credentials() {
    patiently(once::test_page_finds_typed_urls_working).await;
}

#[tokio::test]
async fn test_page_says_that_nobody_answers_at_a_closed_port() {
    patiently(once::test_page_says_that_nobody_answers).await;
}

#[tokio::test]
async fn first_page_says_how_the_server_is_and_sees_when_it_is_well_again() {
    patiently(once::health).await;
}

#[tokio::test]
async fn first_page_shows_health_servers_and_bandwidth_while_others_relay() {
    patiently(once::first_page).await;
}

#[tokio::test]
async fn figures_that_are_missing_once_are_no_peak() {
    patiently(once::gap).await;
}

#[tokio::test]
async fn nat_is_told_only_from_what_two_servers_say_of_one_address() {
    patiently(once::nat).await;
}

#[tokio::test]
async fn signaling_keeps_messages_gives_up_dead_sockets_and_ends_for_good() {
    patiently(once::signaling).await;
}

#[tokio::test]
async fn negotiation_is_perfect_and_says_again_what_was_lost() {
    patiently(once::negotiation).await;
}

#[tokio::test]
async fn pages_fit_a_desk_and_a_phone_by_day_and_by_night() {
    patiently(once::pages_fit_a_desk_and_a_phone_by_day_and_by_night).await;
}

/// One attempt each.
mod once {
    use super::*;

    pub(super) async fn test_page_finds_every_transport_working() {
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let Some(outcome) = site.drive(browser, "test", json!({})).await else { return };
            let results = outcome["results"].as_array().unwrap();
            assert_eq!(results.len(), 4, "STUN, and TURN over UDP, TCP and TLS: {outcome}");
            assert!(results.iter().all(|result| result["outcome"] == "works"), "{outcome}");
            assert_eq!(outcome["said"], "All 4 work.", "{outcome}");
            assert_eq!(outcome["faults"], json!([]), "{outcome}");
            for result in results {
                let url = result["url"].as_str().unwrap();
                assert_details(url, result["details"].as_str().unwrap());
            }
            assert_candidates(outcome["candidates"].as_array().unwrap());
            // This machine asks itself. Firefox hides which of the addresses are its own.
            let nat = outcome["nat"].as_str().unwrap();
            assert!(nat.contains("there is no NAT"), "{outcome}");
        }
    }

    /// What was measured, as a person reads it.
    fn assert_details(url: &str, details: &str) {
        let facts: Vec<_> = details.split(" · ").collect();
        let number = |fact: &str, start: &str, end: &str| -> f64 {
            let rest = fact.strip_prefix(start).unwrap_or_else(|| panic!("{url}: {details}"));
            rest.strip_suffix(end).unwrap_or_else(|| panic!("{url}: {details}")).parse().unwrap()
        };
        assert!(number(facts[0], "answered in ", " ms") >= 0.0, "{details}");
        if url.starts_with("stun:") {
            return assert!(matches!(facts[1..], [] | ["no NAT in between"]), "{details}");
        }
        let (median, p95) = facts[1].split_once(", 95 % under ").expect(details);
        let median = number(median, "round trip ", " ms");
        assert!(median > 0.0 && number(p95, "", " ms") >= median, "{details}");
        // The way is this machine, and what is lost is a handful.
        assert!(number(facts[2], "", " % lost") <= 20.0, "{details}");
        let (rate, unit) = facts[3].split_once(' ').expect(details);
        assert!(rate.parse::<f64>().unwrap() > 0.0, "{details}");
        assert!(["Mbit/s", "Gbit/s"].contains(&unit), "{details}");
    }

    /// One row for each relayed address, with the way to the relay and the URL it is from.
    fn assert_candidates(rows: &[Value]) {
        for way in [Way::Udp, Way::Tcp, Way::Tls] {
            let label = format!("udp, reached over {}", way.label());
            let row = rows.iter().find(|row| row[0] == "relay" && row[1] == *label);
            let row = row.unwrap_or_else(|| panic!("{label}: {rows:?}"));
            assert!(row[2].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");
            let scheme = if matches!(way, Way::Tls) { "turns:" } else { "turn:" };
            assert!(row[3].as_str().unwrap().starts_with(scheme), "{row}");
        }
        assert!(rows.iter().any(|row| row[0] == "host" && row[3] == "this machine"), "{rows:?}");
    }

    pub(super) async fn test_page_names_the_cause_where_credentials_are_wrong() {
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let port = site.server.turn().port();
            let urls = [Way::Udp, Way::Tcp, Way::Tls].map(|way| way.url_at(HOST, port));
            let typed = json!({ "urls": urls, "username": "alice", "credential": "guessed" });
            let Some(outcome) = site.drive(browser, "test", json!({ "typed": typed })).await else {
                return;
            };
            let results = outcome["results"].as_array().unwrap();
            assert_eq!(results.len(), 3, "{outcome}");
            for result in results {
                assert_eq!(result["outcome"], "fails", "{outcome}");
                let details = result["details"].as_str().unwrap();
                assert!(details.starts_with("401: wrong username or password"), "{outcome}");
            }
        }
    }

    pub(super) async fn test_page_finds_typed_urls_working() {
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let port = site.server.turn().port();
            let urls = [
                format!("stun:{HOST}:{port}"),
                Way::Udp.url_at(HOST, port),
                Way::Tcp.url_at(HOST, port),
                Way::Tls.url_at(HOST, port),
            ];
            let typed = json!({ "urls": urls, "username": "alice", "credential": "secret" });
            let Some(outcome) = site.drive(browser, "test", json!({ "typed": typed })).await else {
                return;
            };
            let results = outcome["results"].as_array().unwrap();
            assert_eq!(results.len(), urls.len(), "{outcome}");
            for (result, url) in results.iter().zip(&urls) {
                assert_eq!((&result["url"], &result["outcome"]), (&json!(url), &json!("works")));
                assert_details(url, result["details"].as_str().unwrap());
            }
            assert_eq!(outcome["said"], "All 4 work.", "{outcome}");
            assert_eq!(outcome["faults"], json!([]), "{outcome}");
        }
    }

    pub(super) async fn test_page_says_that_nobody_answers() {
        // Bound, so that nobody else is there; TCP is refused, for nobody listens.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = closed.local_addr().unwrap().port();
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let mut urls = vec![Way::Udp.url_at(HOST, site.server.turn().port())];
            let ways = [Way::Udp, Way::Tcp, Way::Tls];
            urls.extend(ways.map(|way| way.url_at(HOST, port)));
            let typed = json!({ "urls": urls, "username": "alice", "credential": "secret" });
            let Some(outcome) = site.drive(browser, "test", json!({ "typed": typed })).await else {
                return;
            };
            let [open, closed @ ..] = &outcome["results"].as_array().unwrap()[..] else {
                panic!("{outcome}");
            };
            assert_eq!(open["outcome"], "works", "{outcome}");
            for (result, way) in closed.iter().zip(["UDP to", "TCP to", "the port is closed"]) {
                assert_eq!(result["outcome"], "fails", "{outcome}");
                let details = result["details"].as_str().unwrap();
                let expected = format!("701: no answer from {HOST}:{port}: it is down, ");
                assert!(details.starts_with(&expected) && details.contains(way), "{outcome}");
            }
            assert_eq!(outcome["said"], "3 of 4 do not work.", "{outcome}");
            assert_eq!(outcome["faults"], json!([]), "{outcome}");
        }
    }

    pub(super) async fn health() {
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let Some(outcome) = site.drive(browser, "health", json!({})).await else { return };
            let expected = json!([
                ["well.", "status good"],
                ["not well: a part of it does not answer.", "status bad"],
                ["well, and takes no new clients: it is about to stop.", "status wait"],
                ["not reachable.", "status bad"],
                ["not reachable.", "status bad"],
            ]);
            assert_eq!(outcome["said"], expected, "{outcome}");
            assert_eq!(outcome["faults"], json!([]), "{outcome}");
        }
    }

    pub(super) async fn first_page() {
        let site = Site::start().await;
        let more = json!({ "directory": SCREENSHOTS });
        let Some(outcome) = site.drive(Browser::Chromium, "index", more).await else { return };
        let said = |id: &str| outcome["said"][id].as_str().unwrap();
        assert_eq!(said("health"), "well.", "{outcome}");
        let allocations = said("allocations").strip_suffix(" allocations").expect("several");
        assert!(allocations.parse::<u32>().unwrap() >= 2, "{outcome}");
        assert_eq!(said("ttl"), "The credentials are good for 60 minutes.", "{outcome}");
        let url = Way::Udp.url_at(HOST, site.server.turn().port());
        assert!(said("snippet").contains(&format!("\"{url}\"")), "{outcome}");
        assert!(said("peak").ends_with("bit/s") && !said("peak").starts_with('0'), "{outcome}");
        for line in outcome["points"].as_array().unwrap() {
            let points = line.as_array().unwrap();
            // The newest is at the right edge; none is outside, and not all lie on the ground.
            assert_eq!(points.last().unwrap()[0], 600.0, "{outcome}");
            let heights = points.iter().map(|point| point[1].as_f64().unwrap());
            assert!(heights.clone().all(|y| (0.0..=160.0).contains(&y)), "{outcome}");
            assert!(heights.clone().any(|y| y < 140.0), "see {SCREENSHOTS}: {outcome}");
        }
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
    }

    pub(super) async fn gap() {
        for browser in [Browser::Chromium, Browser::Firefox] {
            let site = Site::start().await;
            let Some(outcome) = site.drive(browser, "gap", json!({})).await else { return };
            let silent = "The server does not answer.";
            let expected = json!([false, silent, silent, silent]);
            assert_eq!(outcome["problems"], expected, "{outcome}");
            assert_eq!(outcome["peak"], "1.0 kbit/s", "nothing was relayed: {outcome}");
            assert_eq!(outcome["faults"], json!([]), "{outcome}");
        }
    }

    pub(super) async fn nat() {
        let site = Site::start().await;
        let Some(outcome) = site.drive(Browser::Chromium, "nat", json!({})).await else { return };
        for (case, expected) in [
            ("two addresses, each with a mapping", "the NAT keeps one mapping"),
            ("two mappings of one address", "this looks like a symmetric NAT"),
            ("one mapping, one server answers", "With a second STUN server that answers"),
            ("one mapping, one server by two names", "With a second STUN server that answers"),
            ("one mapping, two servers answer", "the NAT keeps one mapping"),
            ("two hidden addresses", "cannot tell whether it is a symmetric one"),
            ("one hidden address", "this looks like a symmetric NAT"),
            ("one hidden address, its own port", "there is no NAT in between, or one that keeps"),
            ("nobody answers", "No STUN server answered"),
            ("no NAT", "there is no NAT on the way"),
            ("nothing at all", "shows no candidates at all"),
        ] {
            assert!(outcome[case].as_str().unwrap().contains(expected), "{case}: {outcome}");
        }
    }

    pub(super) async fn signaling() {
        let site = Site::start().await;
        let outcome = site.drive(Browser::Chromium, "signaling", json!({})).await;
        let Some(outcome) = outcome else { return };
        assert_eq!(outcome["early"], json!(["join"]), "nothing before the welcome: {outcome}");
        let last: Vec<_> = (37..=100).collect();
        assert_eq!(outcome["kept"], json!(last), "so many, the last ones: {outcome}");
        assert_eq!(outcome["forgotten"], json!([102]), "{outcome}");
        assert_eq!(outcome["afterLeaving"], 3, "who has left does not come back: {outcome}");
        assert_eq!(outcome["answered"], 4, "a socket that answers is kept: {outcome}");
        assert_eq!(outcome["pings"], true, "{outcome}");
        let again = json!({
            "type": "join", "from": "me", "room": "room", "payload": { "secret": "s" },
        });
        assert_eq!(outcome["comesBackAs"], again, "{outcome}");
        assert_eq!(outcome["left"], "leave", "{outcome}");
    }

    pub(super) async fn negotiation() {
        let site = Site::start().await;
        let outcome = site.drive(Browser::Chromium, "negotiation", json!({})).await;
        let Some(outcome) = outcome else { return };
        let expected = json!({
            "duringAnswer": ["answer", "offer"],
            "taken": ["right", "right"],
            "another": [false, true, false],
            "offeredAgain": [["offer", 1], ["offer", 1]],
            "answeredAgain": [["answer", 7, "a"], ["answer", 7, "a"]],
            "restarted": true,
            "waits": 0,
            "speaks": ["offer", true],
        });
        assert_eq!(outcome, expected);
    }

    pub(super) async fn pages_fit_a_desk_and_a_phone_by_day_and_by_night() {
        let site = Site::start().await;
        let more = json!({ "directory": SCREENSHOTS });
        let Some(outcome) = site.drive(Browser::Chromium, "screenshots", more).await else {
            return;
        };
        assert_eq!(outcome, json!({ "wide": [], "faults": [] }), "see {SCREENSHOTS}");
    }
}
