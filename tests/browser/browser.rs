//! A browser without a window: given a page on its command line, and ended when dropped.
//!
//! No driver protocol stands between: the page itself says how it went.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use tempfile::TempDir;

/// What Firefox is told, as the text of a `user.js`.
const FIREFOX_PREFERENCES: &str = r#"
// A camera that shows colour bars, which nobody has to permit.
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
// Browsers leave loopback out of ICE unless told otherwise.
user_pref("media.peerconnection.ice.loopback", true);
// Every name is this machine, so nothing else is reached.
user_pref("network.dns.forceResolve", "127.0.0.1");
// Nothing opens in front of the page.
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("termsofuse.bypassNotification", true);
"#;

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

    fn start(self, url: &str, authority: &Path) -> Result<Window> {
        let home = tempfile::tempdir()?;
        // Where each browser looks for the certificates that its user trusts.
        let trust = match self {
            Self::Chromium => home.path().join(".pki/nssdb"),
            Self::Firefox => home.path().join("profile"),
        };
        fs::create_dir_all(&trust)?;
        trust_authority(&trust, authority)?;
        let mut command = match self {
            Self::Chromium => chromium(home.path())?,
            Self::Firefox => firefox(&trust)?,
        };
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

fn chromium(home: &Path) -> Result<Command> {
    let name = installed(&["chromium", "chromium-browser", "google-chrome"])?;
    let mut command = Command::new(name);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
        // A camera that shows a clock, which nobody has to permit.
        .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
        // Browsers leave loopback out of ICE unless told otherwise.
        .arg("--allow-loopback-in-peer-connection")
        // Every name is this machine, so nothing else is reached.
        .arg("--host-resolver-rules=MAP * 127.0.0.1")
        .arg(format!("--user-data-dir={}", home.join("profile").display()));
    Ok(command)
}

fn firefox(profile: &Path) -> Result<Command> {
    fs::write(profile.join("user.js"), FIREFOX_PREFERENCES)?;
    let mut command = Command::new(installed(&["firefox-esr", "firefox"])?);
    command.args(["--headless", "--no-remote", "--profile"]).arg(profile);
    Ok(command)
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

/// The first of these programs that this machine has.
fn installed(names: &[&'static str]) -> Result<&'static str> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| env::split_paths(&paths).any(|path| path.join(name).is_file());
    names
        .iter()
        .copied()
        .find(is_there)
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
