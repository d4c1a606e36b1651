//! Instructions of the core's hot paths, beside those that are committed:
//! `cargo bench --profile instructions --bench instructions`.
//!
//! Counted by valgrind's callgrind, so the machine may be as busy as it likes. A path that costs
//! more than the tolerance fails, and one that costs less, too: then `-- --bless` writes the new
//! figures, which are reviewed like any other change.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/process/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};

use client::{Login, bare_allocate, binding, channel_data, send_indication};
use hairpin::config::Config;
use hairpin::net::clock;
use hairpin::stun::attribute::{
    ChannelNumberAttribute, Lifetime, RequestedTransport, XorPeerAddress,
};
use hairpin::stun::{ChannelNumber, Method};
use hairpin::turn::{
    Allocated, AllocationId, FiveTuple, Now, RelayedAddress, Server, Transport, Verdict, policy,
};

/// Calls that are counted in a run.
const CALLS: u64 = 2000;
/// Hash tables have random keys, and compilers change their minds.
const TOLERANCE: f64 = 0.05;
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const HEAD: &str = "# Instructions for one call; written by `cargo bench --profile instructions --bench instructions -- --bless`.\n";
const DATA: [u8; 1000] = [0x5a; 1000];
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

type Path = fn(&mut Core);

/// The paths, by the names they are committed under.
const PATHS: [(&str, Path); 9] = [
    ("channel data to peer", |core| core.repeat(channel_data(ChannelNumber::MIN, &DATA))),
    ("send indication to peer", |core| {
        let packet = send_indication(core.unbound_peer, &DATA);
        core.repeat(packet);
    }),
    ("peer to channel data", |core| core.repeat_from_peer(core.bound_peer)),
    ("peer to data indication", |core| core.repeat_from_peer(core.unbound_peer)),
    ("peer without permission", |core| core.repeat_from_peer(([10, 0, 0, 3], 5000).into())),
    ("binding", |core| core.repeat(binding())),
    ("junk", |core| core.repeat(vec![0xFF; 100])),
    ("refresh", |core| {
        let request = core.login.request(Method::Refresh, |builder| builder.put(&Lifetime(600)));
        core.repeat(request);
    }),
    ("challenge, allocate, channel bind", Core::allocate_many),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = &arguments[..]
        && flag == "--path"
    {
        let (_, path) = PATHS.iter().find(|(known, _)| known == name).unwrap();
        path(&mut Core::start());
        return ExitCode::SUCCESS;
    }
    if !is_there("valgrind") {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install valgrind");
        println!("not run: no valgrind on this machine (apt install valgrind)");
        return ExitCode::SUCCESS;
    }
    let counted: Vec<_> = PATHS.iter().map(|(name, _)| (*name, count(name))).collect();
    if arguments.iter().any(|argument| argument == "--bless") {
        let mut text = HEAD.to_owned();
        for (name, count) in counted {
            let _ = writeln!(text, "{count:>8} {name}");
        }
        fs::write(COMMITTED, text).unwrap();
        return ExitCode::SUCCESS;
    }
    compare(&counted)
}

fn compare(counted: &[(&str, u64)]) -> ExitCode {
    let text = fs::read_to_string(COMMITTED).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let committed: BTreeMap<&str, u64> = lines
        .map(|line| line.trim_start().split_once(' ').unwrap())
        .map(|(count, name)| (name, count.parse().unwrap()))
        .collect();
    let mut outcome = ExitCode::SUCCESS;
    for (name, count) in counted {
        let Some(&before) = committed.get(name) else {
            println!("{count:>8} {name}: NOT COMMITTED");
            outcome = ExitCode::FAILURE;
            continue;
        };
        let change = *count as f64 / before as f64 - 1.0;
        let verdict = if change.abs() > TOLERANCE {
            outcome = ExitCode::FAILURE;
            "  BEYOND THE TOLERANCE (-- --bless if it is meant)"
        } else {
            ""
        };
        println!("{count:>8} {name}: {:+.1} % of {before}{verdict}", 100.0 * change);
    }
    outcome
}

