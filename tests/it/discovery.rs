//! NAT behaviour discovery over real sockets: which of four addresses a response comes from.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hairpin::net::external::Known;
use hairpin::turn::Discovery;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::client::{Client, DEADLINE, binding_request, push};
use super::common::TestServer;
use super::relay::loopback;

const CHANGE_REQUEST: u16 = 0x0003;
const PADDING: u16 = 0x0026;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;
/// Ports that Linux gives to nobody by itself, on addresses of this file's own.
const PORTS: [u16; 2] = [3478, 3479];

fn server(third: u8) -> (TestServer, [IpAddr; 2]) {
    let ips = [loopback(third, 1), loopback(third, 2)];
    let discovery = Discovery::new((ips[0], PORTS[0]).into(), (ips[1], PORTS[1]).into()).unwrap();
    let server = TestServer::start(|config| {
        config.net.listen = discovery.addresses().into();
        config.turn.discovery = Some(discovery);
        config.turn.limits.unauthenticated_per_source = 0;
    });
    (server, ips)
}

/// Sends until there is an answer, and tells where from.
async fn exchange(socket: &UdpSocket, to: SocketAddr, request: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut bytes = vec![0; 4096];
    let answered = async {
        loop {
            socket.send_to(request, to).await.unwrap();
            let answer = timeout(Duration::from_millis(500), socket.recv_from(&mut bytes)).await;
            let Ok(answer) = answer else { continue };
            let (length, from) = answer.unwrap();
            // What is late answers an earlier request.
            if bytes[8..20] == request[8..20] {
                return (from, bytes[..length].to_vec());
            }
        }
    };
    timeout(DEADLINE, answered).await.expect("an answer")
}

#[tokio::test]
async fn responses_come_from_where_change_request_asks() {
    let (_server, ips) = server(41);
    // Several clients, so that each shard answers some of them.
    for _ in 0..4 {
        let socket = UdpSocket::bind((ips[0], 0)).await.unwrap();
        for case in 0..16 {
            let (ip, port, flags) = (case & 1, case >> 1 & 1, (case >> 2) * 2);
            let mut request = binding_request();
            push(&mut request, CHANGE_REQUEST, &[0, 0, 0, flags as u8]);
            let at = SocketAddr::new(ips[ip], PORTS[port]);
            let (from, answer) = exchange(&socket, at, &request).await;
            assert_eq!(answer[..2], [1, 1], "a success");
            let expected =
                SocketAddr::new(ips[ip ^ (flags >> 2 & 1)], PORTS[port ^ (flags >> 1 & 1)]);
            assert_eq!(from, expected, "asked at {at} with flags {flags}");
        }
    }
}

/// The value of an address attribute that is not XOR-ed, of IPv4.
fn plain(answer: &[u8], kind: u16) -> SocketAddr {
    let mut rest = &answer[20..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if rest[..2] == kind.to_be_bytes() {
            let ip: [u8; 4] = rest[8..12].try_into().unwrap();
            return (ip, u16::from_be_bytes([rest[6], rest[7]])).into();
        }
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
    panic!("no {kind:#06x} in {answer:02x?}");
}

/// Behind 1:1 NAT: the addresses told are not those that it has.
#[tokio::test]
async fn external_addresses_are_told_and_own_ones_are_answered_from() {
    let ips = [loopback(46, 1), loopback(46, 2)];
    let shown = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let discovery = Discovery::new((ips[0], PORTS[0]).into(), (ips[1], PORTS[1]).into()).unwrap();
    let _server = TestServer::start(|config| {
        config.net.listen = discovery.addresses().into();
        config.net.external.known = (shown.into_iter().zip(ips))
            .map(|(external, local)| Known { external, local: Some(local) })
            .collect();
        config.turn.discovery = Some(discovery);
    });
    let socket = UdpSocket::bind((ips[0], 0)).await.unwrap();
    for (flags, ip) in [(0, 0), (4, 1)] {
        let mut request = binding_request();
        push(&mut request, CHANGE_REQUEST, &[0, 0, 0, flags]);
        let (from, answer) = exchange(&socket, (ips[0], PORTS[0]).into(), &request).await;
        assert_eq!(from, (ips[ip], PORTS[0]).into());
        assert_eq!(plain(&answer, RESPONSE_ORIGIN), (shown[ip], PORTS[0]).into());
        assert_eq!(plain(&answer, OTHER_ADDRESS), (shown[1], PORTS[1]).into());
    }
}

#[tokio::test]
async fn change_request_over_tcp_is_420() {
    let (server, _) = server(42);
    let mut client = Client::tcp(server.turn()).await;
    let change = |_: &[u8]| vec![(CHANGE_REQUEST, vec![0, 0, 0, 6])];
    assert_eq!(client.request(super::client::BINDING, change).await.code(), 420);
    assert_eq!(client.mapped().await, client.local());
}

#[tokio::test]
async fn padding_comes_back_from_the_other_address() {
    let (_server, ips) = server(43);
    let socket = UdpSocket::bind((ips[0], 0)).await.unwrap();
    let mut request = binding_request();
    push(&mut request, CHANGE_REQUEST, &[0, 0, 0, 6]);
    push(&mut request, PADDING, &[7; 1500]);
    let (from, answer) = exchange(&socket, (ips[0], PORTS[0]).into(), &request).await;
    assert_eq!(from, (ips[1], PORTS[1]).into());
    assert_eq!(answer.len(), 68 + 4 + 1500);
}
