//! Server CPU per relayed packet beside coturn: `cargo bench --bench compare`.
//!
//! One server at a time on one core, this generator on another, rounds alternating. Each round
//! is in lock step: all flows send a burst, all of it arrives, then the next; so neither server
//! is ever pushed into loss, and the packets are the same for both.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use hairpin::stun::{ChannelNumber, channel};
use support::{Client, Server, median_and_spread};

const FLOWS: usize = 10;
const BURST: usize = 8;
const PAYLOAD: usize = 1000;
const ROUNDS: usize = 9;
const BURSTS_PER_ROUND: usize = 1500;

#[derive(Clone, Copy)]
enum Load {
    ToPeer,
    ToClient,
    RelayToRelay,
}

fn main() {
    pin_to_core_0();
    let Some(coturn) = Server::coturn(24_783, Some(1)) else {
        println!("coturn is not installed: nothing to compare with");
        return;
    };
    let hairpin = Server::hairpin(24_782, Some(1));
    for gso in [true, false] {
        let how = if gso { "sent with GSO" } else { "sent one by one" };
        println!(
            "\n{FLOWS} flows, bursts of {BURST} x {PAYLOAD} bytes, {how}; server CPU, ns/packet"
        );
        for (name, load) in [
            ("client to peer", Load::ToPeer),
            ("peer to client", Load::ToClient),
            ("relay to relay", Load::RelayToRelay),
        ] {
            compare(name, &hairpin, &coturn, load, gso);
        }
    }
}

fn compare(name: &str, hairpin: &Server, coturn: &Server, load: Load, gso: bool) {
    let mut flows = [open(hairpin, load, gso), open(coturn, load, gso)];
    let mut nanos = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let measured = [0, 1].map(|which| {
            let server = [hairpin, coturn][which];
            let before = server.cpu_nanos();
            let packets = drive(&mut flows[which]);
            (server.cpu_nanos() - before) as f64 / packets as f64
        });
        // The first round warms caches and is thrown away.
        if round > 0 {
            nanos[0].push(measured[0]);
            nanos[1].push(measured[1]);
            ratios.push(measured[0] / measured[1]);
        }
    }
    let [(ours, ..), (theirs, ..)] = nanos.each_mut().map(|values| median_and_spread(values));
    let (ratio, low, high) = median_and_spread(&mut ratios);
    println!(
        "{name:15} hairpin {ours:6.0}  coturn {theirs:6.0}  ratio {ratio:.2} ({low:.2} to {high:.2})"
    );
}

/// One sender, one receiver, and the bytes of a burst.
struct Flow {
    sender: UdpSocket,
    receiver: UdpSocket,
    burst: Vec<u8>,
    segment: usize,
    gso: bool,
    _clients: Vec<Client>,
}

fn open(server: &Server, load: Load, gso: bool) -> Vec<Flow> {
    (0..FLOWS).map(|_| open_one(server, load, gso)).collect()
}

fn open_one(server: &Server, load: Load, gso: bool) -> Flow {
    let mut client = Client::allocate(server.address);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    match load {
        Load::ToPeer => {
            client.bind(ChannelNumber::MIN, peer.local_addr().unwrap());
            let sender = client.socket.try_clone().unwrap();
            Flow::new(sender, peer, true, gso, vec![client])
        }
        Load::ToClient => {
            client.bind(ChannelNumber::MIN, peer.local_addr().unwrap());
            peer.connect(client.relayed).unwrap();
            let receiver = client.socket.try_clone().unwrap();
            Flow::new(peer, receiver, false, gso, vec![client])
        }
        Load::RelayToRelay => {
            let mut other = Client::allocate(server.address);
            client.bind(ChannelNumber::MIN, other.relayed);
            other.bind(ChannelNumber::MIN, client.relayed);
            let sender = client.socket.try_clone().unwrap();
            let receiver = other.socket.try_clone().unwrap();
            Flow::new(sender, receiver, true, gso, vec![client, other])
        }
    }
}

impl Flow {
    fn new(
        sender: UdpSocket,
        receiver: UdpSocket,
        channel: bool,
        gso: bool,
        clients: Vec<Client>,
    ) -> Self {
        let header = channel::header(ChannelNumber::MIN, PAYLOAD as u16);
        let header: &[u8] = if channel { &header } else { &[] };
        let packet: Vec<u8> = header.iter().copied().chain([0x5a; PAYLOAD]).collect();
        let segment = packet.len();
        set_gso(&sender, if gso { segment } else { 0 });
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { sender, receiver, burst: packet.repeat(BURST), segment, gso, _clients: clients }
    }

    fn send(&self) {
        if self.gso {
            self.sender.send(&self.burst).unwrap();
            return;
        }
        for packet in self.burst.chunks(self.segment) {
            self.sender.send(packet).unwrap();
        }
    }
}

/// Sends all bursts; returns the packets that arrived. Loss is not expected, and fatal beyond
/// one packet in a thousand.
fn drive(flows: &mut [Flow]) -> usize {
    let mut buffer = [0; 2048];
    let mut arrived = 0;
    for _ in 0..BURSTS_PER_ROUND {
        flows.iter().for_each(Flow::send);
        for flow in flows.iter() {
            arrived += (0..BURST).take_while(|_| flow.receiver.recv(&mut buffer).is_ok()).count();
        }
    }
    let sent = BURSTS_PER_ROUND * FLOWS * BURST;
    assert!(arrived * 1000 >= sent * 999, "{arrived} of {sent} packets arrived");
    arrived
}

/// Makes each send of the socket a train of datagrams of this size; 0 turns it off.
fn set_gso(socket: &UdpSocket, segment: usize) {
    let segment = segment as libc::c_int;
    // SAFETY: the descriptor is open, and the option is one int of the size given.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const segment).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "UDP_SEGMENT");
}

fn pin_to_core_0() {
    // SAFETY: the set is initialised, and its size is the one given.
    #[allow(unsafe_code)]
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "a core to run on");
}
