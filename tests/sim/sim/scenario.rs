//! Who takes part: the server's configuration, the clients and the peers, and what they might say.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::turn::{ChannelRange, FiveTuple, Transport, auth, limits, mobility, policy, server};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::client::{REALM, USERS};
use crate::model::{self, CHANNELS, LISTENER, PERMISSIONS, PORTS, RELAY_V4, RELAY_V6};

pub(super) const CLIENTS: [&str; 8] = [
    "198.51.100.1:4000",
    "198.51.100.1:4001",
    "198.51.100.1:4002",
    "198.51.100.2:4000",
    "198.51.100.3:4000",
    "[2a00:99::1]:4000",
    "[2a00:99::1]:4001",
    "[2a00:99::2]:4000",
];
/// Peers, good and bad, and some of our own addresses among them.
pub(super) const PEERS: [&str; 20] = [
    "8.8.8.8:9000",
    "8.8.8.8:9001",
    "9.9.9.9:9000",
    "9.9.9.9:9001",
    "8.8.8.8:0",
    "10.0.0.1:80",
    "127.0.0.1:53",
    "203.0.113.5:3478",
    "203.0.113.5:50000",
    "203.0.113.5:50005",
    "203.0.113.5:22",
    "169.254.169.254:80",
    "[2a00::1]:9000",
    "[2a00::1]:9001",
    "[::1]:80",
    "[::ffff:8.8.8.8]:9000",
    "[2002:808:808::1]:9000",
    "[64:ff9b::7f00:1]:80",
    "[2606:4700::5]:50003",
    "[fe80::1]:9000",
];

pub(super) fn config(channel_ms: u64) -> server::Config {
    server::Config {
        auth: auth::Config {
            realm: REALM.into(),
            users: USERS.map(|(user, password)| (user.into(), password.into())).into(),
            secrets: Vec::new(),
            nonce_key: [7; 32],
            nonce_lifetime: Duration::from_secs(model::NONCE_SECS.cast_unsigned()),
            sha256: true,
        },
        policy: policy::Config::default(),
        limits: limits::Config {
            permissions_per_allocation: PERMISSIONS,
            channels_per_allocation: CHANNELS,
            unauthenticated_per_source: 0,
            channel_lifetime: Duration::from_millis(channel_ms),
            ..limits::Config::default()
        },
        discovery: None,
        channels: ChannelRange::default(),
        alternates: Vec::new(),
        drain_to: Vec::new(),
        dont_fragment: false,
        mobility: Some(mobility::Key([9; 32])),
        software: None,
        tcp_relay: false,
    }
}

pub(super) fn host() -> policy::Host {
    let addresses = || [RELAY_V4, RELAY_V6].map(|ip| ip.parse().unwrap()).to_vec();
    policy::Host {
        endpoints: vec![LISTENER.parse().unwrap()],
        addresses: addresses(),
        aliases: Vec::new(),
        broadcasts: Vec::new(),
        relay_addresses: addresses(),
        relay_ports: PORTS,
    }
}

pub(super) fn five_tuple(client: SocketAddr) -> FiveTuple {
    FiveTuple { transport: Transport::Udp, client, server: LISTENER.parse().unwrap() }
}

pub(super) fn peer(rng: &mut StdRng) -> SocketAddr {
    // The good ones come first and more often.
    let at = if rng.random_bool(0.5) {
        rng.random_range(0..4)
    } else {
        rng.random_range(0..PEERS.len())
    };
    PEERS[at].parse().unwrap()
}

pub(super) fn peers(rng: &mut StdRng) -> Vec<SocketAddr> {
    let count = [0, 1, 1, 1, 1, 2, 2, 3, 6][rng.random_range(0..9)];
    (0..count).map(|_| peer(rng)).collect()
}

pub(super) fn number(rng: &mut StdRng) -> u16 {
    [0x4000, 0x4001, 0x4002, 0x4003, 0x4FFF, 0x4000, 0x4001, 0x3FFF, 0x5000][rng.random_range(0..9)]
}

pub(super) fn lifetime(rng: &mut StdRng) -> Option<u32> {
    [None, Some(1), Some(700), Some(3600), Some(u32::MAX)][rng.random_range(0..5)]
}

/// What a Refresh is about: mostly everything.
pub(super) fn family(rng: &mut StdRng) -> Option<bool> {
    [None, None, Some(false), Some(true)][rng.random_range(0..4)]
}

pub(super) fn data(rng: &mut StdRng) -> Vec<u8> {
    let mut data = vec![0; rng.random_range(0..40)];
    rng.fill_bytes(&mut data);
    data
}
