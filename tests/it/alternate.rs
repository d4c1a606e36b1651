//! 300 with ALTERNATE-SERVER: whom a server sends elsewhere, and whom it does not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hairpin::turn::Alternate;
use tokio::time::Instant;

use super::client::{ALLOCATE, Client, DEADLINE, code_of};
use super::common::TestServer;
use super::relay::loopback;

const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ALTERNATES: [&str; 2] = ["192.0.2.7:3479", "[2001:db8::7]:3478"];
const REQUESTED_TRANSPORT: u16 = 0x0019;
const ALTERNATE_SERVER: u16 = 0x8023;

fn without_name(address: &str) -> Alternate {
    Alternate { address: address.parse().unwrap(), name: None }
}

/// The code that one request gets: without a nonce it is not signed.
async fn allocate_once(client: &Client) -> u16 {
    let udp = (REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
    client.send_raw(&client.signed(ALLOCATE, |_| vec![udp.clone()])).await;
    code_of(client.recv_raw(Instant::now() + DEADLINE).await.expect("an answer"))
}

#[tokio::test]
async fn authenticated_allocate_is_sent_to_the_alternate_of_its_family() {
    let server = TestServer::start(|config| {
        config.net.listen = [loopback(49, 2), IPV6].map(|ip| SocketAddr::new(ip, 0)).into();
        config.turn.alternates = ALTERNATES.map(without_name).into();
    });
    let values = [
        &b"\0\x01\x0d\x97\xc0\0\x02\x07"[..],
        b"\0\x02\x0d\x96\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07",
    ];
    for (&listener, value) in server.listening().iter().zip(values) {
        for mut client in [Client::new(listener), Client::tcp(listener).await] {
            assert!(client.mapped().await == client.local(), "Binding is answered here");
            assert_eq!(allocate_once(&client).await, 401, "nobody has said who asks");
            // The client checks that it is signed.
            let sent_away = client.allocate_with(&[]).await;
            assert_eq!(sent_away.code(), 300);
            assert_eq!(sent_away.get(ALTERNATE_SERVER), Some(value));
            let stranger = client.user("mallory");
            assert_eq!(allocate_once(&stranger).await, 401, "whoever asks is not known");
        }
    }
}
