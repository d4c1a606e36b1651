//! The admin plane over real sockets. Where a test waits, time is paused: the clock jumps to the
//! next deadline as soon as nothing else is left to do.

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

#[tokio::test(start_paused = true)]
async fn half_a_head_is_closed_at_the_deadline() {
    let admin = Admin::start();
    for start in ["", "G", "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let before = Instant::now();
        let mut stream = admin.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();

        read_to_close(&mut stream).await;

        assert_close_to(HEADER_TIMEOUT, before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_move_the_deadline() {
    let admin = Admin::start();
    let before = Instant::now();
    let mut stream = admin.connect().await;

    while stream.write_all(b"G").await.is_ok() {
        sleep(Duration::from_secs(1)).await;
        assert!(before.elapsed() < HEADER_TIMEOUT * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_does_not_stay() {
    let admin = Admin::start();
    let before = Instant::now();
    let mut stream = admin.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();

    let answer = read_to_close(&mut stream).await;

    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert_close_to(HEADER_TIMEOUT, before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_is_cut_off() {
    let admin = Admin::start();
    let before = Instant::now();
    let mut stream = admin.connect().await;

    let requests = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let send = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(CONNECTION_LIFETIME * 2, send).await.expect("the server must close");

    assert_close_to(CONNECTION_LIFETIME + CLOSE_TIMEOUT, before.elapsed());
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
async fn what_is_not_http_ends_only_its_own_connection() {
    let admin = Admin::start();
    let long =
        format!("GET /metrics HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));

    for (bytes, status) in [
        (long.as_bytes(), Some(431)),
        (many.as_bytes(), Some(431)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", Some(400)),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Some(400)),
    ] {
        assert_refused(&admin, bytes, status).await;
        assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");
    }
}

/// H 104, RFC 9112 §6.1: of two lengths one is a lie, and what follows may be somebody else's word.
#[tokio::test]
async fn after_a_body_of_two_lengths_nothing_more_is_answered() {
    let admin = Admin::start();
    let next = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked",
    ] {
        let mut stream = admin.connect().await;
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n{next}{next}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert_eq!(answer.matches("ok\n").count(), 1, "{lengths}: {answer}");
        assert!(!answer.contains("ready\n"), "{lengths}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{lengths}: {answer}");
    }
    for lengths in ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked, gzip"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n{next}");
        assert_refused(&admin, request.as_bytes(), Some(400)).await;
    }
}

/// H 104: nothing here reads a body, so nobody is told to send one.
#[tokio::test]
async fn who_expects_to_be_told_to_continue_gets_the_answer_instead() {
    let admin = Admin::start();
    for path in ["/healthz", "/nothing"] {
        let mut stream = admin.connect().await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("http/1.1 40"), "{answer}");
        assert!(!answer.contains("100 continue"), "{answer}");
    }
    assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");
}

/// H 104: what begins like HTTP/2 is not taken for it, and whoever speaks that could read no answer.
#[tokio::test]
async fn a_preface_of_http2_is_refused_whatever_follows() {
    let admin = Admin::start();
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), settings].concat();
    assert_refused(&admin, &preface, None).await;
    let upgrade = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let mut stream = admin.connect().await;
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("http/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn a_head_may_have_the_cookies_of_all_of_localhost() {
    let admin = Admin::start();
    let mut stream = admin.connect().await;
    let cookies = "a".repeat(12 * 1024);
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
    );

    stream.write_all(request.as_bytes()).await.unwrap();

    assert!(read_to_close(&mut stream).await.starts_with("http/1.1 200 "));
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

#[tokio::test(start_paused = true)]
async fn shutdown_closes_idle_connections_and_cuts_hanging_ones() {
    let admin = Admin::start();
    let mut idle = admin.connect().await;
    let mut hanging = admin.connect().await;
    hanging.write_all(b"GET /hea").await.unwrap();
    assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");
    let before = Instant::now();

    admin.shutdown.send(()).unwrap();
    let served = timeout(CLOSE_TIMEOUT * 2, admin.serving).await.expect("the server must stop");
    served.unwrap().unwrap();

    assert!(before.elapsed() <= CLOSE_TIMEOUT + ACCEPT_PAUSE);
    read_to_close(&mut idle).await;
    read_to_close(&mut hanging).await;
    assert!(TcpStream::connect(admin.address).await.is_err());
}

#[tokio::test]
async fn visitors_see_what_is_public_and_nothing_else() {
    for (shared_admin, metrics) in [(false, 404), (true, 200)] {
        let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let config = Config { listen, shared: true, shared_admin, ..Config::default() };
        let admin = Admin::serve(Listeners::bind(&config).unwrap());
        for (path, status) in
            [("/healthz", 200), ("/readyz", 200), ("/metrics", metrics), ("/nothing", 404)]
        {
            let mut stream = admin.visit().await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_to_close(&mut stream).await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn visitors_beyond_the_limit_wait_and_do_not_keep_the_operator_out() {
    let admin = Admin::start();
    let mut open = Vec::new();
    for at in 0..MAX_CONNECTIONS {
        open.push(admin.visit_from(Ipv4Addr::from_bits(0xC633_6400 + at as u32)).await);
    }
    // One is in the channel, and no more fits.
    let mut waiting = admin.visit().await;
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let (_, spare) = connected().await;
    assert!(admin.visitors.try_send(Guest(spare, Ipv4Addr::LOCALHOST)).is_err());
    assert_eq!(admin.request("GET", "/healthz").await.1, "ok\n");

    open.pop();

    assert!(read_to_close(&mut waiting).await.ends_with("ok\n"));
}

/// What WebSocket needs: after the 101 the connection is the handler's.
#[tokio::test]
async fn an_upgraded_connection_leaves_its_place_to_another_one() {
    let echo = async |mut request: axum::extract::Request| {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
    };
    let (mut client, accepted) = connected().await;
    let slots = Slots::of_visitors();
    let held: Vec<_> = (0..15).map(|_| slots.take(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
    let slot = slots.take(Ipv4Addr::LOCALHOST.into()).unwrap();
    assert!(slots.take(Ipv4Addr::LOCALHOST.into()).is_none());
    let (_stop, stopping) = watch::channel(());
    let serving = tokio::spawn(serve(
        accepted,
        Client { address: (Ipv4Addr::LOCALHOST, 9).into(), encrypted: false },
        Router::new().fallback(echo),
        slot,
        stopping,
    ));

    // What follows the head at once belongs to the other protocol.
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst";
    client.write_all(request).await.unwrap();
    serving.await.unwrap();
    assert!(slots.take(Ipv4Addr::LOCALHOST.into()).is_some());
    drop(held);
    client.write_all(b", second").await.unwrap();
    client.shutdown().await.unwrap();

    let answer = read_to_close(&mut client).await;
    assert!(
        answer.starts_with("http/1.1 101 ") && answer.ends_with("\r\n\r\nfirst, second"),
        "{answer}"
    );
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

/// Sends, and wants this answer, or none, and then the end. What the server has left unread makes the
/// kernel reset the connection; the answer is in front of that.
async fn assert_refused(admin: &Admin, bytes: &[u8], status: Option<u16>) {
    let mut stream = admin.connect().await;
    stream.write_all(bytes).await.ok();
    let answer = read_to_close(&mut stream).await;
    match status {
        Some(status) => assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer:?}"),
        None => assert_eq!(answer, ""),
    }
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
