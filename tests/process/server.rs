//! A hairpin process: started, listened to, signalled, and waited for.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Generous: debug builds on a machine that does other things too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The tables of a configuration for loopback, as TOML text without their headers.
pub(crate) struct Settings<'a> {
    pub(crate) listen: &'a str,
    pub(crate) threads: usize,
    pub(crate) relay_ports: &'a str,
    pub(crate) auth: &'a str,
    pub(crate) limits: &'a str,
    pub(crate) turn: &'a str,
    pub(crate) stun: &'a str,
    pub(crate) http: &'a str,
    pub(crate) log: &'a str,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            listen: r#"["127.0.0.1:0"]"#,
            threads: 2,
            relay_ports: "61000-65535",
            auth: r#"users = { alice = "wonderland", bob = "builder" }"#,
            limits: "unauthenticated_per_source = 0",
            turn: "",
            stun: "",
            http: r#"listen = ["127.0.0.1:0"]"#,
            log: "",
        }
    }
}

impl Settings<'_> {
    /// The file. The default relay ports are none that Linux picks for a client.
    pub(crate) fn toml(&self) -> String {
        let Self { listen, threads, relay_ports, auth, limits, turn, stun, http, log } = self;
        format!(
            "realm = \"test\"\nlisten = {listen}\nthreads = {threads}\n\
             [relay]\nports = \"{relay_ports}\"\n[auth]\n{auth}\n\
             [peers]\nallow = [\"127.0.0.0/8\", \"::1/128\"]\n\
             [limits]\n{limits}\n[turn]\n{turn}\n[stun]\n{stun}\n[http]\n{http}\n[log]\n{log}\n"
        )
    }
}

/// A configuration file in a directory of its own.
pub(crate) struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    pub(crate) fn new(toml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hairpin.toml");
        fs::write(&path, toml).unwrap();
        // As its operator should: it may hold passwords.
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        Self { directory }
    }

    /// Puts a file next to the configuration.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let next = self.directory.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.directory.path().join(name)).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("hairpin.toml")
    }
}

/// The binary, without what the environment of the tests would tell it.
pub(crate) fn hairpin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hairpin"));
    command.env_remove("HAIRPIN_AUTH_SECRET").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a process that ended has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: Vec<String>,
}

/// A process under test. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
        let stdout = Output::read(child.stdout.take().unwrap());
        let stderr = Output::read(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn stdout(&self) -> &Output {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Output {
        &self.stderr
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end, and for the last line.
    pub(crate) fn wait(mut self) -> Ended {
        eventually("the process ends", || self.child.try_wait().unwrap());
        let status = self.child.wait().unwrap();
        let stdout = self.stdout.finish();
        let stdout = stdout.into_iter().map(|line| line + "\n").collect();
        Ended { status, stdout, stderr: self.stderr.finish() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    Process::spawn(command).wait()
}

/// The lines of a pipe, read as they come so that the writer never waits.
pub(crate) struct Output {
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Output {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            // Split at line feeds alone: a carriage return within a line must not hide.
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                shared.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                shared.1.notify_all();
            }
        });
        Self { lines, reader: Some(reader) }
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap().clone()
    }

    /// Waits until `count` lines contain `text`, and returns those.
    pub(crate) fn wait_for(&self, text: &str, count: usize) -> Vec<String> {
        let of = |lines: &[String]| {
            lines.iter().filter(|line| line.contains(text)).cloned().collect::<Vec<_>>()
        };
        let lines = self.lines.0.lock().unwrap();
        let (lines, timeout) = self
            .lines
            .1
            .wait_timeout_while(lines, DEADLINE, |lines| of(lines).len() < count)
            .unwrap();
        let all = lines.clone();
        drop(lines);
        assert!(!timeout.timed_out(), "not {count} times {text:?} in {all:#?}");
        of(&all)
    }

    fn finish(&mut self) -> Vec<String> {
        self.reader.take().unwrap().join().unwrap();
        self.lines()
    }
}

/// A server that serves.
pub(crate) struct Server {
    process: Process,
    pub(crate) turn: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) config: ConfigFile,
}

impl Server {
    /// Starts with these settings; returns when it listens.
    pub(crate) fn start(settings: &Settings<'_>) -> Self {
        Self::start_as(&mut hairpin(), settings)
    }

    /// The same with a command that runs `hairpin` with the arguments it is given.
    pub(crate) fn start_as(command: &mut Command, settings: &Settings<'_>) -> Self {
        Self::start_in(command, ConfigFile::new(&settings.toml()))
    }

    /// The same with a configuration that is written already.
    pub(crate) fn start_in(command: &mut Command, config: ConfigFile) -> Self {
        let process = Process::spawn(command.args(["serve", "--config"]).arg(config.path()));
        let address = |what| {
            let line = &process.stderr().wait_for(what, 1)[0];
            field(line, "address").parse().unwrap()
        };
        let (turn, http) = (address("listening (udp)"), address("listening (http)"));
        // The last line of the start: what comes later is about something else.
        process.stderr().wait_for("relaying (udp)", 1);
        Self { process, turn, http, config }
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The lines of the log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.stderr().lines()
    }

    /// Waits for the end.
    pub(crate) fn wait(self) -> Ended {
        self.process.wait()
    }

    /// Ends it without draining, and returns all it has logged.
    pub(crate) fn stop(self) -> Vec<String> {
        self.process.signal("INT");
        let ended = self.wait();
        assert!(ended.status.success(), "{ended:?}");
        ended.stderr
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS")
    }

    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads")
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// One scrape of `/metrics`.
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, response) = self.get("/metrics");
        assert_eq!(status, 200, "{response}");
        Metrics(response)
    }

    /// What HTTP answers: its status, and all of it.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        (response.split(' ').nth(1).unwrap().parse().unwrap(), response)
    }
}

/// Prometheus text.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all series whose name and labels contain each of `parts`.
    pub(crate) fn sum(&self, parts: &[&str]) -> u64 {
        let rows = self.0.lines().filter(|line| !line.starts_with('#'));
        rows.filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| parts.iter().all(|part| series.contains(part)))
            .map(|(_, value)| value.parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// The rows of one metric, for messages.
    pub(crate) fn rows(&self, metric: &str) -> String {
        let rows = self.0.lines().filter(|line| line.starts_with(metric));
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// The value of a field, in either form of the log.
pub(crate) fn field(line: &str, name: &str) -> String {
    if line.starts_with('{') {
        let line: Value = serde_json::from_str(line).unwrap();
        return match &line[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
    }
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().trim_matches('"').to_owned()
}

/// Polls until there is something.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    for _ in 0..DEADLINE.as_millis() / POLL.as_millis() {
        if let Some(found) = poll() {
            return found;
        }
        thread::sleep(POLL);
    }
    panic!("not before the deadline: {what}");
}

/// A free port that nobody else gets: below those that Linux picks, another one each time.
pub(crate) fn private_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_process = 10_000 + std::process::id() % 1000 * 16;
    eventually("a port is free", || {
        let port = of_process as u16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let free = UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok();
        free.then_some(port)
    })
}

/// `--dev` has fixed ports, so one server at a time, in all test processes of this machine.
pub(crate) fn dev_ports() -> File {
    let lock = File::create(std::env::temp_dir().join("hairpin-dev-ports.lock")).unwrap();
    lock.lock().unwrap();
    eventually("the ports of --dev are free", || {
        let free = UdpSocket::bind("127.0.0.1:3478").is_ok()
            && TcpListener::bind("127.0.0.1:8080").is_ok();
        free.then_some(())
    });
    lock
}
