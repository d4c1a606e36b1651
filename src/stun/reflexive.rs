//! Asking another server for one's own address, as it looks from there (RFC 8489 §2).

use std::net::SocketAddr;

use super::attribute::XorMappedAddress;
use super::{Builder, Class, Message, Method, TransactionId};

/// A Binding request.
#[must_use]
pub fn request(id: TransactionId) -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Method::Binding, Class::Request, id).finish();
    bytes
}

/// XOR-MAPPED-ADDRESS of the success response to it; `None` for whatever else arrives.
#[must_use]
pub fn mapped(bytes: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let response = Message::parse(bytes).ok()?;
    let answers = response.class() == Class::Success
        && response.method() == Method::Binding
        && response.transaction_id() == id;
    if !answers {
        return None;
    }
    let XorMappedAddress(address) = response.read().ok()??;
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(class: Class, id: TransactionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        let address = "203.0.113.4:4711".parse().unwrap();
        let builder = Builder::new(&mut bytes, Method::Binding, class, id);
        builder.put(&XorMappedAddress(address)).finish();
        bytes
    }

    #[test]
    fn only_the_success_response_to_this_request_counts() {
        let id = TransactionId([7; 12]);
        let address = Some("203.0.113.4:4711".parse().unwrap());
        assert_eq!(mapped(&response(Class::Success, id), id), address);
        assert_eq!(mapped(&response(Class::Success, TransactionId([8; 12])), id), None);
        assert_eq!(mapped(&response(Class::Error, id), id), None);
        assert_eq!(mapped(&request(id), id), None);
        assert_eq!(mapped(b"", id), None);
    }
}
