//! The lifetime of a permission by the clock, with the defaults that everybody runs with.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use hairpin::net::clock;

use crate::client::Client;
use crate::server::{Server, Settings, eventually};

/// RFC 8656 §9.
const LIFETIME: Duration = Duration::from_secs(300);
/// On either side of its end, what arrives is not looked at.
const MARGIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);

#[test]
fn a_permission_lasts_five_minutes_by_the_clock_whatever_flows() {
    let server = Server::start(&Settings::default());
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let before = clock::now().instant;
    client.permit(peer.local_addr().unwrap()).unwrap();
    let after = clock::now().instant;
    let (mut within, mut beyond) = (BTreeSet::new(), BTreeSet::new());
    for number in 0_u16.. {
        let now = clock::now().instant;
        if now > after + LIFETIME + 3 * MARGIN {
            break;
        }
        if now < before + LIFETIME - MARGIN {
            within.insert(number);
        } else if now > after + LIFETIME + MARGIN {
            beyond.insert(number);
        }
        peer.send_to(&number.to_be_bytes(), client.relayed).unwrap();
        thread::sleep(PAUSE);
    }
    let dropped = [r#"hairpin_dropped_packets_total{reason="no_permission"}"#];
    eventually("the last ones are dropped", || {
        (server.metrics().sum(&dropped) >= beyond.len() as u64).then_some(())
    });
    client.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut heard = BTreeSet::new();
    let mut buffer = [0; 1500];
    while let Ok(length) = client.socket.recv(&mut buffer) {
        // A Data indication ends with DATA, which is padded to four bytes.
        let [.., high, low, _, _] = buffer[..length] else { panic!("too short") };
        heard.insert(u16::from_be_bytes([high, low]));
    }
    assert!(within.len() > 100 && beyond.len() > 2, "{within:?} {beyond:?}");
    assert!(within.is_subset(&heard), "{:?}", within.difference(&heard));
    assert!(beyond.is_disjoint(&heard), "{:?}", beyond.intersection(&heard));
    server.stop();
}
