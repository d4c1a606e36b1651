//! A process that may open only few files.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use hairpin::stun::ChannelNumber;
use socket2::{Domain, Socket, Type};

use crate::client::{self, Client};
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use crate::server::{ConfigFile, run};
use crate::server::{DEADLINE, Server, Settings};

/// More than the server needs for itself, fewer than the clients ask for.
const DESCRIPTORS: usize = 64;
/// Left for scrapes: the one that gave up and the one that counts.
const SPARE: usize = 2;

#[test]
fn out_of_descriptors_new_clients_are_refused_and_the_others_go_on() {
    let server = Server::start_as(&mut limited(DESCRIPTORS, DESCRIPTORS), &settings());
    let mut clients = Vec::new();
    let refused = loop {
        assert!(clients.len() < DESCRIPTORS, "more allocations than descriptors");
        match Client::allocate(server.turn, "alice", "wonderland") {
            Ok(client) => clients.push(client),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, 508);
    assert!(clients.len() > DESCRIPTORS / 2, "only {} allocations", clients.len());
    for _ in 0..20 {
        let refused = Client::allocate(server.turn, "bob", "builder").map(|_| ());
        assert_eq!(refused, Err(508));
    }
    for client in &clients {
        assert_relays(client);
    }
    assert!(client::is_served(server.turn));
    // A scrape waits for a descriptor; time for it to fail a few times.
    let scrape = TcpStream::connect(server.http).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    drop(scrape);

    let gone = clients.len() / 2;
    clients.drain(..gone).for_each(|client| client.refresh(0).unwrap());
    let newcomers =
        (0..gone - SPARE).map(|_| Client::allocate(server.turn, "bob", "builder").unwrap());
    for client in clients.iter().chain(&newcomers.collect::<Vec<_>>()) {
        assert_relays(client);
    }
    assert_eq!(server.metrics().sum(&["hairpin_allocation_errors_total", "508"]), 21);
    // Twenty-one refusals within a minute are one warning, and so are all failures to accept.
    let log = server.stop();
    let is_news = |line: &&String| line.contains(" WARN ") && !line.contains("the hard limit here");
    let warnings: Vec<_> = log.iter().filter(is_news).collect();
    let about = |what| warnings.iter().filter(|line| line.contains(what)).count();
    assert_eq!(about("refused with 508"), 1, "{warnings:#?}");
    assert_eq!(about("cannot accept"), 1, "{warnings:#?}");
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
}

/// Connections never take all descriptors, and a few sources never all connections: sixteen that
/// open as many as they can, and keep them, leave room for one that comes later.
#[test]
fn connections_of_sixteen_sources_do_not_keep_a_seventeenth_out() {
    let server = Server::start_as(&mut limited(4 * DESCRIPTORS, 4 * DESCRIPTORS), &settings());
    let mut held = Vec::new();
    for fourth in 0..16 {
        for _ in 0..DESCRIPTORS {
            let mut tcp = connect([127, 0, 11, fourth].into(), server.turn);
            // Until it is refused, which is seen by its end.
            if !is_answered(&mut tcp) {
                break;
            }
            held.push(tcp);
        }
    }
    assert!((DESCRIPTORS..=2 * DESCRIPTORS).contains(&held.len()), "{} are held", held.len());
    let mut newcomer = connect([127, 0, 11, 16].into(), server.turn);
    assert!(is_answered(&mut newcomer));
    assert!(held.iter_mut().all(is_answered), "those that were there still are");
    assert!(server.metrics().sum(&["hairpin_connections_refused_total", "limit_source"]) >= 16);
}

/// The soft limit is for programs that call `select`.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn a_low_soft_limit_is_raised_to_the_hard_one() {
    const HARD: usize = 4 * DESCRIPTORS;
    let settings = settings();
    let server = Server::start_as(&mut limited(DESCRIPTORS, HARD), &settings);
    let allocate = || Client::allocate(server.turn, "alice", "wonderland");
    let clients: Vec<_> = (0..2 * DESCRIPTORS).map(|_| allocate().unwrap()).collect();
    for client in &clients[2 * DESCRIPTORS - 4..] {
        assert_relays(client);
    }
    let uri = format!("turn:{}", server.turn);
    let clients = (DESCRIPTORS + 1).to_string();
    let mut bench = limited(DESCRIPTORS, HARD);
    bench.args(["bench", &uri, "--user", "alice", "--pass", "wonderland", "--json"]);
    bench.args(["--clients", &clients, "--rate", "100", "--duration", "100ms", "--warm-up", "0s"]);
    let ended = run(&mut bench);
    assert!(ended.status.success(), "{ended:?}");
    server.stop();
}

