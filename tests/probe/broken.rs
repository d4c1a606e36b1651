//! Servers that are broken on purpose, each in one way: the doctor has to name it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::clock;
use hairpin::turn::policy::Host;
use hairpin::turn::{self, Allocated, FiveTuple, RelayedAddress, Transport, Verdict};
use md5::{Digest, Md5};
use serde_json::Value;

use crate::coturn::Coturn;
use crate::netns::{Namespace, serve};
use crate::pki::{self, Pki};
use crate::server::{ConfigFile, Server, Settings, hairpin, private_port};
use crate::{in_time, told, told_by};

pub(crate) const ALICE: [&str; 4] = ["--user", "alice", "--pass", "wonderland"];
const SECRET: &str = "north-of-everything-else";

#[test]
fn wrong_password() {
    let server = Server::start(&Settings::default());
    let broken = examined(server.turn, "", &["--user", "alice", "--pass", "guessed"]);
    broken.shows("allocate", "the password is wrong, or there is no user \"alice\"");
    assert!(broken.change.contains("auth.users"));
}

/// coturn keeps keys, which are good for one realm: RFC 8489 §9.2.2.
#[test]
fn wrong_realm() {
    let key = Md5::digest(b"alice:elsewhere.test:wonderland");
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let user = format!("alice:0x{key}");
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &["-u", &user]) else { return };
    let realm = ["--realm", "elsewhere.test"];
    let broken = examined(coturn.address, "", &[&ALICE[..], &realm].concat());
    broken.shows(
        "allocate",
        "the realm is wrong: the server stores this user's key for the realm \"elsewhere.test\" and \
         announces \"test\"",
    );
    // And where nothing helps but the realm is another one than it should be.
    let realm = ["--realm", "other.test"];
    let broken = examined(coturn.address, "", &[&ALICE[..], &realm].concat());
    broken.shows("allocate", "the realm is wrong: \"test\" instead of \"other.test\"");
}

#[test]
fn expired_rest_credential() {
    let server = with_secret();
    let user = "1000000000:alice";
    let password = hairpin::turn::rest::password(SECRET, user);
    let broken = examined(server.turn, "", &["--user", user, "--pass", &password]);
    broken.shows("allocate", "the credentials have expired: the user name says until 1000000000");
}

#[test]
fn wrong_secret() {
    let server = with_secret();
    let broken = examined(server.turn, "", &["--secret", "south-of-everything-else"]);
    broken.shows("allocate", "the secret differs from the server's");
    // The same, when only its products are at hand.
    let user = "4000000000:alice";
    let password = hairpin::turn::rest::password("south-of-everything-else", user);
    let broken = examined(server.turn, "", &["--user", user, "--pass", &password]);
    broken.shows("allocate", "the secret it was made with differs from the server's");
}

/// The core with a clock of its own.
#[test]
fn clock_that_is_ahead_is_told_by_how_much() {
    for (hours, told) in [(3, "is ahead by 3 h 0 min"), (24 * 40, "is ahead by 40 days")] {
        let broken = examined(with_clock_ahead(hours * 3600), "", &["--secret", SECRET]);
        broken.shows("allocate", told);
    }
}

#[test]
fn no_credentials() {
    let server = Server::start(&Settings::default());
    let broken = examined(server.turn, "", &[]);
    broken.shows("challenge", "the server wants credentials, and none were given");
}

#[test]
fn server_down() {
    let server = SocketAddr::from(([127, 0, 0, 1], private_port()));
    let broken = examined(server, "", &ALICE);
    broken.shows("binding", &format!("nothing listens on UDP port {}", server.port()));
    let broken = examined(server, "?transport=tcp", &ALICE);
    broken.shows("connect", &format!("nothing listens on TCP port {}", server.port()));
}

