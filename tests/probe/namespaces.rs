//! `hairpin nat` and `hairpin doctor` behind the NATs of Linux, each in network namespaces of its
//! own.
//!
//! A client at 10.0.0.2, a NAT at 203.0.113.9, and coturn at 203.0.113.1 and .2.

use serde_json::Value;

use crate::coturn::Coturn;
use crate::netns::{Namespace, serve};
use crate::server::{ConfigFile, Settings, run};
use crate::{in_time, told_by};

const NAT: &str = "203.0.113.9";

/// The machines, and the server.
pub(crate) struct World {
    pub(crate) client: Namespace,
    pub(crate) nat: Namespace,
    pub(crate) server: Namespace,
}

impl World {
    /// The NAT forwards, and has these rules.
    pub(crate) fn new(rules: &str) -> Option<Self> {
        let (client, nat, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        client.link("lan", &["10.0.0.2/24"], &nat, &["10.0.0.1/24"]);
        nat.link("wan", &[&format!("{NAT}/24")], &server, &["203.0.113.1/24", "203.0.113.2/24"]);
        client.ip("route add default via 10.0.0.1");
        server.ip(&format!("route add 10.0.0.0/24 via {NAT}"));
        nat.sysctl("net/ipv4/ip_forward", "1");
        nat.nft(rules);
        Some(Self { client, nat, server })
    }

    fn coturn(&self) -> Option<Coturn> {
        Coturn::start_in(&self.server, &self.client, &["203.0.113.1", "203.0.113.2"], &[])
    }

    /// What people read.
    fn text(&self) -> String {
        let ended = run(self.client.hairpin().args(["nat", "--server", "203.0.113.1"]));
        assert!(ended.status.success(), "{ended:?}");
        ended.stdout
    }

    fn told(&self, more: &[&str]) -> Value {
        let arguments = [&["nat", "--server", "203.0.113.1"], more].concat();
        let (ended, told) = told_by(&mut self.client.hairpin(), &arguments);
        assert!(ended.status.success(), "{ended:?}");
        told["results"][0].clone()
    }
}

/// What `hairpin nat` says with these rules.
fn seen(rules: &str) -> Option<Value> {
    let world = World::new(rules)?;
    let _coturn = world.coturn()?;
    Some(world.told(&[]))
}

#[test]
fn masquerading_is_a_port_restricted_cone() {
    let Some(told) = seen(&masquerade("")) else { return };
    assert_eq!(told["type"], "port-restricted-cone", "{told:#}");
    assert_eq!(told["mapping"], "endpoint-independent");
    assert_eq!(told["filtering"], "address- and port-dependent");
    assert_eq!(told["preserves_ports"], true);
    assert_eq!(told["hairpinning"], "does not work");
    assert_eq!(told["fragments"], "come through both ways");
    assert_eq!(told["tcp"]["mapping"], "endpoint-independent");
}

/// The same NATs seen by our own server: with two addresses, without RESPONSE-PORT.
#[test]
fn our_own_server_sees_the_same() {
    for (how, kind) in [("", "port-restricted-cone"), ("fully-random", "symmetric")] {
        let Some(world) = World::new(&masquerade(how)) else { return };
        world.nat.sysctl("net/netfilter/nf_conntrack_udp_timeout", "6");
        let settings = Settings {
            listen: r#"["203.0.113.1:3478"]"#,
            stun: "nat_discovery = true\nalternate = \"203.0.113.2:3479\"",
            ..Settings::default()
        };
        let config = ConfigFile::new(&settings.toml());
        let _server = serve(&world.server, &config.path());
        let told = world.told(&["--lifetime", "20s"]);
        assert_eq!(told["type"], kind, "{told:#}");
        assert_eq!(told["fragments"], "come through both ways");
        let lifetime = &told["lifetime"];
        if kind == "symmetric" {
            assert_eq!(lifetime["method"], "remapped", "{told:#}");
            assert!(lifetime["below_seconds"].as_f64().unwrap() < 20.0, "{told:#}");
        } else {
            let why = "not known: the server has no RESPONSE-PORT, and the NAT keeps port numbers";
            assert_eq!(lifetime["error"], why);
        }
    }
}

#[test]
fn masquerading_with_random_ports_is_symmetric() {
    let Some(told) = seen(&masquerade("fully-random")) else { return };
    assert_eq!(told["type"], "symmetric", "{told:#}");
    assert_eq!(told["mapping"], "address- and port-dependent");
    assert_eq!(told["preserves_ports"], false);
    assert_eq!(told["tcp"]["mapping"], "address- and port-dependent");
}

#[test]
fn people_read_the_classic_name_and_what_it_means() {
    for (how, name, meaning) in [
        (
            "",
            "port-restricted cone NAT",
            "Most peers connect directly with STUN; those behind symmetric NATs will need the relay.",
        ),
        (
            "fully-random",
            "symmetric NAT",
            "Peers behind symmetric or port-restricted NATs will need the relay.",
        ),
    ] {
        let Some(world) = World::new(&masquerade(how)) else { return };
        let Some(_coturn) = world.coturn() else { return };
        let text = world.text();
        let rows = format!("  type         {name}\n  for WebRTC   {meaning}\n");
        assert!(text.contains(&rows), "{text}");
    }
}

#[test]
fn forwarding_everything_is_a_full_cone() {
    let rules = "table ip nat {
        chain in { type nat hook prerouting priority -100;
            iifname wan ip protocol udp dnat to 10.0.0.2; }
        chain out { type nat hook postrouting priority 100; oifname wan snat to 203.0.113.9; }
    }";
    let Some(told) = seen(rules) else { return };
    assert_eq!(told["type"], "full-cone", "{told:#}");
    assert_eq!(told["filtering"], "endpoint-independent");
}

