//! The configuration as an operator meets it.

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
fn nat_discovery_listens_on_both_ports_of_both_addresses() {
    let text = "listen = [\"[::]:3478\", \"192.0.2.1:3478\", \"192.0.2.2:3478\"]\n[stun]\n\
                alternate = \"192.0.2.2:3479\"\n";
    assert_eq!(accepted(text).turn.discovery, None, "an address alone switches nothing on");
    let config = accepted(&format!("{text}nat_discovery = true"));
    let discovery = config.turn.discovery.unwrap();
    assert_eq!(discovery.addresses()[0], "192.0.2.1:3478".parse().unwrap());
    let listen: Vec<_> = config.net.listen.iter().map(ToString::to_string).collect();
    let four = ["192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:3479", "192.0.2.2:3479"];
    assert_eq!(listen[0], "[::]:3478");
    assert_eq!(listen[1..], four);
}

#[test]
fn nat_discovery_that_cannot_work_is_refused() {
    let of = |listen: &str, stun: &str| refused(&format!("listen = [{listen}]\n[stun]\n{stun}"));
    let with = |alternate: &str| format!("alternate = \"{alternate}\"\nnat_discovery = true");
    let one = "\"192.0.2.1:3478\"";
    assert_eq!(
        of(one, "nat_discovery = true"),
        "c.toml:3: stun.nat_discovery: needs `alternate`, a second address and port"
    );
    for (listen, alternate, expected) in [
        (one, "192.0.2.2", "is not an address with a port"),
        (one, "0.0.0.0:3479", "is not one address with one port"),
        (one, "192.0.2.2:0", "is not one address with one port"),
        (one, "192.0.2.1:3479", "needs another address of its family"),
        (one, "[2001:db8::2]:3479", "needs another address of its family"),
        ("\"0.0.0.0:3478\"", "192.0.2.2:3479", "needs another address of its family"),
        (one, "192.0.2.2:3478", "must differ from \"192.0.2.1:3478\" in its port too"),
        (one, "192.0.2.2:50000", "lies within relay.ports"),
    ] {
        let problem = of(listen, &with(alternate));
        assert!(problem.starts_with("c.toml:3: stun.alternate: "), "{problem}");
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn nat_discovery_behind_nat_wants_both_addresses_known() {
    let warnings = |external: &str, alternate: &str| {
        let text = format!(
            "listen = [\"10.0.0.4:3478\"]\n[relay]\nexternal = [{external}]\n[stun]\n\
             nat_discovery = true\nalternate = \"{alternate}:3479\""
        );
        let warnings = accepted(&text).warnings(&Origin::default());
        warnings.into_iter().filter(|line| line.starts_with("stun.")).collect::<Vec<_>>()
    };
    let (one, both) = ("\"8.8.4.4\"", "\"8.8.4.4\", \"8.8.8.8/10.0.0.5\"");
    assert_eq!(warnings("", "10.0.0.5"), [""; 0]);
    assert_eq!(warnings(both, "10.0.0.5"), [""; 0]);
    assert_eq!(warnings(one, "8.8.8.8"), [""; 0], "what is public needs no other name");
    let hidden = "knows 10.0.0.4 from outside and not 10.0.0.5: ";
    let told = warnings(one, "10.0.0.5");
    assert!(told.len() == 1 && told[0].contains(hidden), "{told:?}");
    let other = warnings("\"8.8.8.8/10.0.0.5\"", "10.0.0.5");
    assert!(other.len() == 1 && other[0].contains("not 10.0.0.4: "), "{other:?}");
}

#[test]
fn alternate_servers_are_other_servers() {
    for key in ["alternate_servers", "drain_to"] {
        let of = |alternate: &str| format!("[turn]\n{key} = [\"{alternate}\"]");
        let listen = "listen = [\"192.0.2.1:3478\"]\n";
        for (alternate, problem) in [
            ("192.0.2.1:3478", "is this server"),
            ("0.0.0.0:3478", "is not one address with one port"),
            ("192.0.2.2:0", "is not one address with one port"),
        ] {
            let expected = format!("c.toml:3: turn.{key}[0]: \"{alternate}\" {problem}");
            assert_eq!(refused(&(listen.to_owned() + &of(alternate))), expected);
        }
        for alternate in [
            "turn.example.org:3478",
            "192.0.2.2:3478/",
            "192.0.2.2:3478/a b",
            "192.0.2.2:3478/192.0.2.2",
        ] {
            let problem = refused(&(listen.to_owned() + &of(alternate)));
            assert!(
                problem.starts_with(&format!("c.toml:3: turn.{key}[0]: \"{alternate}\"")),
                "{problem}"
            );
        }
    }
    let config = accepted(
        "listen = [\"192.0.2.1:3478\"]\n[turn]\n\
         alternate_servers = [\"192.0.2.1:3479\", \"[2001:db8::2]:3478/turn-2.example.org\"]\n\
         drain_to = [\"192.0.2.3:3478\"]",
    );
    let shown =
        |list: &[crate::turn::Alternate]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = ["192.0.2.1:3479", "[2001:db8::2]:3478/turn-2.example.org"];
    assert_eq!(shown(&config.turn.alternates), expected);
    assert_eq!(shown(&config.turn.drain_to), ["192.0.2.3:3478"]);
}

/// A client that is sent here again gives up (RFC 8489 §10).
#[test]
fn this_server_is_no_alternate_by_whatever_address_it_is_reached() {
    let of = |listen: &str, relay: &str, alternate: &str| {
        format!(
            "listen = [{listen}]\n[relay]\naddresses = [\"10.0.0.4\"]\n{relay}\n[turn]\n\
             alternate_servers = [\"{alternate}\"]"
        )
    };
    let any = r#""0.0.0.0:3478", "[::]:3478""#;
    let external = r#"external = ["203.0.113.4"]"#;
    for (listen, relay, alternate) in [
        (any, "", "127.0.0.1:3478"),
        (any, "", "[::1]:3478"),
        (any, external, "203.0.113.4:3478"),
        (r#""10.0.0.4:3478""#, external, "203.0.113.4:3478"),
    ] {
        let problem = refused(&of(listen, relay, alternate));
        assert!(problem.ends_with(&format!("\"{alternate}\" is this server")), "{problem}");
    }
    for (listen, relay, alternate) in [
        (any, "", "127.0.0.1:3479"),
        (any, "", "203.0.113.4:3478"),
        (any, external, "203.0.113.5:3478"),
        (r#""0.0.0.0:3478""#, "", "[::1]:3478"),
        (r#""10.0.0.5:3478""#, external, "203.0.113.4:3478"),
    ] {
        accepted(&of(listen, relay, alternate));
    }
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
fn realms_that_do_not_fit_into_a_quoted_string_are_refused() {
    let problem = "c.toml:1: realm: must not contain quotes, backslashes or control characters";
    assert_eq!(refused(r#"realm = "a\"b""#), problem);
    assert_eq!(refused(r#"realm = "a\\b""#), problem);
    assert_eq!(refused(r#"realm = "a\nb""#), problem);
    assert_eq!(refused("realm = \"\""), "c.toml:1: realm: must not be empty");
    let realm = |realm: &str| format!("realm = \"{realm}\"");
    // Bytes, for they are what a refusal carries.
    for long in ["é".repeat(64), "x".repeat(128)] {
        assert_eq!(refused(&realm(&long)), "c.toml:1: realm: longer than 127 bytes");
    }
    accepted(&realm(&"x".repeat(127)));
    accepted(&realm(&"é".repeat(63)));
}

/// RFC 8265: what clients would prepare in another way than it stands here
#[test]
fn values_that_opaque_string_would_change_are_refused_under_their_keys() {
    for (toml, problem) in [
        (
            "realm = \"e\u{301}\"",
            "realm: must be in Unicode's composed form, NFC, as clients send it",
        ),
        ("realm = \"a\u{A0}b\"", "realm: U+00A0 is a space that clients make U+0020 of"),
        (
            "auth.users = { \"a\u{AD}\" = \"x\" }",
            "auth.users.\"a\\u{ad}\": the user name: U+00AD is not allowed in it (RFC 8265)",
        ),
        (
            "auth.users = { a = \"e\u{301}\" }",
            "auth.users.a: the password: must be in Unicode's composed form, NFC, as clients send it",
        ),
        (
            "auth.users = { a = \"x\\ty\" }",
            "auth.users.a: the password: must not contain control characters",
        ),
    ] {
        let refused = refused(toml);
        assert!(refused.starts_with("c.toml:1: ") && refused.ends_with(problem), "{refused}");
    }
    accepted("realm = \"été\"\nauth.users = { \"マトリックス\" = \"TheMatrIX 🎩\" }");
}

#[test]
fn bad_users_and_secrets_are_refused() {
    let long_name = "x".repeat(509);
    for (text, expected) in [
        (
            "[auth]\nsecrets = [\"short\"]",
            "c.toml:2: auth.secrets[0]: a secret needs at least 16 bytes",
        ),
        (
            "[auth.users]\na = \"x\"\nb = \"\"",
            "c.toml:3: auth.users.b: the password must not be empty",
        ),
        (
            "auth.users = { \"\" = \"x\" }",
            "c.toml:1: auth.users.\"\": a user name must not be empty",
        ),
        (
            "auth.users = { \"a\\nb\" = \"x\" }",
            "c.toml:1: auth.users.\"a\\nb\": a user name must not contain control characters",
        ),
        (
            &format!("auth.users = {{ {long_name} = \"x\" }}"),
            &format!("c.toml:1: auth.users.{long_name}: a user name has 508 bytes at most"),
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
    accepted(&format!("auth.users = {{ \"a:b\" = \"x\", {} = \"y\" }}", "x".repeat(508)));
}

#[test]
fn no_refusal_shows_a_password() {
    for text in [
        "auth.secrets = \"hunter2\"",
        "auth.users = \"hunter2\"",
        "auth.users = { alice = [\"hunter2\"] }",
        "auth.users = { alice = { password = \"hunter2\" } }",
        "auth = \"hunter2\"",
        "auth.secret = \"hunter2\"",
        "auth.secrets = [\"hunter2\"]",
        "auth.sha256 = \"hunter2, expected hunter2\"",
        "auth.secrets = [\"hunter2]",
        "auth.secrets = [\"hunter2\" \"hunter2\"]",
        "auth.secrets = [hunter2]",
    ] {
        let message = refused(text);
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(!refused("auth.secrets = [4711]").contains("4711"));
}

#[test]
fn debug_shows_no_password_and_no_secret() {
    let config =
        accepted(&format!("[auth]\nusers = {{ a = \"hunter2\" }}\nsecrets = [\"{SECRET}\"]"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET), "{shown}");
}

#[test]
fn secrets_are_those_of_the_file_then_of_the_secret_file_then_of_the_environment() {
    let home = Home::new();
    home.write("secrets", "# rotated in May\n\n  second-secret-in-order \nthird-secret-in-order");
    let text = "[auth]\nsecrets = [\"first-secret-in-order\"]\nsecret_file = \"secrets\"";
    let (config, _) = home.parse(text, Some("fourth-secret-in-order".to_owned())).unwrap();
    let expected = ["first", "second", "third", "fourth"].map(|it| format!("{it}-secret-in-order"));
    assert_eq!(config.turn.auth.secrets, expected);
}

#[test]
fn without_others_the_secret_of_the_environment_mints() {
    let (config, _) = parse(Path::new("c.toml"), "", Some(SECRET.to_owned())).unwrap();
    assert_eq!(config.turn.auth.secrets, [SECRET]);
}

/// The words of the system are those of Unix.
#[cfg(unix)]
#[test]
fn secret_files_that_cannot_serve_are_refused() {
    let home = Home::new();
    home.write("blank", "\n# nothing\n");
    home.write("short", "\nhunter2\n");
    let file = home.0.path().join("c.toml");
    for (name, problem) in [
        ("missing", "cannot read \"missing\": No such file or directory (os error 2)"),
        (".", "cannot read \".\": Is a directory (os error 21)"),
        ("blank", "\"blank\" holds no secret"),
        ("short", "\"short\", line 2: a secret needs at least 16 bytes"),
    ] {
        let error = home.parse(&format!("[auth]\nsecret_file = \"{name}\""), None).unwrap_err();
        let expected = format!("{}:2: auth.secret_file: {problem}", file.display());
        assert_eq!(error.to_string(), expected);
    }
    let error = home.parse("\nauth.nonce_secret_file = \"short\"", None).unwrap_err();
    let expected = ":2: auth.nonce_secret_file: \"short\" has fewer than 16 bytes";
    assert_eq!(error.to_string(), format!("{}{expected}", file.display()));
}

#[test]
fn a_fleet_that_shares_the_file_shares_the_nonce_key() {
    let home = Home::new();
    home.write("nonce", "0123456789abcdef");
    let key = |text| home.parse(text, None).unwrap().0.turn.auth.nonce_key;
    let shared = "auth.nonce_secret_file = \"nonce\"";
    assert_eq!(key(shared), key(shared));
    assert_ne!(key(shared), [0; 32]);
    assert_ne!(key(""), key(""));
}

#[cfg(unix)]
#[test]
fn a_secret_everyone_can_read_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    home.write("secrets", SECRET);
    let path = home.0.path().join("secrets");
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (config, exposed) = home.parse("auth.secret_file = \"secrets\"", None).unwrap();
        let warnings = config.warnings(&Origin { file: None, exposed });
        let warning =
            format!("{}: every user of this machine can read the secrets in it", path.display());
        assert_eq!(warnings, if warned { vec![warning] } else { vec![] }, "{mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn a_configuration_with_secrets_that_everyone_can_read_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    let path = home.0.path().join("c.toml");
    for (text, mode, warned) in [
        ("auth.users = { a = \"b\" }", 0o600, false),
        ("auth.users = { a = \"b\" }", 0o640, false),
        ("auth.users = { a = \"b\" }", 0o644, true),
        ("auth.secrets = [\"sixteen-bytes-ok\"]", 0o644, true),
        ("realm = \"a\"", 0o644, false),
    ] {
        home.write("c.toml", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (_, exposed) = home.parse(text, Some(SECRET.to_owned())).unwrap();
        assert_eq!(exposed, if warned { vec![path.clone()] } else { vec![] }, "{text}, {mode:o}");
    }
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
fn signaling_needs_a_name_and_keys_that_can_serve() {
    let home = Home::new();
    home.write("short", "sixteen-bytes-ok");
    home.write("hs256", "a secret of thirty-two bytes, or more");
    home.write("no.pem", "secret");
    let file = home.0.path().join("c.toml");
    let on = |more: &str| format!("public_host = \"h\"\n[signaling]\nenabled = true\n{more}\n");
    for (text, expected) in [
        (
            "[signaling]\nenabled = true\nopen = true".to_owned(),
            "2: signaling.enabled: needs public_host, because `listen` has only wildcards: the \
             name or IP address that clients reach this server by",
        ),
        (
            "public_host = \"http://h\"".to_owned(),
            "1: public_host: \"http://h\" must be a host name or an IP address, without scheme, \
             port and path",
        ),
        (
            on(""),
            "3: signaling.enabled: needs jwt_secret_file or jwt_public_key_file, or open = true",
        ),
        (
            on("open = true\n[http]\nlisten = []"),
            "3: signaling.enabled: needs an address in http.listen, or http.shared",
        ),
        (
            on("open = true\norigins = [\"https://a.test\", \"https://b.test/\"]"),
            "5: signaling.origins[1]: \"https://b.test/\" is not an origin; write it like \
             \"https://example.org\", without a path",
        ),
        (
            on("jwt_secret_file = \"short\""),
            "4: signaling.jwt_secret_file: a secret for HS256 needs at least 32 bytes",
        ),
        (
            on("jwt_public_key_file = \"no.pem\""),
            "4: signaling.jwt_public_key_file: \"no.pem\" is not a public key of Ed25519 or RSA in \
             PEM",
        ),
        (
            "[http]\napi_token_file = \"hs256\"".to_owned(),
            "2: http.api_token_file: is of no use without signaling.enabled, which has \
             /ice-servers",
        ),
    ] {
        let error = home.parse(&text, None).unwrap_err().to_string();
        assert_eq!(error, format!("{}:{expected}", file.display()), "{text}");
    }
    let (config, _) = home.parse(&on("jwt_secret_file = \"hs256\""), None).unwrap();
    let signaling = config.http.signaling.unwrap();
    assert!(!signaling.hub.open && signaling.keys.len() == 1);
    assert_eq!(config.public_host.unwrap().to_string(), "h");
    assert!(accepted("").http.signaling.is_none());
}

#[test]
fn a_public_key_without_an_audience_is_warned_of() {
    let home = Home::new();
    // RFC 8410 §10.1.
    home.write(
        "key.pem",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
         -----END PUBLIC KEY-----\n",
    );
    home.write("hs256", "a secret of thirty-two bytes, or more");
    for (more, is_warned_of) in [
        ("jwt_public_key_file = \"key.pem\"", true),
        ("jwt_public_key_file = \"key.pem\"\njwt_issuer = \"login\"", true),
        ("jwt_public_key_file = \"key.pem\"\njwt_audience = \"turn\"", false),
        ("jwt_secret_file = \"hs256\"", false),
    ] {
        let text = format!("public_host = \"h\"\n[signaling]\nenabled = true\n{more}\n");
        let (config, _) = home.parse(&text, None).unwrap();
        let warnings = config.warnings(&Origin::default());
        let about = warnings.iter().any(|warning| warning.starts_with("signaling.jwt_audience: "));
        assert_eq!(about, is_warned_of, "{more}: {warnings:?}");
        let (audience, issuer) = (more.contains("audience"), more.contains("issuer"));
        let expected = (audience.then_some("turn"), issuer.then_some("login"));
        assert_eq!(config.http.signaling.unwrap().keys.demands(), expected);
    }
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

#[test]
fn external_addresses_are_for_relay_addresses_and_listeners() {
    let listen = "listen = [\"10.0.0.4:3478\", \"10.0.0.5:3478\", \"[fd00::4]:3478\"]\n[relay]\n";
    let config = accepted(&format!(
        "{listen}external = [\"203.0.113.4\", \"203.0.113.5/10.0.0.5\", \"2600::4\"]"
    ));
    let aliases = config.net.external.aliases(&config.net.relays_from());
    let shown: Vec<_> =
        aliases.iter().map(|alias| format!("{} {}", alias.external, alias.local)).collect();
    assert_eq!(shown, ["203.0.113.4 10.0.0.4", "203.0.113.5 10.0.0.5", "2600::4 fd00::4"]);
    assert!(config.net.external.unknown(&config.net.relays_from()).is_empty());

    let auto = accepted(&format!(
        "{listen}external = [\"auto\", \"203.0.113.4\"]\nexternal_stun = \"stun.example.org:3478\""
    ));
    let asked = auto.net.external.unknown(&auto.net.relays_from());
    assert_eq!(asked, ["fd00::4".parse::<std::net::IpAddr>().unwrap()], "what nobody has told");
    let public = "listen = [\"192.0.9.1:3478\"]\n[relay]\nexternal = [\"auto\"]\n\
                  external_stun = \"192.0.9.9:3478\"";
    let public = accepted(public).net;
    assert!(public.external.unknown(&public.relays_from()).is_empty(), "no NAT, no question");
}

#[test]
fn relay_addresses_are_sixteen_at_most() {
    let listed = |count: u8| {
        let addresses = (1..=count).map(|last| format!("\"10.0.0.{last}\""));
        format!("[relay]\naddresses = [{}]", addresses.collect::<Vec<_>>().join(", "))
    };
    let addresses = accepted(&listed(16)).net.relays_from();
    assert_eq!((addresses.len(), addresses[15].to_string().as_str()), (16, "10.0.0.16"));
    let problem = "c.toml:2: relay.addresses[16]: more than 16 relay addresses";
    assert_eq!(refused(&listed(17)), problem);
}

#[test]
fn each_of_several_relay_addresses_has_its_own_external_one() {
    let at = |external: &str| {
        format!(
            "[relay]\naddresses = [\"10.0.0.4\", \"10.0.0.5\", \"fd00::4\"]\n\
             external_stun = \"stun.example.org:3478\"\nexternal = [\"auto\", {external}]"
        )
    };
    let net = accepted(&at("\"203.0.113.5/10.0.0.5\", \"2600::4\"")).net;
    let aliases = net.external.aliases(&net.relays_from());
    let shown: Vec<_> =
        aliases.iter().map(|alias| format!("{} {}", alias.external, alias.local)).collect();
    assert_eq!(shown, ["203.0.113.5 10.0.0.5", "2600::4 fd00::4"]);
    let asked = net.external.unknown(&net.relays_from());
    assert_eq!(asked, ["10.0.0.4".parse::<std::net::IpAddr>().unwrap()]);
    let both = accepted(&at("\"2600::4\"")).net;
    assert_eq!(both.external.unknown(&both.relays_from()).len(), 2, "auto asks for each");
    for (external, problem) in [
        (
            "\"203.0.113.4\"",
            "[1]: \"203.0.113.4\" may be for any of several relay addresses of IPv4; write \
             \"203.0.113.4/10.0.0.4\" (external/local) if it is for 10.0.0.4",
        ),
        (
            "\"203.0.113.4/10.0.0.4\", \"203.0.113.4/10.0.0.5\"",
            "[2]: \"203.0.113.4\" is listed twice",
        ),
        ("\"10.0.0.5/10.0.0.4\"", "[1]: \"10.0.0.5\" is itself a relay address"),
    ] {
        assert_eq!(refused(&at(external)), format!("c.toml:4: relay.external{problem}"));
    }
}

#[test]
fn external_addresses_that_cannot_serve_are_refused() {
    let at =
        |external: &str| format!("listen = [\"10.0.0.4:3478\"]\n[relay]\nexternal = {external}");
    for (external, problem) in [
        ("[\"2600::4\"]", "relay.external[0]: \"2600::4\" is for no relay address of IPv6"),
        (
            "[\"203.0.113.4/10.0.0.9\"]",
            "relay.external[0]: \"10.0.0.9\" is neither a relay address nor listened on",
        ),
        (
            "[\"203.0.113.4\", \"203.0.113.5/10.0.0.4\"]",
            "relay.external[1]: \"203.0.113.5\" is a second one for 10.0.0.4",
        ),
        (
            "[\"203.0.113.4/2600::4\"]",
            "relay.external[0]: \"203.0.113.4/2600::4\" joins an IPv4 with an IPv6 address",
        ),
        (
            "[\"auto\"]",
            "relay.external: \"auto\" needs a STUN server to ask, such as \"stun.example.org:3478\"",
        ),
        (
            "[\"auto\"]\nexternal_stun = \"stun.example.org\"",
            "relay.external_stun: \"stun.example.org\" is not a host with a port; write it like \
             \"stun.example.org:3478\"",
        ),
        (
            "[]\nexternal_stun = \"stun.example.org:3478\"",
            "relay.external_stun: is of no use without \"auto\" in relay.external",
        ),
    ] {
        let line = if problem.contains("external_stun:") { 4 } else { 3 };
        assert_eq!(refused(&at(external)), format!("c.toml:{line}: {problem}"));
    }
    for external in ["\"0.0.0.0\"", "\"::ffff:203.0.113.4\"", "\"203.0.113.4/\"", "\"Auto\""] {
        let problem = refused(&at(&format!("[{external}]")));
        assert!(problem.starts_with("c.toml:3: relay.external[0]: "), "{problem}");
    }
}