#[test]
fn unknown_host() {
    let (ended, told) = told(&["doctor", "turn:nosuch.invalid"]);
    assert_eq!(ended.status.code(), Some(1));
    let resolve = &told["reports"][0]["resolve"];
    assert!(text(&resolve["detail"]).contains("cannot find this host"), "{told:#}");
    assert!(text(&resolve["cause"]).contains("the name has no address"), "{told:#}");
}

#[test]
fn tls_name_mismatch() {
    let (server, ca) = with_certificate(&["turn.example.org"], 90);
    let broken = examined_over_tls(&server, &ca);
    broken.shows("tls", "the certificate is for turn.example.org, not for 127.0.0.1");
}

/// Ours does not even start with one.
#[test]
fn expired_certificate() {
    let files = ConfigFile::new("");
    Pki::new().write(&files, &["127.0.0.1"], -3);
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"]
        .map(|name| files.path().with_file_name(name).to_str().unwrap().to_owned());
    let options = ["-u", "alice:wonderland", "--cert", &cert, "--pkey", &key];
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &options) else { return };
    let uri = format!("turns:{}", coturn.address);
    let more = [&ALICE[..], &["--ca", &ca]].concat();
    let broken = Broken::new(&mut hairpin(), &uri, &more);
    broken.shows("tls", "the certificate expired 2 days ago");
}

#[test]
fn certificate_of_nobody_known() {
    let (server, _) = with_certificate(&["127.0.0.1"], 90);
    let other = ConfigFile::new("");
    Pki::new().write(&other, &["127.0.0.1"], 90);
    let ca = other.path().with_file_name("ca.pem");
    let broken = examined_over_tls(&server, ca.to_str().unwrap());
    broken.shows("tls", "the server sends no intermediate certificate");
}

#[test]
fn self_signed_certificate() {
    let config = ConfigFile::new(&Pki::new().toml());
    pki::write_self_signed(&config, &["127.0.0.1"]);
    let server = Server::start_in(&mut hairpin(), config);
    let other = ConfigFile::new("");
    Pki::new().write(&other, &["127.0.0.1"], 90);
    let ca = other.path().with_file_name("ca.pem");
    let broken = examined_over_tls(&server, ca.to_str().unwrap());
    broken.shows("tls", "the certificate is self-signed: no browser accepts it");
}

#[test]
fn certificate_that_ends_soon_is_a_warning() {
    let (server, ca) = with_certificate(&["127.0.0.1"], 5);
    let uri = format!("stuns:{}", server.turn);
    let (ended, told) = told(&["doctor", &uri, "--ca", &ca]);
    assert!(ended.status.success(), "{told:#}");
    let tls = &told["reports"][0]["addresses"][0]["steps"][1];
    assert_eq!(tls["state"], "warning");
    assert_eq!(tls["cause"], "the certificate ends in 5 days");
}

#[test]
fn no_tls_on_this_port() {
    let server = Server::start(&Settings::default());
    let ca = ConfigFile::new("");
    Pki::new().write(&ca, &[], 1);
    let ca = ca.path().with_file_name("ca.pem");
    let broken = examined_over_tls(&server, ca.to_str().unwrap());
    broken.shows("tls", "this port does not speak TLS");
}

#[test]
fn dtls_that_is_not_enabled() {
    let (server, ca) = with_certificate(&["127.0.0.1"], 90);
    let broken = examined_over_dtls(server.turn, &ca);
    broken.shows("dtls", "answers STUN over UDP on port");
    assert!(broken.change.contains("[tls] dtls = true"), "{}", broken.change);
}

#[test]
fn dtls_where_nobody_says_anything() {
    let (_server, ca) = with_certificate(&["127.0.0.1"], 90);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let broken = examined_over_dtls(silent.local_addr().unwrap(), &ca);
    let port = silent.local_addr().unwrap().port();
    broken
        .shows("dtls", &format!("DTLS is not enabled on UDP port {port}, or the port is filtered"));
    let closed = SocketAddr::from(([127, 0, 0, 1], private_port()));
    let broken = examined_over_dtls(closed, &ca);
    broken.shows("dtls", &format!("nothing listens on UDP port {}", closed.port()));
}

