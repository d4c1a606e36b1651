//! A browser without a window: given a page on its command line, and ended when dropped.
//!
//! No driver protocol stands between: the page itself says how it went.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What Chromium is told.
pub(crate) const CHROMIUM_ARGUMENTS: [&str; 11] = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    // A camera that shows a clock, which nobody has to permit.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    // Browsers leave loopback out of ICE unless told otherwise.
    "--allow-loopback-in-peer-connection",
];
/// Every name is this machine, so nothing else is reached.
pub(crate) const CHROMIUM_NAMES: &str = "--host-resolver-rules=MAP * 127.0.0.1";

/// What Firefox is told.
pub(crate) fn firefox_preferences() -> [(&'static str, Value); 8] {
    [
        // A camera that shows colour bars, which nobody has to permit.
        ("media.navigator.streams.fake", json!(true)),
        ("media.navigator.permission.disabled", json!(true)),
        // Browsers leave loopback out of ICE unless told otherwise.
        ("media.peerconnection.ice.loopback", json!(true)),
        // Every name is this machine, so nothing else is reached.
        ("network.dns.forceResolve", json!("127.0.0.1")),
        // Nothing opens in front of the page.
        ("browser.aboutwelcome.enabled", json!(false)),
        ("browser.shell.checkDefaultBrowser", json!(false)),
        ("datareporting.policy.dataSubmissionEnabled", json!(false)),
        ("termsofuse.bypassNotification", json!(true)),
    ]
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Browser {
    Chromium,
    Firefox,
}

impl Browser {
    /// Opens a page in a new browser that also trusts the authority, a certificate in PEM.
    /// `None` where this machine lacks the browser or `certutil`, which is a failure in CI.
    pub(crate) fn open(self, url: &str, authority: &Path) -> Option<Window> {
        match self.start(url, authority) {
            Ok(window) => Some(window),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(env::var_os("CI").is_none(), "in CI nothing is skipped: {error}");
                eprintln!("not run: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A home for a user who trusts the authority; its `profile` is for the browser.
    pub(crate) fn settle(self, authority: &Path) -> Result<TempDir> {
        let home = tempfile::tempdir()?;
        // Where each browser looks for the certificates that its user trusts.
        let trust = match self {
            Self::Chromium => home.path().join(".pki/nssdb"),
            Self::Firefox => home.path().join("profile"),
        };
        fs::create_dir_all(&trust)?;
        trust_authority(&trust, authority)?;
        Ok(home)
    }

    /// The program, where this machine has it.
    pub(crate) fn program(self) -> Result<PathBuf> {
        match self {
            Self::Chromium => installed(&["chromium", "chromium-browser", "google-chrome"]),
            Self::Firefox => installed(&["firefox-esr", "firefox"]),
        }
    }

    fn start(self, url: &str, authority: &Path) -> Result<Window> {
        let home = self.settle(authority)?;
        let profile = home.path().join("profile");
        let mut command = Command::new(self.program()?);
        match self {
            Self::Chromium => {
                command.arg("--headless=new").args(CHROMIUM_ARGUMENTS).arg(CHROMIUM_NAMES);
                command.arg(format!("--user-data-dir={}", profile.display()));
            }
            Self::Firefox => {
                fs::write(profile.join("user.js"), user_js())?;
                command.args(["--headless", "--no-remote", "--profile"]).arg(profile);
            }
        }
        command
            .arg(url)
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(home.path().join("stderr"))?)
            // What the browser starts is killed with it.
            .process_group(0);
        Ok(Window { child: command.spawn()?, home })
    }
}

/// As the text of a `user.js`.
fn user_js() -> String {
    let line = |(name, value)| format!("user_pref(\"{name}\", {value});\n");
    firefox_preferences().into_iter().map(line).collect()
}

/// Makes a database of certificates with this one in it, as an authority for servers.
fn trust_authority(database: &Path, authority: &Path) -> Result<()> {
    let certutil = |arguments: &[&str]| {
        let mut command = Command::new(installed(&["certutil"])?);
        let output = command.arg("-d").arg(database).args(arguments).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::other(String::from_utf8_lossy(&output.stderr))),
        }
    };
    certutil(&["-N", "--empty-password"])?;
    certutil(&["-A", "-n", "test", "-t", "C,,", "-a", "-i", &authority.display().to_string()])
}

/// Where the first of these programs is that this machine has.
fn installed(names: &[&'static str]) -> Result<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = |name: &&str| {
        env::split_paths(&paths).map(|path| path.join(name)).find(|program| program.is_file())
    };
    names
        .iter()
        .find_map(found)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no {} here", names.join(" or "))))
}

/// An open browser.
#[derive(Debug)]
pub(crate) struct Window {
    child: Child,
    home: TempDir,
}

impl Window {
    /// What the browser had to say so far.
    pub(crate) fn stderr(&self) -> String {
        let bytes = fs::read(self.home.path().join("stderr")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
