//! A real browser relays through a real server.
//!
//! The page under test is served from here and posts its outcome back, so no driver protocol
//! stands between the test and the browser.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod authority;
mod browser;
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod pages;
mod site;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authority::Authority;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use browser::{Browser, Window};
use common::{Metrics, TestServer, scrape};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

const PAGE: &str = include_str!("relay.html");
/// Generous: a loaded machine takes a while to start a browser. Nothing is measured.
const DEADLINE: Duration = Duration::from_secs(120);
/// The name of the server: Firefox refuses `turns:` with an address.
const HOST: &str = "turn.test";
/// How often the count of relayed bytes is read.
const POLL: Duration = Duration::from_millis(100);
/// How often it must be seen to grow: the video alone takes five seconds.
const GROWTHS: usize = 5;

/// A browser fills a small machine, and two of them would wait for each other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Outcome {
    configuration: Value,
    result: Mutex<Option<oneshot::Sender<Value>>>,
}

/// Serves the page; the receiver gets what the page posts.
async fn serve_page(configuration: Value) -> (String, oneshot::Receiver<Value>) {
    let (sender, receiver) = oneshot::channel();
    let outcome = Arc::new(Outcome { configuration, result: Mutex::new(Some(sender)) });
    let router = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route(
            "/configuration",
            get(async |State(outcome): State<Arc<Outcome>>| outcome.configuration.to_string()),
        )
        .route(
            "/result",
            post(async |State(outcome): State<Arc<Outcome>>, body: String| {
                let result = serde_json::from_str(&body).unwrap();
                if let Some(sender) = outcome.result.lock().unwrap().take() {
                    sender.send(result).unwrap();
                }
            }),
        )
        .with_state(outcome);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, receiver)
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_and_plays_video_over_udp() {
    relays(Browser::Chromium, Way::Udp).await;
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_and_plays_video_over_tcp() {
    relays(Browser::Chromium, Way::Tcp).await;
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_and_plays_video_over_tls() {
    relays(Browser::Chromium, Way::Tls).await;
}

#[tokio::test]
async fn firefox_moves_a_mebibyte_and_plays_video_over_udp() {
    relays(Browser::Firefox, Way::Udp).await;
}

#[tokio::test]
async fn firefox_moves_a_mebibyte_and_plays_video_over_tcp() {
    relays(Browser::Firefox, Way::Tcp).await;
}

#[tokio::test]
async fn firefox_moves_a_mebibyte_and_plays_video_over_tls() {
    relays(Browser::Firefox, Way::Tls).await;
}

/// How the browser reaches the server.
#[derive(Clone, Copy)]
enum Way {
    Udp,
    Tcp,
    Tls,
}

impl Way {
    fn url_at(self, host: &str, port: u16) -> String {
        match self {
            Self::Udp => format!("turn:{host}:{port}?transport=udp"),
            Self::Tcp => format!("turn:{host}:{port}?transport=tcp"),
            Self::Tls => format!("turns:{host}:{port}?transport=tcp"),
        }
    }

    /// As metrics name it.
    fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Browsers stumble on a machine that is busy: a socket of theirs overflows, a page is late. What
/// is wrong with the server is wrong each time.
const ATTEMPTS: usize = 3;
/// In the whole run. Where more is tried once more, something is wrong now and then.
const RETRIES: usize = 4;
static RETRIED: AtomicUsize = AtomicUsize::new(0);

/// Tries until it goes well, and not for ever.
async fn patiently<F: Future<Output = ()> + Send + 'static>(attempt: impl Fn() -> F) {
    for left in (0..ATTEMPTS).rev() {
        let Err(failed) = tokio::spawn(attempt()).await else { return };
        let retried = RETRIED.fetch_add(1, Ordering::Relaxed);
        if left == 0 || retried >= RETRIES {
            say(&format!("no more of it, after {retried} retries in this run: {failed}"));
            std::panic::resume_unwind(failed.into_panic());
        }
        say(&format!("once more, the {}. of at most {RETRIES}, after: {failed}", retried + 1));
    }
}

/// What is printed by a test that goes well in the end is shown to nobody; this is.
fn say(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::io::stderr().write_all(format!("{test}: {what}\n").as_bytes()).unwrap();
}

async fn relays(browser: Browser, way: Way) {
    patiently(move || relay_once(browser, way)).await;
}

async fn relay_once(browser: Browser, way: Way) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let authority = Authority::new();
    let server = TestServer::start(|config| {
        config.net.tls.as_mut().unwrap().pairs = vec![authority.certify(&[HOST])];
    });
    let (url, result) = serve_page(json!({
        "iceServers": [{
            "urls": way.url_at(HOST, server.turn().port()),
            "username": "alice",
            "credential": "secret",
        }],
    }))
    .await;
    let Some(window) = browser.open(&url, &authority.certificate()) else { return };
    let (result, relayed) = watch(&server, result, &window).await;
    assert_eq!(result["error"], Value::Null, "{result}");
    assert_eq!(result["sent"], result["received"], "{result}");
    assert_eq!(result["sent"].as_str().map(str::len), Some(64), "{result}");
    assert!(result["played"]["seconds"].as_f64() >= Some(5.0), "{result}");
    assert!(result["played"]["frames"].as_u64() >= Some(60), "{result}");
    let both = json!([["relay", "relay"], ["relay", "relay"]]);
    assert_eq!(result["pairs"], both, "{result}");
    // While the session ran, not only after it, the counter moved.
    assert!(relayed.len() >= GROWTHS, "{relayed:?}");
    let metrics = scrape(server.http()).await;
    // Each byte passes two relays, and each relay counts it.
    let relayed = metrics.sum("hairpin_relay_bytes_total");
    assert!(relayed >= 2.0 * f64::from(1 << 20), "{relayed} bytes");
    assert_went(way, &metrics);
}

/// What the page posts, and each new count of relayed bytes until then.
async fn watch(
    server: &TestServer,
    mut result: oneshot::Receiver<Value>,
    window: &Window,
) -> (Value, Vec<f64>) {
    let mut relayed = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let bytes = scrape(server.http()).await.sum("hairpin_relay_bytes_total");
        if bytes > relayed.last().copied().unwrap_or(0.0) {
            relayed.push(bytes);
        }
        match timeout(POLL, &mut result).await {
            Ok(result) => return (result.unwrap(), relayed),
            Err(_) => assert!(
                Instant::now() < deadline,
                "the page reports before the deadline\n{}",
                window.stderr()
            ),
        }
    }
}

/// Nothing reached the server, or left it towards a client, by another way.
fn assert_went(way: Way, metrics: &Metrics) {
    let label = way.label();
    let opened =
        format!(r#"hairpin_requests_total{{method="allocate",transport="{label}",code="200"}}"#);
    assert!(metrics.get(&opened) >= 2.0, "one for each connection");
    assert_eq!(metrics.get(&opened), metrics.sum("hairpin_allocations_total"), "all over {label}");
    for metric in ["hairpin_relay_bytes_total", "hairpin_relay_packets_total"] {
        let by_way: f64 = ["to_peer", "to_client"]
            .map(|direction| {
                let labels = format!(r#"direction="{direction}",transport="{label}""#);
                metrics.get(&format!("{metric}{{{labels}}}"))
            })
            .iter()
            .sum();
        assert_eq!(by_way, metrics.sum(metric), "all over {label}");
    }
}