/// What `check` tells of a limit is what a server with that limit can do.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn check_and_serve_tell_how_many_allocations_the_hard_limit_leaves_room_for() {
    let settings = settings();
    let server = Server::start_as(&mut limited(DESCRIPTORS, 2 * DESCRIPTORS), &settings);
    let config = server.config.path();
    let checked =
        run(limited(DESCRIPTORS, 2 * DESCRIPTORS).args(["check", "--config"]).arg(config));
    let warning =
        checked.stdout.lines().find_map(|line| line.strip_prefix("warning: open files: "));
    let warning = warning.unwrap_or_else(|| panic!("{checked:?}"));
    let (_, told) = warning.split_once("leave room for ").unwrap();
    let (told, most) = told.split_once(" allocations of the ").unwrap();
    assert!(most.starts_with("4536 "), "as many as there are ports: {warning}");
    let told: usize = told.parse().unwrap();
    assert!(server.log().iter().any(|line| line.contains(warning)), "{:#?}", server.log());

    let allocate = |_| Client::allocate(server.turn, "alice", "wonderland").ok();
    let clients: Vec<_> = (0..2 * DESCRIPTORS).map_while(allocate).collect();
    let held = clients.len();
    assert!(told <= held && held <= told + 32, "{told} told, {held} held");

    // Where there is room for all that may be, there is nothing to tell.
    let few = format!("allocations = {told}");
    let config = ConfigFile::new(&Settings { limits: &few, ..settings }.toml());
    let checked =
        run(limited(DESCRIPTORS, 2 * DESCRIPTORS).args(["check", "--config"]).arg(config.path()));
    assert!(checked.status.success() && !checked.stdout.contains("open files"), "{checked:?}");
    server.stop();
}

fn settings() -> Settings<'static> {
    Settings {
        limits: "allocations_per_user = 0\nunauthenticated_per_source = 0",
        ..Settings::default()
    }
}

/// `hairpin` with these limits of open files.
fn limited(soft: usize, hard: usize) -> Command {
    let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &limits, env!("CARGO_BIN_EXE_hairpin")]).stdin(Stdio::null());
    shell.env_remove("HAIRPIN_AUTH_SECRET").env_remove("RUST_LOG");
    shell
}

fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

/// Whether a Binding request gets an answer before the connection ends.
fn is_answered(tcp: &mut TcpStream) -> bool {
    let mut answer = [0; 32];
    let asked = tcp.write_all(&client::binding());
    asked.and_then(|()| tcp.read_exact(&mut answer)).is_ok()
}

/// Both ways over a channel.
fn assert_relays(client: &Client) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = ChannelNumber::new(0x4000 + peer.local_addr().unwrap().port() % 0x1000).unwrap();
    client.bind(number, peer.local_addr().unwrap()).unwrap();
    let packet = client::channel_data(number, b"data");
    client.socket.send(&packet).unwrap();
    let (received, relayed) = client::receive(&peer);
    assert_eq!((received.as_slice(), relayed), (b"data".as_slice(), client.relayed));
    peer.send_to(b"data", relayed).unwrap();
    assert_eq!(client.receive(), packet);
}