#[test]
fn dtls_with_a_certificate_that_nobody_should_accept() {
    let (server, ca) = with_dtls(&["turn.example.org"], 90);
    let broken = examined_over_dtls(server.turn, &ca);
    broken.shows("dtls", "the certificate is for turn.example.org, not for 127.0.0.1");
    let (server, _) = with_dtls(&["127.0.0.1"], 90);
    let broken = examined_over_dtls(server.turn, &ca);
    broken.shows("dtls", "the server sends no intermediate certificate");
}

#[test]
fn dtls_certificate_that_ends_soon_is_a_warning() {
    let (server, ca) = with_dtls(&["127.0.0.1"], 5);
    let uri = format!("turns:{}?transport=udp", server.turn);
    let (ended, told) = told(&[&["doctor", &uri, "--ca", &ca], &ALICE[..]].concat());
    assert!(ended.status.success(), "{told:#}");
    let dtls = &told["reports"][0]["addresses"][0]["steps"][0];
    assert_eq!((&dtls["step"], &dtls["state"]), (&"dtls".into(), &"warning".into()));
    assert_eq!(dtls["cause"], "the certificate ends in 5 days");
}

#[test]
fn web_server_behind_the_port() {
    let server = Server::start(&Settings::default());
    let broken = examined(server.http, "?transport=tcp", &ALICE);
    broken.shows("binding", "closed the connection");
}

#[test]
fn port_that_takes_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let broken = examined(address, "?transport=tcp", &["--timeout", "1s"]);
    broken.shows("binding", "takes the connection and does not speak STUN");
}

#[test]
fn open_relay_is_a_warning() {
    let options = ["--no-auth", "--allow-loopback-peers"];
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &options) else { return };
    let uri = format!("turn:{}", coturn.address);
    for credentials in [&[][..], &ALICE[..]] {
        let (ended, told) = told(&[&["doctor", &uri], credentials].concat());
        assert!(ended.status.success(), "{told:#}");
        let steps = told["reports"][0]["addresses"][0]["steps"].as_array().unwrap();
        let challenge = steps.iter().find(|step| step["step"] == "challenge").unwrap();
        assert_eq!(challenge["state"], "warning", "{told:#}");
        assert_eq!(challenge["cause"], "the server relays for everybody, without credentials");
        assert!(text(&challenge["change"]).contains("require authentication"), "{told:#}");
    }
}

#[test]
fn quota_reached() {
    let limits = "allocations_per_user = 1";
    let server = Server::start(&Settings { limits, ..Settings::default() });
    let _holder = crate::client::Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let broken = examined(server.turn, "", &ALICE);
    broken.shows("allocate", "the allocation quota is reached");
    assert!(broken.change.contains("limits.allocations_per_user"));
}

#[test]
fn ports_exhausted() {
    let port = private_port();
    let relay_ports = &format!("{port}-{port}");
    let server = Server::start(&Settings { relay_ports, ..Settings::default() });
    let _holder = crate::client::Client::allocate(server.turn, "bob", "builder").unwrap();
    let broken = examined(server.turn, "", &ALICE);
    broken.shows("allocate", "the server has no relay port left");
    assert!(broken.change.contains("relay.ports"));
}

#[test]
fn forbidden_peer() {
    let toml = Settings::default().toml().replace("allow =", "deny =");
    let server = Server::start_in(&mut hairpin(), ConfigFile::new(&toml));
    let broken = examined(server.turn, "", &ALICE);
    broken.shows("permission", "the server forbids peers at 127.0.0.1 and 127.0.0.1");
    assert!(broken.change.contains("peers.allow"));
}

