//! The servers that are compared, as processes of their own on one core.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hairpin::load::{Login, Target, Transport, Usage};
use hairpin::stun::{Builder, Class, Method, TransactionId};
use tempfile::TempDir;

const USER: &str = "bench";
const PASSWORD: &str = "bench";
const REALM: &str = "localhost";
/// Below the ports that Linux picks for clients.
const RELAY_PORTS: [&str; 2] = ["10000", "31999"];
/// Servers listen on this port, and each next one three above; see `RELAY_PORTS`.
const FIRST_PORT: u16 = 4_000;

/// Addresses that clients come from, and that servers relay from, where there are many of both: the
/// ports above have room for 22,000 allocations of one, and Linux for 28,000 clients.
const SCALE_ADDRESSES: u8 = 8;

/// How a server is run.
#[derive(Clone, Copy, Debug)]
pub struct Lab {
    /// Relay addresses: 127.0.0.1 and those after it.
    pub addresses: u8,
    /// How long an allocation lives, whatever its client asks for.
    pub lifetime_secs: Option<u64>,
}

impl Lab {
    pub const PLAIN: Self = Self { addresses: 1, lifetime_secs: None };
    pub const SCALE: Self = Self { addresses: SCALE_ADDRESSES, lifetime_secs: None };

    fn addresses(self) -> Vec<String> {
        (1..=self.addresses).map(|last| format!("127.0.0.{last}")).collect()
    }
}

/// A program to compare.
#[derive(Clone, Debug)]
pub enum Contender {
    /// The one of this project.
    Hairpin,
    /// coturn's `turnserver`.
    Coturn { name: String, binary: PathBuf },
    /// The `turn-server/simple` of pion's examples. Speaks UDP only.
    Pion { binary: PathBuf },
}

impl Contender {
    /// hairpin first, then whatever there is on this machine.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Hairpin];
        let debian = ["/usr/bin/turnserver", "/usr/local/bin/turnserver"].map(PathBuf::from);
        let newer = std::env::var_os("COTURN_BINARY").map(PathBuf::from);
        for binary in newer.into_iter().chain(debian.into_iter().find(|path| path.exists())) {
            let name = format!("coturn {}", version(&binary));
            all.push(Self::Coturn { name, binary });
        }
        all.extend(std::env::var_os("PION_BINARY").map(|path| Self::Pion { binary: path.into() }));
        all
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Hairpin => "hairpin",
            Self::Coturn { name, .. } => name,
            Self::Pion { .. } => "pion",
        }
    }

    pub fn speaks(&self, transport: Transport) -> bool {
        !matches!(self, Self::Pion { .. }) || transport == Transport::Udp
    }

    /// Whether it can relay from several addresses, and end allocations when told.
    pub fn scales(&self) -> bool {
        !matches!(self, Self::Pion { .. })
    }

    /// Starts it with one relay thread on core `core`; returns when it answers.
    pub fn start(&self, core: usize) -> Server {
        self.start_in(core, Lab::PLAIN)
    }

    /// The same, told what `lab` says.
    pub fn start_in(&self, core: usize, lab: Lab) -> Server {
        static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        let port = NEXT.fetch_add(3, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let files = Certificate::write(folder.path());
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        match self {
            Self::Hairpin => hairpin(&mut command, port, folder.path(), &files, lab),
            Self::Coturn { binary, .. } => {
                coturn(&mut command, binary, port, folder.path(), &files, lab);
            }
            Self::Pion { binary } => pion(&mut command, binary, port),
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name()));
        let mut server = Server {
            child,
            name: self.name().to_owned(),
            port,
            // hairpin has TLS on all ports, coturn only on its own.
            tls_port: if matches!(self, Self::Hairpin) { port } else { port + 1 },
            folder,
            lab,
        };
        server.wait_until_it_answers();
        server
    }
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_version = |word: &&str| word.starts_with(|char: char| char.is_ascii_digit());
    let found = text.split([' ', '-', '\n', '\'']).find(is_version).map(str::to_owned);
    found.unwrap_or_default()
}

