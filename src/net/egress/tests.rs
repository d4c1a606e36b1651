//! Real sockets on loopback, on both paths. Timeouts only keep a lost datagram from hanging a test.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::net::sys::{AwaitedSocket, Options, RecvBatch};

/// Whether runs leave and arrive in one piece, and addresses are known: not on the portable path.
const BATCHES: bool = cfg!(all(target_os = "linux", not(feature = "portable")));

fn bind(address: &str, options: Options) -> AwaitedSocket {
    let socket = Socket::bind(address.parse().expect("valid"), options);
    AwaitedSocket::new(socket.expect("loopback can be bound")).expect("inside a runtime")
}

fn bound(address: &str) -> AwaitedSocket {
    bind(address, Options { packet_info: true, ..Options::default() })
}

fn to(socket: &Socket) -> Route<u8> {
    Route {
        socket: 0,
        to: socket.local_addr().expect("bound"),
        from: None,
        dont_fragment: false,
        traffic_class: 0,
    }
}

/// Flushes through one socket, and gives the reasons of what was dropped.
fn flush(egress: &mut Egress<u8>, received: &[u8], socket: &Socket) -> Vec<DropReason> {
    let mut reasons = Vec::new();
    egress.flush(received, |_| Some(socket), |reason| reasons.push(reason));
    assert!(egress.is_empty());
    reasons
}

/// The next `count` datagrams, and who sent them.
async fn arrivals(socket: &AwaitedSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = RecvBatch::new();
    let mut arrived = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), async {
        while arrived.len() < count {
            socket.readable().await.expect("the socket is fine");
            socket.recv(&mut batch).expect("the socket is fine");
            let bytes = batch.bytes();
            arrived
                .extend(batch.datagrams().iter().map(|it| (it.from, bytes[it.range()].to_vec())));
        }
    })
    .await
    .expect("all datagrams arrive");
    assert_eq!(arrived.len(), count);
    arrived
}

async fn payloads(socket: &AwaitedSocket, count: usize) -> Vec<Vec<u8>> {
    arrivals(socket, count).await.into_iter().map(|(_, payload)| payload).collect()
}

/// Bytes that tell where they were cut.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_burst_leaves_as_one_run_and_arrives_as_its_datagrams() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(8_000);
    let mut egress = Egress::new();
    for number in 0..8 {
        let payload = number * 1_000..(number + 1) * 1_000;
        egress.push(to(&receiver), &[0x40, 0, 3, 0xE8], payload, 0);
    }
    assert_eq!(egress.runs.len(), 1);
    assert_eq!(flush(&mut egress, &received, &sender), []);
    let expected: Vec<_> =
        received.chunks(1_000).map(|payload| [&[0x40, 0, 3, 0xE8], payload].concat()).collect();
    assert_eq!(payloads(&receiver, 8).await, expected);
}

#[tokio::test]
async fn a_train_is_split_into_its_datagrams_and_a_short_last_one() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(5 * 1_200 + 7);
    let mut egress = Egress::new();
    for start in (0..received.len()).step_by(1_200) {
        egress.push(to(&receiver), &[], start..received.len().min(start + 1_200), 0);
    }
    assert_eq!(egress.runs.len(), 1);
    assert_eq!(flush(&mut egress, &received, &sender), []);
    let mut batch = RecvBatch::new();
    receiver.readable().await.expect("the socket is fine");
    receiver.recv(&mut batch).expect("the socket is fine");
    let lengths: Vec<_> = batch.datagrams().iter().map(|datagram| datagram.len).collect();
    assert_eq!(lengths, [1_200, 1_200, 1_200, 1_200, 1_200, 7]);
    if BATCHES {
        let starts: Vec<_> = batch.datagrams().iter().map(|datagram| datagram.start).collect();
        assert_eq!(starts, [0, 1_200, 2_400, 3_600, 4_800, 6_000], "one train in one buffer");
    }
}

#[tokio::test]
async fn interleaved_flows_group() {
    let sender = bound("127.0.0.1:0");
    let receivers: Vec<_> = (0..LOOK_BACK).map(|_| bound("127.0.0.1:0")).collect();
    let received = pattern(4_000);
    let mut egress = Egress::new();
    for round in 0..4 {
        for receiver in &receivers {
            egress.push(to(receiver), &[], round * 1_000..(round + 1) * 1_000, 0);
        }
    }
    assert_eq!(egress.runs.len(), LOOK_BACK);
    assert_eq!(flush(&mut egress, &received, &sender), []);
    for receiver in &receivers {
        assert_eq!(payloads(receiver, 4).await.concat(), received);
    }
}

