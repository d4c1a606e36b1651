//! HAProxy in front, as Debian ships it: whose connection it passes on is known.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hairpin::stun::Message;
use hairpin::stun::attribute::XorMappedAddress;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::client::binding;
use crate::server::{
    ConfigFile, DEADLINE, Process, Server, Settings, eventually, hairpin, private_port,
};
use crate::tls::{YEAR, write_pair};
use crate::trust::TrustsAnyone;

#[test]
fn haproxy_passes_clients_on_with_their_addresses() {
    let toml = format!(
        "{}[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[proxy]\nsources = [\"127.0.0.1/32\"]\n",
        Settings::default().toml().replace("[http]\n", "[http]\nshared = true\n")
    );
    let config = ConfigFile::new(&toml);
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
    let front = SocketAddr::from((Ipv4Addr::LOCALHOST, private_port()));
    let Some(_haproxy) = haproxy(&server, front) else { return };

    // HAProxy reaches the server from 127.0.0.1; only a header can tell this address.
    let connect = || connect_from(Ipv4Addr::new(127, 0, 0, 99), front);
    let tcp = connect();
    let local = tcp.local_addr().unwrap();
    assert_eq!(mapped(tcp), local, "over TCP");
    let tcp = connect();
    let local = tcp.local_addr().unwrap();
    assert_eq!(mapped(over_tls(tcp)), local, "over TLS");
    let mut https = over_tls(connect());
    https.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    https.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    // Its health checks say that they are its own, and end at once.
    let refused = server.metrics().sum(&["hairpin_connections_refused_total"]);
    assert_eq!(refused, 0, "{}", server.metrics().rows("hairpin_connections_refused_total"));

    // Without the header the same server says nothing.
    let mut direct = connect_from(Ipv4Addr::LOCALHOST, server.turn);
    direct.write_all(&binding()).unwrap();
    assert!(matches!(direct.read(&mut [0; 64]), Ok(0) | Err(_)));
    server.stop();
}

/// Runs until dropped; none where it is not installed, which CI does not accept.
fn haproxy(server: &Server, front: SocketAddr) -> Option<Process> {
    server.config.write(
        "haproxy.cfg",
        &format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 20s\n  \
             timeout client 60s\n  timeout server 60s\n\
             frontend front\n  bind {front}\n  default_backend turn\n\
             backend turn\n  server turn {} send-proxy-v2 check inter 200\n",
            server.turn
        ),
    );
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(server.config.path().with_file_name("haproxy.cfg"));
    let probe = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    if probe.is_err() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install haproxy");
        eprintln!("not run: no haproxy on this machine (apt install haproxy)");
        return None;
    }
    let process = Process::spawn(command.stdin(Stdio::null()));
    eventually("HAProxy listens", || TcpStream::connect(front).ok());
    Some(process)
}

fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::IPV4;
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

/// What the server takes for the address of the client.
fn mapped(mut stream: impl Read + Write) -> SocketAddr {
    stream.write_all(&binding()).unwrap();
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    let message = Message::parse(&answer).unwrap();
    message.read::<XorMappedAddress>().unwrap().unwrap().0
}

pub(crate) fn over_tls(tcp: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnyone))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
}