#[test]
fn forwarding_from_known_addresses_is_a_restricted_cone() {
    let rules = "table ip nat {
        set known { type ipv4_addr; flags dynamic; timeout 2m; }
        chain in { type nat hook prerouting priority -100;
            iifname wan ip protocol udp dnat to 10.0.0.2; }
        chain out { type nat hook postrouting priority 100; oifname wan snat to 203.0.113.9; }
        chain pass { type filter hook forward priority 0;
            oifname wan add @known { ip daddr }
            iifname wan ip protocol udp ip saddr != @known drop; }
    }";
    let Some(told) = seen(rules) else { return };
    assert_eq!(told["type"], "restricted-cone", "{told:#}");
    assert_eq!(told["filtering"], "address-dependent");
}

#[test]
fn hairpinning_is_seen() {
    let rules = "table ip nat {
        chain in { type nat hook prerouting priority -100;
            ip daddr 203.0.113.9 ip protocol udp dnat to 10.0.0.2; }
        chain out { type nat hook postrouting priority 100;
            oifname wan snat to 203.0.113.9
            oifname lan-far ip saddr 10.0.0.0/24 snat to 203.0.113.9; }
    }";
    let Some(told) = seen(rules) else { return };
    assert_eq!(told["hairpinning"], "works", "{told:#}");
}

#[test]
fn routing_is_open_and_a_firewall_is_one() {
    let Some(told) = seen("table ip nothing {}") else { return };
    assert_eq!(told["type"], "open", "{told:#}");
    let firewall = "table ip filter { chain pass { type filter hook forward priority 0;
        iifname wan ct state established,related accept
        iifname wan drop; } }";
    let Some(told) = seen(firewall) else { return };
    assert_eq!(told["type"], "firewall", "{told:#}");
    assert_eq!(told["filtering"], "address- and port-dependent");
}

