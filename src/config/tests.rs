//! The configuration as an operator meets it.

mod alternates;
mod discovery;
mod relays;
mod secrets;
mod signaling;

use std::collections::BTreeSet;
use std::fs;

use super::file::File;
use super::*;

const COMMENTED: &str = include_str!("../../config.toml");
const SECRET: &str = "sixteen-bytes-ok";

#[test]
fn the_commented_file_shows_the_defaults() {
    assert!(toml::from_str::<File>(COMMENTED).unwrap() == File::default());
}

#[test]
fn metrics_on_shared_ports_need_shared_ports() {
    let shared = accepted("[http]\nshared = true\nshared_admin = true").http;
    assert!(shared.shared && shared.shared_admin);
    let error = parse(Path::new("c.toml"), "[http]\nshared_admin = true", None).unwrap_err();
    let expected = "c.toml:2: http.shared_admin: does nothing unless http.shared is true";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn load_balancers_are_networks() {
    let config = accepted("[proxy]\nsources = [\"10.1.0.0/16\", \"fd00::7/128\"]");
    assert_eq!(config.net.proxies.len(), 2);
    assert!(accepted("").net.proxies.is_empty());
    assert!(parse(Path::new("c.toml"), "[proxy]\nsources = [\"10.1.0.1/16\"]", None).is_err());
}

#[test]
fn the_commented_file_shows_every_key() {
    let shown: toml::Table = COMMENTED.parse().unwrap();
    assert_eq!(names(&shown), known_keys(""));
    for (section, table) in shown.iter().filter_map(|(key, it)| Some((key, it.as_table()?))) {
        assert_eq!(names(table), known_keys(&format!("[{section}]\n")), "{section}");
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = accepted("");
    assert_eq!(config.turn.auth.realm, "hairpin");
    assert_eq!(config.net.listen.len(), 2);
    assert_eq!(config.net.relay_ports, 49152..=65535);
    assert_eq!(config.net.allocations_per_user, 64);
    assert_eq!(config.turn.limits.max_lifetime, Duration::from_secs(3600));
    assert_eq!(config.http.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!(config.turn.auth.sha256);
    assert_eq!(config.turn.software, None);
}

#[test]
fn the_deployed_file_is_accepted() {
    accepted(include_str!("../../deploy/hairpin.toml"));
}

#[test]
fn bad_addresses_and_ports_are_refused_with_file_line_and_key() {
    for (text, expected) in [
        (
            "listen = [\n  \"0.0.0.0:3478\",\n  \"0.0.0.0:65536\",\n]",
            r#"c.toml:3: listen[1]: "0.0.0.0:65536" has a port beyond the last one, 65535"#,
        ),
        (
            "listen = [\"localhost:3478\"]",
            r#"c.toml:1: listen[0]: "localhost:3478" is not an address with a port; write it like "0.0.0.0:3478" or "[::]:3478""#,
        ),
        ("listen = \"0.0.0.0:3478\"", "c.toml:1: listen: must be a list"),
        ("threads = -1", "c.toml:1: threads: -1 is not a whole number from 0 to 4294967295"),
        ("threads = \"2\"", "c.toml:1: threads: must be a whole number from 0 on"),
        ("threads = 1025", "c.toml:1: threads: more than 1024; 0 means one per core"),
        (
            "[relay]\nports = \"49152-65536\"",
            r#"c.toml:2: relay.ports: "49152-65536" goes beyond the last port, 65535"#,
        ),
        (
            "[relay]\nports = \"60000-50000\"",
            r#"c.toml:2: relay.ports: "60000-50000" runs backwards; write the lower port first"#,
        ),
        (
            "[relay]\nports = \"80-50000\"",
            r#"c.toml:2: relay.ports: "80-50000" starts below port 1024"#,
        ),
        (
            "[relay]\naddresses = [\"0.0.0.0\"]",
            r#"c.toml:2: relay.addresses[0]: "0.0.0.0" is not the address of one interface"#,
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn bad_policies_and_limits_are_refused_with_file_line_and_key() {
    for (text, expected) in [
        (
            "\n[limits]\nmax_lifetime = \"10 parsecs\"",
            r#"c.toml:3: limits.max_lifetime: "10 parsecs" is not a duration; write it like "10m" or "1h30m""#,
        ),
        (
            "[peers]\ndeny = [\"10.0.0.0/33\"]",
            r#"c.toml:2: peers.deny[0]: "10.0.0.0/33" is not a CIDR; write it like "10.0.0.0/8" or "fd00::/8""#,
        ),
        (
            "peers.allow = [\"10.1.2.3/8\"]",
            r#"c.toml:1: peers.allow[0]: "10.1.2.3/8" has bits set behind its prefix; write "10.0.0.0/8""#,
        ),
        (
            "[peers]\nallow = [\"::ffff:10.0.0.0/104\"]",
            r#"c.toml:2: peers.allow[0]: "::ffff:10.0.0.0/104" is IPv4 written as IPv6; write it as IPv4"#,
        ),
        (
            "limits = { user_bandwidth = \"5MB\" }",
            r#"c.toml:1: limits.user_bandwidth: "5MB" is not a bandwidth; write it like "5Mbit/s" or "800kbit/s", or "0" for no limit"#,
        ),
        ("[stun]\nsoftware = \"yes\"", "c.toml:2: stun.software: must be true or false"),
        (
            "[log]\nlevel = \"verbose\"",
            r#"c.toml:2: log.level: "verbose" is not a log level; write error, warn, info, debug or trace, or a filter like "info,hairpin::net=debug""#,
        ),
        ("[log]\nformat = \"xml\"", r#"c.toml:2: log.format: must be "text" or "json""#),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn unknown_keys_and_bad_syntax_are_refused_with_file_and_line() {
    for (text, expected) in [
        (
            "\nrelm = \"x\"",
            "c.toml:2: relm: unknown key; known here: realm, listen, public_host, threads, tls, proxy, relay, auth, peers, limits, turn, stun, mobility, http, signaling, log",
        ),
        (
            "[http]\nlisten = []\npage = true",
            "c.toml:3: http.page: unknown key; known here: listen, shared, shared_admin, pages, api_token_file",
        ),
        (
            "[dtls]\ncert = \"x\"",
            "c.toml:1: dtls: unknown key; known here: realm, listen, public_host, threads, tls, proxy, relay, auth, peers, limits, turn, stun, mobility, http, signaling, log",
        ),
        (
            "\"a\\nb\" = 1",
            "c.toml:1: \"a\\nb\": unknown key; known here: realm, listen, public_host, threads, tls, proxy, relay, auth, peers, limits, turn, stun, mobility, http, signaling, log",
        ),
        ("realm = \"a\"\nrealm = \"b\"", "c.toml:2: duplicate key"),
        ("stun = 1", "c.toml:1: stun: must be a table"),
    ] {
        assert_eq!(refused(text), expected);
    }
    assert!(refused("realm = \"a\"\n\nthreads =").starts_with("c.toml:3: "));
}

#[test]
fn values_that_contradict_each_other_are_refused_where_one_of_them_is_written() {
    for (text, expected) in [
        (
            "\n[limits]\nmax_lifetime = \"5m\"",
            "c.toml:3: limits.max_lifetime: default_lifetime (10m) is longer than max_lifetime (5m)",
        ),
        (
            "[limits]\nmax_lifetime = \"1h\"\ndefault_lifetime = \"1h30m\"",
            "c.toml:3: limits.default_lifetime: default_lifetime (1h30m) is longer than max_lifetime (1h)",
        ),
        ("listen = []", "c.toml:1: listen: needs at least one address"),
        ("listen = [\n\"[::]:1\",\n\"[::]:1\"]", "c.toml:3: listen[1]: \"[::]:1\" is listed twice"),
        (
            "http.listen = [\"[::]:1\", \"[::]:1\"]",
            "c.toml:1: http.listen[1]: \"[::]:1\" is listed twice",
        ),
        (
            "[relay]\naddresses = [\"192.0.2.1\", \"192.0.2.2\",\n\"192.0.2.1\"]",
            "c.toml:3: relay.addresses[2]: \"192.0.2.1\" is listed twice",
        ),
        (
            "listen = [\"0.0.0.0:50000\"]",
            "c.toml:1: listen[0]: \"0.0.0.0:50000\" lies within relay.ports 49152-65535, and a relay could take the port",
        ),
        (
            "[relay]\nports = \"2000-4000\"",
            "c.toml:2: relay.ports: \"0.0.0.0:3478\" lies within relay.ports 2000-4000, and a relay could take the port",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn a_listener_within_the_relay_ports_is_accepted_on_another_address() {
    accepted("listen = [\"192.0.2.1:50000\"]\nrelay.addresses = [\"192.0.2.2\"]");
    accepted("listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]");
}

#[test]
fn what_is_allowed_and_unwise_is_a_warning() {
    for (text, key) in [
        ("", "auth: neither users nor secrets"),
        ("realm = \"twenty-one-bytes.test\"", "realm: 21 bytes"),
        ("auth.nonce_lifetime = \"2h\"", "auth.nonce_lifetime: "),
        ("limits.permission_lifetime = \"1s\"", "limits.permission_lifetime: "),
        ("limits.channel_lifetime = \"1s\"", "limits.channel_lifetime: "),
    ] {
        let warnings = accepted(text).warnings(&Origin::default());
        assert!(warnings.iter().any(|warning| warning.starts_with(key)), "{warnings:?}");
    }
    let fine = "realm = \"twenty-bytes.example\"\nauth.users = { a = \"b\" }\nauth.sha256 = false";
    assert_eq!(accepted(fine).warnings(&Origin::default()), [""; 0]);
}

#[test]
fn dev_listens_on_this_machine_only() {
    let config = Config::dev();
    let mut listen = config.net.listen.iter().chain(&config.http.listen);
    assert!(listen.all(|address| address.ip().is_loopback()));
    assert_eq!(config.turn.auth.users["dev"], "dev".into());
    assert_eq!(config.turn.auth.realm, "localhost");
    assert_eq!(config.turn.limits.unauthenticated_per_source, 0);
    assert!(config.warnings(&Origin::default()).is_empty());
}

#[cfg(unix)]
#[test]
fn a_file_that_is_named_must_be_there() {
    let error = Config::load(Some(Path::new("/nonexistent/c.toml"))).unwrap_err();
    let expected = "/nonexistent/c.toml: cannot read: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), expected);
}

/// A directory with a configuration and its secret files.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn parse(
        &self,
        text: &str,
        secret: Option<String>,
    ) -> Result<(Config, Vec<PathBuf>), ConfigError> {
        parse(&self.0.path().join("c.toml"), text, secret)
    }
}

fn accepted(text: &str) -> Config {
    parse(Path::new("c.toml"), text, None).unwrap().0
}

fn refused(text: &str) -> String {
    let message = parse(Path::new("c.toml"), text, None).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn names(table: &toml::Table) -> BTreeSet<String> {
    table.keys().cloned().collect()
}

/// The keys the schema knows, as it lists them when it meets one it does not know.
fn known_keys(section: &str) -> BTreeSet<String> {
    let message = refused(&format!("{section}unknown-to-the-schema = 1"));
    let (_, list) = message.split_once("known here: ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}
