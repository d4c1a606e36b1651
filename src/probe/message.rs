//! STUN and TURN messages, written and read by the `stun` and `turn` crates.

use std::fmt::{self, Debug};
use std::net::SocketAddr;

use ::stun::addr::MappedAddress;
use ::stun::attributes::{
    ATTR_ALTERNATE_SERVER, ATTR_CHANGE_REQUEST, ATTR_MAPPED_ADDRESS, ATTR_MESSAGE_INTEGRITY,
    ATTR_NONCE, ATTR_OTHER_ADDRESS, ATTR_PADDING, ATTR_REALM, ATTR_RESPONSE_PORT, ATTR_SOFTWARE,
    AttrType,
};
use ::stun::error_code::ErrorCodeAttribute;
use ::stun::fingerprint::FINGERPRINT;
use ::stun::integrity::MessageIntegrity;
use ::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter,
    METHOD_BINDING, METHOD_DATA, Message, MessageType, Method, Setter,
};
use ::stun::textattrs::TextAttribute;
use ::stun::xoraddr::XorMappedAddress;
use ::turn::proto::data::Data;
use ::turn::proto::lifetime::Lifetime;
use ::turn::proto::peeraddr::PeerAddress;
use ::turn::proto::relayaddr::RelayedAddress;

/// What a transaction is recognised by.
pub type Id = [u8; 12];

/// CHANGE-REQUEST's flags, RFC 5780 §7.2.
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// A request or an indication to be sent.
pub struct Request {
    message: Message,
}

impl Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.message.typ)
    }
}

impl Request {
    /// A request with the given transaction id.
    #[must_use]
    pub fn new(method: Method, id: Id) -> Self {
        Self::of(MessageType { method, class: CLASS_REQUEST }, id)
    }

    /// An indication.
    #[must_use]
    pub fn indication(method: Method, id: Id) -> Self {
        Self::of(MessageType { method, class: CLASS_INDICATION }, id)
    }

    /// A Binding request, RFC 8489 §2.
    #[must_use]
    pub fn binding(id: Id) -> Self {
        Self::new(METHOD_BINDING, id)
    }

    fn of(typ: MessageType, id: Id) -> Self {
        let mut message = Message::new();
        message.typ = typ;
        message.transaction_id.0 = id;
        message.write_header();
        Self { message }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// Never for the attributes that this module and its callers make, all of which fit.
    #[must_use]
    pub fn with(mut self, attribute: &dyn Setter) -> Self {
        attribute.add_to(&mut self.message).expect("an attribute of ours fits");
        self
    }

    fn raw(mut self, kind: AttrType, value: &[u8]) -> Self {
        self.message.add(kind, value);
        self
    }

    /// Asks for the response from another address or port, RFC 5780 §7.2.
    #[must_use]
    pub fn change(self, ip: bool, port: bool) -> Self {
        let flags = if ip { CHANGE_IP } else { 0 } | if port { CHANGE_PORT } else { 0 };
        self.raw(ATTR_CHANGE_REQUEST, &flags.to_be_bytes())
    }

    /// Asks for the response at another port of the same address, RFC 5780 §7.5.
    #[must_use]
    pub fn response_port(self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.raw(ATTR_RESPONSE_PORT, &[high, low, 0, 0])
    }

    /// Makes the datagram so long that it is cut into fragments, RFC 5780 §7.6.
    #[must_use]
    pub fn padding(self, bytes: usize) -> Self {
        self.raw(ATTR_PADDING, &vec![0; bytes])
    }

    /// Signs with a long-term key, after user name, realm and nonce: RFC 8489 §9.2.
    #[must_use]
    pub fn signed(self, user: &str, realm: &str, nonce: &str, key: &MessageIntegrity) -> Self {
        self.raw(::stun::attributes::ATTR_USERNAME, user.as_bytes())
            .raw(ATTR_REALM, realm.as_bytes())
            .raw(ATTR_NONCE, nonce.as_bytes())
            .with(key)
    }

    /// The bytes, with a FINGERPRINT at the end.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        self.with(&FINGERPRINT).message.raw
    }

    /// The bytes without a FINGERPRINT.
    #[must_use]
    pub fn bare_bytes(self) -> Vec<u8> {
        self.message.raw
    }
}

/// A message that came from elsewhere.
#[derive(Debug)]
pub struct Answer {
    message: Message,
}

