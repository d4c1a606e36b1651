//! A real browser relays through a real server.
//!
//! The page under test is served from here and posts its outcome back, so no driver protocol
//! stands between the test and the browser.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../common/mod.rs"]
mod common;

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use common::{TestServer, scrape};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

const PAGE: &str = include_str!("relay.html");
/// Generous: a loaded machine takes a while to start a browser. Nothing is measured.
const DEADLINE: Duration = Duration::from_secs(120);

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

fn chromium(url: &str, profile: &std::path::Path) -> Option<Child> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().find_map(|name| {
        Command::new(name)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            // Browsers leave loopback out of ICE unless told otherwise.
            .arg("--allow-loopback-in-peer-connection")
            // The server's certificate is made for this run.
            .arg("--ignore-certificate-errors")
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()
    })
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_over_relays_alone() {
    relays_a_mebibyte("turn", "udp").await;
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_over_tcp() {
    relays_a_mebibyte("turn", "tcp").await;
}

#[tokio::test]
async fn chromium_moves_a_mebibyte_over_tls() {
    relays_a_mebibyte("turns", "tcp").await;
}

async fn relays_a_mebibyte(scheme: &str, transport: &str) {
    let server = TestServer::start(|_| {});
    let turn = server.turn();
    let (url, result) = serve_page(json!({
        "iceServers": [{
            "urls": format!("{scheme}:{turn}?transport={transport}"),
            "username": "alice",
            "credential": "secret",
        }],
    }))
    .await;
    let profile = tempfile::tempdir().unwrap();
    let Some(_browser) = chromium(&url, profile.path()) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install chromium");
        eprintln!("not run: no Chromium on this machine (apt install chromium)");
        return;
    };
    // While the session runs, not only after it, the counter moves.
    let growing = async {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let bytes = scrape(server.http()).await.sum("hairpin_relay_bytes_total");
            if seen.last().map_or(bytes > 0.0, |&last| bytes > last) {
                seen.push(bytes);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    };
    let (result, seen) = tokio::time::timeout(DEADLINE, async { tokio::join!(result, growing) })
        .await
        .expect("the page reports before the deadline");
    let result = result.unwrap();
    assert_eq!(result["error"], Value::Null, "{result}");
    assert_eq!(result["sent"], result["received"], "{result}");
    assert_eq!(result["sent"].as_str().map(str::len), Some(64), "{result}");
    assert_eq!(result["pair"], json!(["relay", "relay"]), "{result}");
    let relayed = scrape(server.http()).await.sum("hairpin_relay_bytes_total");
    let transport = if scheme == "turns" { "tls" } else { transport };
    let opened = format!(
        r#"hairpin_requests_total{{method="allocate",transport="{transport}",code="200"}}"#
    );
    let metrics = scrape(server.http()).await;
    assert_eq!(
        metrics.get(&opened),
        metrics.sum("hairpin_allocations_total"),
        "all over {transport}"
    );
    // Each byte passes two relays, and each relay counts it.
    assert!(relayed >= 2.0 * f64::from(1 << 20), "{relayed} bytes relayed, seen before: {seen:?}");
}
