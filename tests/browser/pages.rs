//! The pages in real browsers, driven as a person would: two meet for a call, somebody tests a
//! server, and a page that knows only the introductory protocol makes a call.

use std::env;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use hairpin::http::credentials::Source;
use hairpin::turn::rest::Credentials;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use super::authority::Authority;
use super::browser::{Browser, CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, firefox_preferences};
use super::common::{TestServer, scrape};
use super::{ONE_AT_A_TIME, Way, assert_went, patiently};

/// Firefox refuses `turns:` with an address, and Chromium fails to look up other names at first.
const HOST: &str = "localhost";
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/drive.mjs");
/// Generous: a loaded machine is slow, and the driver has deadlines of its own.
const DEADLINE: Duration = Duration::from_secs(300);
/// Where people find what the browsers showed.
const SCREENSHOTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/screenshots");

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
async fn test_page_finds_every_transport_working() {
    patiently(once::test_page_finds_every_transport_working).await;
}

#[tokio::test]
async fn test_page_names_the_cause_where_credentials_are_wrong() {
    patiently(once::test_page_names_the_cause_where_credentials_are_wrong).await;
}

#[tokio::test]
async fn introductory_protocol_alone_makes_a_call() {
    patiently(once::introductory_protocol_alone_makes_a_call).await;
}

#[tokio::test]
async fn pages_fit_a_desk_and_a_phone_by_day_and_by_night() {
    patiently(once::pages_fit_a_desk_and_a_phone_by_day_and_by_night).await;
}

async fn calls(browser: Browser, way: Way) {
    patiently(move || call_once(browser, way)).await;
}

async fn call_once(browser: Browser, way: Way) {
    let site = Site::start().await;
    let more = json!({ "transport": way.label() });
    let Some(outcome) = site.drive(browser, "call", more).await else { return };
    let expected = format!("through the relay (relay to relay, reached over {})", {
        way.label().to_uppercase()
    });
    assert_eq!(outcome["ways"], json!([expected, expected]), "{outcome}");
    assert_eq!(outcome["states"], json!(["connected", "connected"]), "{outcome}");
    assert_eq!(outcome["problems"], json!(["", ""]), "{outcome}");
    assert_eq!(outcome["faults"], json!([]), "{outcome}");
    assert_eq!(outcome["invitation"], "You are invited to a call", "{outcome}");
    assert_went(way, &scrape(site.server.http()).await);
}

/// A server with pages, and a place for pages of others.
struct Site {
    server: TestServer,
    authority: Authority,
    elsewhere: TcpListener,
    other_origin: String,
}

impl Site {
    async fn start() -> Self {
        let authority = Authority::new();
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other_origin = format!("http://{}", elsewhere.local_addr().unwrap());
        let server = TestServer::start(|config| {
            config.net.tls.as_mut().unwrap().pairs = vec![authority.certify(&[HOST])];
            // Browsers are told that every host is this one.
            config.http.listen = vec![([127, 0, 0, 1], 0).into()];
            config.public_host = Some(HOST.to_owned());
            let signaling = config.http.signaling.as_mut().unwrap();
            signaling.origins.allowed.push(other_origin.clone());
            signaling.source = Source::Fixed(Credentials {
                username: "alice".to_owned(),
                password: "secret".to_owned(),
            });
        });
        Self { server, authority, elsewhere, other_origin }
    }

    /// Does something with this server's pages.
    async fn drive(&self, browser: Browser, scenario: &str, mut more: Value) -> Option<Value> {
        more["url"] = json!(format!("http://{HOST}:{}", self.server.http().port()));
        drive(browser, &self.authority, scenario, more).await
    }
}

/// What came of it, or `None` where this machine lacks the browser or its driver, which is a
/// failure in CI.
async fn drive(
    browser: Browser,
    authority: &Authority,
    scenario: &str,
    mut order: Value,
) -> Option<Value> {
    let _alone = ONE_AT_A_TIME.lock().await;
    if let Some(missing) = missing(browser) {
        assert!(env::var_os("CI").is_none(), "in CI nothing is skipped: {missing}");
        eprintln!("not run: {missing}");
        return None;
    }
    let home = browser.settle(&authority.certificate()).unwrap();
    order["scenario"] = json!(scenario);
    order["program"] = json!(browser.program().unwrap());
    order["profile"] = json!(home.path().join("profile"));
    match browser {
        Browser::Chromium => {
            order["browser"] = json!("chrome");
            order["arguments"] = json!([&CHROMIUM_ARGUMENTS[..], &[CHROMIUM_NAMES]].concat());
        }
        Browser::Firefox => {
            order["browser"] = json!("firefox");
            order["arguments"] = json!([]);
            order["preferences"] = firefox_preferences()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>()
                .into();
        }
    }
    let output = Command::new("node")
        .arg(DRIVER)
        .arg(order.to_string())
        .env("HOME", home.path())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.expect("the driver ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let outcome: Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(outcome["error"], Value::Null, "{outcome}\n{said}");
    Some(outcome)
}

fn missing(browser: Browser) -> Option<String> {
    if !Path::new(DRIVER).with_file_name("node_modules").is_dir() {
        return Some(
            "the driver of browsers is missing: npm install --prefix tests/browser".into(),
        );
    }
    browser.program().err().map(|error| error.to_string())
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
        }
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

    pub(super) async fn introductory_protocol_alone_makes_a_call() {
        let Site { server, authority, elsewhere, other_origin } = Site::start().await;
        let port = server.turn().port();
        let plain =
            Router::new().route("/plain.html", get(async || Html(include_str!("plain.html"))));
        tokio::spawn(async move { axum::serve(elsewhere, plain).await.unwrap() });
        let ice = json!([{ "urls": Way::Udp.url_at(HOST, port), "username": "alice", "credential": "secret" }]);
        let query = json!({
            "query": format!("/plain.html?socket=ws://{}/ws&iceServers={ice}", server.http()),
            "url": other_origin,
        });
        let outcome = drive(Browser::Chromium, &authority, "calls", query).await;
        let Some(outcome) = outcome else { return };
        assert_eq!(outcome, json!({ "faults": [] }));
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