impl Answer {
    /// Reads a message; none where these bytes are no STUN.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut message = Message::new();
        // The crate does not look at the two bits that tell STUN from other protocols.
        if bytes.first()? & 0xc0 != 0 {
            return None;
        }
        message.unmarshal_binary(bytes).ok()?;
        // What follows the integrity is signed by nobody, and the crate would return it:
        // RFC 8489 §14.5.
        let attributes = &mut message.attributes.0;
        let signed = attributes.iter().position(|found| found.typ == ATTR_MESSAGE_INTEGRITY);
        attributes.truncate(signed.map_or(attributes.len(), |at| at + 1));
        Some(Self { message })
    }

    /// The transaction it belongs to.
    #[must_use]
    pub fn id(&self) -> Id {
        self.message.transaction_id.0
    }

    /// Whether it is a success response.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.message.typ.class == CLASS_SUCCESS_RESPONSE
    }

    /// Whether it is a response at all.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.is_success() || self.message.typ.class == CLASS_ERROR_RESPONSE
    }

    /// Whether this request came back to us: what a hairpinning NAT does with it.
    #[must_use]
    pub fn is_binding_request(&self) -> bool {
        self.message.typ.class == CLASS_REQUEST && self.message.typ.method == METHOD_BINDING
    }

    /// Code and reason of an error response; 0 where it has none.
    #[must_use]
    pub fn error(&self) -> Option<(u16, String)> {
        if self.message.typ.class != CLASS_ERROR_RESPONSE {
            return None;
        }
        let error: ErrorCodeAttribute = self.get().unwrap_or_default();
        Some((error.code.0, String::from_utf8_lossy(&error.reason).into_owned()))
    }

    /// The client's address as the server saw it.
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        let found: Option<XorMappedAddress> = self.get();
        found
            .map(|found| SocketAddr::new(found.ip, found.port))
            .or_else(|| self.address(ATTR_MAPPED_ADDRESS))
    }

    /// OTHER-ADDRESS, RFC 5780 §7.4.
    #[must_use]
    pub fn other(&self) -> Option<SocketAddr> {
        self.address(ATTR_OTHER_ADDRESS)
    }

    /// Where a 300 sends its client.
    #[must_use]
    pub fn alternate_server(&self) -> Option<SocketAddr> {
        self.address(ATTR_ALTERNATE_SERVER)
    }

    /// Whether there is PADDING in it.
    #[must_use]
    pub fn has_padding(&self) -> bool {
        self.message.contains(ATTR_PADDING)
    }

    /// The relayed address of an allocation.
    #[must_use]
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.get().map(|found: RelayedAddress| SocketAddr::new(found.ip, found.port))
    }

    /// Seconds that an allocation lives.
    #[must_use]
    pub fn lifetime(&self) -> Option<u64> {
        self.get().map(|found: Lifetime| found.0.as_secs())
    }

    /// REALM.
    #[must_use]
    pub fn realm(&self) -> Option<String> {
        self.text(ATTR_REALM)
    }

    /// NONCE.
    #[must_use]
    pub fn nonce(&self) -> Option<String> {
        self.text(ATTR_NONCE)
    }

    /// SOFTWARE.
    #[must_use]
    pub fn software(&self) -> Option<String> {
        self.text(ATTR_SOFTWARE)
    }

    /// What a peer sent, and from where, in a Data indication.
    #[must_use]
    pub fn data(&self) -> Option<(SocketAddr, Vec<u8>)> {
        if self.message.typ != (MessageType { method: METHOD_DATA, class: CLASS_INDICATION }) {
            return None;
        }
        let peer: PeerAddress = self.get()?;
        let data: Data = self.get()?;
        Some((SocketAddr::new(peer.ip, peer.port), data.0))
    }

    /// Whether it is signed with this key. False where it is not signed at all.
    #[must_use]
    pub fn is_signed_with(&self, key: &MessageIntegrity) -> bool {
        let mut whole = Message::new();
        whole.unmarshal_binary(&self.message.raw).is_ok() && key.check(&mut whole).is_ok()
    }

    fn get<T: Getter + Default>(&self) -> Option<T> {
        let mut found = T::default();
        found.get_from(&self.message).ok()?;
        Some(found)
    }

    fn address(&self, kind: AttrType) -> Option<SocketAddr> {
        let mut found = MappedAddress::default();
        found.get_from_as(&self.message, kind).ok()?;
        Some(SocketAddr::new(found.ip, found.port))
    }

    fn text(&self, kind: AttrType) -> Option<String> {
        Some(TextAttribute::get_from_as(&self.message, kind).ok()?.text)
    }
}