#[tokio::test]
async fn mixed_sizes_keep_their_order() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(2_000);
    let lengths = [100, 100, 50, 100, 0, 0, 200, 100, 100, 300, 300, 1];
    let mut egress = Egress::new();
    for (start, len) in lengths.into_iter().enumerate() {
        egress.push(to(&receiver), &[], start..start + len, 0);
    }
    let runs: Vec<_> = egress.runs.iter().map(|run| run.datagrams).collect();
    assert_eq!(runs, [3, 1, 1, 1, 2, 1, 3]);
    assert_eq!(flush(&mut egress, &received, &sender), []);
    let expected: Vec<_> = lengths
        .into_iter()
        .enumerate()
        .map(|(start, len)| received[start..start + len].to_vec())
        .collect();
    assert_eq!(payloads(&receiver, lengths.len()).await, expected);
}

#[tokio::test]
async fn runs_end_at_what_the_kernel_takes() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(3_000);
    let mut egress = Egress::new();
    for _ in 0..RUN_DATAGRAMS + 1 {
        egress.push(to(&receiver), &[], 0..10, 0);
    }
    for _ in 0..22 {
        egress.push(to(&receiver), &[], 0..3_000, 0);
    }
    let runs: Vec<_> = egress.runs.iter().map(|run| run.datagrams).collect();
    assert_eq!(runs, [RUN_DATAGRAMS, 1, 21, 1]);
    assert_eq!(flush(&mut egress, &received, &sender), []);
    payloads(&receiver, RUN_DATAGRAMS + 23).await;
}

#[tokio::test]
async fn sizes_survive_in_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (sender, receiver) = (bound(address), bound(address));
        let received = pattern(65_000);
        let mut egress = Egress::new();
        for len in [0, 1, 1_200, 1_472, 9_000, 65_000] {
            egress.push(to(&receiver), &[], 0..len, 0);
            assert_eq!(flush(&mut egress, &received, &sender), []);
            let (from, payload) = arrivals(&receiver, 1).await.remove(0);
            assert_eq!(from, sender.local_addr().expect("bound"));
            assert!(payload == received[..len], "{len} bytes");
        }
    }
}

#[tokio::test]
async fn header_payload_and_padding_make_one_datagram() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let mut egress = Egress::new();
    egress.push(to(&receiver), b"head", 1..4, 1);
    egress.push_owned(to(&receiver), b"a reply");
    assert_eq!(flush(&mut egress, b"-body-", &sender), []);
    let expected = [b"headbod\0".to_vec(), b"a reply".to_vec()];
    assert_eq!(payloads(&receiver, 2).await, expected);
}

#[tokio::test]
async fn too_large_is_counted_and_the_rest_still_goes() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(65_536);
    let mut egress = Egress::new();
    egress.push(to(&receiver), &[], 0..1, 0);
    egress.push(to(&receiver), &[], 0..65_536, 0);
    egress.push(to(&receiver), &[], 0..65_508, 0);
    egress.push(to(&receiver), &[], 0..65_507, 0);
    let dropped = flush(&mut egress, &received, &sender);
    assert_eq!(dropped, [DropReason::TooLarge, DropReason::TooLarge]);
    let lengths: Vec<_> = payloads(&receiver, 2).await.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 65_507]);
}

#[tokio::test]
async fn a_destination_that_cannot_be_is_counted_and_the_rest_still_goes() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let other_family = Route { to: "[::1]:9".parse().expect("valid"), ..to(&receiver) };
    let mut egress = Egress::new();
    egress.push_owned(other_family, b"same");
    egress.push_owned(other_family, b"size");
    egress.push_owned(to(&receiver), b"goes");
    let dropped = flush(&mut egress, &[], &sender);
    assert_eq!(dropped, [DropReason::SendFailed, DropReason::SendFailed]);
    assert_eq!(payloads(&receiver, 1).await, [b"goes"]);
}

#[tokio::test]
async fn a_closed_port_stops_nobody() {
    // The portable path only has what the system reports by itself.
    let options = Options { icmp: true, ..Options::default() };
    let sender = bind("127.0.0.1:0", options);
    let receiver = bound("127.0.0.1:0");
    let closed = to(&bound("127.0.0.1:0"));
    let mut egress = Egress::new();
    for _ in 0..3 {
        egress.push_owned(closed, b"nobody home");
        egress.push_owned(to(&receiver), b"goes");
        egress.push_owned(Route { from: Some([127, 0, 0, 1].into()), ..closed }, b"nobody home");
        assert_eq!(flush(&mut egress, &[], &sender), []);
        assert_eq!(payloads(&receiver, 1).await, [b"goes"]);
    }
    let mut batch = RecvBatch::new();
    sender.recv(&mut batch).expect("the socket is fine");
    assert!(batch.is_empty());
}

