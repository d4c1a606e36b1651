//! Connections that are handed over, and those that become another protocol's.

use super::*;

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
