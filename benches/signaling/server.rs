//! The server under test, as a process of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Killed when dropped.
pub struct Server {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// hairpin with open signaling; TURN on one port of loopback, HTTP on another.
    pub fn start(turn: u16, http: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let text = format!(
            "realm = \"localhost\"\nlisten = [\"127.0.0.1:{turn}\"]\nthreads = 1\n\
             [auth]\nusers = {{ bench = \"bench\" }}\n\
             [peers]\nallow = [\"127.0.0.0/8\"]\n\
             [http]\nlisten = [\"127.0.0.1:{http}\"]\n\
             [signaling]\nenabled = true\nopen = true\n[log]\nlevel = \"warn\"\n"
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hairpin"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, _folder: folder };
        let address = SocketAddr::from(([127, 0, 0, 1], http));
        let accepts = || TcpStream::connect(address).is_ok();
        let answered = (0..200).any(|_| {
            let accepts = accepts();
            if !accepts {
                sleep(Duration::from_millis(20));
            }
            accepts
        });
        assert!(answered, "no answer on {address}");
        server
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
