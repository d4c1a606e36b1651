//! A STUN codec for tests alone, so that hairpin's is never its own judge. It writes whatever it
//! is told, right or wrong, and reads strictly.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

pub(crate) type Txid = [u8; 12];

pub(crate) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Request types; an indication is `| 0x0010`, a success `| 0x0100`, an error `| 0x0110`.
pub(crate) const BINDING: u16 = 0x0001;
pub(crate) const ALLOCATE: u16 = 0x0003;
pub(crate) const REFRESH: u16 = 0x0004;
pub(crate) const CREATE_PERMISSION: u16 = 0x0008;
pub(crate) const CHANNEL_BIND: u16 = 0x0009;
pub(crate) const CONNECT: u16 = 0x000A;
pub(crate) const CONNECTION_BIND: u16 = 0x000B;
pub(crate) const CONNECTION_ATTEMPT: u16 = 0x001C;
pub(crate) const SEND_INDICATION: u16 = 0x0016;
pub(crate) const DATA_INDICATION: u16 = 0x0017;
pub(crate) const SUCCESS: u16 = 0x0100;

pub(crate) mod attr {
    pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
    pub(crate) const USERNAME: u16 = 0x0006;
    pub(crate) const MI: u16 = 0x0008;
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(crate) const CHANNEL_NUMBER: u16 = 0x000C;
    pub(crate) const LIFETIME: u16 = 0x000D;
    pub(crate) const XPA: u16 = 0x0012;
    pub(crate) const DATA: u16 = 0x0013;
    pub(crate) const REALM: u16 = 0x0014;
    pub(crate) const NONCE: u16 = 0x0015;
    pub(crate) const XRA: u16 = 0x0016;
    pub(crate) const RAF: u16 = 0x0017;
    pub(crate) const EVEN_PORT: u16 = 0x0018;
    pub(crate) const TRANSPORT: u16 = 0x0019;
    pub(crate) const DONT_FRAGMENT: u16 = 0x001A;
    pub(crate) const MI2: u16 = 0x001C;
    pub(crate) const PA: u16 = 0x001D;
    pub(crate) const USERHASH: u16 = 0x001E;
    pub(crate) const XMA: u16 = 0x0020;
    pub(crate) const TOKEN: u16 = 0x0022;
    pub(crate) const PRIORITY: u16 = 0x0024;
    pub(crate) const USE_CANDIDATE: u16 = 0x0025;
    pub(crate) const PADDING: u16 = 0x0026;
    pub(crate) const RESPONSE_PORT: u16 = 0x0027;
    pub(crate) const CONNECTION_ID: u16 = 0x002A;
    pub(crate) const AAF: u16 = 0x8000;
    pub(crate) const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub(crate) const PAS: u16 = 0x8002;
    pub(crate) const ICMP: u16 = 0x8004;
    pub(crate) const SOFTWARE: u16 = 0x8022;
    pub(crate) const ALTERNATE_DOMAIN: u16 = 0x8003;
    pub(crate) const ALTERNATE_SERVER: u16 = 0x8023;
    pub(crate) const FINGERPRINT: u16 = 0x8028;
    pub(crate) const ICE_CONTROLLED: u16 = 0x8029;
    pub(crate) const RESPONSE_ORIGIN: u16 = 0x802B;
    pub(crate) const TICKET: u16 = 0x8030;
    pub(crate) const OTHER_ADDRESS: u16 = 0x802C;
}

/// A message being written.
#[derive(Clone, Debug)]
pub(crate) struct Msg {
    bytes: Vec<u8>,
}

impl Msg {
    pub(crate) fn new(kind: u16, id: Txid) -> Self {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(id);
        Self { bytes }
    }

    pub(crate) fn id(&self) -> Txid {
        self.bytes[8..20].try_into().unwrap()
    }

    pub(crate) fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.attr_padded(kind, value, 0)
    }

    /// With padding of a byte of choice.
    pub(crate) fn attr_padded(mut self, kind: u16, value: &[u8], pad: u8) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        self.bytes.extend(value);
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(pad);
        }
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn xor(self, kind: u16, address: SocketAddr) -> Self {
        let value = xor_value(address, self.id());
        self.attr(kind, &value)
    }

    pub(crate) fn add(self, attributes: &[Attr]) -> Self {
        attributes.iter().fold(self, |msg, attribute| match attribute {
            Attr::Raw(kind, value) => msg.attr(*kind, value),
            Attr::Xor(kind, address) => msg.xor(*kind, *address),
        })
    }

    pub(crate) fn mi(self, key: &[u8]) -> Self {
        let value = hmac_sha1(key, &with_length(&self.bytes, 24));
        self.attr(attr::MI, &value)
    }

    pub(crate) fn mi2(self, key: &[u8]) -> Self {
        let value = hmac_sha256(key, &with_length(&self.bytes, 36));
        self.attr(attr::MI2, &value)
    }

    pub(crate) fn fingerprint(self) -> Self {
        let value = crc(&with_length(&self.bytes, 8));
        self.attr(attr::FINGERPRINT, &value)
    }

    /// What an integrity covers that makes the header count `more` bytes.
    pub(crate) fn covered(&self, more: usize) -> Vec<u8> {
        with_length(&self.bytes, more)
    }

    /// The bytes, with a true length.
    pub(crate) fn finish(self) -> Vec<u8> {
        with_length(&self.bytes, 0)
    }
}

