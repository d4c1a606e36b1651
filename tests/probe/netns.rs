//! Network namespaces: machines and links of their own, with the NAT of Linux.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::{Process, run};

/// A machine of its own. Gone when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// None where this machine has no namespaces, which CI does not accept.
    pub(crate) fn new() -> Option<Self> {
        is_possible().then(Self::create)
    }

    fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hairpin-{}-{number}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        command.env_remove("HAIRPIN_AUTH_SECRET").env_remove("RUST_LOG");
        command
    }

    /// The program under test.
    pub(crate) fn hairpin(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_hairpin"))
    }

    /// `ip` with these words.
    pub(crate) fn ip(&self, words: &str) {
        must(Command::new("ip").args(["-n", &self.name]).args(words.split(' ')));
    }

    /// Sets a kernel parameter.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let write = format!("echo {value} > /proc/sys/{path}");
        must(self.command("sh").args(["-c", &write]));
    }

    /// Rules of nftables.
    pub(crate) fn nft(&self, rules: &str) {
        let mut nft = self.command("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().unwrap();
        // A brace may close only at the end of a line.
        let rules = rules.replace("} }", "}\n}");
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{rules}{}", String::from_utf8_lossy(&ended.stderr));
    }

    /// A link to another one, with addresses for both ends.
    pub(crate) fn link(&self, device: &str, addresses: &[&str], other: &Self, ends: &[&str]) {
        let far = format!("{device}-far");
        let pair = format!(
            "link add {device} netns {} type veth peer name {far} netns {}",
            self.name, other.name
        );
        must(Command::new("ip").args(pair.split(' ')));
        for (namespace, device, addresses) in [(self, device, addresses), (other, &far, ends)] {
            for address in addresses {
                // An IPv6 address is good at once, without a look for duplicates.
                let flags = if address.contains(':') { " nodad" } else { "" };
                namespace.ip(&format!("addr add {address} dev {device}{flags}"));
            }
            namespace.ip(&format!("link set {device} up"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // An error means that it is gone.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn must(command: &mut Command) {
    let ended = run(command);
    assert!(ended.status.success(), "{command:?}: {ended:?}");
}

fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let name = format!("hairpin-{}-try", std::process::id());
        let works = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let possible = works(&["netns", "add", &name])
            && works(&["netns", "exec", &name, "nft", "add", "table", "ip", "try"]);
        works(&["netns", "del", &name]);
        if !possible {
            let wanted = "root, iproute2 and nftables";
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: needs {wanted}");
            eprintln!("not run: no network namespaces on this machine (they need {wanted})");
        }
        possible
    })
}

/// A server of ours in a namespace: its process, for as long as it is needed.
pub(crate) fn serve(namespace: &Namespace, config: &std::path::Path) -> Process {
    let process = Process::spawn(namespace.hairpin().args(["serve", "--config"]).arg(config));
    process.stderr().wait_for("relaying (udp)", 1);
    process
}
