//! The command line: what it prints, and how it exits.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{self, Client};
use crate::server::{
    ConfigFile, Ended, Process, Server, Settings, dev_ports, field, hairpin, private_port, run,
};

const READY: &str = r#"hairpin is ready. For your RTCPeerConnection:

iceServers: [
  { urls: "stun:127.0.0.1:3478" },
  { urls: "turn:127.0.0.1:3478?transport=udp", username: "dev", credential: "dev" },
  { urls: "turn:127.0.0.1:3478?transport=tcp", username: "dev", credential: "dev" },
  // Only for browsers that were told to accept the certificate, which is new at each start.
  { urls: "turns:127.0.0.1:3478?transport=tcp", username: "dev", credential: "dev" },
]

Test:    http://127.0.0.1:8080/test
Call:    http://127.0.0.1:8080/call
Metrics: http://127.0.0.1:8080/metrics
"#;
const SECRET: &str = "a-shared-secret-of-32-characters";

#[test]
fn dev_server_prints_the_ice_servers_once_and_serves_them() {
    let _lock = dev_ports();
    let process = Process::spawn(hairpin().args(["serve", "--dev"]));
    process.stdout().wait_for("Metrics:", 1);
    let turn = ([127, 0, 0, 1], 3478).into();
    // One datagram, not sent again: what is printed is true at once.
    let socket = client::socket(turn);
    socket.send(&client::binding()).unwrap();
    assert_eq!(client::receive(&socket).0[..2], [0x01, 0x01]);
    Client::allocate(turn, "dev", "dev").unwrap();
    process.signal("TERM");
    let ended = process.wait();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), READY));
}

#[test]
fn dev_server_is_not_ready_where_another_one_runs() {
    let _lock = dev_ports();
    let first = Process::spawn(hairpin().args(["serve", "--dev"]));
    first.stdout().wait_for("Metrics:", 1);
    let ended = run(hairpin().args(["serve", "--dev"]));
    assert_refused(&ended, "127.0.0.1:3478");
    let holder = format!("; hairpin (process {}) holds it", first.pid());
    assert!(ended.stderr.iter().any(|line| line.ends_with(&holder)), "{ended:?}");
    first.signal("INT");
    assert_eq!(first.wait().stdout, READY);
}

/// Many tools want 8080; what the banner says is where the pages are.
#[test]
fn dev_server_takes_another_http_port_where_8080_is_taken() {
    let _lock = dev_ports();
    let _taken = TcpListener::bind("127.0.0.1:8080").unwrap();
    let process = Process::spawn(hairpin().args(["serve", "--dev"]));
    let line = process.stdout().wait_for("Metrics:", 1).remove(0);
    let url = line.strip_prefix("Metrics: http://").unwrap();
    let http: SocketAddr = url.strip_suffix("/metrics").unwrap().parse().unwrap();
    assert_ne!(http.port(), 8080);
    TcpStream::connect(http).expect("somebody answers there");
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn credentials_need_a_host_that_clients_can_reach() {
    let wildcard = Settings { listen: "[\"0.0.0.0:3478\"]", ..Settings::default() };
    let config = ConfigFile::new(&wildcard.toml());
    let credentials = |options: &[&str]| {
        let mut hairpin = hairpin();
        hairpin.env("HAIRPIN_AUTH_SECRET", SECRET).args(["credentials", "--user", "alice"]);
        run(hairpin.arg("--config").arg(config.path()).args(options))
    };
    let ended = credentials(&[]);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let [only] = ended.stderr.as_slice() else { panic!("one line: {ended:?}") };
    assert!(only.starts_with("error: --host is needed"), "{only}");
    for host in ["https://x", "a b", "x:3478", ""] {
        let ended = credentials(&["--host", host]);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{host}");
    }
}

#[test]
fn dev_server_is_not_ready_where_the_udp_port_is_taken() {
    let _lock = dev_ports();
    let _taken = UdpSocket::bind("127.0.0.1:3478").unwrap();
    assert_refused(&run(hairpin().args(["serve", "--dev"])), "127.0.0.1:3478");
}

#[test]
fn a_udp_port_of_another_server_is_refused() {
    let first = Server::start(&Settings::default());
    assert_refused(&serve_on(first.turn), &first.turn.to_string());
    assert!(client::is_served(first.turn));
}

#[test]
fn a_udp_port_that_another_process_would_share_is_refused() {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    assert_refused(&serve_on(address), &address.to_string());
}

/// The file is in order; what it asks for is not to be had here.
#[test]
fn a_relay_address_of_another_machine_is_refused() {
    for address in ["8.8.8.8", "2001:4860:4860::8888"] {
        let toml = Settings::default().toml();
        let toml = toml.replace("[relay]", &format!("[relay]\naddresses = [\"{address}\"]"));
        let config = ConfigFile::new(&toml);
        assert_refused(&serve(&config.path()), &format!("cannot relay from {address}: "));
    }
}

#[test]
fn an_http_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let http = format!("listen = [\"{address}\"]");
    let config = ConfigFile::new(&Settings { http: &http, ..Settings::default() }.toml());
    assert_refused(&serve(&config.path()), &address.to_string());
}

