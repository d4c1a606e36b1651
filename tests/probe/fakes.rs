//! Servers of a few lines that answer what no real one does, or not at all.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use hairpin::stun::attribute::{ErrorCode, Nonce, Realm, XorMappedAddress};
use hairpin::stun::{Builder, Class, Message, Method};

use crate::broken::{ALICE, examined};

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
