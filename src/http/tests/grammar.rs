//! What is sent: HTTP, and what only looks like it.

use super::*;

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