#[test]
fn a_bad_setting_is_refused_with_file_line_and_key() {
    let unreadable = r#"
        [auth]
        secret_file = "missing.txt""#;
    for (toml, line, key) in [
        ("realm = \"test\"\nrealn = \"test\"", 2, "realn"),
        ("[limits]\nno_such_limit = 1", 2, "limits.no_such_limit"),
        ("[peers]\nallow = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/33\",\n]", 4, "peers.allow[1]"),
        ("[peers]\ndeny = [\"10.0.0\"]", 2, "peers.deny[0]"),
        ("listen = [\"127.0.0.1:65536\"]", 1, "listen[0]"),
        ("[relay]\nports = \"49152-65536\"", 2, "relay.ports"),
        ("[http]\n\nlisten = [\"127.0.0.1:65536\"]", 3, "http.listen[0]"),
        (unreadable, 3, "auth.secret_file"),
        ("[auth]\nnonce_secret_file = \"/proc/self/mem\"", 2, "auth.nonce_secret_file"),
        ("threads = \"four\"", 1, "threads"),
        ("[auth]\nusers = { alice = 7 }", 2, "auth.users.alice"),
        ("[auth]\nsecrets = [\"short\"]", 2, "auth.secrets[0]"),
        ("[log]\nlevel = \"loud\"", 2, "log.level"),
        ("[limits]\nmax_lifetime = \"forever\"", 2, "limits.max_lifetime"),
    ] {
        let config = ConfigFile::new(toml);
        let expected = format!("error: {}:{line}: {key}: ", config.path().display());
        for command in ["serve", "check", "credentials"] {
            let mut hairpin = hairpin();
            hairpin.args([command, "--config"]).arg(config.path());
            if command == "credentials" {
                hairpin.args(["--user", "alice"]);
            }
            let ended = run(&mut hairpin);
            assert_eq!(ended.status.code(), Some(1), "{toml}: {ended:?}");
            assert_eq!(ended.stdout, "", "{toml}");
            let [only] = ended.stderr.as_slice() else { panic!("{toml}: one line, {ended:?}") };
            assert!(only.starts_with(&expected) && only.len() > expected.len(), "{only}");
        }
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let config = ConfigFile::new("realm = \"test\"\nlisten = [\n");
    let ended = serve(&config.path());
    assert_eq!(ended.status.code(), Some(1));
    let [only] = ended.stderr.as_slice() else { panic!("one line: {ended:?}") };
    assert!(only.starts_with(&format!("error: {}:", config.path().display())), "{only}");
}

#[test]
fn a_file_that_is_named_and_not_there_is_refused() {
    let ended = serve(Path::new("/no/such/hairpin.toml"));
    assert_eq!(ended.status.code(), Some(1));
    let [only] = ended.stderr.as_slice() else { panic!("one line: {ended:?}") };
    assert!(only.starts_with("error: /no/such/hairpin.toml: "), "{only}");
}

#[test]
fn check_explains_a_good_configuration_in_text_and_json() {
    let config = ConfigFile::new(&Settings::default().toml());
    let check = |options: &[&str]| {
        run(hairpin().args(["check", "--config"]).arg(config.path()).args(options))
    };
    let text = check(&[]);
    assert_eq!((text.status.code(), text.stderr.len()), (Some(0), 0), "{text:?}");
    let first = format!("configuration  {}: ok\n", config.path().display());
    assert!(text.stdout.starts_with(&first), "{}", text.stdout);
    let json = check(&["--json"]);
    assert_eq!(json.status.code(), Some(0));
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["realm"], "test");
    assert_eq!(json["auth"]["users"], 2);
    assert_eq!(json["listen"], serde_json::json!(["127.0.0.1:0"]));
    for shown in [text.stdout, json.to_string()] {
        assert!(!shown.contains("wonderland"), "no password: {shown}");
    }
}

