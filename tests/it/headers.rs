//! What the IP headers of relayed datagrams say: DSCP and ECN of those that came in, and the
//! system's TTL (RFC 8656 §14).
#![allow(unsafe_code, reason = "std reads no control messages")]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_void, cmsghdr, iovec, msghdr};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::client::{Client, DEADLINE, Peer, Received, binding_request};
use super::common::TestServer;
use super::relay::{loopback, server_at};

/// Expedited Forwarding and ECT(0).
const MARKED: c_int = 0xB8 | 2;
/// The portable path has no control messages, and so carries nothing.
const CARRIED: c_int = if cfg!(feature = "portable") { 0 } else { MARKED };
/// What Linux gives to all packets whose sender has no opinion.
const TTL: c_int = 64;

/// Of one family: the levels and options to set a header's fields, and to see them.
struct Family {
    level: c_int,
    set_ttl: c_int,
    set_tos: c_int,
    see_ttl: c_int,
    see_tos: c_int,
    /// As what they are seen.
    ttl: c_int,
    tos: c_int,
}

const V4: Family = Family {
    level: libc::IPPROTO_IP,
    set_ttl: libc::IP_TTL,
    set_tos: libc::IP_TOS,
    see_ttl: libc::IP_RECVTTL,
    see_tos: libc::IP_RECVTOS,
    ttl: libc::IP_TTL,
    tos: libc::IP_TOS,
};
const V6: Family = Family {
    level: libc::IPPROTO_IPV6,
    set_ttl: libc::IPV6_UNICAST_HOPS,
    set_tos: libc::IPV6_TCLASS,
    see_ttl: libc::IPV6_RECVHOPLIMIT,
    see_tos: libc::IPV6_RECVTCLASS,
    ttl: libc::IPV6_HOPLIMIT,
    tos: libc::IPV6_TCLASS,
};

fn set(fd: RawFd, family: &Family, option: c_int, value: c_int) {
    let (at, size) = ((&raw const value).cast(), mem::size_of::<c_int>() as u32);
    // SAFETY: the kernel reads the number, which lives until the call returns.
    assert_eq!(unsafe { libc::setsockopt(fd, family.level, option, at, size) }, 0);
}

/// Sends what is marked and has one hop to live, and wants to see what comes.
fn mark(fd: RawFd, family: &Family) {
    set(fd, family, family.set_ttl, 1);
    set(fd, family, family.set_tos, MARKED);
    set(fd, family, family.see_ttl, 1);
    set(fd, family, family.see_tos, 1);
}

/// TTL and TOS of the next datagram.
async fn seen(socket: &UdpSocket, family: &Family) -> [c_int; 2] {
    let read = socket.async_io(Interest::READABLE, || read(socket.as_raw_fd(), family));
    timeout(DEADLINE, read).await.expect("a datagram").unwrap()
}

fn read(fd: RawFd, family: &Family) -> io::Result<[c_int; 2]> {
    let (mut data, mut control) = ([0_u8; 2048], [0_u64; 32]);
    let mut piece = iovec { iov_base: data.as_mut_ptr().cast::<c_void>(), iov_len: data.len() };
    // SAFETY: numbers and pointers, for which zeros are valid.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: the header points to buffers of the lengths it gives.
    if unsafe { libc::recvmsg(fd, &raw mut message, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut ttl, mut tos) = (None, None);
    // SAFETY: recvmsg left the control messages as this walks them.
    let mut next: *const cmsghdr = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: null or a whole header.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: there is a byte at least; of IPv4's TOS there is no more.
        let first = unsafe { libc::CMSG_DATA(header).read() };
        match (header.cmsg_level, header.cmsg_type) {
            kind if kind == (family.level, family.ttl) => ttl = Some(c_int::from(first)),
            kind if kind == (family.level, family.tos) => tos = Some(c_int::from(first)),
            _ => {}
        }
        // SAFETY: a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok([ttl, tos].map(|field| field.expect("the kernel tells it")))
}

async fn are_carried(ip: IpAddr, family: &Family) {
    let server = server_at(ip);
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(ip);
    mark(client.socket().as_raw_fd(), family);
    mark(peer.socket().as_raw_fd(), family);
    for bind in [false, true] {
        if bind {
            assert_eq!(client.bind(0x4000, peer.address()).await, 200);
            client.send_channel(0x4000, b"there").await;
        } else {
            assert_eq!(client.permit(peer.address()).await, 200);
            client.send(peer.address(), b"there").await;
        }
        assert_eq!(seen(peer.socket(), family).await, [TTL, CARRIED], "to the peer");
        peer.send(client.relayed(), b"back").await;
        assert_eq!(seen(client.socket(), family).await, [TTL, CARRIED], "to the client");
    }
    // What has no mark gets none from those before, and a response has none of its request.
    set(client.socket().as_raw_fd(), family, family.set_tos, 0);
    client.send_channel(0x4000, b"there").await;
    assert_eq!(seen(peer.socket(), family).await, [TTL, 0]);
    set(client.socket().as_raw_fd(), family, family.set_tos, MARKED);
    client.send_raw(&binding_request()).await;
    assert_eq!(seen(client.socket(), family).await, [TTL, 0], "a response");
}

/// Wherever the kernel has put the two clients.
async fn are_carried_between_clients(ip: IpAddr, family: &Family, threads: usize) {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ip, 0)];
        config.net.threads = threads;
    });
    for _ in 0..6 {
        let (mut one, mut other) = (Client::new(server.turn()), Client::new(server.turn()));
        assert_eq!(one.allocate().await, 200);
        assert_eq!(other.allocate().await, 200);
        assert_eq!(one.bind(0x4000, other.relayed()).await, 200);
        assert_eq!(other.bind(0x4000, one.relayed()).await, 200);
        mark(one.socket().as_raw_fd(), family);
        mark(other.socket().as_raw_fd(), family);
        one.send_channel(0x4000, b"there").await;
        assert_eq!(seen(other.socket(), family).await, [TTL, CARRIED]);
    }
}

#[tokio::test]
async fn dscp_and_ecn_are_carried_between_clients_of_any_shard() {
    are_carried_between_clients(loopback(49, 2), &V4, 1).await;
    are_carried_between_clients(loopback(49, 3), &V4, 4).await;
}

/// A segment of TCP may have carried several messages, so its header says nothing of any.
#[tokio::test]
async fn datagrams_for_and_from_streams_are_best_effort() {
    let server = server_at(loopback(49, 4));
    let mut client = Client::tcp(server.turn()).await;
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(loopback(49, 4));
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    mark(peer.socket().as_raw_fd(), &V4);
    // The next one must not have the mark of this one.
    peer.send(client.relayed(), b"marked").await;
    assert_eq!(client.recv().await, Received::Channel(0x4000, b"marked".to_vec()));
    client.send_channel(0x4000, b"there").await;
    assert_eq!(seen(peer.socket(), &V4).await, [TTL, 0]);
}

#[tokio::test]
async fn relayed_datagrams_have_the_systems_ttl_and_carry_dscp_and_ecn_over_ipv4() {
    are_carried(loopback(49, 1), &V4).await;
}

#[tokio::test]
async fn relayed_datagrams_have_the_systems_hop_limit_and_carry_dscp_and_ecn_over_ipv6() {
    are_carried(IpAddr::V6(Ipv6Addr::LOCALHOST), &V6).await;
}
