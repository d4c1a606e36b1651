//! Realms, users and secrets: what is taken, from where, and that nobody sees it.

use super::*;

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
