//! `hairpin nat`'s machine behind every NAT there can be, in virtual time.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::probe::nat::{
    Discovery, Filtering, Fragments, Hairpinning, Kind, Lifetime, LifetimeSearch, Mapping, Method,
    Report, Trial, Unknown,
};

use super::model::{Change, Hairpin, Nat, Network, Server, other, server};

const TIMEOUT: Duration = Duration::from_secs(3);
const SEED: u64 = 5780;

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] = [
    Filtering::EndpointIndependent,
    Filtering::AddressDependent,
    Filtering::AddressAndPortDependent,
];

/// Every mapping, filtering, port preservation and hairpinning of RFC 4787: 54 NATs.
#[test]
fn every_nat_of_rfc_4787_is_recognised() {
    for mapping in MAPPINGS {
        for filtering in FILTERINGS {
            for keeps_ports in [false, true] {
                for hairpin in [Hairpin::Off, Hairpin::On, Hairpin::InternalSource] {
                    let nat = Nat { keeps_ports, hairpin, ..Nat::new(mapping, filtering) };
                    assert_recognised(nat);
                }
            }
        }
    }
}

#[test]
fn loss_changes_nothing_but_the_time_it_takes() {
    for mapping in MAPPINGS {
        for filtering in FILTERINGS {
            let nat = Nat::new(mapping, filtering);
            let mut network = Network::new(nat, Server::default());
            network.loses_first = true;
            let (lossy, late) = examine(network);
            let (good, soon) = discover(nat, Server::default());
            assert_eq!(lossy.report().mapping, good.report().mapping, "{nat:?}");
            assert_eq!(lossy.report().filtering, good.report().filtering, "{nat:?}");
            assert_eq!(lossy.report().kind, good.report().kind, "{nat:?}");
            assert!(late > soon, "{late:?} {soon:?}");
        }
    }
}

fn assert_recognised(nat: Nat) {
    let what = format!("{nat:?}");
    let cone = nat.mapping == Mapping::EndpointIndependent;
    let report = report(nat, Server::default());
    assert_eq!(report.mapping, Ok(nat.mapping), "{what}");
    assert_eq!(report.filtering, Ok(nat.filtering), "{what}");
    let kind = match (cone, nat.filtering) {
        (false, _) => Kind::Symmetric,
        (true, Filtering::EndpointIndependent) => Kind::FullCone,
        (true, Filtering::AddressDependent) => Kind::RestrictedCone,
        (true, Filtering::AddressAndPortDependent) => Kind::PortRestrictedCone,
    };
    assert_eq!(report.kind, kind, "{what}");
    assert_eq!(report.preserves_ports, Some(nat.keeps_ports), "{what}");
    // Towards its own address a symmetric NAT is another client, which only a full cone lets in.
    let comes_in = cone || nat.filtering == Filtering::EndpointIndependent;
    let hairpinning = match nat.hairpin {
        Hairpin::On if comes_in => Hairpinning::Works,
        Hairpin::InternalSource if comes_in => Hairpinning::WithInternalSource,
        _ => Hairpinning::Fails,
    };
    assert_eq!(report.hairpinning, Some(hairpinning), "{what}");
    assert_eq!(report.fragments, Fragments::BothWays, "{what}");
}

#[test]
fn without_a_nat_there_is_a_firewall_or_nothing() {
    for filtering in FILTERINGS {
        let open = Nat::new(Mapping::EndpointIndependent, filtering);
        let report = report(Nat { translates: false, ..open }, Server::default());
        let kind = match filtering {
            Filtering::EndpointIndependent => Kind::Open,
            _ => Kind::Firewall,
        };
        assert_eq!(report.kind, kind);
        assert_eq!(report.filtering, Ok(filtering));
        assert_eq!(report.preserves_ports, None);
        assert_eq!(report.hairpinning, Some(Hairpinning::NotNeeded));
    }
}

#[test]
fn silence_is_blocked_udp_and_one_trial_long() {
    let server = Server { answers: false, ..Server::default() };
    let (discovery, elapsed) = discover(port_restricted(), server);
    assert_eq!(discovery.report().kind, Kind::Blocked);
    assert_eq!(discovery.report().mapping, Err(Unknown::NoAnswer));
    assert_eq!(elapsed, TIMEOUT);
}

