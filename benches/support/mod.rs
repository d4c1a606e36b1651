//! What the benchmarks share: servers as processes of their own, and a plain blocking client.
#![allow(dead_code, reason = "each benchmark uses a part of it")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hairpin::stun::attribute::{
    ChannelNumberAttribute, Nonce, Realm, RequestedTransport, Username, XorPeerAddress,
    XorRelayedAddress,
};
use hairpin::stun::integrity::IntegrityKind;
use hairpin::stun::{Builder, ChannelNumber, Class, Key, Message, Method, TransactionId};

pub const USER: &str = "bench";
pub const PASSWORD: &str = "bench";
pub const REALM: &str = "localhost";

/// A server under test. Killed when dropped.
pub struct Server {
    child: Child,
    pub name: &'static str,
    pub address: SocketAddr,
    _config: Option<tempfile::TempDir>,
}

impl Server {
    /// hairpin with one shard, pinned to a core where `core` says so.
    pub fn hairpin(port: u16, core: Option<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let text = format!(
            "realm = \"{REALM}\"\nlisten = [\"127.0.0.1:{port}\"]\nthreads = 1\n\
             [relay]\nports = \"30000-60000\"\n\
             [auth]\nusers = {{ {USER} = \"{PASSWORD}\" }}\n\
             [peers]\nallow = [\"127.0.0.0/8\"]\n\
             [limits]\nallocations_per_user = 0\nunauthenticated_per_source = 0\n\
             [http]\nlisten = []\n[log]\nlevel = \"warn\"\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = pinned(env!("CARGO_BIN_EXE_hairpin"), core);
        command.arg("serve").arg("--config").arg(&file);
        Self::spawn("hairpin", command, port, Some(folder))
    }

    /// hairpin with open signaling on another port.
    pub fn signaling(port: u16, http: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let text = format!(
            "realm = \"{REALM}\"\nlisten = [\"127.0.0.1:{port}\"]\nthreads = 1\n\
             [auth]\nusers = {{ {USER} = \"{PASSWORD}\" }}\n\
             [peers]\nallow = [\"127.0.0.0/8\"]\n\
             [http]\nlisten = [\"127.0.0.1:{http}\"]\n\
             [signaling]\nenabled = true\nopen = true\n[log]\nlevel = \"warn\"\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = pinned(env!("CARGO_BIN_EXE_hairpin"), None);
        command.arg("serve").arg("--config").arg(&file);
        Self::spawn("hairpin", command, port, Some(folder))
    }

    /// Debian's coturn with one relay thread; `None` where it is not installed.
    pub fn coturn(port: u16, core: Option<usize>) -> Option<Self> {
        let binary = ["/usr/bin/turnserver", "/usr/local/bin/turnserver"]
            .into_iter()
            .find(|path| fs::exists(path).unwrap_or(false))?;
        let mut command = pinned(binary, core);
        command
            .args([
                "-n",
                "--no-tls",
                "--no-dtls",
                "--no-cli",
                "--lt-cred-mech",
                "--no-stun-backward-compatibility",
            ])
            .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
            .args(["--listening-port", &port.to_string(), "--relay-threads", "1"])
            .args(["--min-port", "30000", "--max-port", "60000"])
            .args(["--realm", REALM, "--user", &format!("{USER}:{PASSWORD}")])
            .args(["--allow-loopback-peers", "--no-stdout-log", "--log-file", "/dev/null"]);
        Some(Self::spawn("coturn", command, port, None))
    }

    fn spawn(
        name: &'static str,
        mut command: Command,
        port: u16,
        config: Option<tempfile::TempDir>,
    ) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self { child, name, address, _config: config };
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut request = Vec::new();
        Builder::new(&mut request, Method::Binding, Class::Request, TransactionId([1; 12]))
            .finish();
        let answered = (0..200).any(|_| {
            let _ = socket.send_to(&request, self.address);
            let answered = socket.recv(&mut [0; 1500]).is_ok();
            if !answered {
                std::thread::sleep(Duration::from_millis(20));
            }
            answered
        });
        assert!(answered, "{} does not answer on {}", self.name, self.address);
    }

    /// Time on a core so far, of all threads, in nanoseconds.
    pub fn cpu_nanos(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pinned(program: &str, core: Option<usize>) -> Command {
    match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), program]);
            command
        }
        None => Command::new(program),
    }
}

/// A TURN client with an allocation, over a blocking socket.
pub struct Client {
    pub socket: UdpSocket,
    pub relayed: SocketAddr,
    key: Key,
    realm: String,
    nonce: String,
    transactions: u64,
}

impl Client {
    /// Allocates.
    pub fn allocate(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut client = Self {
            socket,
            relayed: server,
            key: Key::md5(USER, REALM, PASSWORD),
            realm: REALM.into(),
            nonce: String::new(),
            transactions: 0,
        };
        let challenge =
            client.exchange(Method::Allocate, |builder| builder.put(&RequestedTransport::UDP));
        let challenge = Message::parse(&challenge).unwrap();
        client.realm = challenge.read::<Realm<'_>>().unwrap().unwrap().0.into();
        client.nonce = challenge.read::<Nonce<'_>>().unwrap().unwrap().0.into();
        client.key = Key::md5(USER, &client.realm, PASSWORD);
        let response = client.request(Method::Allocate, |b| b.put(&RequestedTransport::UDP));
        let response = Message::parse(&response).unwrap();
        client.relayed = response.read::<XorRelayedAddress>().unwrap().unwrap().0;
        client
    }

    /// Binds a channel.
    pub fn bind(&mut self, number: ChannelNumber, peer: SocketAddr) {
        self.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(number)).put(&XorPeerAddress(peer))
        });
    }

    fn request(
        &mut self,
        method: Method,
        attributes: impl Fn(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        let (key, realm, nonce) = (self.key, self.realm.clone(), self.nonce.clone());
        let response = self.exchange(method, |builder| {
            attributes(builder)
                .put(&Username(USER))
                .put(&Realm(&realm))
                .put(&Nonce(&nonce))
                .integrity(&key, IntegrityKind::Sha1)
        });
        let class = Message::parse(&response).unwrap().class();
        assert_eq!(class, Class::Success, "{method:?} was refused");
        response
    }

    fn exchange(
        &mut self,
        method: Method,
        attributes: impl Fn(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let mut request = Vec::new();
        attributes(Builder::new(&mut request, method, Class::Request, TransactionId(id))).finish();
        let mut response = [0; 2048];
        for _ in 0..8 {
            self.socket.send(&request).unwrap();
            if let Ok(length) = self.socket.recv(&mut response) {
                return response[..length].to_vec();
            }
        }
        panic!("no answer to {method:?}");
    }
}

/// The middle value, and the smallest and the largest.
pub fn median_and_spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
