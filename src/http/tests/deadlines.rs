//! How long a connection may take, and when it ends.

use super::*;

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
