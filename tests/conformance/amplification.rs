//! What an unauthenticated datagram can make the server send.

use crate::wire::{
    ALLOCATE, Attr, BINDING, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, Msg,
    REFRESH, attr, raw,
};
use crate::world::{Client, REALM, World, five_tuple};

/// Ethernet, IP and UDP headers in front of a datagram.
fn headers(source: &str) -> usize {
    if source.starts_with('[') { 62 } else { 42 }
}

const SOURCES: [&str; 2] = ["198.51.100.1:4000", "[2a00:1450::1]:4000"];

/// The longest that a configuration may have without a warning.
const LONGEST_SHORT_REALM: &str = "twenty-bytes.example";

/// Bytes on the wire that come back for each one sent.
fn ratio(realm: &str, source: &str, packet: &[u8]) -> f64 {
    let mut world = World::with(|setup| setup.config.auth.realm = realm.into());
    let reply = world.deliver(five_tuple(source), packet).reply();
    let headers = headers(source);
    (reply.bytes.len() + headers) as f64 / (packet.len() + headers) as f64
}

/// The smallest requests, for each unauthenticated answer there is, with this for a realm.
fn minimal(kind: u16, realm: &str) -> Vec<Vec<u8>> {
    let bare = || Msg::new(kind, [1; 12]);
    let credentials: [Attr; 3] =
        [raw(attr::USERNAME, b""), raw(attr::REALM, realm.as_bytes()), raw(attr::NONCE, b"")];
    vec![
        bare().finish(),
        bare().fingerprint().finish(),
        bare().attr(attr::MI, b"").finish(),
        bare().attr(attr::MI2, b"").finish(),
        bare().add(&credentials).attr(attr::MI, b"").finish(),
        bare().add(&credentials).attr(attr::MI, b"").fingerprint().finish(),
    ]
}

#[test]
fn no_unauthenticated_answer_is_more_than_2_3_times_the_request() {
    for (source, realm) in
        SOURCES.into_iter().flat_map(|source| [REALM, LONGEST_SHORT_REALM].map(|it| (source, it)))
    {
        for kind in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, CONNECT, CONNECTION_BIND] {
            for packet in ["", realm].into_iter().flat_map(|sent| minimal(kind, sent)) {
                let ratio = ratio(realm, source, &packet);
                assert!(ratio <= 2.3, "{ratio} from {source}, {realm}: {packet:02x?}");
            }
        }
    }
}

/// With the longest realm that the configuration takes, it still passes every path.
#[test]
fn no_refusal_is_larger_than_548_bytes() {
    for kind in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, CONNECT, CONNECTION_BIND] {
        for packet in minimal(kind, "") {
            let mut world = World::with(|setup| {
                setup.config.auth.realm = "é".repeat(63) + "x";
                setup.config.software = Some("hairpin 999.999.999".to_owned());
            });
            let reply = world.deliver(five_tuple(SOURCES[0]), &packet).reply();
            assert!(reply.bytes.len() <= 548, "{} bytes for {packet:02x?}", reply.bytes.len());
        }
    }
}

#[test]
fn binding_is_answered_with_at_most_1_3_times_the_request() {
    for source in SOURCES {
        let mut packets = minimal(BINDING, "");
        packets.extend((1..40).map(|count| {
            (0..count).fold(Msg::new(BINDING, [1; 12]), |msg, n| msg.attr(0x7F00 + n, b"")).finish()
        }));
        for packet in packets {
            let ratio = ratio(REALM, source, &packet);
            assert!(ratio <= 1.3, "{ratio} from {source}: {packet:02x?}");
        }
    }
}

/// With a right nonce and a wrong password there is proof of the address, and still a bound.
#[test]
fn wrong_password_is_answered_with_less_than_was_sent() {
    let mut world = World::new();
    let mut client = Client::at(SOURCES[0]);
    client.greet(&mut world);
    client.password = "wrong".into();
    let request = client.request(REFRESH, &[]);
    let reply = world.deliver(client.five, &request).reply();
    assert!(reply.bytes.len() <= request.len());
}

/// Nothing in a request moves the answer elsewhere: there is no second address in a verdict, and
/// these attributes are refused.
#[test]
fn redirecting_attributes_are_420() {
    for kind in [0x0002, 0x0003, 0x0026, 0x0027] {
        let packet = Msg::new(BINDING, [1; 12]).attr(kind, &[0; 8]).finish();
        let reply = World::new().deliver(five_tuple(SOURCES[0]), &packet).reply();
        assert_eq!(reply.code(), 420);
    }
}