#[tokio::test]
async fn a_reply_leaves_from_the_address_that_was_asked() {
    let families = [("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2"), ("[::]:0", "[::1]:0", "::1")];
    for (wildcard, client, asked) in families {
        let (server, client) = (bound(wildcard), bound(client));
        let from: IpAddr = asked.parse().expect("valid");
        let mut egress = Egress::new();
        egress.push_owned(Route { from: Some(from), ..to(&client) }, b"first");
        egress.push_owned(Route { from: Some(from), ..to(&client) }, b"again");
        assert_eq!(flush(&mut egress, &[], &server), []);
        for (source, _) in arrivals(&client, 2).await {
            // The portable path leaves the source to the kernel.
            assert!(source.ip() == from || !BATCHES, "left from {source}");
        }
    }
}

/// Alternately with and without: what the kernel is told before each, and in order all the same.
#[tokio::test]
async fn the_df_bit_is_set_on_what_asks_for_it_and_on_nothing_else() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let mut egress = Egress::new();
    for number in 0..6 {
        let route = Route { dont_fragment: number % 3 == 1, ..to(&receiver) };
        egress.push_owned(route, &[number]);
    }
    assert_eq!(egress.runs.len(), 5, "datagrams with the bit and without share no run");
    assert_eq!(flush(&mut egress, &[], &sender), []);
    let expected: Vec<_> = (0..6).map(|number| vec![number]).collect();
    assert_eq!(payloads(&receiver, 6).await, expected);
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    for whole in [true, false] {
        egress.push_owned(Route { dont_fragment: whole, ..to(&receiver) }, b"x");
        assert_eq!(flush(&mut egress, &[], &sender), []);
        assert_eq!(sender.sets_dont_fragment(), whole);
    }
}

/// It moves to another shard, which knows nothing of what went before.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[tokio::test]
async fn the_df_bit_does_not_stay_set_on_a_socket_that_moves() {
    let receiver = bound("127.0.0.1:0");
    let sender = Socket::bind("127.0.0.1:0".parse().expect("valid"), Options::default());
    let sender = sender.expect("loopback can be bound");
    let mut egress = Egress::new();
    egress.push_owned(Route { dont_fragment: true, ..to(&receiver) }, b"whole");
    assert_eq!(flush(&mut egress, &[], &sender), []);
    assert!(sender.sets_dont_fragment());
    let sender = Socket::attach(sender.detach().expect("detached")).expect("attached");
    egress.push_owned(to(&receiver), b"any");
    assert_eq!(flush(&mut egress, &[], &sender), []);
    assert!(!sender.sets_dont_fragment());
}

#[tokio::test]
async fn each_socket_sends_its_own_and_a_closed_one_is_counted() {
    let (receiver, senders) = (bound("127.0.0.1:0"), [bound("127.0.0.1:0"), bound("127.0.0.1:0")]);
    let mut egress = Egress::new();
    for socket in [0, 1, 2, 1] {
        egress.push_owned(Route { socket, ..to(&receiver) }, &[socket]);
    }
    let mut dropped = Vec::new();
    egress.flush(
        &[],
        |key| senders.get(usize::from(key)).map(|sender| &**sender),
        |reason| dropped.push(reason),
    );
    assert_eq!(dropped, [DropReason::SendFailed]);
    for (from, payload) in arrivals(&receiver, 3).await {
        let sender = &senders[usize::from(payload[0])];
        assert_eq!(from, sender.local_addr().expect("bound"));
    }
}

#[tokio::test]
async fn memory_is_kept_between_flushes() {
    let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let received = pattern(1_000);
    let mut egress = Egress::new();
    let mut capacities = Vec::new();
    for _ in 0..3 {
        (0..100).for_each(|_| egress.push(to(&receiver), b"head", 0..100, 0));
        assert_eq!(flush(&mut egress, &received, &sender), []);
        payloads(&receiver, 100).await;
        capacities.push((
            egress.runs.capacity(),
            egress.segments.capacity(),
            egress.arena.capacity(),
        ));
    }
    assert_eq!(capacities[1..], [capacities[0]; 2]);
}
