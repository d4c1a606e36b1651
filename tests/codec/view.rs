//! What each codec makes of the same bytes, in one form.

use hairpin::stun::integrity::IntegrityKind;
use hairpin::stun::{Class, Key, Message};
use stun_types::attribute::Attribute as _;
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, MessageClass, MessageIntegrityCredentials,
};

pub(crate) const USERNAME: &str = "user";
pub(crate) const REALM: &str = "realm";
pub(crate) const PASSWORD: &str = "pass";

pub(crate) const MI: u16 = 0x0008;
pub(crate) const MI2: u16 = 0x001C;
pub(crate) const FINGERPRINT: u16 = 0x8028;

/// The two codecs that ours is held against: `stun` 0.17.2 and `stun-types` 2.0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Oracle {
    Stun,
    StunTypes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Absent,
    Right(IntegrityKind),
    Wrong,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct View {
    pub(crate) method: u16,
    /// 0 request, 1 indication, 2 success, 3 error.
    pub(crate) class: u8,
    pub(crate) id: [u8; 12],
    /// Those in front of the first of MI, MI2 and FINGERPRINT.
    pub(crate) attributes: Vec<(u16, Vec<u8>)>,
    pub(crate) integrity: Verdict,
    /// There is one, and it is right.
    pub(crate) fingerprint: bool,
}

pub(crate) fn ours(bytes: &[u8]) -> Option<View> {
    let message = Message::parse(bytes).ok()?;
    let integrity = match message.integrity() {
        None => Verdict::Absent,
        Some(integrity) if integrity.verify(&key(integrity.kind())) => {
            Verdict::Right(integrity.kind())
        }
        Some(_) => Verdict::Wrong,
    };
    Some(View {
        method: message.method().number(),
        class: match message.class() {
            Class::Request => 0,
            Class::Indication => 1,
            Class::Success => 2,
            Class::Error => 3,
        },
        id: message.transaction_id().0,
        attributes: message.attributes().map(|(kind, value)| (kind.0, value.to_vec())).collect(),
        integrity,
        fingerprint: message.has_fingerprint(),
    })
}

pub(crate) fn theirs(oracle: Oracle, bytes: &[u8]) -> Option<View> {
    match oracle {
        Oracle::Stun => by_stun(bytes),
        Oracle::StunTypes => by_stun_types(bytes),
    }
}

fn by_stun(bytes: &[u8]) -> Option<View> {
    let mut message = stun::message::Message::new();
    message.unmarshal_binary(bytes).ok()?;
    let visible = message.attributes.0.iter().map(|one| (one.typ.0, one.value.clone()));
    let attributes = up_to_integrity(visible);
    let integrity = if message.contains(stun::attributes::ATTR_MESSAGE_INTEGRITY) {
        let key = stun::integrity::MessageIntegrity::new_long_term_integrity(
            USERNAME.to_owned(),
            REALM.to_owned(),
            PASSWORD.to_owned(),
        );
        match key.check(&mut message) {
            Ok(()) => Verdict::Right(IntegrityKind::Sha1),
            Err(_) => Verdict::Wrong,
        }
    } else {
        Verdict::Absent
    };
    let classes = [
        stun::message::CLASS_REQUEST,
        stun::message::CLASS_INDICATION,
        stun::message::CLASS_SUCCESS_RESPONSE,
        stun::message::CLASS_ERROR_RESPONSE,
    ];
    Some(View {
        method: stun_method(&message),
        class: classes.iter().position(|&class| class == message.typ.class).unwrap() as u8,
        id: message.transaction_id.0,
        attributes,
        integrity,
        fingerprint: stun::fingerprint::FINGERPRINT.check(&message).is_ok(),
    })
}

/// The number, which `stun` keeps to itself: the type's value without the class, put together.
fn stun_method(message: &stun::message::Message) -> u16 {
    let kind = stun::message::MessageType {
        method: message.typ.method,
        class: stun::message::CLASS_REQUEST,
    };
    let kind = kind.value();
    kind & 0x000F | (kind >> 1) & 0x0070 | (kind >> 2) & 0x0F80
}

fn by_stun_types(bytes: &[u8]) -> Option<View> {
    let message = stun_types::message::Message::from_bytes(bytes).ok()?;
    let visible: Vec<_> = message
        .iter_attributes()
        .map(|(_, raw)| (raw.get_type().value(), raw.value.to_vec()))
        .collect();
    let has = |kind: u16| visible.iter().any(|&(other, _)| other == kind);
    let integrity = match message.validate_integrity(&credentials(PASSWORD)) {
        Ok(IntegrityAlgorithm::Sha1) => Verdict::Right(IntegrityKind::Sha1),
        Ok(IntegrityAlgorithm::Sha256) => Verdict::Right(IntegrityKind::Sha256),
        Err(_) if has(MI) || has(MI2) => Verdict::Wrong,
        Err(_) => Verdict::Absent,
    };
    let [_, _, _, _, id @ ..] = u128::from(message.transaction_id()).to_be_bytes();
    Some(View {
        method: message.method().value(),
        class: match message.class() {
            MessageClass::Request => 0,
            MessageClass::Indication => 1,
            MessageClass::Success => 2,
            MessageClass::Error => 3,
        },
        id,
        fingerprint: has(FINGERPRINT),
        attributes: up_to_integrity(visible.into_iter()),
        integrity,
    })
}

fn up_to_integrity(all: impl Iterator<Item = (u16, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
    all.take_while(|(kind, _)| ![MI, MI2, FINGERPRINT].contains(kind)).collect()
}

pub(crate) fn key(kind: IntegrityKind) -> Key {
    match kind {
        IntegrityKind::Sha1 => Key::md5(USERNAME, REALM, PASSWORD),
        IntegrityKind::Sha256 => Key::sha256(USERNAME, REALM, PASSWORD),
    }
}

pub(crate) fn credentials(password: &str) -> MessageIntegrityCredentials {
    LongTermKeyCredentials::new(USERNAME.to_owned(), password.to_owned(), REALM.to_owned()).into()
}
