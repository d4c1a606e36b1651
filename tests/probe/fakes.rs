//! Servers of a few lines that answer what no real one does, or not at all.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use hairpin::stun::attribute::{
    ErrorCode, Lifetime, Nonce, Realm, XorMappedAddress, XorRelayedAddress,
};
use hairpin::stun::integrity::IntegrityKind;
use hairpin::stun::{Builder, Class, Key, Message, Method};

use crate::broken::{ALICE, Broken, examined};
use crate::pki::Pki;
use crate::server::{ConfigFile, Server, Settings, hairpin};
use crate::{in_time, told};

/// The first byte of ChannelData, as far as servers give out numbers.
const CHANNEL_DATA: std::ops::RangeInclusive<u8> = 0x40..=0x4F;
/// Of so many ChannelData messages, one is lost.
const LOST: usize = 4;

#[test]
fn realm_unset() {
    // An empty one is none.
    for realm in [None, Some(Realm(""))] {
        let server = answering(move |asked| {
            Some(refused(asked, |it| it.put_some(realm.as_ref()).put(&Nonce("n"))))
        });
        let broken = examined(server, "", &ALICE);
        broken.shows("challenge", "realm unset: without one no client can authenticate");
        assert_eq!(broken.detail, "401 without a realm");
    }
}

#[test]
fn nonce_unset() {
    let server = answering(|asked| Some(refused(asked, |it| it.put(&Realm("test")))));
    let broken = examined(server, "", &ALICE);
    broken.shows("challenge", "against RFC 8489 §9.2: no client can authenticate");
    assert_eq!(broken.detail, "401 without a nonce");
}

/// What answers a request without credentials, and then none that is signed.
#[test]
fn server_that_falls_silent() {
    let server = answering(|_| None);
    let broken = in_time(|| examined(server, "", &["--timeout", "1s"]));
    broken.shows("challenge", "the server answered before and not to this request");
    let server = answering(|asked| asked.integrity().is_none().then(|| challenge(asked)));
    let broken = in_time(|| examined(server, "", &[&ALICE[..], &["--timeout", "1s"]].concat()));
    broken.shows("allocate", "the server answered before and not to this request");
}

#[test]
fn port_that_takes_and_does_not_answer_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ca = ConfigFile::new("");
    Pki::new().write(&ca, &[], 1);
    let ca = ca.path().with_file_name("ca.pem");
    let uri = format!("turns:{}", listener.local_addr().unwrap());
    let more = ["--ca", ca.to_str().unwrap(), "--timeout", "1s"];
    let broken = in_time(|| Broken::new(&mut hairpin(), &uri, &more));
    broken.shows("tls", "the server does not answer the handshake: this port may not speak TLS");
}

#[test]
fn answer_that_nobody_has_signed_or_somebody_else() {
    let guessed = Key::md5("alice", "test", "guessed");
    for key in [None, Some(guessed)] {
        let server = answering(move |asked| {
            Some(granted(asked, |it| match &key {
                Some(key) => it.integrity(key, IntegrityKind::Sha1),
                None => it,
            }))
        });
        let broken = examined(server, "", &ALICE);
        broken.shows("allocate", "something between here and the server changes messages");
        assert_eq!(broken.detail, "a success response without a valid MESSAGE-INTEGRITY");
    }
}

#[test]
fn answer_without_what_it_is_for() {
    let server = answering(|asked| {
        Some(match asked.integrity() {
            None => challenge(asked),
            Some(_) => {
                let key = Key::md5("alice", "test", "wonderland");
                reply(asked, Class::Success, |it| {
                    it.put(&Lifetime(600)).integrity(&key, IntegrityKind::Sha1)
                })
            }
        })
    });
    let broken = examined(server, "", &ALICE);
    broken.shows("allocate", "the server's answer is against RFC 8656");
    assert_eq!(broken.detail, "a success response without XOR-RELAYED-ADDRESS");

    // The same of one that wants no credentials, and of one that tells nobody who he is.
    let server = answering(|asked| Some(reply(asked, Class::Success, |it| it.put(&Lifetime(600)))));
    let broken = examined(server, "", &ALICE);
    broken.shows("challenge", "the server's answer is against RFC 8656");
    assert_eq!(broken.detail, "a success response without XOR-RELAYED-ADDRESS");
    let server = serving(|asked, _| Some(reply(asked, Class::Success, |it| it)));
    let broken = examined(server, "", &ALICE);
    broken.shows("binding", "the server's answer is against RFC 8656");
    assert_eq!(broken.detail, "a success response without XOR-MAPPED-ADDRESS");
}

