//! Signaling: the keys that verify tokens.

use super::*;

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
