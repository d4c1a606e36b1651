//! WebSocket clients of other implementations.

use std::process::{Command, Stdio};

use crate::socket::{closed_server, open_server, token};

/// Python's `websockets`: joins, signals, and is refused for a foreign origin, a bad token and an
/// oversized frame.
#[test]
fn a_python_client_signals_and_is_refused_where_it_must_be() {
    let (open, closed) = (open_server(), closed_server());
    let args = [
        format!("ws://{}/ws", open.http()),
        format!("ws://{}/ws", closed.http()),
        token("alice", &["r"]),
        format!("wss://{}/ws", open.turn()),
    ];
    let mut probe = Command::new("python3");
    let probe = probe.args(["-c", "import websockets"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install websockets");
        return eprintln!("not run: no websockets for Python (apt install python3-websockets)");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signal/client.py");
    let output = Command::new("python3").arg(script).args(args).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{complained}");
}
