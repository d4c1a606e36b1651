//! NAT discovery: what its second address needs.

use super::*;

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