/// `bytes` with a header length that counts `more` bytes behind them.
fn with_length(bytes: &[u8], more: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = u16::try_from(bytes.len() - 20 + more).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// An attribute to add, where XOR-ed addresses wait for the transaction id.
#[derive(Clone, Debug)]
pub(crate) enum Attr {
    Raw(u16, Vec<u8>),
    Xor(u16, SocketAddr),
}

pub(crate) fn raw(kind: u16, value: &[u8]) -> Attr {
    Attr::Raw(kind, value.to_vec())
}

pub(crate) fn peer(address: &str) -> Attr {
    Attr::Xor(attr::XPA, address.parse().unwrap())
}

pub(crate) fn lifetime(seconds: u32) -> Attr {
    raw(attr::LIFETIME, &seconds.to_be_bytes())
}

pub(crate) fn channel(number: u16) -> Attr {
    let [high, low] = number.to_be_bytes();
    raw(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
}

pub(crate) fn transport(protocol: u8) -> Attr {
    raw(attr::TRANSPORT, &[protocol, 0, 0, 0])
}

pub(crate) fn family(byte: u8) -> Attr {
    raw(attr::RAF, &[byte, 0, 0, 0])
}

pub(crate) fn connection(id: u32) -> Attr {
    raw(attr::CONNECTION_ID, &id.to_be_bytes())
}

pub(crate) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The value of an XOR-ed address attribute.
pub(crate) fn xor_value(address: SocketAddr, id: Txid) -> Vec<u8> {
    let family = if address.is_ipv4() { 1 } else { 2 };
    let mut plain = address.port().to_be_bytes().to_vec();
    match address.ip() {
        IpAddr::V4(ip) => plain.extend(ip.octets()),
        IpAddr::V6(ip) => plain.extend(ip.octets()),
    }
    let mut value = vec![0, family];
    value.extend(masked(&plain, id));
    value
}

/// XORs port and address with what covers them.
fn masked(plain: &[u8], id: Txid) -> Vec<u8> {
    let cover = [&COOKIE[..2], &COOKIE[..], &id[..]].concat();
    plain.iter().zip(cover).map(|(byte, cover)| byte ^ cover).collect()
}

fn unmasked(value: &[u8], id: Txid) -> SocketAddr {
    let plain = masked(&value[2..], id);
    let port = u16::from_be_bytes([plain[0], plain[1]]);
    let ip = match (value[1], plain.len()) {
        (1, 6) => IpAddr::from(<[u8; 4]>::try_from(&plain[2..]).unwrap()),
        (2, 18) => IpAddr::from(<[u8; 16]>::try_from(&plain[2..]).unwrap()),
        other => panic!("family and length of an address: {other:?}"),
    };
    assert_eq!(value[0], 0, "the first byte of an address is reserved");
    SocketAddr::new(ip, port)
}

/// A message as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) id: Txid,
    /// Type, value, and where the attribute starts.
    pub(crate) attributes: Vec<(u16, Vec<u8>, usize)>,
}

impl Parsed {
    /// Reads a message a server wrote; panics where RFC 8489 §5 and §14 are not kept to the letter.
    pub(crate) fn strict(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 20, "shorter than a header: {bytes:02x?}");
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        assert_eq!(length, bytes.len() - 20, "the length field");
        assert_eq!(length % 4, 0, "the length is a multiple of four");
        assert_eq!(bytes[4..8], COOKIE, "the magic cookie");
        let mut attributes = Vec::new();
        let mut at = 20;
        while at < bytes.len() {
            let kind = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            let end = at + 4 + length;
            let padded = at + 4 + length.next_multiple_of(4);
            assert!(padded <= bytes.len(), "attribute {kind:#06x} runs past the end");
            assert!(bytes[end..padded].iter().all(|&byte| byte == 0), "padding is zero");
            attributes.push((kind, bytes[at + 4..end].to_vec(), at));
            at = padded;
        }
        Self {
            bytes: bytes.to_vec(),
            kind: u16::from_be_bytes([bytes[0], bytes[1]]),
            id: bytes[8..20].try_into().unwrap(),
            attributes,
        }
    }

    pub(crate) fn count(&self, kind: u16) -> usize {
        self.attributes.iter().filter(|&&(other, ..)| other == kind).count()
    }

    pub(crate) fn has(&self, kind: u16) -> bool {
        self.count(kind) > 0
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(other, ..)| *other == kind).map(|(_, value, _)| &value[..])
    }

    pub(crate) fn text(&self, kind: u16) -> String {
        String::from_utf8(self.get(kind).expect("the attribute is there").to_vec()).unwrap()
    }

    pub(crate) fn address(&self, kind: u16) -> SocketAddr {
        unmasked(self.get(kind).expect("the attribute is there"), self.id)
    }

    /// Every address under this type.
    pub(crate) fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let found = self.attributes.iter().filter(|&&(other, ..)| other == kind);
        found.map(|(_, value, _)| unmasked(value, self.id)).collect()
    }

    pub(crate) fn lifetime(&self) -> u32 {
        let value = self.get(attr::LIFETIME).expect("LIFETIME is there");
        u32::from_be_bytes(value.try_into().unwrap())
    }

    pub(crate) fn is_success(&self) -> bool {
        self.kind & 0x0110 == SUCCESS
    }

    /// The error code, or 0 for a success.
    pub(crate) fn code(&self) -> u16 {
        if self.is_success() {
            return 0;
        }
        let value = self.get(attr::ERROR_CODE).expect("an error has ERROR-CODE");
        u16::from(value[2] & 7) * 100 + u16::from(value[3])
    }

    pub(crate) fn unknown(&self) -> Vec<u16> {
        let list = self.get(attr::UNKNOWN_ATTRIBUTES).expect("a 420 lists the attributes");
        list.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    /// Whether MESSAGE-INTEGRITY, or MESSAGE-INTEGRITY-SHA256, is right under `key`.
    pub(crate) fn verifies(&self, kind: u16, key: &[u8]) -> bool {
        let Some((_, value, at)) = self.attributes.iter().find(|(other, ..)| *other == kind) else {
            return false;
        };
        let covered = with_length(&self.bytes[..*at], 4 + value.len());
        match kind {
            attr::MI => value[..] == hmac_sha1(key, &covered)[..],
            _ => value[..] == hmac_sha256(key, &covered)[..],
        }
    }

    pub(crate) fn fingerprint_is_right(&self) -> bool {
        let Some((kind, value, at)) = self.attributes.last() else { return false };
        *kind == attr::FINGERPRINT && value[..] == crc(&with_length(&self.bytes[..*at], 8))[..]
    }
}