/// A script that reads JSON must not have to read English elsewhere.
#[test]
fn check_tells_in_json_too_what_is_wrong() {
    let config = ConfigFile::new("realn = \"test\"");
    let ended = run(hairpin().args(["check", "--json", "--config"]).arg(config.path()));
    assert_eq!(ended.status.code(), Some(1));
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    let error = json["error"].as_str().unwrap();
    assert!(error.starts_with(&format!("{}:1: realn: ", config.path().display())), "{error}");
    assert_eq!(ended.stderr, [format!("error: {error}")]);
}

/// What a wildcard comes down to is what `serve` says it relays from.
#[test]
fn check_shows_the_relay_addresses_that_serve_uses() {
    let server = Server::start(&Settings { listen: "[\"0.0.0.0:0\"]", ..Settings::default() });
    let relaying = field(&server.process().stderr().wait_for("relaying", 1)[0], "address");
    let config = Settings { listen: "[\"0.0.0.0:0\"]", ..Settings::default() }.toml();
    let config = ConfigFile::new(&config);
    let check = |options: &[&str]| {
        run(hairpin().args(["check", "--config"]).arg(config.path()).args(options)).stdout
    };
    let json: Value = serde_json::from_str(&check(&["--json"])).unwrap();
    assert_eq!(json["relay"]["resolved"], serde_json::json!([relaying]));
    let text = check(&[]);
    assert!(text.contains(&format!("addresses: {relaying} ")), "{text}");
    let warns = |lines: &str| lines.contains("cannot reach relayed addresses");
    assert_eq!(warns(&text), warns(&server.stop().join("\n")));
}

#[test]
fn check_accepts_the_configuration_that_is_shipped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["config.toml", "deploy/hairpin.toml"] {
        // The one in `deploy` takes its secret from the environment, as its compose file says.
        let mut check = hairpin();
        check.env("HAIRPIN_AUTH_SECRET", SECRET);
        let ended = run(check.args(["check", "--config"]).arg(folder.join(file)));
        assert_eq!(ended.status.code(), Some(0), "{file}: {ended:?}");
    }
}

#[test]
fn minted_credentials_are_accepted_and_counted_as_their_user() {
    let auth = format!("secrets = [\"{SECRET}\"]");
    let settings = Settings { auth: &auth, ..Settings::default() };
    let server = Server::start(&settings);
    let config = ConfigFile::new(&settings.toml());
    let minted = mint(hairpin().arg("credentials").arg("--config").arg(config.path()), &[]);
    let (username, credential) = login(&minted);
    assert!(username.ends_with(":alice"), "{username}");
    let client = Client::allocate(server.turn, &username, &credential).unwrap();
    client.refresh(0).unwrap();
    let refused = Client::allocate(server.turn, &username, "guessed").map(|_| ());
    assert_eq!(refused, Err(401));
    let log = server.stop();
    assert!(log.iter().any(|line| line.contains(&format!("user={username}"))), "{log:#?}");
}

#[test]
fn minted_credentials_are_what_the_help_promises() {
    let config = ConfigFile::new(&Settings { auth: "", ..Settings::default() }.toml());
    let mut hairpin = hairpin();
    hairpin.arg("credentials").env("HAIRPIN_AUTH_SECRET", SECRET);
    hairpin.arg("--config").arg(config.path());
    let minted = mint(&mut hairpin, &["--ttl", "12h", "--host", "turn.example.org"]);
    assert_eq!(minted["ttl"], 12 * 3600);
    let urls = minted["iceServers"][0]["urls"].as_array().unwrap();
    assert!(urls.contains(&"turn:turn.example.org:0?transport=udp".into()), "{urls:?}");
}

#[test]
fn credentials_without_a_secret_are_refused_in_one_line() {
    let config = ConfigFile::new(&Settings::default().toml());
    let ended =
        run(hairpin().args(["credentials", "--user", "alice", "--config"]).arg(config.path()));
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let [only] = ended.stderr.as_slice() else { panic!("one line: {ended:?}") };
    assert!(only.contains("auth.secrets") && only.contains("HAIRPIN_AUTH_SECRET"), "{only}");
}

