//! Real sockets on loopback, on both paths. Timeouts only keep a lost datagram from hanging a test.

use std::future::poll_fn;
use std::net::UdpSocket as StdSocket;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bind(address: SocketAddr, options: Options) -> AwaitedSocket {
    let socket = Socket::bind(address, options).expect("it can be bound");
    AwaitedSocket::new(socket).expect("inside a runtime")
}

fn bound() -> AwaitedSocket {
    bind(loopback(), Options::default())
}

/// Waits for something and receives it.
async fn receive(socket: &AwaitedSocket, batch: &mut RecvBatch) -> usize {
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            socket.readable().await.expect("the socket is fine");
            socket.recv(batch).expect("the socket is fine");
            if !batch.is_empty() {
                return batch.len();
            }
        }
    })
    .await
    .expect("a datagram arrives")
}

fn payloads(batch: &RecvBatch) -> Vec<Vec<u8>> {
    batch.datagrams().iter().map(|datagram| batch.bytes()[datagram.range()].to_vec()).collect()
}

#[tokio::test]
async fn nothing_there_is_no_datagram() {
    let socket = bound();
    let mut batch = RecvBatch::new();
    socket.recv(&mut batch).expect("not an error");
    assert!(batch.is_empty());
}

#[tokio::test]
async fn more_than_a_batch_arrives_in_order() {
    let (receiver, sender) = (bound(), StdSocket::bind(loopback()).expect("loopback"));
    let to = receiver.local_addr().expect("bound");
    for number in 0..80u8 {
        sender.send_to(&[number], to).expect("loopback takes it");
    }
    let mut batch = RecvBatch::new();
    let mut arrived = Vec::new();
    while arrived.len() < 80 {
        receive(&receiver, &mut batch).await;
        assert!(batch.datagrams().iter().all(|it| it.from == sender.local_addr().expect("bound")));
        arrived.extend(payloads(&batch).concat());
    }
    assert_eq!(arrived, (0..80).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_short_batch_clears_readiness_and_the_next_datagram_wakes() {
    let (receiver, sender) = (bound(), StdSocket::bind(loopback()).expect("loopback"));
    let to = receiver.local_addr().expect("bound");
    let mut batch = RecvBatch::new();
    for _ in 0..3 {
        sender.send_to(b"one", to).expect("loopback takes it");
        assert_eq!(receive(&receiver, &mut batch).await, 1);
        let mut again = Context::from_waker(Waker::noop());
        assert!(matches!(pin!(receiver.readable()).poll(&mut again), Poll::Pending));
    }
}

/// The names of what a watcher says is ready, once it says anything.
async fn ready(watcher: &mut Watcher) -> Vec<u64> {
    let mut ready: Vec<Ready> = Vec::new();
    let waiting = poll_fn(|context| watcher.poll(context, &mut ready));
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("something arrives")
        .expect("the watcher is fine");
    let mut tokens: Vec<_> = ready.iter().map(|ready| ready.token).collect();
    tokens.sort_unstable();
    tokens
}

fn says_nothing(watcher: &mut Watcher) -> bool {
    let mut ready: Vec<Ready> = Vec::new();
    watcher.poll(&mut Context::from_waker(Waker::noop()), &mut ready).is_pending()
}

fn watched() -> Socket {
    Socket::bind(loopback(), Options::default()).expect("loopback can be bound")
}

#[tokio::test]
async fn a_watcher_names_each_socket_once_for_what_has_arrived_and_again_for_more() {
    let mut watcher = Watcher::new().expect("inside a runtime");
    let sockets: Vec<Socket> = (0..3).map(|_| watched()).collect();
    let to = |at: usize| sockets[at].local_addr().expect("bound");
    let sender = StdSocket::bind(loopback()).expect("loopback");
    sender.send_to(b"before", to(0)).expect("loopback takes it");
    for (token, socket) in (7..).zip(&sockets) {
        watcher.add(socket, token).expect("it is watched");
    }
    assert_eq!(ready(&mut watcher).await, [7]);
    let mut batch = RecvBatch::new();
    for _ in 0..3 {
        for socket in &sockets {
            assert!(!socket.recv(&mut batch).expect("the socket is fine"), "all is read");
        }
        assert!(says_nothing(&mut watcher));
        sender.send_to(b"one", to(0)).expect("loopback takes it");
        sender.send_to(b"two", to(2)).expect("loopback takes it");
        let mut named = ready(&mut watcher).await;
        while named.len() < 2 {
            named.extend(ready(&mut watcher).await);
        }
        assert_eq!(named, [7, 9]);
    }
}

#[tokio::test]
async fn what_is_received_joins_a_batch_until_it_is_full() {
    let (one, other) = (watched(), watched());
    let sender = StdSocket::bind(loopback()).expect("loopback");
    let mut batch = RecvBatch::new();
    let all = batch.room();
    let count = u8::try_from(all).expect("few") - 1;
    for number in 0..count {
        sender.send_to(&[number], one.local_addr().expect("bound")).expect("loopback takes it");
    }
    for number in [count, count + 1, count + 2] {
        sender.send_to(&[number], other.local_addr().expect("bound")).expect("loopback takes it");
    }
    let mut watcher = Watcher::new().expect("inside a runtime");
    watcher.add(&one, 1).expect("it is watched");
    ready(&mut watcher).await;
    assert!(!one.recv(&mut batch).expect("the socket is fine"), "it was read to its end");
    assert_eq!(batch.room(), 1);
    watcher.add(&other, 2).expect("it is watched");
    ready(&mut watcher).await;
    assert!(
        other.recv(&mut batch).expect("the socket is fine"),
        "there was no room to see the end"
    );
    assert_eq!(payloads(&batch).concat(), (0..=count).collect::<Vec<_>>());
    batch.clear();
    assert_eq!((batch.room(), batch.len()), (all, 0));
    assert!(!other.recv(&mut batch).expect("the socket is fine"));
    assert_eq!(payloads(&batch).concat(), [count + 1, count + 2]);
}

#[tokio::test]
async fn a_socket_is_watched_until_it_is_removed_or_closed() {
    let mut watcher = Watcher::new().expect("inside a runtime");
    let sender = StdSocket::bind(loopback()).expect("loopback");
    let (kept, moved, closed) = (watched(), watched(), watched());
    for (socket, token) in [(&kept, u64::MAX), (&moved, 2), (&closed, 3)] {
        watcher.add(socket, token).expect("it is watched");
    }
    let to = [&kept, &moved, &closed].map(|socket| socket.local_addr().expect("bound"));
    watcher.remove(&moved);
    drop(closed);
    for to in to {
        // Nobody is there for the last one.
        let _ = sender.send_to(b"x", to);
    }
    assert_eq!(ready(&mut watcher).await, [u64::MAX]);
    assert!(says_nothing(&mut watcher));
    let attached = Socket::attach(moved.detach().expect("detached")).expect("attached");
    let mut another = Watcher::new().expect("inside a runtime");
    another.add(&attached, 4).expect("it is watched");
    assert_eq!(ready(&mut another).await, [4], "what arrived meanwhile has waited");
}

#[tokio::test]
async fn more_sockets_than_a_watcher_names_at_once_are_all_named() {
    let mut watcher = Watcher::new().expect("inside a runtime");
    let sender = StdSocket::bind(loopback()).expect("loopback");
    let sockets: Vec<Socket> = (0..200).map(|_| watched()).collect();
    for (token, socket) in (0..).zip(&sockets) {
        watcher.add(socket, token).expect("it is watched");
        sender.send_to(b"x", socket.local_addr().expect("bound")).expect("loopback takes it");
    }
    let mut named = Vec::new();
    while named.len() < sockets.len() {
        named.extend(ready(&mut watcher).await);
    }
    named.sort_unstable();
    assert_eq!(named, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn empty_datagrams_arrive() {
    let (receiver, sender) = (bound(), StdSocket::bind(loopback()).expect("loopback"));
    let to = receiver.local_addr().expect("bound");
    let mut batch = RecvBatch::new();
    sender.send_to(&[], to).expect("loopback takes it");
    assert_eq!(receive(&receiver, &mut batch).await, 1);
    assert_eq!(batch.datagrams()[0].len, 0);
}

/// The portable path cannot know where a datagram was sent to.
#[tokio::test]
async fn a_wildcard_socket_knows_the_address_that_was_asked() {
    let options = Options { packet_info: true, ..Options::default() };
    for (wildcard, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let receiver = bind(wildcard.parse().expect("valid"), options);
        let to = SocketAddr::new(
            asked.parse().expect("valid"),
            receiver.local_addr().expect("bound").port(),
        );
        let sender = StdSocket::bind(wildcard).expect("wildcard");
        sender.send_to(b"hello", to).expect("loopback takes it");
        let mut batch = RecvBatch::new();
        receive(&receiver, &mut batch).await;
        let known = cfg!(all(target_os = "linux", not(feature = "portable")));
        assert_eq!(batch.datagrams()[0].to, known.then_some(to.ip()));
    }
}

#[tokio::test]
async fn families_and_shards_share_a_port_and_probe_sees_it() {
    let shard = Options { reuse_port: true, packet_info: true, icmp: false, traffic_class: false };
    let first = Socket::bind("0.0.0.0:0".parse().expect("valid"), shard).expect("free port");
    let v4 = first.local_addr().expect("bound");
    let v6 = SocketAddr::new("::".parse().expect("valid"), v4.port());
    probe(v6).expect("the other family is free");
    let _second = Socket::bind(v4, shard).expect("shards share the port");
    let _third = Socket::bind(v6, shard).expect("IPv6 leaves IPv4 alone");
    assert_eq!(probe(v4).expect_err("held").kind(), io::ErrorKind::AddrInUse);
    assert_eq!(probe(v6).expect_err("held").kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_probed_port_is_free_afterwards() {
    let address = bound().local_addr().expect("bound");
    probe(address).expect("free again");
    Socket::bind(address, Options::default()).expect("the probe let go");
}

/// The portable path has no list.
#[test]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn loopback_is_among_the_interfaces_and_has_no_broadcast() {
    let addresses = interface_addresses().expect("the kernel lists them");
    let loopback = addresses.iter().find(|it| it.ip == IpAddr::from([127, 0, 0, 1]));
    assert_eq!(loopback.expect("127.0.0.1 is there").broadcast, None);
}

/// Without `IP_RECVERR`, which the portable path cannot set, there is no such error.
#[tokio::test]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
async fn an_icmp_error_does_not_hide_what_arrived() {
    let options = Options { icmp: true, ..Options::default() };
    let socket = bind(loopback(), options);
    let peer = StdSocket::bind(loopback()).expect("loopback");
    let mut batch = RecvBatch::new();
    let closed = bound().local_addr().expect("bound");
    let segments = [Segment { header: 0..0, payload: 0..0, padding: 0, next: None }];
    let route =
        Route { socket: (), to: closed, from: None, dont_fragment: false, traffic_class: 0 };
    let runs = [Run { route, size: 0, total: 0, datagrams: 1, first: 0, last: 0 }];
    let outgoing = Outgoing { runs: &runs, segments: &segments, arena: &[], received: &[] };
    for number in 0..3 {
        socket.send(&outgoing, &mut SendScratch::default(), &mut |reason| panic!("{reason:?}"));
        peer.send_to(&[number], socket.local_addr().expect("bound")).expect("loopback takes it");
        // The error is still there, unless it came first and alone.
        let mut received = 0;
        while received == 0 {
            socket.readable().await.expect("the socket is fine");
            socket.recv(&mut batch).expect("the socket is fine");
            received = batch.len();
            socket.recv_icmp(&mut Vec::new());
        }
        assert_eq!(received, 1);
        assert_eq!(payloads(&batch), [[number]]);
    }
}

/// Unlike "connection refused", "no route to host" may be about the datagram that fails with it.
#[tokio::test]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
async fn an_icmp_error_does_not_fail_what_is_sent_to_another() {
    use socket2::{Protocol, Type};

    let Ok(forger) = socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped");
        return;
    };
    let options = Options { icmp: true, ..Options::default() };
    let socket = bind(loopback(), options);
    let receiver = bound();
    let [from, to] = [&socket, &receiver].map(|it| it.local_addr().expect("bound"));
    // Host unreachable, about an empty datagram from our socket to a host that does not matter.
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    error.extend([127, 0, 0, 1, 192, 0, 2, 1]);
    error.extend([from.port(), 9, 8, 0].map(u16::to_be_bytes).concat());
    let words = error.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    error[2..4].copy_from_slice(&sum.to_be_bytes());

    let segments = [Segment { header: 0..0, payload: 0..0, padding: 0, next: None }];
    let route = Route { socket: (), to, from: None, dont_fragment: false, traffic_class: 0 };
    let runs = [Run { route, size: 0, total: 0, datagrams: 1, first: 0, last: 0 }];
    let outgoing = Outgoing { runs: &runs, segments: &segments, arena: &[], received: &[] };
    let (mut batch, mut errors) = (RecvBatch::new(), Vec::new());
    // Errors are kept from here on.
    socket.send(&outgoing, &mut SendScratch::default(), &mut |reason| panic!("{reason:?}"));
    assert_eq!(receive(&receiver, &mut batch).await, 1);
    for _ in 0..3 {
        batch.clear();
        forger.send_to(&error, &SockAddr::from(loopback())).expect("loopback takes it");
        socket.send(&outgoing, &mut SendScratch::default(), &mut |reason| panic!("{reason:?}"));
        assert_eq!(receive(&receiver, &mut batch).await, 1);
        assert!(!socket.recv_icmp(&mut errors), "there are no more");
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        assert_eq!(errors, [IcmpError { peer, kind: 3, code: 1, info: 0 }]);
    }
}

/// A run the kernel refuses to segment: here its total is more than a datagram can be.
#[tokio::test]
async fn a_refused_run_leaves_as_single_datagrams() {
    let (receiver, sender) = (bound(), bound());
    let to = receiver.local_addr().expect("bound");
    let received: Vec<u8> = (0..4).flat_map(|number| vec![number; 30_000]).collect();
    let segment = |number: usize, next| Segment {
        header: 0..0,
        payload: number * 30_000..(number + 1) * 30_000,
        padding: 0,
        next,
    };
    let segments = [segment(0, Some(1)), segment(1, Some(2)), segment(2, None), segment(3, None)];
    let route = Route { socket: (), to, from: None, dont_fragment: false, traffic_class: 0 };
    let run =
        |total, datagrams, first, last| Run { route, size: 30_000, total, datagrams, first, last };
    let runs = [run(90_000, 3, 0, 2), run(30_000, 1, 3, 3)];
    let outgoing = Outgoing { runs: &runs, segments: &segments, arena: &[], received: &received };
    sender.send(&outgoing, &mut SendScratch::default(), &mut |reason| panic!("{reason:?}"));
    let mut batch = RecvBatch::new();
    let mut arrived = Vec::new();
    while arrived.len() < 120_000 {
        receive(&receiver, &mut batch).await;
        arrived.extend(payloads(&batch).concat());
    }
    assert_eq!(arrived, received);
}

/// No socket of ours may broadcast, so the kernel says EACCES.
#[tokio::test]
#[cfg(unix)]
async fn a_datagram_the_kernel_forbids_is_counted_and_the_next_one_leaves() {
    let (receiver, sender) = (bound(), bound());
    let to = receiver.local_addr().expect("bound");
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
    let received = b"onetwosix";
    let segment = |number: usize| Segment {
        header: 0..0,
        payload: number * 3..(number + 1) * 3,
        padding: 0,
        next: None,
    };
    let segments = [segment(0), segment(1), segment(2)];
    let run = |to, index| Run {
        route: Route { socket: (), to, from: None, dont_fragment: false, traffic_class: 0 },
        size: 3,
        total: 3,
        datagrams: 1,
        first: index,
        last: index,
    };
    let runs = [run(to, 0), run(nowhere, 1), run(to, 2)];
    let outgoing = Outgoing { runs: &runs, segments: &segments, arena: &[], received };
    let mut dropped = Vec::new();
    let mut count = |reason| dropped.push(reason);
    sender.send(&outgoing, &mut SendScratch::default(), &mut count);
    assert_eq!(dropped, [crate::turn::stats::DropReason::SendFailed]);
    let mut batch = RecvBatch::new();
    let mut arrived = Vec::new();
    while arrived.len() < 2 {
        receive(&receiver, &mut batch).await;
        arrived.extend(payloads(&batch));
    }
    assert_eq!(arrived, [b"one", b"six"]);
}