/// What IPv6 has instead of NATs; asked of our own server.
#[test]
fn firewall_of_ipv6_is_seen() {
    let Some((client, router, server)) =
        Namespace::new().zip(Namespace::new()).zip(Namespace::new()).map(|((a, b), c)| (a, b, c))
    else {
        return;
    };
    client.link("lan", &["2001:db8:1::2/64"], &router, &["2001:db8:1::1/64"]);
    let addresses = ["2001:db8:2::1/64", "2001:db8:2::2/64"];
    router.link("wan", &["2001:db8:2::9/64"], &server, &addresses);
    client.ip("-6 route add default via 2001:db8:1::1");
    server.ip("-6 route add default via 2001:db8:2::9");
    router.sysctl("net/ipv6/conf/all/forwarding", "1");
    router.nft(
        "table ip6 filter { chain pass { type filter hook forward priority 0;
            iifname wan ct state established,related accept
            iifname wan drop; } }",
    );
    let settings = Settings {
        listen: r#"["[2001:db8:2::1]:3478"]"#,
        stun: "nat_discovery = true\nalternate = \"[2001:db8:2::2]:3479\"",
        ..Settings::default()
    };
    let config = ConfigFile::new(&settings.toml());
    let _server = serve(&server, &config.path());
    let arguments = ["nat", "--server", "2001:db8:2::1"];
    let (ended, told) = told_by(&mut client.hairpin(), &arguments);
    assert!(ended.status.success(), "{ended:?}");
    let told = &told["results"][0];
    assert_eq!(told["type"], "firewall", "{told:#}");
    assert_eq!(told["mapped"], told["local"]);
    assert_eq!(told["filtering"], "address- and port-dependent");
}

#[test]
fn blocked_udp_is_told_where_tcp_answers() {
    let Some(world) = World::new(&masquerade("")) else { return };
    let Some(_coturn) = world.coturn() else { return };
    world.nat.nft(
        "table ip filter { chain pass { type filter hook forward priority 0; ip protocol udp drop; } }",
    );
    let told = world.told(&["--timeout", "2s"]);
    assert_eq!(told["type"], "blocked", "{told:#}");
    assert_eq!(told["tcp"]["mapping"], "endpoint-independent");
}

#[test]
fn silence_everywhere_ends_at_the_deadline() {
    let Some(world) = World::new("table ip nothing {}") else { return };
    world.nat.nft("table ip filter { chain pass { type filter hook forward priority 0; drop; } }");
    let arguments = ["nat", "--server", "203.0.113.1", "--timeout", "1s"];
    let (ended, told) = in_time(|| told_by(&mut world.client.hairpin(), &arguments));
    assert_eq!(ended.status.code(), Some(1));
    let line = "error: 203.0.113.1: no answer from 203.0.113.1:3478, neither over UDP nor over TCP";
    assert_eq!(ended.stderr, [line]);
    assert_eq!(told["results"][0]["type"], Value::Null, "{told:#}");
}

/// A resolver that never answers waits for ten seconds and more; these do not.
#[test]
fn dns_that_does_not_answer_ends_at_the_deadline() {
    let Some(world) = World::new("table ip nothing {}") else { return };
    world.nat.nft("table ip filter { chain pass { type filter hook forward priority 0; drop; } }");
    let resolver = ConfigFile::new("");
    resolver.write("resolv.conf", "nameserver 203.0.113.1\noptions timeout:30 attempts:5\n");
    let resolver = resolver.path().with_file_name("resolv.conf");
    // `ip netns exec` has given it mounts of its own.
    let script = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;
    let program = env!("CARGO_BIN_EXE_hairpin");
    let command = || {
        let mut command = world.client.command("sh");
        command.args(["-c", script]).arg(&resolver).arg(program);
        command
    };
    let arguments = ["nat", "--server", "turn.example.org", "--timeout", "1s"];
    let ended = in_time(|| run(command().args(arguments)));
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, ["error: turn.example.org: no answer from DNS within 1s"]);
    let arguments = ["doctor", "turn:turn.example.org", "--timeout", "1s"];
    let (ended, told) = in_time(|| told_by(&mut command(), &arguments));
    assert_eq!(ended.status.code(), Some(1));
    let resolve = &told["reports"][0]["resolve"];
    assert_eq!(resolve["state"], "failed", "{told:#}");
    assert_eq!(resolve["detail"], "turn.example.org: no answer from DNS within 1s");
    assert!(
        resolve["cause"].as_str().unwrap().contains("DNS is not reached from here"),
        "{told:#}"
    );
}

