//! What the test binaries share: a server of their own on free ports, and its metrics.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::server::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running server on loopback, for users `alice` and `bob`, password `secret`. Stops when
/// dropped.
pub struct TestServer {
    running: Option<Running>,
}

impl TestServer {
    /// Starts with the settings of `--dev`, any free ports, two shards, and the given changes.
    pub fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::dev();
        config.net.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.net.threads = 2;
        // Where no client is: one whose port happened to be this one's would not be answered.
        config.http.listen = vec![SocketAddr::from(([127, 0, 255, 1], 0))];
        config.turn.auth.users =
            ["alice", "bob"].map(|user| (user.into(), "secret".into())).into_iter().collect();
        change(&mut config);
        Self { running: Some(Running::start(&config).unwrap()) }
    }

    /// The first UDP listener.
    pub fn turn(&self) -> SocketAddr {
        self.running.as_ref().unwrap().addresses().listen[0]
    }

    /// The server itself.
    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// All UDP listeners, in the order of the configuration.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.running.as_ref().unwrap().addresses().listen
    }

    /// How many packets it dropped for this reason.
    pub async fn dropped(&self, reason: &str) -> f64 {
        let series = format!(r#"hairpin_dropped_packets_total{{reason="{reason}"}}"#);
        scrape(self.http()).await.get(&series)
    }

    /// How many connections it refused for this reason.
    pub async fn refused(&self, reason: &str) -> f64 {
        let series = format!(r#"hairpin_connections_refused_total{{reason="{reason}"}}"#);
        scrape(self.http()).await.get(&series)
    }

    /// Waits until it has refused this many connections for this reason.
    pub async fn until_refused(&self, reason: &str, count: f64) {
        let refused = async {
            while self.refused(reason).await < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let deadline = Duration::from_secs(40);
        tokio::time::timeout(deadline, refused).await.expect("so many connections are refused");
    }

    /// How many connections it has open, of those that speak `transport`.
    pub async fn connections(&self, transport: &str) -> f64 {
        let series = format!(r#"hairpin_connections{{transport="{transport}"}}"#);
        scrape(self.http()).await.get(&series)
    }

    /// Waits until it has dropped this many packets for this reason.
    pub async fn until_dropped(&self, reason: &str, count: f64) {
        let dropped = async {
            while self.dropped(reason).await < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let deadline = Duration::from_secs(20);
        tokio::time::timeout(deadline, dropped).await.expect("so many packets are dropped");
    }

    /// The HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.running.as_ref().unwrap().addresses().http[0]
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let running = self.running.take().unwrap();
        // Stopping waits for threads and must not happen within the test's runtime.
        std::thread::spawn(move || running.stop()).join().unwrap();
    }
}

/// One scrape of `/metrics`.
pub struct Metrics(String);

impl Metrics {
    /// The value of one series, written as in the text: `name{label="value"}`.
    pub fn get(&self, series: &str) -> f64 {
        self.rows()
            .find(|(name, _)| *name == series)
            .unwrap_or_else(|| panic!("no series {series} in\n{}", self.0))
            .1
    }

    /// The sum over all series of a metric.
    pub fn sum(&self, metric: &str) -> f64 {
        self.rows()
            .filter(|(name, _)| name.split('{').next() == Some(metric))
            .map(|(_, value)| value)
            .sum()
    }

    fn rows(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name, value.parse().unwrap()))
    }
}

/// Reads `/metrics` as a plain HTTP client.
pub async fn scrape(http: SocketAddr) -> Metrics {
    let (status, body) = get(http, "/metrics").await;
    assert_eq!(status, 200);
    Metrics(body)
}

/// Status and body of a GET.
pub async fn get(http: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
