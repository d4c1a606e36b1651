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
    // What apt installs is for the system's own, which need not be the first in the path.
    let has_package = |python: &&str| {
        let mut probe = Command::new(python);
        let probe = probe.args(["-c", "import websockets"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_package) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install websockets");
        return eprintln!("not run: no websockets for Python (apt install python3-websockets)");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signal/client.py");
    let output = Command::new(python).arg(script).args(args).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{complained}");
}

/// The npm package `ws`, which is there with what drives the browsers.
#[test]
fn a_node_client_signals_and_is_refused_where_it_must_be() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/node_modules/ws/wrapper.mjs");
    let has_node = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_node || !std::path::Path::new(package).is_file() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install node and ws");
        return eprintln!("not run: no node, or no ws (npm install --prefix tests/browser)");
    }
    let (open, closed) = (open_server(), closed_server());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signal/client.mjs");
    let args = [
        package.to_owned(),
        format!("ws://{}/ws", open.http()),
        format!("ws://{}/ws", closed.http()),
        token("alice", &["r"]),
    ];
    let output = Command::new("node").arg(script).args(args).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{complained}");
}
