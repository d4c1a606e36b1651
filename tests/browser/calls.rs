//! Calls in real browsers: what the two see of each other, and what may come in between.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use hairpin::config::Config;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::browser::Browser;
use super::common::scrape;
use super::site::{HOST, Site, drive};
use super::{Way, assert_went, patiently};

const JWT_SECRET: &str = "a secret of thirty-two bytes, or more";

#[tokio::test]
async fn chromium_calls_over_relays_reached_by_udp() {
    calls(Browser::Chromium, Way::Udp).await;
}

#[tokio::test]
async fn chromium_calls_over_relays_reached_by_tcp() {
    calls(Browser::Chromium, Way::Tcp).await;
}

#[tokio::test]
async fn chromium_calls_over_relays_reached_by_tls() {
    calls(Browser::Chromium, Way::Tls).await;
}

#[tokio::test]
async fn firefox_calls_over_relays_reached_by_udp() {
    calls(Browser::Firefox, Way::Udp).await;
}

#[tokio::test]
async fn firefox_calls_over_relays_reached_by_tcp() {
    calls(Browser::Firefox, Way::Tcp).await;
}

#[tokio::test]
async fn firefox_calls_over_relays_reached_by_tls() {
    calls(Browser::Firefox, Way::Tls).await;
}

#[tokio::test]
async fn chromium_calls_directly_and_over_the_relay_as_soon_as_wished() {
    patiently(|| once::direct(Browser::Chromium)).await;
}

#[tokio::test]
async fn firefox_calls_directly_and_over_the_relay_as_soon_as_wished() {
    patiently(|| once::direct(Browser::Firefox)).await;
}

#[tokio::test]
async fn third_one_is_told_that_two_talk_and_is_called_when_one_of_them_leaves() {
    patiently(|| once::without_faults(Browser::Chromium, "third")).await;
}

#[tokio::test]
async fn whoever_comes_back_is_called_though_a_ghost_is_in_the_room() {
    patiently(|| once::without_faults(Browser::Chromium, "ghost")).await;
}

#[tokio::test]
async fn chromium_calls_though_offers_and_answers_were_lost_with_a_socket() {
    patiently(|| once::lost(Browser::Chromium)).await;
}

#[tokio::test]
async fn firefox_calls_though_offers_and_answers_were_lost_with_a_socket() {
    patiently(|| once::lost(Browser::Firefox)).await;
}

#[tokio::test]
async fn call_goes_on_while_the_server_is_replaced_by_one_that_knows_nobody() {
    patiently(once::restart).await;
}

#[tokio::test]
async fn call_goes_on_though_the_server_no_longer_takes_the_token() {
    patiently(once::cut_off).await;
}

#[tokio::test]
async fn call_goes_on_though_the_other_one_is_said_to_have_left_the_room() {
    patiently(once::unannounced).await;
}

#[tokio::test]
async fn microphone_and_camera_are_off_and_on_as_the_buttons_say() {
    patiently(once::buttons).await;
}

#[tokio::test]
async fn token_of_the_address_is_not_in_the_link_and_a_typed_one_wins() {
    patiently(once::token).await;
}

#[tokio::test]
async fn introductory_protocol_alone_makes_a_call_with_a_room_and_without() {
    patiently(once::introductory_protocol).await;
}

async fn calls(browser: Browser, way: Way) {
    patiently(move || once::call(browser, way)).await;
}

/// One attempt each.
mod once {
    use super::*;

    pub(super) async fn call(browser: Browser, way: Way) {
        let site = Site::start().await;
        let more = json!({ "transport": way.label() });
        let Some(outcome) = site.drive(browser, "call", more).await else { return };
        let by = way.label().to_uppercase();
        let expected = format!("through the relay (relay to relay, reached over {by})");
        assert_eq!(outcome["ways"], json!([expected, expected]), "{outcome}");
        assert_eq!(outcome["states"], json!(["connected", "connected"]), "{outcome}");
        assert_eq!(outcome["problems"], json!(["", ""]), "{outcome}");
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
        assert_eq!(outcome["invitation"], "You are invited to a call", "{outcome}");
        assert_went(way, &scrape(site.server.http()).await);
    }

    pub(super) async fn without_faults(browser: Browser, scenario: &'static str) {
        let site = Site::start().await;
        let Some(outcome) = site.drive(browser, scenario, json!({})).await else { return };
        assert_eq!(outcome, json!({ "faults": [] }));
    }

    pub(super) async fn direct(browser: Browser) {
        let site = Site::start().await;
        let Some(outcome) = site.drive(browser, "direct", json!({})).await else { return };
        let way = outcome["way"].as_str().unwrap();
        let is_direct = way.starts_with("direct (");
        assert!(is_direct || matches!(browser, Browser::Firefox), "{outcome}");
        for direction in ["receiving", "sending"] {
            let rate = outcome[direction].as_str().unwrap();
            let (number, unit) = rate.split_once(' ').unwrap();
            assert!(number.parse::<f64>().unwrap() > 0.0, "{outcome}");
            assert!(["kbit/s", "Mbit/s"].contains(&unit), "{outcome}");
        }
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
        let metrics = scrape(site.server.http()).await;
        assert!(metrics.sum("hairpin_relay_bytes_total") > 0.0, "in the end over the relay");
    }

