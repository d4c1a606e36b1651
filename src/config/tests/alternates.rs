//! Other servers that clients are sent to.

use super::*;

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
