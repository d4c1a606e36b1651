//! Certificates are replaced, again and again, while sessions relay without a pause.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hairpin::net::certificates::{Files, Pair, Reload};
use rustls::RootCertStore;
use rustls::version::TLS13;
use tokio::time::{Instant, sleep};

use super::client::{Client, DEADLINE, Peer, Received};
use super::common::scrape;
use super::relay::loopback;
use super::tls::{Tls, der, handshake, shown, write_pair};

const CHANNEL: u16 = 0x4000;
const SESSIONS: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_notice_nothing_while_certificates_are_swapped() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let files = Files { cert: home.join("data/cert.pem"), key: home.join("data/key.pem") };
    point_to(home, "version-0");
    let first = Pair::load(files.clone()).unwrap();
    let server = Tls::start(80, |config| config.net.tls.as_mut().unwrap().pairs = vec![first]);
    let stop = Arc::new(AtomicBool::new(false));
    let relayed = Arc::new(AtomicUsize::new(0));
    let mut sessions = tokio::task::JoinSet::new();
    for last in 0..SESSIONS {
        let client = server.client(server.config(&[&TLS13], server.trusting())).await;
        sessions.spawn(relay(client, last, Arc::clone(&stop), Arc::clone(&relayed)));
    }
    let mut seen = vec![server.shown[0].clone()];
    for round in 1..=10 {
        let before = relayed.load(Ordering::Relaxed);
        match round % 2 {
            // As a hook of certbot leaves them, and as Kubernetes does.
            0 => drop(write_pair(&home.join("data"))),
            _ => point_to(home, &format!("version-{round}")),
        }
        server.server.running().reload_certificates(Reload::Changed);
        let mut roots = RootCertStore::empty();
        roots.add(der(&fs::read_to_string(&files.cert).unwrap()).into()).unwrap();
        let config = server.config(&[&TLS13], roots);
        let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
        assert!(!seen.contains(&shown(&tls)), "round {round}: a new one");
        seen.push(shown(&tls));
        let guard = Instant::now() + DEADLINE;
        while relayed.load(Ordering::Relaxed) < before + 100 {
            assert!(Instant::now() < guard, "the sessions go on");
            sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(sessions.join_all().await.len(), usize::from(SESSIONS));
    let metrics = scrape(server.server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_tls_reloads_total{result="success"}"#), 10.0);
    assert_eq!(metrics.get(r#"hairpin_tls_reloads_total{result="failure"}"#), 0.0);
    assert_eq!(metrics.sum("hairpin_allocations_total"), f64::from(SESSIONS));
}

/// Each packet is answered before the next one leaves, so that a lost one is seen.
async fn relay(mut client: Client, last: u8, stop: Arc<AtomicBool>, relayed: Arc<AtomicUsize>) {
    let peer = Peer::at(loopback(7, 80 + last));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(CHANNEL, peer.address()).await, 200);
    let mut round = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let data = round.to_be_bytes();
        client.send_channel(CHANNEL, &data).await;
        assert_eq!(peer.recv().await, (client.relayed(), data.to_vec()));
        peer.send(client.relayed(), &data).await;
        assert_eq!(client.recv().await, Received::Channel(CHANNEL, data.to_vec()));
        round += 1;
        relayed.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(client.refresh(600).await, 200);
}

/// Lets `data` be another directory with another pair, in one step.
fn point_to(home: &Path, version: &str) {
    fs::create_dir(home.join(version)).unwrap();
    write_pair(&home.join(version));
    symlink(version, home.join("next")).unwrap();
    fs::rename(home.join("next"), home.join("data")).unwrap();
}
