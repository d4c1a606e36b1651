//! The attributes of NAT behaviour discovery (RFC 5780 §7).

use std::net::SocketAddr;

use super::{Attribute, AttributeType, address_attribute, exactly};
use crate::stun::address;
use crate::stun::error::Malformed;
use crate::stun::message::TransactionId;

address_attribute!(
    /// Where the response was sent from (RFC 5780 §7.3).
    ResponseOrigin, RESPONSE_ORIGIN,
    |value, _| address::decode(value),
    |value, _, out| address::encode(value, out)
);
address_attribute!(
    /// Where it would come from with both flags of CHANGE-REQUEST (RFC 5780 §7.4).
    OtherAddress, OTHER_ADDRESS,
    |value, _| address::decode(value),
    |value, _, out| address::encode(value, out)
);

/// Asks for the response to come from elsewhere (RFC 5780 §7.2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChangeRequest {
    /// From the other IP address.
    pub ip: bool,
    /// From the other port.
    pub port: bool,
}

/// Flag A.
const CHANGE_IP: u8 = 0x04;
/// Flag B.
const CHANGE_PORT: u8 = 0x02;

impl Attribute<'_> for ChangeRequest {
    const TYPE: AttributeType = AttributeType::CHANGE_REQUEST;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        let &[_, _, _, flags] = exactly(value)?;
        Ok(Self { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        let ip = if self.ip { CHANGE_IP } else { 0 };
        let port = if self.port { CHANGE_PORT } else { 0 };
        out.extend([0, 0, 0, ip | port]);
    }
}

/// Makes a message so long that it is fragmented on its way (RFC 5780 §7.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Padding<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Padding<'a> {
    const TYPE: AttributeType = AttributeType::PADDING;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        Ok(Self(value))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::wire::ID;

    #[test]
    fn flags_are_the_second_and_third_bit_from_the_end() {
        for (byte, ip, port) in
            [(0, false, false), (2, false, true), (4, true, false), (6, true, true)]
        {
            let flags = ChangeRequest { ip, port };
            assert_eq!(ChangeRequest::decode(&[0, 0, 0, byte], ID), Ok(flags));
            let mut wire = Vec::new();
            flags.encode(ID, &mut wire);
            assert_eq!(wire, [0, 0, 0, byte]);
        }
        assert_eq!(ChangeRequest::decode(&[0xFF, 0xFF, 0xFF, 0xF9], ID), Ok(Default::default()));
        for length in [0, 1, 3, 5, 8] {
            assert_eq!(ChangeRequest::decode(&vec![0; length], ID), Err(Malformed), "{length}");
        }
    }
}