#[test]
fn lost_datagrams_are_a_warning() {
    let server = Server::start(&Settings::default());
    let uri = format!("turn:{}", losing(server.turn));
    let more = ["--timeout", "5s", "--count", "20"];
    let (ended, told) = told(&[&["doctor", &uri], &ALICE[..], &more].concat());
    assert!(ended.status.success(), "{told:#}");
    let steps = told["reports"][0]["addresses"][0]["steps"].as_array().unwrap();
    let relay = steps.iter().find(|step| step["step"] == "relay").unwrap();
    assert_eq!(relay["state"], "warning", "{told:#}");
    assert_eq!(relay["cause"], "5 of 20 datagrams were lost");
    let detail = relay["detail"].as_str().unwrap();
    assert!(detail.starts_with("15 of 20 came back, 25 % lost; "), "{detail}");
}

/// A way to a server on which every fourth ChannelData message of each client is lost. Ends with
/// the process.
fn losing(server: SocketAddr) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = front.local_addr().unwrap();
    thread::spawn(move || {
        // For each client, the socket that the server sees, and its ChannelData so far.
        let mut ways: HashMap<SocketAddr, (Arc<UdpSocket>, usize)> = HashMap::new();
        let mut buffer = [0; 2048];
        loop {
            let (length, client) = front.recv_from(&mut buffer).unwrap();
            let (way, count) = ways.entry(client).or_insert_with(|| {
                let way = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                way.connect(server).unwrap();
                pass_back(Arc::clone(&way), Arc::clone(&front), client);
                (way, 0)
            });
            *count += usize::from(CHANNEL_DATA.contains(&buffer[0]));
            if !CHANNEL_DATA.contains(&buffer[0]) || *count % LOST != 0 {
                way.send(&buffer[..length]).unwrap();
            }
        }
    });
    address
}

fn pass_back(way: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let length = way.recv(&mut buffer).unwrap();
            front.send_to(&buffer[..length], client).unwrap();
        }
    });
}

/// Answers Binding requests over UDP as it should be, and others as it is told to, or not. Ends
/// with the process.
pub(crate) fn answering(
    others: impl Fn(&Message<'_>) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    serving(move |asked, client| match asked.method() {
        Method::Binding => {
            Some(reply(asked, Class::Success, |it| it.put(&XorMappedAddress(client))))
        }
        _ => others(asked),
    })
}

/// Answers all requests as it is told to.
fn serving(
    answer: impl Fn(&Message<'_>, SocketAddr) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).unwrap();
            let asked = Message::parse(&buffer[..length]).unwrap();
            if let Some(bytes) = answer(&asked, client) {
                socket.send_to(&bytes, client).unwrap();
            }
        }
    });
    address
}

fn reply(
    asked: &Message<'_>,
    class: Class,
    fill: impl for<'b> FnOnce(Builder<'b>) -> Builder<'b>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(Builder::new(&mut bytes, asked.method(), class, asked.transaction_id())).finish();
    bytes
}

/// A 401.
fn refused(asked: &Message<'_>, fill: impl for<'b> FnOnce(Builder<'b>) -> Builder<'b>) -> Vec<u8> {
    reply(asked, Class::Error, |it| fill(it.put(&ErrorCode { number: 401, reason: "" })))
}

/// The 401 that every server should give.
fn challenge(asked: &Message<'_>) -> Vec<u8> {
    refused(asked, |it| it.put(&Realm("test")).put(&Nonce("n")))
}

/// An allocation for whoever signs, whatever the key.
fn granted(asked: &Message<'_>, sign: impl for<'b> FnOnce(Builder<'b>) -> Builder<'b>) -> Vec<u8> {
    if asked.integrity().is_none() {
        return challenge(asked);
    }
    let relayed = XorRelayedAddress(([127, 0, 0, 1], 50_000).into());
    reply(asked, Class::Success, |it| sign(it.put(&relayed).put(&Lifetime(600))))
}