#[test]
fn lost_fragments_are_told() {
    let Some(world) = World::new(&masquerade("")) else { return };
    let Some(_coturn) = world.coturn() else { return };
    // Before connection tracking puts them together again.
    world.nat.nft(
        "table ip raw { chain in { type filter hook prerouting priority -450;
            ip frag-off & 0x1fff != 0 drop; } }",
    );
    let told = world.told(&[]);
    assert_eq!(told["fragments"], "are lost", "{told:#}");
    assert_eq!(told["type"], "port-restricted-cone");
}

/// The kernel forgets after 6 seconds. A busy machine asks later, never earlier.
#[test]
fn lifetime_of_a_binding_is_found() {
    let Some(world) = World::new(&masquerade("")) else { return };
    let Some(_coturn) = world.coturn() else { return };
    world.nat.sysctl("net/netfilter/nf_conntrack_udp_timeout", "6");
    let told = world.told(&["--lifetime", "20s"]);
    let lifetime = &told["lifetime"];
    assert_eq!(lifetime["method"], "response-port", "{told:#}");
    assert!(lifetime["at_least_seconds"].as_f64().unwrap() <= 7.0, "{told:#}");
    let below = lifetime["below_seconds"].as_f64().unwrap();
    assert!((6.0..20.0).contains(&below), "{told:#}");
}

/// `script` gives the program a terminal.
#[test]
fn terminal_is_shown_each_step_and_its_deadline() {
    let Some(world) = World::new(&masquerade("")) else { return };
    let Some(_coturn) = world.coturn() else { return };
    let program = env!("CARGO_BIN_EXE_hairpin");
    let line = format!("{program} nat --server 203.0.113.1 --lifetime 5s --timeout 2s");
    let mut script = world.client.command("script");
    let ended = run(script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm"));
    assert!(ended.status.success(), "{ended:?}");
    // Some answers a NAT like this one lets never in. The search has three more steps around it.
    for shown in
        ["who may send to us, at most 2 s", "waiting until the NAT forgets, at most 11 s ["]
    {
        assert!(ended.stdout.contains(shown), "no {shown:?} in {}", ended.stdout);
    }
}

#[test]
fn no_route_is_one_line() {
    let Some(alone) = Namespace::new() else { return };
    let (ended, _) = told_by(&mut alone.hairpin(), &["nat", "--server", "203.0.113.1"]);
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, ["error: 203.0.113.1: this machine has no route to 203.0.113.1"]);
}

/// Whatever the NAT makes of the ports: what is sent to the relay need not come from where the server
/// saw the client before.
#[test]
fn doctor_finds_that_a_server_works_from_behind_a_nat() {
    for how in ["", "fully-random"] {
        for (quota, peer) in [(64, "another relayed address"), (1, "this machine")] {
            let Some(world) = World::new(&masquerade(how)) else { return };
            let limits = &format!("allocations_per_user = {quota}");
            let listen = r#"["203.0.113.1:3478"]"#;
            let settings = Settings { listen, limits, ..Settings::default() };
            // An address for examples, which the server takes for what it is.
            let allow = format!(r#"allow = ["{NAT}/32", "#);
            let config = ConfigFile::new(&settings.toml().replace("allow = [", &allow));
            let _server = serve(&world.server, &config.path());
            let user = ["--user", "alice", "--pass", "wonderland"];
            for uri in ["turn:203.0.113.1", "turn:203.0.113.1?transport=tcp"] {
                let arguments = [&["doctor", uri], &user[..]].concat();
                let (ended, told) = told_by(&mut world.client.hairpin(), &arguments);
                assert!(ended.status.success(), "masquerade {how}, quota {quota}: {told:#}");
                let steps = told["reports"][0]["addresses"][0]["steps"].as_array().unwrap();
                let detail = |name: &str| {
                    let step = steps.iter().find(|step| step["step"] == name);
                    step.unwrap_or_else(|| panic!("no {name}: {told:#}"))["detail"].to_string()
                };
                assert!(detail("permission").contains(peer), "{told:#}");
                assert!(detail("relay").contains("20 of 20 came back"), "{told:#}");
                assert!(detail("from outside").contains(NAT), "{told:#}");
            }
        }
    }
}

fn masquerade(how: &str) -> String {
    format!(
        "table ip nat {{ chain out {{ type nat hook postrouting priority 100;
            oifname wan masquerade {how}; }} }}"
    )
}
