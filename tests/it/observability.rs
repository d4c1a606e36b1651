//! What an operator sees while sessions run.

use super::client::{Client, Peer, Received};
use super::common::{TestServer, get, scrape};
use super::relay::{loopback, server_at};

async fn metric(server: &TestServer, series: &str) -> f64 {
    scrape(server.http()).await.get(series)
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    let server = TestServer::start(|_| {});
    assert_eq!(get(server.http(), "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(server.http(), "/readyz").await, (200, "ready\n".into()));
    assert_eq!(get(server.http(), "/nothing").await.0, 404);
}

#[tokio::test]
async fn relayed_bytes_and_packets_are_counted_while_the_session_runs() {
    let server = server_at(loopback(5, 1));
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(loopback(5, 1));
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let series = |metric: &str, direction: &str| {
        format!(r#"hairpin_relay_{metric}_total{{direction="{direction}",transport="udp"}}"#)
    };
    for round in 1..=5 {
        client.send_channel(0x4000, &[1; 100]).await;
        client.send(peer.address(), &[2; 11]).await;
        peer.recv().await;
        peer.recv().await;
        peer.send(client.relayed(), &[3; 1_000]).await;
        assert_eq!(client.recv().await, Received::Channel(0x4000, vec![3; 1_000]));
        let metrics = scrape(server.http()).await;
        let round = f64::from(round);
        assert_eq!(metrics.get(&series("bytes", "to_peer")), round * 111.0);
        assert_eq!(metrics.get(&series("packets", "to_peer")), round * 2.0);
        assert_eq!(metrics.get(&series("bytes", "to_client")), round * 1_000.0);
        assert_eq!(metrics.get(&series("packets", "to_client")), round);
    }
}

#[tokio::test]
async fn allocations_and_ports_are_counted_as_they_come_and_go() {
    let server = server_at(loopback(5, 2));
    let live = r#"hairpin_allocations{transport="udp"}"#;
    let used = r#"hairpin_relay_ports{state="used"}"#;
    let free = metric(&server, r#"hairpin_relay_ports{state="free"}"#).await;
    let mut clients: Vec<_> = (0..5).map(|_| Client::new(server.turn())).collect();
    for (before, client) in (0..).zip(&mut clients) {
        assert_eq!(metric(&server, live).await, f64::from(before));
        assert_eq!(metric(&server, used).await, f64::from(before));
        assert_eq!(client.allocate().await, 200);
    }
    for (left, client) in (0..5).rev().zip(&mut clients) {
        assert_eq!(client.refresh(0).await, 200);
        assert_eq!(metric(&server, live).await, f64::from(left));
        assert_eq!(metric(&server, used).await, f64::from(left));
    }
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get("hairpin_allocations_total"), 5.0);
    assert_eq!(metrics.get("hairpin_allocation_duration_seconds_count"), 5.0);
    assert_eq!(metrics.sum("hairpin_relay_ports"), free, "no port is lost");
}

#[tokio::test]
async fn requests_are_counted_by_method_and_code() {
    let server = server_at(loopback(5, 3));
    let mut client = Client::new(server.turn());
    client.mapped().await;
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.allocate_with(&[]).await.code(), 437);
    assert_eq!(client.bind(0x4000, server.turn()).await, 403);
    assert_eq!(client.permit(Peer::at(loopback(5, 3)).address()).await, 200);
    assert_eq!(client.refresh(600).await, 200);
    let metrics = scrape(server.http()).await;
    for (method, code) in [
        ("binding", 200),
        ("allocate", 401),
        ("allocate", 200),
        ("allocate", 437),
        ("channel_bind", 403),
        ("create_permission", 200),
        ("refresh", 200),
    ] {
        let series =
            format!(r#"hairpin_requests_total{{method="{method}",transport="udp",code="{code}"}}"#);
        // More than one only where a slow machine made the client ask again.
        assert!(metrics.get(&series) >= 1.0, "{series}");
    }
    let refused = r#"hairpin_allocation_errors_total{code="437"}"#;
    assert!(metrics.get(refused) >= 1.0);
}
