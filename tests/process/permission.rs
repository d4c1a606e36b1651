//! The lifetime of a permission by the clock, with the defaults that everybody runs with.

use std::collections::BTreeSet;
use std::iter;
use std::net::UdpSocket;
use std::time::Duration;

use hairpin::net::clock;

use crate::client::Client;
use crate::server::{Server, Settings, eventually};

/// RFC 8656 §9.
const LIFETIME: Duration = Duration::from_secs(300);
/// On either side of its end, nobody asks whether it arrives.
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
    client.socket.set_read_timeout(Some(PAUSE)).unwrap();
    let (mut within, mut beyond) = (BTreeSet::new(), BTreeSet::new());
    let mut heard = BTreeSet::new();
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
        heard.extend(iter::from_fn(|| arrival(&client.socket)));
    }
    let dropped = [r#"hairpin_dropped_packets_total{reason="no_permission"}"#];
    eventually("the last ones are dropped", || {
        (server.metrics().sum(&dropped) >= beyond.len() as u64).then_some(())
    });
    heard.extend(iter::from_fn(|| arrival(&client.socket)));
    assert!(within.len() > 100 && beyond.len() > 2, "{within:?} {beyond:?}");
    assert!(within.is_subset(&heard), "{:?}", within.difference(&heard));
    assert!(beyond.is_disjoint(&heard), "{:?}", beyond.intersection(&heard));
    server.stop();
}

/// The number in the next Data indication, if one comes before it is time to send again. It ends with
/// DATA, which is padded to four bytes.
fn arrival(socket: &UdpSocket) -> Option<u16> {
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    let [.., high, low, _, _] = buffer[..length] else { panic!("too short") };
    Some(u16::from_be_bytes([high, low]))
}