/// Two instances with a nonce key each, behind a load balancer that sends packets in turn.
#[test]
fn nonces_of_different_instances() {
    let servers = [(); 2].map(|()| Server::start(&Settings::default()));
    let balancer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = balancer.local_addr().unwrap();
    let ways = servers.each_ref().map(|server| {
        let way = UdpSocket::bind("127.0.0.1:0").unwrap();
        way.connect(server.turn).unwrap();
        way.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        way
    });
    // Ends with the process: it has no state that anybody could miss.
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        for turn in 0.. {
            let (length, client) = balancer.recv_from(&mut buffer).unwrap();
            let way: &UdpSocket = &ways[turn % 2];
            way.send(&buffer[..length]).unwrap();
            let length = way.recv(&mut buffer).unwrap();
            balancer.send_to(&buffer[..length], client).unwrap();
        }
    });
    let broken = examined(address, "", &ALICE);
    broken.shows("allocate", "requests reach different instances without a shared nonce key");
}

#[test]
fn redirection() {
    let options = ["-u", "alice:wonderland", "--alternate-server", "127.0.0.9:3478"];
    let Some(coturn) = Coturn::start(&["127.0.0.1"], &options) else { return };
    let broken = examined(coturn.address, "", &ALICE);
    broken.shows("challenge", "the server sends its clients to 127.0.0.9:3478");
}

#[test]
fn port_filtered() {
    let Some(world) = World::new("203.0.113.1", "") else { return };
    let _server = serve(&world.server, &world.config("203.0.113.1:3478").path());
    world.server.nft(
        "table ip filter { chain in { type filter hook input priority 0;
            udp dport 3478 drop; tcp dport 3478 drop; } }",
    );
    let broken = in_time(|| world.examined("turn:203.0.113.1", &["--timeout", "2s"]));
    broken.shows("binding", "UDP port 3478 is filtered by a firewall, or the host");
    let uri = "turn:203.0.113.1?transport=tcp";
    let broken = in_time(|| world.examined(uri, &["--timeout", "2s"]));
    broken.shows("connect", "TCP port 3478 is filtered by a firewall, or the host");
}

/// Before, two clients reach each other's relayed addresses: on an interface, too, that has no
/// broadcast address.
#[test]
fn relay_port_range_blocked() {
    let Some(world) = World::new("203.0.113.1", "") else { return };
    let _server = serve(&world.server, &world.config("203.0.113.1:3478").path());
    let uri = "turn:203.0.113.1";
    let (ended, told) =
        told_by(&mut world.client.hairpin(), &[&["doctor", uri], &ALICE[..]].concat());
    assert!(ended.status.success(), "{told:#}");
    assert!(told.to_string().contains("another relayed address"), "{told:#}");
    world.server.nft(
        "table ip filter { chain in { type filter hook input priority 0;
            iifname wan udp dport 49152-65535 drop; } }",
    );
    let broken = world.examined(uri, &["--timeout", "2s"]);
    broken.shows("from outside", "the relay port range is blocked");
}

/// Two allocations reach each other within our server, whatever its firewall; within coturn they go
/// by way of the kernel.
#[test]
fn nothing_comes_through_the_relay() {
    let Some(world) = World::new("203.0.113.1", "") else { return };
    let options = ["-u", "alice:wonderland"];
    let coturn = Coturn::start_in(&world.server, &world.client, &["203.0.113.1"], &options);
    let Some(_coturn) = coturn else { return };
    world.server.nft(
        "table ip filter { chain in { type filter hook input priority 0;
            iifname lo udp dport 49152-65535 drop; } }",
    );
    let broken = world.examined("turn:203.0.113.1", &["--timeout", "2s"]);
    broken.shows("relay", "nothing comes through the relay: its ports are blocked");
    assert_eq!(broken.detail, "0 of 20 came back within 2s");
}

