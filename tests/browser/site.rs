//! A server with pages, and a browser that does something with them.

use std::env;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use hairpin::config::Config;
use hairpin::http::credentials::Source;
use hairpin::turn::rest::Credentials;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use super::ONE_AT_A_TIME;
use super::authority::Authority;
use super::browser::{Browser, CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, firefox_preferences};
use super::common::TestServer;

/// Firefox refuses `turns:` with an address, and Chromium fails to look up other names at first.
pub(crate) const HOST: &str = "localhost";
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/drive.mjs");
/// Generous: a loaded machine is slow, and the driver has deadlines of its own.
const DEADLINE: Duration = Duration::from_secs(300);
/// Where people find what the browsers showed.
pub(crate) const SCREENSHOTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/screenshots");

/// A server with pages, and a place for pages of others.
pub(crate) struct Site {
    pub(crate) server: TestServer,
    pub(crate) authority: Authority,
    pub(crate) elsewhere: TcpListener,
    pub(crate) other_origin: String,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new();
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other_origin = format!("http://{}", elsewhere.local_addr().unwrap());
        let server = TestServer::start(|config| {
            configure(config, &authority, &other_origin);
            change(config);
        });
        Self { server, authority, elsewhere, other_origin }
    }

    /// Where the pages are.
    pub(crate) fn url(&self) -> String {
        format!("http://{HOST}:{}", self.server.http().port())
    }

    /// Does something with this server's pages, and with `control`, where a POST to `/restart`
    /// replaces the server by another one that knows nothing of what was, and is changed so.
    pub(crate) async fn drive_restarting(
        self,
        browser: Browser,
        scenario: &str,
        mut order: Value,
        change: fn(&mut Config),
    ) -> Option<Value> {
        order["url"] = json!(self.url());
        order["control"] = json!(self.other_origin);
        let Self { server, authority, elsewhere, other_origin } = self;
        let authority = Arc::new(authority);
        let own = Arc::clone(&authority);
        let places = (server.turn(), server.http());
        let server = Arc::new(Mutex::new(Some(server)));
        let restart = move || {
            let mut server = server.lock().unwrap();
            server.take();
            *server = Some(TestServer::start(|config| {
                configure(config, &own, &other_origin);
                config.net.listen = vec![places.0];
                config.http.listen = vec![places.1];
                change(config);
            }));
        };
        let restart = post(async move || tokio::task::spawn_blocking(restart).await.unwrap());
        let control = Router::new().route("/restart", restart);
        tokio::spawn(async move { axum::serve(elsewhere, control).await.unwrap() });
        drive(browser, &authority, scenario, order).await
    }

    /// Does something with this server's pages.
    pub(crate) async fn drive(
        &self,
        browser: Browser,
        scenario: &str,
        mut more: Value,
    ) -> Option<Value> {
        more["url"] = json!(self.url());
        drive(browser, &self.authority, scenario, more).await
    }
}

fn configure(config: &mut Config, authority: &Authority, other_origin: &str) {
    config.net.tls.as_mut().unwrap().pairs = vec![authority.certify(&[HOST])];
    // Browsers are told that every host is this one.
    config.http.listen = vec![([127, 0, 0, 1], 0).into()];
    config.public_host = Some(HOST.to_owned());
    let signaling = config.http.signaling.as_mut().unwrap();
    signaling.origins.allowed.push(other_origin.to_owned());
    signaling.source =
        Source::Fixed(Credentials { username: "alice".to_owned(), password: "secret".to_owned() });
}

/// What came of it, or `None` where this machine lacks the browser or its driver, which is a
/// failure in CI.
pub(crate) async fn drive(
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