fn is_there(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// Instructions for one call of a path, in a process of its own.
fn count(name: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .args(["--toggle-collect=counted"])
        .arg(std::env::current_exe().unwrap())
        .args(["--path", name])
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected :"));
    let count = collected.and_then(|(_, count)| count.trim().parse::<u64>().ok());
    let count = count.unwrap_or_else(|| panic!("{name}: nothing counted in {text}"));
    assert!(count > CALLS, "{name}: {count} instructions for {CALLS} calls");
    count / CALLS
}

/// What callgrind counts, by this name: whatever it is handed, as often as [`CALLS`] says.
#[unsafe(no_mangle)]
#[inline(never)]
#[allow(unsafe_code, reason = "the name in the binary is the one given to callgrind")]
fn counted(work: &mut dyn FnMut(u64)) {
    (0..CALLS).for_each(work);
}

/// A server with an allocation, and two peers: one on a channel, one with a permission.
struct Core {
    server: Server,
    id: AllocationId,
    login: Login,
    bound_peer: SocketAddr,
    unbound_peer: SocketAddr,
    now: Now,
    reply: Vec<u8>,
}

impl Core {
    fn start() -> Self {
        let host = policy::Host {
            endpoints: Vec::new(),
            addresses: vec![LOCAL],
            aliases: Vec::new(),
            broadcasts: Vec::new(),
            relay_addresses: vec![LOCAL],
            relay_ports: 50_000..=59_999,
        };
        let mut config = Config::dev().turn;
        config.limits.unauthenticated_per_source = 0;
        let mut server = Server::new(config, host, [7; 32]);
        let (mut reply, now) = (Vec::new(), clock::now());
        let from = five_tuple(4000);
        let verdict = server.handle_client(from, &bare_allocate(), now, &mut reply);
        assert!(matches!(verdict, Verdict::Reply), "{verdict:?}");
        let login = Login::new(&reply, "dev", "dev");
        let mut core = Self {
            server,
            id: AllocationId::default(),
            login,
            bound_peer: ([10, 0, 0, 1], 5000).into(),
            unbound_peer: ([10, 0, 0, 2], 5000).into(),
            now,
            reply,
        };
        core.id = core.allocate(4000, 50_000);
        let peer = XorPeerAddress(core.unbound_peer);
        let permit = core.login.request(Method::CreatePermission, |builder| builder.put(&peer));
        assert!(core.client_sends(4000, &permit));
        let bind = core.bind();
        assert!(core.client_sends(4000, &bind));
        core
    }

    /// What the client of the first allocation sends, over and over.
    fn repeat(&mut self, packet: Vec<u8>) {
        counted(&mut |_| {
            self.client_sends(4000, black_box(&packet));
        });
    }

    fn repeat_from_peer(&mut self, peer: SocketAddr) {
        counted(&mut |_| {
            let verdict = self.server.handle_peer(self.id, black_box(peer), &DATA, self.now);
            let _ = black_box(verdict);
        });
    }

    /// All that a new client costs, writing its requests not included.
    fn allocate_many(&mut self) {
        let requests: Vec<_> = (0..CALLS as u16)
            .map(|call| {
                let port = 10_000 + call;
                self.client_sends(port, &bare_allocate());
                let login = Login::new(&self.reply, "dev", "dev");
                let udp = RequestedTransport::UDP;
                let allocate = login.request(Method::Allocate, |builder| builder.put(&udp));
                let peer = XorPeerAddress(self.bound_peer);
                let bind = login.request(Method::ChannelBind, |builder| {
                    builder.put(&ChannelNumberAttribute(ChannelNumber::MIN)).put(&peer)
                });
                (port, bare_allocate(), allocate, bind)
            })
            .collect();
        counted(&mut |call| {
            let (port, challenge, allocate, bind) = &requests[call as usize];
            self.client_sends(*port, challenge);
            self.grant(*port, 51_000 + call as u16, allocate);
            assert!(self.client_sends(*port, bind));
        });
    }

    fn bind(&self) -> Vec<u8> {
        let peer = XorPeerAddress(self.bound_peer);
        self.login.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(ChannelNumber::MIN)).put(&peer)
        })
    }

    fn allocate(&mut self, client_port: u16, relay_port: u16) -> AllocationId {
        let udp = RequestedTransport::UDP;
        let request = self.login.request(Method::Allocate, |builder| builder.put(&udp));
        self.grant(client_port, relay_port, &request)
    }

    fn grant(&mut self, client_port: u16, relay_port: u16, request: &[u8]) -> AllocationId {
        self.reply.clear();
        let from = five_tuple(client_port);
        let verdict = self.server.handle_client(from, request, self.now, &mut self.reply);
        let Verdict::Bind(pending) = verdict else { panic!("an allocation: {verdict:?}") };
        let relayed = RelayedAddress((LOCAL, relay_port).into());
        let allocated =
            Allocated { relayed, also: None, reservation: None, meter: None, tally: None };
        self.server.allocated(&pending, Ok(allocated), self.now, &mut self.reply).unwrap()
    }

    /// Tells whether the answer is a success response.
    fn client_sends(&mut self, port: u16, packet: &[u8]) -> bool {
        self.reply.clear();
        let verdict =
            self.server.handle_client(five_tuple(port), packet, self.now, &mut self.reply);
        matches!(black_box(verdict), Verdict::Reply) && self.reply[0] == 0x01
    }
}

fn five_tuple(port: u16) -> FiveTuple {
    let client = SocketAddr::from(([198, 51, 100, 1], port));
    let server = SocketAddr::new(LOCAL, 3478);
    FiveTuple { transport: Transport::Udp, client, server }
}
