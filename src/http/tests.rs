//! The admin plane over real sockets. Where a test waits, time is paused: the clock jumps to the
//! next deadline as soon as nothing else is left to do.

mod deadlines;
mod grammar;
mod visitors;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let admin = Admin::start();

    let (head, body) = admin.request("GET", "/metrics").await;

    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{head}");
    assert!(body.contains("\nhairpin_allocations_total 0\n"), "{body}");
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let admin = Admin::start();

    for (path, kind) in [("/metrics", "version=0.0.4"), ("/healthz", "charset=utf-8")] {
        let (head, body) = admin.request("HEAD", path).await;
        assert!(head.starts_with("http/1.1 200 ") && head.contains(kind), "{head}");
        assert!(head.contains("\r\ncontent-length: "), "{head}");
        assert_eq!(body, "");
    }
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let admin = Admin::start();

    for (method, path, status) in [
        ("POST", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("OPTIONS", "/readyz", 405),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "//metrics", 404),
        ("GET", "/../../etc/passwd", 404),
        ("POST", "/nothing", 404),
        ("BREW", "/metrics", 405),
    ] {
        let (head, _) = admin.request(method, path).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method} {path}: {head}");
    }
}

#[tokio::test]
async fn a_silent_shard_fails_health_and_metrics() {
    let admin = Admin::start();
    assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");

    admin.server.answers.store(false, Ordering::Relaxed);

    for path in ["/healthz", "/metrics"] {
        // The last answer is good for a while.
        let noticed = async {
            loop {
                let (head, body) = admin.request("GET", path).await;
                if head.starts_with("http/1.1 503 ") {
                    return body;
                }
            }
        };
        let body = timeout(HEADER_TIMEOUT, noticed).await.expect("it is noticed");
        assert_eq!(body, "a shard does not answer\n");
    }
    assert!(admin.request("GET", "/readyz").await.0.starts_with("http/1.1 200 "));
}

/// Anybody may ask, and each time all who relay would have to stop for it.
#[tokio::test]
async fn health_is_asked_of_the_shards_once_a_second_at_most() {
    let admin = Admin::start();
    let before = Instant::now();
    for at in 0..200 {
        let mut visitor = admin.visit_from(Ipv4Addr::from_bits(at)).await;
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        visitor.write_all(request).await.unwrap();
        // Every other one does not wait for the answer.
        if at % 2 == 0 {
            assert!(read_to_close(&mut visitor).await.ends_with("\r\n\r\nok\n"));
        }
        assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");
    }
    let asked = admin.server.asked.load(Ordering::Relaxed);
    assert!(asked <= before.elapsed().as_secs() + 1, "asked {asked} times");
    assert_eq!(admin.request("GET", "/metrics").await.0.get(..13), Some("http/1.1 200 "));
    assert_eq!(admin.server.asked.load(Ordering::Relaxed), asked + 1, "the operator asks anew");
}

#[tokio::test]
async fn readiness_is_the_servers_word() {
    let admin = Admin::start();
    assert!(admin.request("GET", "/readyz").await.0.starts_with("http/1.1 200 "));

    admin.server.ready.store(false, Ordering::Relaxed);

    assert!(admin.request("GET", "/readyz").await.0.starts_with("http/1.1 503 "));
    assert!(admin.request("GET", "/healthz").await.0.starts_with("http/1.1 200 "));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let admin = Admin::start();
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(admin.connect().await);
    }

    // Sooner than the deadline would close it.
    let mut refused = admin.connect().await;
    let answer = timeout(HEADER_TIMEOUT / 2, read_to_close(&mut refused)).await;
    assert_eq!(answer.as_deref(), Ok(""));

    // The slot is free again once the server has seen that its client left.
    open.pop();
    let retry = async { while admin.request("GET", "/healthz").await.1 != "ok\n" {} };
    timeout(HEADER_TIMEOUT / 2, retry).await.expect("a slot must be free");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let admin = Admin::start();

    let error =
        Listeners::bind(&Config { listen: vec![admin.address], ..Config::default() }).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&admin.address.to_string()), "{error}");
}

#[tokio::test]
async fn every_address_is_served() {
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 2];

    let listeners = Listeners::bind(&Config { listen, ..Config::default() }).unwrap();
    let addresses = listeners.addresses();
    let mut admin = Admin::serve(listeners);

    assert_eq!(addresses.len(), 2);
    for address in addresses {
        admin.address = address;
        assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");
    }
}

/// A running admin plane, and the server it shows.
struct Admin {
    address: SocketAddr,
    server: Arc<FakeServer>,
    serving: JoinHandle<io::Result<()>>,
    visitors: mpsc::Sender<Guest>,
    shutdown: oneshot::Sender<()>,
}

impl Admin {
    fn start() -> Self {
        let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        Self::serve(Listeners::bind(&Config { listen, ..Config::default() }).unwrap())
    }

    fn serve(listeners: Listeners) -> Self {
        let address = listeners.addresses()[0];
        let server = Arc::new(FakeServer {
            answers: AtomicBool::new(true),
            ready: AtomicBool::new(true),
            asked: AtomicU64::new(0),
        });
        let (shutdown, stopped) = oneshot::channel();
        let inspect = Arc::clone(&server);
        let (visitors, arriving) = mpsc::channel(1);
        let serving = tokio::spawn(listeners.serve(inspect, None, arriving, async {
            stopped.await.ok();
        }));
        Self { address, server, serving, visitors, shutdown }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Comes by the other door.
    async fn visit(&self) -> TcpStream {
        self.visit_from(Ipv4Addr::LOCALHOST).await
    }

    async fn visit_from(&self, source: Ipv4Addr) -> TcpStream {
        let (client, accepted) = connected().await;
        self.visitors.send(Guest(accepted, source)).await.ok().unwrap();
        client
    }

    /// The lower-case head and the body of the answer; empty when there is none.
    async fn request(&self, method: &str, path: &str) -> (String, String) {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok();
        let answer = read_to_close(&mut stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (format!("{head}\r\n"), body.to_owned())
    }
}

/// A connection accepted elsewhere, as if from this address.
struct Guest(TcpStream, Ipv4Addr);

impl Visitor for Guest {
    type Stream = TcpStream;

    fn source(&self) -> IpAddr {
        self.1.into()
    }

    fn refuse(self) {}

    fn enter(self) -> io::Result<(Client, TcpStream)> {
        Ok((Client { address: self.0.peer_addr()?, encrypted: false }, self.0))
    }
}

struct FakeServer {
    answers: AtomicBool,
    ready: AtomicBool,
    asked: AtomicU64,
}

impl Inspect for FakeServer {
    fn snapshot(&self) -> Inspection<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answers = self.answers.load(Ordering::Relaxed);
        Box::pin(async move {
            answers.then(|| Snapshot { shards: vec![Stats::default(); 2], ..Snapshot::default() })
        })
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Both ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// What arrives until the server closes, with the head's names in lower case.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    let text = String::from_utf8(bytes).unwrap();
    match text.split_once("\r\n\r\n") {
        Some((head, body)) => format!("{}\r\n\r\n{body}", head.to_lowercase()),
        None => text,
    }
}

#[track_caller]
fn assert_close_to(expected: Duration, elapsed: Duration) {
    // Timers have a resolution of one millisecond, and deadlines are set one after another.
    assert!(elapsed.abs_diff(expected) < Duration::from_millis(100), "{elapsed:?}");
}