#[test]
fn what_leaves_the_relay_ports_is_blocked() {
    let Some(world) = World::new("203.0.113.1", "") else { return };
    let _server = serve(&world.server, &world.config("203.0.113.1:3478").path());
    world.server.nft(
        "table ip filter { chain out { type filter hook output priority 0;
            oifname wan udp sport 49152-65535 drop; } }",
    );
    let broken = world.examined("turn:203.0.113.1", &["--timeout", "2s"]);
    broken.shows("from outside", "what the server sends from its relay ports does not arrive");
    assert!(broken.detail.contains("came in; nothing came back within 2s"), "{}", broken.detail);
}

/// The server has 10.0.0.4, and a router in front of it 203.0.113.4.
#[test]
fn private_relayed_address() {
    let router = "table ip nat {
        chain in { type nat hook prerouting priority -100; ip daddr 203.0.113.4 dnat to 10.0.0.4; }
        chain out { type nat hook postrouting priority 100; ip saddr 10.0.0.4 snat to 203.0.113.4; }
    }";
    let Some(world) = World::new("10.0.0.4", router) else { return };
    let _server = serve(&world.server, &world.config("10.0.0.4:3478").path());
    let broken = world.examined("turn:203.0.113.4", &[]);
    broken.shows("relayed address", "relayed address 10.0.0.4 is private");
    assert!(broken.change.starts_with("set relay.external"), "{}", broken.change);
}

/// What a server does that listens on a wildcard and does not look where it was asked.
#[test]
fn answers_from_another_address() {
    let Some(world) = World::new("203.0.113.1", "") else { return };
    world.server.ip("addr add 203.0.113.2/24 dev wan");
    let _server = serve(&world.server, &world.config("203.0.113.1:3478").path());
    world.server.nft(
        "table ip raw { chain out { type filter hook output priority -300;
            udp sport 3478 notrack; udp sport 3478 ip saddr set 203.0.113.2; } }",
    );
    let broken = world.examined("turn:203.0.113.1", &["--timeout", "2s"]);
    broken.shows("binding", "answers from another address");
    assert_eq!(broken.detail, "UDP answered from 203.0.113.2:3478");
}

#[test]
fn no_route() {
    let Some(alone) = Namespace::new() else { return };
    let broken = Broken::new(&mut alone.hairpin(), "turn:203.0.113.1", &ALICE);
    broken.shows("connect", "there is no route from this machine to 203.0.113.1");
}

/// A client, and a server that is reached by way of a router with these rules.
struct World {
    client: Namespace,
    _router: Namespace,
    server: Namespace,
}