#[test]
fn server_with_one_address_tells_what_can_be_known() {
    let server = Server { other: None, ..Server::default() };
    let nat = Nat { hairpin: Hairpin::On, keeps_ports: true, ..port_restricted() };
    let report = report(nat, server);
    assert_eq!(report.kind, Kind::SomeNat);
    assert_eq!(report.mapping, Err(Unknown::NoSecondAddress));
    assert_eq!(report.filtering, Err(Unknown::NoSecondAddress));
    assert_eq!(report.preserves_ports, Some(true));
    assert_eq!(report.hairpinning, Some(Hairpinning::Works));
    assert_eq!(report.fragments, Fragments::BothWays);
}

/// Such a server would make every NAT look like a full cone.
#[test]
fn second_address_that_is_none_is_not_believed() {
    let same: SocketAddr = SocketAddr::new(server().ip(), 3479);
    let private = "10.0.0.7:3479".parse().unwrap();
    let same_port = SocketAddr::new(other().ip(), server().port());
    for claimed in [same, private, same_port, "0.0.0.0:3479".parse().unwrap()] {
        let server = Server { other: Some(claimed), ..Server::default() };
        let report = report(port_restricted(), server);
        assert_eq!(report.mapping, Err(Unknown::FalseSecondAddress(claimed)));
        assert_eq!(report.kind, Kind::SomeNat);
    }
}

#[test]
fn filtering_is_not_guessed_where_the_server_does_not_change_its_address() {
    for (change, unknown) in [
        (Change::Ignores, Unknown::IgnoresChange),
        (Change::Refuses, Unknown::RefusesChange(420)),
        (Change::Loses, Unknown::LosesChange),
    ] {
        let report = report(port_restricted(), Server { change, ..Server::default() });
        assert_eq!(report.filtering, Err(unknown));
        assert_eq!(report.kind, Kind::Cone);
        assert_eq!(report.mapping, Ok(Mapping::EndpointIndependent));
    }
}

#[test]
fn second_address_that_is_silent_is_told() {
    let report = report(port_restricted(), Server { second: false, ..Server::default() });
    assert_eq!(report.mapping, Err(Unknown::SilentSecondAddress(other())));
    assert_eq!(report.kind, Kind::SomeNat);
}

#[test]
fn lost_fragments_are_told() {
    let report = report(Nat { fragments: false, ..port_restricted() }, Server::default());
    assert_eq!(report.fragments, Fragments::Lost);
    assert_eq!(report.kind, Kind::PortRestrictedCone);
}

/// The worst NAT answers four trials with silence; everything is over after seven.
#[test]
fn the_whole_examination_is_bounded() {
    let nat = Nat::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    for fragments in [true, false] {
        for change in [Change::Does, Change::Loses] {
            let server = Server { change, ..Server::default() };
            let (_, elapsed) = discover(Nat { fragments, ..nat }, server);
            assert!(elapsed <= TIMEOUT * 7, "{elapsed:?}");
        }
    }
}

#[test]
fn garbage_and_late_answers_change_nothing() {
    let mut discovery = Discovery::new(server(), locals(), TIMEOUT, Duration::ZERO, SEED);
    let sent = discovery.poll_transmit(Duration::ZERO).unwrap();
    for bytes in [&[][..], &[0; 19], &[0xff; 64], &sent.bytes, &[0; 20]] {
        discovery.handle_datagram(server(), bytes, Duration::ZERO);
    }
    assert_eq!(discovery.trial().unwrap().0, Trial::Connect);
}

/// Each lifetime lies between the two times that are found.
#[test]
fn lifetime_is_found_within_a_third() {
    let longest = Duration::from_secs(300);
    for seconds in [20, 30, 65, 120, 180, 290] {
        let lifetime = Duration::from_secs(seconds);
        for keeps_ports in [true, false] {
            let nat = Nat { lifetime, keeps_ports, ..port_restricted() };
            let (found, elapsed) = search(nat, Server::default(), longest);
            let Lifetime::Between(least, Some(below), method) = found else {
                panic!("{seconds} s: {found:?}")
            };
            assert!(least <= lifetime && lifetime <= below, "{seconds}: {least:?} to {below:?}");
            assert!(below <= least.mul_f64(1.4), "{least:?} to {below:?}");
            assert_eq!(method, Method::ResponsePort);
            assert!(elapsed <= longest + TIMEOUT * 3, "{elapsed:?}");
        }
    }
}

