//! Transport addresses on the wire: MAPPED-ADDRESS and the XOR form (RFC 8489 §14.1, §14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::Malformed;
use super::message::{MAGIC_COOKIE, TransactionId};

/// Upper half of the magic cookie, the mask of XOR-ed ports.
const PORT_MASK: u16 = 0x2112;

/// The address family byte of STUN and TURN attributes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AddressFamily {
    /// 0x01
    Ipv4,
    /// 0x02
    Ipv6,
}

impl AddressFamily {
    /// The family of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Reads the family byte; anything but 0x01 and 0x02 is malformed.
    pub fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0x01 => Ok(Self::Ipv4),
            0x02 => Ok(Self::Ipv6),
            _ => Err(Malformed),
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Ipv4 => 0x01,
            Self::Ipv6 => 0x02,
        }
    }
}

/// Reads the plain form. The first byte is ignored, as RFC 8489 §14.1 asks.
pub fn decode(value: &[u8]) -> Result<SocketAddr, Malformed> {
    let (&[_, family, port_high, port_low], ip) =
        value.split_first_chunk::<4>().ok_or(Malformed)?;
    let port = u16::from_be_bytes([port_high, port_low]);
    let ip = match AddressFamily::from_byte(family)? {
        AddressFamily::Ipv4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| Malformed)?),
        AddressFamily::Ipv6 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| Malformed)?),
    };
    Ok(SocketAddr::new(ip, port))
}

/// Reads the XOR form of a message with this transaction id.
pub fn decode_xor(value: &[u8], id: TransactionId) -> Result<SocketAddr, Malformed> {
    decode(value).map(|masked| xor(masked, id))
}

/// Appends the plain form: 8 bytes for IPv4, 20 for IPv6.
pub fn encode(address: SocketAddr, out: &mut Vec<u8>) {
    out.extend([0, AddressFamily::of(address.ip()).byte()]);
    out.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
}

/// Appends the XOR form for a message with this transaction id.
pub fn encode_xor(address: SocketAddr, id: TransactionId, out: &mut Vec<u8>) {
    encode(xor(address, id), out);
}

/// Masks, and unmasks, an address with the cookie and the transaction id (RFC 8489 §14.2).
fn xor(address: SocketAddr, id: TransactionId) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ ipv6_mask(id))),
    };
    SocketAddr::new(ip, address.port() ^ PORT_MASK)
}

fn ipv6_mask(id: TransactionId) -> u128 {
    let mut mask = [0; 16];
    let (cookie, rest) = mask.split_at_mut(4);
    cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    rest.copy_from_slice(&id.0);
    u128::from_be_bytes(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");

    #[test]
    fn xor_addresses_of_both_families_survive_a_round_trip() {
        for text in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut wire = Vec::new();
            encode_xor(address, ID, &mut wire);
            assert_eq!(decode_xor(&wire, ID), Ok(address));
        }
    }

    #[test]
    fn xor_ipv4_is_masked_with_the_cookie() {
        let mut wire = Vec::new();
        encode_xor("192.0.2.1:32853".parse().unwrap(), ID, &mut wire);
        assert_eq!(wire, *b"\x00\x01\xa1\x47\xe1\x12\xa6\x43");
    }

    #[test]
    fn family_and_length_must_agree() {
        assert_eq!(decode(b"\x00\x00\x00\x50\x01\x02\x03\x04"), Err(Malformed));
        assert_eq!(decode(b"\x00\x03\x00\x50\x01\x02\x03\x04"), Err(Malformed));
        assert_eq!(decode(b"\x00\x02\x00\x50\x01\x02\x03\x04"), Err(Malformed));
        assert_eq!(
            decode(&[0, 1, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]),
            Err(Malformed)
        );
        for length in [0, 4, 7, 21] {
            assert_eq!(decode(&vec![1; length]), Err(Malformed), "{length} bytes");
        }
    }

    #[test]
    fn first_byte_is_ignored() {
        assert_eq!(decode(b"\xff\x01\x00\x50\x01\x02\x03\x04"), Ok("1.2.3.4:80".parse().unwrap()));
    }
}