    pub(super) async fn lost(browser: Browser) {
        let site = Site::start().await;
        let Some(outcome) = site.drive(browser, "lost", json!({})).await else { return };
        assert_eq!(outcome, json!({ "problems": ["", ""], "faults": [] }));
    }

    pub(super) async fn restart() {
        let site = Site::start().await;
        let outcome = site.drive_restarting(Browser::Chromium, "restart", json!({}), |_| {}).await;
        let Some(outcome) = outcome else { return };
        for said in outcome["said"].as_array().unwrap() {
            let is_calm = said.as_array().unwrap().iter().all(|said| said == "Connected.");
            assert!(is_calm, "nobody left, and nothing was dialled: {outcome}");
        }
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
    }

    pub(super) async fn unannounced() {
        let site = Site::start().await;
        let outcome = site.drive(Browser::Chromium, "unannounced", json!({})).await;
        let Some(outcome) = outcome else { return };
        assert_eq!(outcome, json!({ "said": "Connected.", "shared": true, "faults": [] }));
    }

    pub(super) async fn buttons() {
        let site = Site::start().await;
        let outcome = site.drive(Browser::Chromium, "buttons", json!({})).await;
        let Some(outcome) = outcome else { return };
        assert_eq!(outcome["off"], json!([[false, "true"], [false, "true"]]), "{outcome}");
        assert_eq!(outcome["on"], json!([[true, "false"], [true, "false"]]), "{outcome}");
        assert!(outcome["bright"][0].as_u64() > Some(100), "{outcome}");
        // Where the focus was is no longer there, each time.
        assert_eq!(outcome["focus"], json!(["meeting", "enter"]), "{outcome}");
        assert_eq!(outcome["shared"], true, "who is left can invite again: {outcome}");
        let copied = outcome["copied"].as_str().unwrap();
        assert!(copied.contains("/call#"), "what cannot be copied is selected: {outcome}");
        assert_eq!(outcome["forgotten"], "–", "{outcome}");
        assert_eq!(outcome["problem"], "", "{outcome}");
        assert_eq!(outcome["same"], true, "the link still leads here: {outcome}");
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
    }

    /// Takes nobody without a token that `secret` has signed.
    fn close(config: &mut Config, secret: &str) {
        let signaling = config.http.signaling.as_mut().unwrap();
        signaling.hub.open = false;
        signaling.keys.add_secret(secret.as_bytes());
    }

    fn token_for_any_room() -> String {
        let exp = hairpin::net::clock::now().unix_secs + 3600;
        let claims = json!({ "sub": "alice", "rooms": ["*"], "exp": exp });
        let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
        encode(&Header::default(), &claims, &key).unwrap()
    }

    pub(super) async fn cut_off() {
        let site = Site::start_with(|config| close(config, JWT_SECRET)).await;
        let more = json!({ "token": token_for_any_room() });
        let another = |config: &mut Config| close(config, "another secret of thirty-two bytes");
        let outcome = site.drive_restarting(Browser::Chromium, "cutOff", more, another).await;
        let Some(outcome) = outcome else { return };
        let expected = "A valid token is needed. The call goes on as long as its connection holds.";
        assert_eq!(outcome["problems"], json!([expected, expected]), "{outcome}");
        assert_eq!(outcome["again"], "Join again", "in the end it is over: {outcome}");
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
    }

    pub(super) async fn token() {
        let site = Site::start_with(|config| close(config, JWT_SECRET)).await;
        let token = token_for_any_room();
        let more = json!({ "token": token });
        let Some(outcome) = site.drive(Browser::Chromium, "token", more).await else { return };
        assert_eq!(outcome["address"], format!("{}/call?x=1", site.url()), "{outcome}");
        let link = outcome["link"].as_str().unwrap();
        let room = link.strip_prefix(&format!("{}/call#", site.url())).expect(link);
        assert_eq!(room.len(), 32, "{outcome}");
        assert_eq!(outcome["problem"], "A valid token is needed", "{outcome}");
        assert_eq!(outcome["after"], "", "{outcome}");
        assert_eq!(outcome["faults"], json!([]), "{outcome}");
    }

    pub(super) async fn introductory_protocol() {
        let Site { server, authority, elsewhere, other_origin } = Site::start().await;
        let port = server.turn().port();
        let plain =
            Router::new().route("/plain.html", get(async || Html(include_str!("plain.html"))));
        tokio::spawn(async move { axum::serve(elsewhere, plain).await.unwrap() });
        let url = Way::Udp.url_at(HOST, port);
        let ice = json!([{ "urls": url, "username": "alice", "credential": "secret" }]);
        let http = server.http();
        for room in ["&room=demo", ""] {
            let query: Value = json!({
                "query": format!("/plain.html?socket=ws://{http}/ws&iceServers={ice}{room}"),
                "url": other_origin,
            });
            let outcome = drive(Browser::Chromium, &authority, "calls", query).await;
            let Some(outcome) = outcome else { return };
            let expected = json!({ "refused": ["nothing", "nothing"], "faults": [] });
            assert_eq!(outcome, expected, "{room}");
        }
    }
}
