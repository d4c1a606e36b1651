//! Messages as three codecs write them: from one plan the same bytes.

use hairpin::stun::attribute::XorPeerAddress;
use hairpin::stun::integrity::IntegrityKind;
use hairpin::stun::message::message_type;
use hairpin::stun::{Builder, Class, Key, Message, Method, TransactionId};
use proptest::collection::vec;
use proptest::prelude::*;
use stun::message::Setter;
use stun_types::message::{IntegrityAlgorithm, MessageWrite, MessageWriteExt, MessageWriteVec};

use crate::config;
use crate::item::{Item, item};
use crate::rules::agree;
use crate::view::{self, PASSWORD, REALM, USERNAME, Verdict, View};

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) method: u16,
    pub(crate) class: u8,
    pub(crate) id: [u8; 12],
    pub(crate) items: Vec<Item>,
    /// `Some(false)` signs with a wrong key.
    pub(crate) integrity: Option<bool>,
    pub(crate) integrity_sha256: Option<bool>,
    pub(crate) fingerprint: bool,
}

fn password(right: bool) -> &'static str {
    if right { PASSWORD } else { "wrong" }
}

impl Plan {
    fn class(&self) -> Class {
        match self.class {
            0 => Class::Request,
            1 => Class::Indication,
            2 => Class::Success,
            _ => Class::Error,
        }
    }

    /// The values as we lay them out, for types that an oracle has no writer for.
    fn raw(&self) -> Vec<Vec<u8>> {
        let encode = |item: &Item| {
            let mut out = Vec::new();
            let id = TransactionId(self.id);
            item.put_by_us(Builder::new(&mut out, Method::Binding, Class::Request, id)).finish();
            let length = usize::from(u16::from_be_bytes([out[22], out[23]]));
            out[24..24 + length].to_vec()
        };
        self.items.iter().map(encode).collect()
    }

    pub(crate) fn by_us(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let id = TransactionId(self.id);
        let builder = Builder::new(&mut out, Method::Unknown(self.method), self.class(), id);
        let mut builder = self.items.iter().fold(builder, |builder, item| item.put_by_us(builder));
        if let Some(right) = self.integrity {
            let key = Key::md5(USERNAME, REALM, password(right));
            builder = builder.integrity(&key, IntegrityKind::Sha1);
        }
        if let Some(right) = self.integrity_sha256 {
            let key = Key::sha256(USERNAME, REALM, password(right));
            builder = builder.integrity(&key, IntegrityKind::Sha256);
        }
        if self.fingerprint {
            builder = builder.fingerprint();
        }
        builder.finish();
        out
    }

    /// `None` where `stun` cannot write it: it has no MESSAGE-INTEGRITY-SHA256.
    fn by_stun(&self) -> Option<Vec<u8>> {
        let mut message = stun::message::Message::new();
        message.typ.read_value(message_type(Method::Unknown(self.method), self.class()));
        message.transaction_id = stun::agent::TransactionId(self.id);
        message.write_header();
        for (item, raw) in self.items.iter().zip(self.raw()) {
            item.put_by_stun(&mut message, &raw);
        }
        if let Some(right) = self.integrity {
            stun::integrity::MessageIntegrity::new_long_term_integrity(
                USERNAME.to_owned(),
                REALM.to_owned(),
                password(right).to_owned(),
            )
            .add_to(&mut message)
            .unwrap();
        }
        if self.integrity_sha256.is_some() {
            return None;
        }
        if self.fingerprint {
            stun::fingerprint::FINGERPRINT.add_to(&mut message).unwrap();
        }
        Some(message.raw)
    }

    fn by_stun_types(&self) -> Vec<u8> {
        use stun_types::message::{Message, MessageClass, MessageType, Method};
        let class = match self.class {
            0 => MessageClass::Request,
            1 => MessageClass::Indication,
            2 => MessageClass::Success,
            _ => MessageClass::Error,
        };
        let mut id = [0; 16];
        id[4..].copy_from_slice(&self.id);
        let mut message = Message::builder(
            MessageType::from_class_method(class, Method::new(self.method)),
            u128::from_be_bytes(id).into(),
            MessageWriteVec::new(),
        );
        for (item, raw) in self.items.iter().zip(self.raw()) {
            item.put_by_stun_types(&mut message, &raw);
        }
        let algorithms = [
            (self.integrity, IntegrityAlgorithm::Sha1),
            (self.integrity_sha256, IntegrityAlgorithm::Sha256),
        ];
        for (right, algorithm) in algorithms {
            let Some(right) = right else { continue };
            let credentials = view::credentials(password(right));
            message.add_message_integrity(&credentials, algorithm).unwrap();
        }
        if self.fingerprint {
            message.add_fingerprint().unwrap();
        }
        message.finish()
    }

    /// What a reader must see.
    fn view(&self) -> View {
        let verdict = |right, kind| if right { Verdict::Right(kind) } else { Verdict::Wrong };
        let integrity = match (self.integrity, self.integrity_sha256) {
            (_, Some(right)) => verdict(right, IntegrityKind::Sha256),
            (Some(right), None) => verdict(right, IntegrityKind::Sha1),
            (None, None) => Verdict::Absent,
        };
        View {
            method: self.method,
            class: self.class,
            id: self.id,
            attributes: self.items.iter().map(Item::kind).zip(self.raw()).collect(),
            integrity,
            fingerprint: self.fingerprint,
        }
    }
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let key = || prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    let head = (0_u16..0x1000, 0_u8..4, any::<[u8; 12]>());
    (head, vec(item(), 0..12), key(), key(), any::<bool>()).prop_map(
        |((method, class, id), items, integrity, integrity_sha256, fingerprint)| Plan {
            method,
            class,
            id,
            items,
            integrity,
            integrity_sha256,
            fingerprint,
        },
    )
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn three_codecs_write_the_same_bytes_and_read_them_alike(plan in plan()) {
        let bytes = plan.by_us();
        prop_assert_eq!(&plan.by_stun_types(), &bytes);
        if let Some(by_stun) = plan.by_stun() {
            prop_assert_eq!(&by_stun, &bytes);
        }
        prop_assert_eq!(view::ours(&bytes), Some(plan.view()));
        agree(&bytes).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn each_attribute_is_read_as_it_was_written(plan in plan()) {
        let bytes = plan.by_us();
        let message = Message::parse(&bytes).unwrap();
        for kind in Item::KINDS {
            let first = plan.items.iter().find(|item| item.kind() == kind);
            prop_assert_eq!(Item::read_by_us(kind, &message), first.cloned().map(Ok));
        }
        let peers: Vec<_> = message.read_all::<XorPeerAddress>().collect();
        let planned: Vec<_> = plan.items.iter().filter_map(|item| match item {
            Item::Address(0x0012, address) => Some(Ok(XorPeerAddress(*address))),
            _ => None,
        }).collect();
        prop_assert_eq!(peers, planned);
    }
}
