//! The code of `deploy/credentials.md`: it must make what `hairpin credentials` makes.

use std::path::Path;
use std::process::Command;

use hairpin::turn::rest;
use serde_json::Value;

use crate::server::{ConfigFile, Settings, hairpin, run};

const DOCUMENT: &str = include_str!("../../deploy/credentials.md");
const SECRET: &str = "a-shared-secret-of-32-characters";
const USERS: [&str; 3] = ["alice", "a:b c", "zoë"];

#[test]
fn javascript_makes_the_same_credentials() {
    let call = "console.log(JSON.stringify(turnCredentials(...process.argv.slice(2))));";
    agrees("node", "snippet.mjs", &format!("{}\n{call}\n", block("js")));
}

#[test]
fn python_makes_the_same_credentials() {
    let call = "import json, sys\nprint(json.dumps(turn_credentials(*sys.argv[1:])))";
    agrees("python3", "snippet.py", &format!("{}\n{call}\n", block("python")));
}

fn agrees(program: &str, file: &str, code: &str) {
    if Command::new(program).arg("--version").output().is_err() {
        eprintln!("{program} is not installed; its code in deploy/credentials.md is not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(file);
    std::fs::write(&file, code).unwrap();
    for user in USERS {
        let before = ours(user);
        let made = theirs(program, &file, user);
        let after = ours(user);
        assert_eq!(made["ttl"], before["ttl"]);
        let server = &made["iceServers"][0];
        assert_eq!(server["urls"], before["iceServers"][0]["urls"]);
        let (expires, name) = login(&made);
        assert_eq!(name, user);
        assert!((login(&before).0..=login(&after).0).contains(&expires), "{made}");
        let username = server["username"].as_str().unwrap();
        assert_eq!(server["credential"], rest::password(SECRET, username));
    }
}

fn theirs(program: &str, file: &Path, user: &str) -> Value {
    let ended = run(Command::new(program).arg(file).args([user, SECRET, "turn.example.org"]));
    assert!(ended.status.success(), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

fn ours(user: &str) -> Value {
    let listen = Settings { listen: "[\"0.0.0.0:3478\"]", ..Settings::default() };
    let config = ConfigFile::new(&listen.toml());
    let mut hairpin = hairpin();
    hairpin.env("HAIRPIN_AUTH_SECRET", SECRET).arg("credentials").arg("--config");
    let options = ["--user", user, "--host", "turn.example.org"];
    let ended = run(hairpin.arg(config.path()).args(options));
    assert!(ended.status.success(), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// When they expire, and whose they are.
fn login(made: &Value) -> (u64, String) {
    let username = made["iceServers"][0]["username"].as_str().unwrap();
    let (expires, user) = username.split_once(':').unwrap();
    (expires.parse().unwrap(), user.to_owned())
}

/// The code block of a language.
fn block(language: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}