fn hairpin(command: &mut Command, port: u16, folder: &Path, files: &Certificate, lab: Lab) {
    let [low, high] = RELAY_PORTS;
    let addresses = lab.addresses();
    let lifetime = lab.lifetime_secs.map_or_else(String::new, |seconds| {
        format!("default_lifetime = \"{seconds}s\"\nmax_lifetime = \"{seconds}s\"\n")
    });
    let text = format!(
        "realm = \"{REALM}\"\nlisten = [\"127.0.0.1:{port}\"]\nthreads = 1\n\
         [tls]\ncert = {:?}\nkey = {:?}\n\
         [relay]\nports = \"{low}-{high}\"\naddresses = {addresses:?}\n\
         [auth]\nusers = {{ {USER} = \"{PASSWORD}\" }}\n\
         [peers]\nallow = [\"127.0.0.0/8\"]\n\
         [limits]\nallocations_per_user = 0\nunauthenticated_per_source = 0\n{lifetime}\
         [http]\nlisten = []\n[log]\nlevel = \"warn\"\n",
        files.cert, files.key,
    );
    let file = folder.join("hairpin.toml");
    fs::write(&file, text).unwrap();
    command.arg(env!("CARGO_BIN_EXE_hairpin")).arg("serve").arg("--config").arg(file);
}

fn coturn(
    command: &mut Command,
    binary: &Path,
    port: u16,
    folder: &Path,
    files: &Certificate,
    lab: Lab,
) {
    let [low, high] = RELAY_PORTS;
    command
        .arg(binary)
        .args(["-n", "--no-dtls", "--no-cli", "--lt-cred-mech", "--no-rfc5780"])
        .args(["--listening-ip", "127.0.0.1"])
        .args(lab.addresses().iter().map(|address| format!("--relay-ip={address}")))
        .args(lab.lifetime_secs.map(|seconds| format!("--max-allocate-lifetime={seconds}")))
        .args(["--listening-port", &port.to_string()])
        .args(["--tls-listening-port", &(port + 1).to_string()])
        .args(["--relay-threads", "1", "--min-port", low, "--max-port", high])
        .args(["--realm", REALM, "--user", &format!("{USER}:{PASSWORD}")])
        .args(["--allow-loopback-peers", "--no-stdout-log", "--log-file", "/dev/null"])
        .arg("--cert")
        .arg(&files.cert)
        .arg("--pkey")
        .arg(&files.key)
        .arg("--pidfile")
        .arg(folder.join("pid"))
        .arg("--userdb")
        .arg(folder.join("turndb"));
}

fn pion(command: &mut Command, binary: &Path, port: u16) {
    command
        .env("GOMAXPROCS", "1")
        .arg(binary)
        .args(["-public-ip", "127.0.0.1", "-port", &port.to_string()])
        .args(["-realm", REALM, "-users", &format!("{USER}={PASSWORD}")]);
}

/// A certificate of its own for each server.
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn write(folder: &Path) -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files = Self { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&files.cert, pem("CERTIFICATE", cert.der())).unwrap();
        fs::write(&files.key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        files
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A server under test. Killed when dropped.
pub struct Server {
    child: Child,
    pub name: String,
    pub port: u16,
    tls_port: u16,
    folder: TempDir,
    lab: Lab,
}

impl Server {
    pub fn target(&self, transport: Transport) -> Target {
        let port = if transport == Transport::Tls { self.tls_port } else { self.port };
        Target::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), transport)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.pid()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Files and sockets that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Where clients are to come from; empty where one address has room for them.
    pub fn client_addresses(&self) -> Vec<IpAddr> {
        match self.lab.addresses {
            1 => Vec::new(),
            count => (1..=count).map(|last| IpAddr::from([127, 0, 0, last])).collect(),
        }
    }

    pub fn login() -> Login {
        Login { user: USER.to_owned(), password: PASSWORD.to_owned() }
    }

    /// Until it has done nothing for a moment; one that never rests is not waited for long.
    pub fn wait_until_it_rests(&self) {
        let mut before = self.usage().cpu;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.usage().cpu;
            // coturn looks at its timers meanwhile.
            if now.saturating_sub(before) < Duration::from_millis(1) {
                return;
            }
            before = now;
        }
    }

    fn wait_until_it_answers(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut request = Vec::new();
        Builder::new(&mut request, Method::Binding, Class::Request, TransactionId([1; 12]))
            .finish();
        let answered = (0..400).any(|_| {
            let sent = socket.send(&request).is_ok();
            let answered = sent && socket.recv(&mut [0; 1500]).is_ok();
            if !answered {
                std::thread::sleep(Duration::from_millis(20));
            }
            answered
        });
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(answered, "{} does not answer on port {}: {log}", self.name, self.port);
        // Somebody else may have answered on the port that it could not have.
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{} ended, but port {} answers: {log}", self.name, self.port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
