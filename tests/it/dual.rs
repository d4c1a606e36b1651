//! IPv4 and IPv6 on the two sides of a relay: each combination, and both families at once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::client::{Attribute, Client, Peer, Received};
use super::common::TestServer;
use super::relay::loopback;

const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const LIFETIME: u16 = 0x000D;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
const ADDRESS_ERROR_CODE: u16 = 0x8001;
const REFRESH: u16 = 0x004;

fn server(third: u8) -> (TestServer, IpAddr) {
    let ipv4 = loopback(third, 1);
    let listen = vec![SocketAddr::new(ipv4, 0), SocketAddr::new(IPV6, 0)];
    (TestServer::start(|config| config.net.listen = listen), ipv4)
}

fn family(byte: u8) -> Attribute {
    (REQUESTED_ADDRESS_FAMILY, vec![byte, 0, 0, 0])
}

/// Both ways, by Send and Data and by channel.
async fn relays(client: &mut Client, relayed: SocketAddr, number: u16) {
    let peer = Peer::at(relayed.ip());
    assert_eq!(client.permit(peer.address()).await, 200);
    client.send(peer.address(), b"there").await;
    assert_eq!(peer.recv().await, (relayed, b"there".to_vec()));
    peer.send(relayed, b"back").await;
    assert_eq!(client.recv().await, Received::Data(peer.address(), b"back".to_vec()));
    assert_eq!(client.bind(number, peer.address()).await, 200);
    for size in [0, 1, 1_400, 60_000] {
        let data = vec![size as u8; size];
        client.send_channel(number, &data).await;
        assert_eq!(peer.recv().await, (relayed, data.clone()));
        peer.send(relayed, &data).await;
        assert_eq!(client.recv().await, Received::Channel(number, data));
    }
}

#[tokio::test]
async fn every_family_of_client_reaches_every_family_of_peer() {
    let (server, ipv4) = server(45);
    for &listener in server.listening() {
        for (byte, ip, other) in [(1, ipv4, IPV6), (2, IPV6, ipv4)] {
            for mut client in [Client::new(listener), Client::tcp(listener).await] {
                assert_eq!(client.allocate_with(&[family(byte)]).await.code(), 200);
                let relayed = client.relayed();
                assert_eq!(relayed.ip(), ip);
                relays(&mut client, relayed, 0x4000).await;
                let other = SocketAddr::new(other, 9);
                assert_eq!(
                    [client.permit(other).await, client.bind(0x4001, other).await],
                    [443; 2]
                );
            }
        }
    }
}

#[tokio::test]
async fn dual_allocation_relays_both_families_until_one_is_deleted() {
    let (server, ipv4) = server(46);
    for &listener in server.listening() {
        for mut client in [Client::new(listener), Client::tcp(listener).await] {
            let both = (ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
            let response = client.allocate_with(&[both]).await;
            assert_eq!(response.code(), 200);
            let [v4, v6]: [SocketAddr; 2] = response.all_relayed().try_into().unwrap();
            assert_eq!([v4.ip(), v6.ip()], [ipv4, IPV6]);
            relays(&mut client, v4, 0x4000).await;
            relays(&mut client, v6, 0x4001).await;
            let delete = |byte| move |_: &[u8]| vec![family(byte), (LIFETIME, vec![0; 4])];
            assert_eq!(client.request(REFRESH, delete(1)).await.code(), 200);
            relays(&mut client, v6, 0x4002).await;
            assert_eq!(client.permit(SocketAddr::new(ipv4, 9)).await, 443);
            assert_eq!(client.request(REFRESH, delete(1)).await.code(), 443);
            assert_eq!(client.request(REFRESH, delete(2)).await.code(), 200);
            assert_eq!(client.request(REFRESH, delete(2)).await.code(), 437);
        }
    }
}

/// Inside of the process too, and between shards: the sender's address is that of the receiver's
/// family.
#[tokio::test]
async fn dual_allocations_relay_to_each_other() {
    let (server, _) = server(47);
    let both = (ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
    for _ in 0..8 {
        let mut ends = [Client::new(server.turn()), Client::new(server.turn())];
        let mut relayed = Vec::new();
        for end in &mut ends {
            relayed.push(end.allocate_with(std::slice::from_ref(&both)).await.all_relayed());
        }
        for half in [0, 1] {
            let (to, from) = (relayed[1][half], relayed[0][half]);
            assert_eq!(ends[0].permit(to).await, 200);
            assert_eq!(ends[1].permit(from).await, 200);
            ends[0].send(to, b"neighbour").await;
            assert_eq!(ends[1].recv().await, Received::Data(from, b"neighbour".to_vec()));
        }
    }
}

/// RFC 8656 §7.2 (9): one of two will do, and what is missing is told; none of two is 508.
#[tokio::test]
async fn exhausted_family_is_told_and_the_other_one_given() {
    let ipv4 = loopback(47, 2);
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ipv4, 0), SocketAddr::new(IPV6, 0)];
        config.net.relay_ports = 23_000..=23_002;
    });
    let both = [(ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0])];
    for (byte, other, left) in [(2, 1, ipv4), (1, 2, IPV6)] {
        let mut holders = Vec::new();
        for _ in 0..3 {
            let mut holder = Client::new(server.turn());
            assert_eq!(holder.allocate_with(&[family(byte)]).await.code(), 200);
            holders.push(holder);
        }
        let mut client = Client::new(server.turn());
        let response = client.allocate_with(&both).await;
        assert_eq!(response.code(), 200);
        let relayed = response.all_relayed();
        assert_eq!(relayed.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [left]);
        assert_eq!(response.get(ADDRESS_ERROR_CODE), Some(&[byte, 0, 5, 8][..]));
        relays(&mut client, relayed[0], 0x4000).await;
        // The other family's ports too.
        for _ in 0..2 {
            let mut holder = Client::new(server.turn());
            assert_eq!(holder.allocate_with(&[family(other)]).await.code(), 200);
            holders.push(holder);
        }
        assert_eq!(Client::new(server.turn()).allocate_with(&both).await.code(), 508);
        holders.push(client);
        for holder in &mut holders {
            assert_eq!(holder.refresh(0).await, 200);
        }
        let mut client = Client::new(server.turn());
        let whole = client.allocate_with(&both).await;
        assert_eq!((whole.code(), whole.all_relayed().len()), (200, 2), "all came back");
        assert_eq!(whole.get(ADDRESS_ERROR_CODE), None);
        assert_eq!(client.refresh(0).await, 200);
    }
}