#[test]
fn lifetime_beyond_the_longest_time_has_no_end() {
    let longest = Duration::from_secs(60);
    let (found, _) = search(port_restricted(), Server::default(), longest);
    assert_eq!(found, Lifetime::Between(longest, None, Method::ResponsePort));
}

#[test]
fn without_response_port_a_new_port_number_tells_the_lifetime() {
    let server = Server { response_port: false, ..Server::default() };
    let lifetime = Duration::from_secs(65);
    let nat = Nat { lifetime, ..port_restricted() };
    let (found, _) = search(nat, server, Duration::from_secs(300));
    let Lifetime::Between(least, Some(below), Method::Remapped) = found else {
        panic!("{found:?}")
    };
    assert!(least <= lifetime && lifetime <= below, "{least:?} to {below:?}");
    let nat = Nat { keeps_ports: true, ..nat };
    let (found, elapsed) = search(nat, server, Duration::from_secs(300));
    assert_eq!(found, Lifetime::NotMeasurable);
    assert!(elapsed <= TIMEOUT, "{elapsed:?}");
}

#[test]
fn lifetime_of_a_dead_server_is_not_waited_for() {
    let server = Server { answers: false, ..Server::default() };
    let (found, elapsed) = search(port_restricted(), server, Duration::from_secs(300));
    assert_eq!((found, elapsed), (Lifetime::NoAnswer, TIMEOUT));
}

fn port_restricted() -> Nat {
    Nat::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent)
}

fn locals() -> [SocketAddr; 2] {
    ["10.1.1.1:5000".parse().unwrap(), "10.1.1.1:5001".parse().unwrap()]
}

fn report(nat: Nat, server: Server) -> Report {
    discover(nat, server).0.report()
}

/// Runs to the end; with the time it took.
fn discover(nat: Nat, behaviour: Server) -> (Discovery, Duration) {
    examine(Network::new(nat, behaviour))
}

fn examine(mut network: Network) -> (Discovery, Duration) {
    let mut now = Duration::ZERO;
    let mut discovery = Discovery::new(server(), locals(), TIMEOUT, now, SEED);
    while let Some(wakes) = discovery.poll_timeout() {
        while let Some(sent) = discovery.poll_transmit(now) {
            network.send(locals()[sent.socket], sent.to, &sent.bytes, now);
        }
        now = network.next().map_or(discovery.poll_timeout().unwrap_or(wakes), |at| {
            at.min(discovery.poll_timeout().unwrap_or(wakes))
        });
        while let Some((_, from, bytes)) = network.arrive(now) {
            discovery.handle_datagram(from, &bytes, now);
        }
        discovery.handle_timeout(now);
    }
    (discovery, now)
}

fn search(nat: Nat, behaviour: Server, longest: Duration) -> (Lifetime, Duration) {
    let locals: [SocketAddr; LifetimeSearch::SOCKETS] =
        std::array::from_fn(|index| SocketAddr::from(([10, 1, 1, 1], 5000 + index as u16)));
    let mut network = Network::new(nat, behaviour);
    let mut now = Duration::ZERO;
    let mut search = LifetimeSearch::new(server(), locals, longest, TIMEOUT, now, SEED);
    loop {
        while let Some(sent) = search.poll_transmit(now) {
            network.send(locals[sent.socket], sent.to, &sent.bytes, now);
        }
        if let Some(found) = search.result() {
            return (found, now);
        }
        let wakes = search.poll_timeout().unwrap();
        now = network.next().map_or(wakes, |at| at.min(wakes));
        while let Some((to, _, bytes)) = network.arrive(now) {
            let socket = locals.iter().position(|local| *local == to).unwrap();
            search.handle_datagram(socket, &bytes, now);
        }
        search.handle_timeout(now);
    }
}