#[test]
fn the_examples_of_every_help_can_be_typed() {
    let empty = tempfile::tempdir().unwrap();
    for command in [&[][..], &["serve"], &["check"], &["credentials"]] {
        let help = run(hairpin().args(command).arg("--help"));
        assert_eq!(help.status.code(), Some(0));
        let (_, examples) = help.stdout.split_once("Examples:\n").expect("there are examples");
        for example in examples.lines().map(str::trim).take_while(|line| !line.is_empty()) {
            // An explanation may follow, or a pipe to another program.
            let words = example.split("  ").next().unwrap().split('|').next().unwrap();
            let (_, arguments) = words.split_once("hairpin ").unwrap();
            let mut hairpin = hairpin();
            hairpin.env("HAIRPIN_AUTH_SECRET", SECRET).current_dir(empty.path());
            hairpin.args(arguments.split_whitespace());
            if arguments.starts_with("serve") {
                // Not served; what stands in front of it must be right all the same.
                hairpin.arg("--help");
            }
            // 2 is how a command line ends that cannot be read.
            let ended = run(&mut hairpin);
            assert!(matches!(ended.status.code(), Some(0 | 1)), "{example}: {ended:?}");
        }
    }
}

#[test]
fn signals_end_the_server_with_a_line_for_each_allocation() {
    for signals in [&["INT"][..], &["TERM", "TERM"], &["TERM", "INT"]] {
        // Ports of its own: those that the kernel picks may have another owner at once.
        let server = Server::start(&Settings {
            listen: &format!("[\"127.0.0.1:{}\"]", private_port()),
            http: &format!("listen = [\"127.0.0.1:{}\"]", private_port()),
            relay_ports: "28000-28999",
            ..Settings::default()
        });
        let (turn, http) = (server.turn, server.http);
        let clients: Vec<_> =
            (0..5).map(|_| Client::allocate(turn, "alice", "wonderland").unwrap()).collect();
        for (at, signal) in signals.iter().enumerate() {
            server.process().signal(signal);
            if at + 1 < signals.len() {
                server.process().stderr().wait_for("draining", 1);
            }
        }
        let ended = server.wait();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let log = ended.stderr;
        let closed: Vec<_> = log.iter().filter(|line| line.contains("allocation closed")).collect();
        assert_eq!(closed.len(), clients.len(), "{log:#?}");
        for client in &clients {
            let relayed = client.relayed.to_string();
            let line = closed.iter().find(|line| field(line, "relayed") == relayed).unwrap();
            assert_eq!(field(line, "reason"), "shutdown");
            UdpSocket::bind(client.relayed).expect("the relay port is free again");
        }
        UdpSocket::bind(turn).expect("the port is free again");
        TcpListener::bind(http).expect("the HTTP port is free again");
    }
}

#[test]
fn a_signal_while_starting_ends_the_server_and_frees_its_ports() {
    let turn = SocketAddr::from(([127, 0, 0, 1], private_port()));
    let listen = format!("[\"{turn}\"]");
    let config = ConfigFile::new(&Settings { listen: &listen, ..Settings::default() }.toml());
    for milliseconds in 0..20 {
        let process = Process::spawn(hairpin().args(["serve", "--config"]).arg(config.path()));
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        process.signal("TERM");
        let ended = process.wait();
        // Before there is a handler the signal itself ends the process.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert!(ended.status.success() || by_signal == Some(15), "{ended:?}");
        UdpSocket::bind(turn).expect("the port is free again");
    }
}

fn serve(config: &Path) -> Ended {
    run(hairpin().args(["serve", "--config"]).arg(config))
}

fn serve_on(address: SocketAddr) -> Ended {
    let listen = format!("[\"{address}\"]");
    let config = ConfigFile::new(&Settings { listen: &listen, ..Settings::default() }.toml());
    serve(&config.path())
}

/// Exit code 1, nothing on stdout, and one line, besides the log, that names the address.
fn assert_refused(ended: &Ended, address: &str) {
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let errors: Vec<_> = ended.stderr.iter().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{ended:?}");
    assert!(errors[0].contains(address), "{ended:?}");
    assert!(!ended.stderr.iter().any(|line| line.contains("listening")), "{ended:?}");
}

fn mint(command: &mut Command, options: &[&str]) -> Value {
    let ended = run(command.args(["--user", "alice"]).args(options));
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

fn login(minted: &Value) -> (String, String) {
    let server = &minted["iceServers"][0];
    let text = |name: &str| server[name].as_str().unwrap().to_owned();
    (text("username"), text("credential"))
}