pub(crate) fn md5_key(user: &str, realm: &str, password: &str) -> Vec<u8> {
    Md5::digest(format!("{user}:{realm}:{password}")).to_vec()
}

pub(crate) fn sha256_key(user: &str, realm: &str, password: &str) -> Vec<u8> {
    Sha256::digest(format!("{user}:{realm}:{password}")).to_vec()
}

pub(crate) fn user_hash(user: &str, realm: &str) -> Vec<u8> {
    Sha256::digest(format!("{user}:{realm}")).to_vec()
}

pub(crate) fn hmac_sha1(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

/// The CRC-32 of ITU V.42, bit by bit, masked as RFC 8489 §14.7 says.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    (!crc ^ 0x5354_554E).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_of_the_tests_agrees_with_stun_types() {
        use stun_types::message::{IntegrityAlgorithm, LongTermKeyCredentials, Message};
        let key = md5_key("user", "realm", "pass");
        let bytes = Msg::new(ALLOCATE, [9; 12])
            .attr(attr::USERNAME, b"user")
            .attr(attr::SOFTWARE, b"x")
            .mi(&key)
            .fingerprint()
            .finish();
        let message = Message::from_bytes(&bytes).unwrap();
        let credentials =
            LongTermKeyCredentials::new("user".into(), "pass".into(), "realm".into()).into();
        assert_eq!(message.validate_integrity(&credentials).unwrap(), IntegrityAlgorithm::Sha1);
        let ours = Parsed::strict(&bytes);
        assert!(ours.verifies(attr::MI, &key) && ours.fingerprint_is_right());
    }

    /// RFC 5769 §2.4.
    #[test]
    fn the_long_term_vector_of_rfc_5769_verifies() {
        let key = md5_key("マトリックス", "example.org", "TheMatrIX");
        let bytes = Msg::new(BINDING, *b"\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e")
            .attr(attr::USERNAME, "マトリックス".as_bytes())
            .attr(attr::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
            .attr(attr::REALM, b"example.org")
            .mi(&key)
            .finish();
        assert_eq!(bytes[bytes.len() - 20..][..4], [0xf6, 0x70, 0x24, 0x65]);
    }
}