impl World {
    fn new(address: &str, rules: &str) -> Option<Self> {
        let (client, router, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        client.link("lan", &["198.51.100.2/24"], &router, &["198.51.100.1/24"]);
        let network = format!("{}254/24", &address[..=address.rfind('.').unwrap()]);
        server.link("wan", &[&format!("{address}/24")], &router, &[&network]);
        client.ip("route add default via 198.51.100.1");
        server.ip(&format!("route add default via {}", network.trim_end_matches("/24")));
        router.sysctl("net/ipv4/ip_forward", "1");
        router.nft(rules);
        Some(Self { client, _router: router, server })
    }

    fn config(&self, listen: &str) -> ConfigFile {
        let listen = &format!("[\"{listen}\"]");
        let relay_ports = "49152-65535";
        let settings = Settings { listen, relay_ports, ..Settings::default() };
        // The client has an address for examples, which the server takes for what it is.
        let examples = r#"allow = ["198.51.100.0/24", "#;
        ConfigFile::new(&settings.toml().replace("allow = [", examples))
    }

    fn examined(&self, uri: &str, more: &[&str]) -> Broken {
        Broken::new(&mut self.client.hairpin(), uri, &[&ALICE[..], more].concat())
    }
}

/// The one step that failed.
pub(crate) struct Broken {
    step: String,
    pub(crate) detail: String,
    cause: String,
    change: String,
    told: Value,
}

impl Broken {
    pub(crate) fn new(command: &mut Command, uri: &str, more: &[&str]) -> Self {
        let (ended, told) = told_by(command, &[&["doctor", uri], more].concat());
        assert_eq!(ended.status.code(), Some(1), "{told:#}");
        assert_eq!(ended.stderr, ["error: 1 of 1 do not work"], "{told:#}");
        let steps = told["reports"][0]["addresses"][0]["steps"].as_array().unwrap().clone();
        let failed: Vec<_> = steps.iter().filter(|step| step["state"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{told:#}");
        let [step, detail, cause, change] =
            ["step", "detail", "cause", "change"].map(|key| text(&failed[0][key]));
        Self { step, detail, cause, change, told }
    }

    pub(crate) fn shows(&self, step: &str, cause: &str) {
        assert_eq!(self.step, step, "{:#}", self.told);
        assert!(self.cause.contains(cause), "{:#}", self.told);
        assert!(!self.change.is_empty() && !self.detail.is_empty());
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

pub(crate) fn examined(server: SocketAddr, query: &str, more: &[&str]) -> Broken {
    Broken::new(&mut hairpin(), &format!("turn:{server}{query}"), more)
}

fn examined_over_tls(server: &Server, ca: &str) -> Broken {
    let uri = format!("turns:{}", server.turn);
    Broken::new(&mut hairpin(), &uri, &[&ALICE[..], &["--ca", ca]].concat())
}

fn examined_over_dtls(server: SocketAddr, ca: &str) -> Broken {
    let uri = format!("turns:{server}?transport=udp");
    let more = ["--ca", ca, "--timeout", "3s"];
    Broken::new(&mut hairpin(), &uri, &[&ALICE[..], &more].concat())
}

/// A server whose clock is so many seconds ahead. Ends with the process.
fn with_clock_ahead(secs: u64) -> SocketAddr {
    let mut config = Config::dev().turn;
    config.auth.secrets = vec![SECRET.to_owned()];
    let relay = SocketAddr::from(([127, 0, 0, 1], 50_000));
    let host = Host {
        endpoints: Vec::new(),
        addresses: Vec::new(),
        aliases: Vec::new(),
        broadcasts: Vec::new(),
        relay_addresses: vec![relay.ip()],
        relay_ports: 50_000..=50_000,
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut core = turn::Server::new(config, host, [7; 32]);
        let mut buffer = [0; 2048];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).unwrap();
            let from = FiveTuple { transport: Transport::Udp, client, server: address };
            let mut now = clock::now();
            now.unix_secs += secs;
            let mut reply = Vec::new();
            if let Verdict::Bind(pending) =
                core.handle_client(from, &buffer[..length], now, &mut reply)
            {
                let allocated = Allocated {
                    relayed: RelayedAddress(relay),
                    also: None,
                    meter: None,
                    reservation: None,
                    tally: None,
                };
                let _ = core.allocated(&pending, Ok(allocated), now, &mut reply);
            }
            socket.send_to(&reply, client).unwrap();
        }
    });
    address
}

fn with_secret() -> Server {
    let auth = &format!("secrets = [\"{SECRET}\"]");
    Server::start(&Settings { auth, ..Settings::default() })
}

/// A server with a certificate, and the file of its authority.
fn with_certificate(names: &[&str], days: i64) -> (Server, String) {
    with_tls("", names, days)
}

/// The same that speaks DTLS.
fn with_dtls(names: &[&str], days: i64) -> (Server, String) {
    with_tls("dtls = true\n", names, days)
}

fn with_tls(more: &str, names: &[&str], days: i64) -> (Server, String) {
    let pki = Pki::new();
    let config = ConfigFile::new(&(pki.toml() + more));
    pki.write(&config, names, days);
    let ca = config.path().with_file_name("ca.pem").to_str().unwrap().to_owned();
    (Server::start_in(&mut hairpin(), config), ca)
}
