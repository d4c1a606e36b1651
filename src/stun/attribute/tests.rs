#![allow(clippy::indexing_slicing)]

use std::fmt::Debug;

use super::*;
use crate::stun::wire::ID;

fn decodes<'a, A: Attribute<'a>>(value: &'a [u8]) -> Result<A, Malformed> {
    A::decode(value, ID)
}

fn encoded<'a>(attribute: &impl Attribute<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    attribute.encode(ID, &mut out);
    out
}

/// `wire` and `value` say the same, in both directions.
fn is_laid_out<'a, A: Attribute<'a> + Debug + PartialEq>(wire: &'a [u8], value: A) {
    assert_eq!(encoded(&value), wire);
    assert_eq!(decodes::<A>(wire), Ok(value));
}

/// Of all lengths to 70, `length` alone is accepted; `fill` is a valid first byte.
fn has_exactly<A: for<'a> Attribute<'a>>(length: usize, fill: u8) {
    for other in (0..=70).chain([763, 65_535]) {
        let value = vec![fill; other];
        let accepted = A::decode(&value, ID).is_ok();
        assert_eq!(accepted, other == length, "{} of {other} bytes", A::TYPE.0);
    }
}

#[test]
fn fixed_length_attributes_refuse_every_other_length() {
    has_exactly::<Lifetime>(4, 1);
    has_exactly::<RequestedAddressFamily>(4, 1);
    has_exactly::<AdditionalAddressFamily>(4, 2);
    has_exactly::<EvenPort>(1, 0x80);
    has_exactly::<RequestedTransport>(4, 17);
    has_exactly::<DontFragment>(0, 0);
    has_exactly::<ReservationToken>(8, 1);
    has_exactly::<ConnectionId>(4, 1);
    has_exactly::<Icmp>(8, 1);
    has_exactly::<UserHash>(32, 1);
    has_exactly::<ChannelNumberAttribute>(4, 0x40);
    // The family byte says how long an address is.
    for (family, length) in [(1, 8), (2, 20)] {
        has_exactly::<MappedAddress>(length, family);
        has_exactly::<AlternateServer>(length, family);
        has_exactly::<XorMappedAddress>(length, family);
        has_exactly::<XorPeerAddress>(length, family);
        has_exactly::<XorRelayedAddress>(length, family);
    }
}

#[test]
fn types_have_the_numbers_of_the_registry() {
    let table = [
        (0x0001, MappedAddress::TYPE),
        (0x0006, Username::TYPE),
        (0x0008, AttributeType::MESSAGE_INTEGRITY),
        (0x0009, ErrorCode::TYPE),
        (0x000A, AttributeType::UNKNOWN_ATTRIBUTES),
        (0x000C, ChannelNumberAttribute::TYPE),
        (0x000D, Lifetime::TYPE),
        (0x0012, XorPeerAddress::TYPE),
        (0x0013, Data::TYPE),
        (0x0014, Realm::TYPE),
        (0x0015, Nonce::TYPE),
        (0x0016, XorRelayedAddress::TYPE),
        (0x0017, RequestedAddressFamily::TYPE),
        (0x0018, EvenPort::TYPE),
        (0x0019, RequestedTransport::TYPE),
        (0x001A, DontFragment::TYPE),
        (0x001C, AttributeType::MESSAGE_INTEGRITY_SHA256),
        (0x001D, PasswordAlgorithm::TYPE),
        (0x001E, UserHash::TYPE),
        (0x0020, XorMappedAddress::TYPE),
        (0x0022, ReservationToken::TYPE),
        (0x0024, AttributeType::PRIORITY),
        (0x0025, AttributeType::USE_CANDIDATE),
        (0x002A, ConnectionId::TYPE),
        (0x8000, AdditionalAddressFamily::TYPE),
        (0x8001, AddressErrorCode::TYPE),
        (0x8002, PasswordAlgorithms::TYPE),
        (0x8003, AlternateDomain::TYPE),
        (0x8004, Icmp::TYPE),
        (0x8022, Software::TYPE),
        (0x8023, AlternateServer::TYPE),
        (0x8028, AttributeType::FINGERPRINT),
    ];
    for (number, kind) in table {
        assert_eq!(kind.0, number);
        assert_eq!(kind.is_comprehension_required(), number < 0x8000);
    }
}

#[test]
fn comprehension_is_required_below_8000() {
    assert!(AttributeType(0x0000).is_comprehension_required());
    assert!(AttributeType(0x7FFF).is_comprehension_required());
    assert!(!AttributeType(0x8000).is_comprehension_required());
    assert!(!AttributeType(0xFFFF).is_comprehension_required());
}

#[test]
fn error_code_is_hundreds_and_rest() {
    is_laid_out(b"\x00\x00\x04\x26no", ErrorCode { number: 438, reason: "no" });
    is_laid_out(b"\x00\x00\x03\x00", ErrorCode { number: 300, reason: "" });
    is_laid_out(b"\x00\x00\x06\x63", ErrorCode { number: 699, reason: "" });
}

#[test]
fn error_code_outside_300_to_699_is_malformed() {
    for class in [0, 1, 2, 7] {
        assert_eq!(decodes::<ErrorCode<'_>>(&[0, 0, class, 0]), Err(Malformed), "{class}");
    }
    for number in [100, 255] {
        assert_eq!(decodes::<ErrorCode<'_>>(&[0, 0, 4, number]), Err(Malformed), "{number}");
    }
    for length in 0..4 {
        assert_eq!(decodes::<ErrorCode<'_>>(&[4; 4][..length]), Err(Malformed), "{length}");
    }
    assert_eq!(decodes::<ErrorCode<'_>>(b"\x00\x00\x04\x00\xff"), Err(Malformed), "UTF-8");
}

#[test]
fn reserved_bits_of_error_code_are_ignored() {
    let read = decodes(b"\xff\xff\xfc\x00");
    assert_eq!(read, Ok(ErrorCode { number: 400, reason: "" }));
}

#[test]
fn address_error_code_has_the_family_first() {
    let value = AddressErrorCode { family: AddressFamily::Ipv6, number: 440 };
    is_laid_out(b"\x02\x00\x04\x28", value);
    assert_eq!(decodes(b"\x02\xff\xfc\x28why"), Ok(value), "reserved bits and reason");
    for malformed in [&b"\x00\x00\x04\x28"[..], b"\x03\x00\x04\x28", b"\x01\x00\x04", b""] {
        assert_eq!(decodes::<AddressErrorCode>(malformed), Err(Malformed), "{malformed:?}");
    }
}

#[test]
fn icmp_is_seven_bits_type_nine_bits_code_and_data() {
    let unreachable = Icmp { kind: 3, code: 4, data: 1_400 };
    is_laid_out(b"\x00\x00\x06\x04\x00\x00\x05\x78", unreachable);
    is_laid_out(
        b"\x00\x00\xff\xff\xff\xff\xff\xff",
        Icmp { kind: 0x7F, code: 0x1FF, data: u32::MAX },
    );
    is_laid_out(b"\x00\x00\x01\x00\0\0\0\0", Icmp { kind: 0, code: 0x100, data: 0 });
    is_laid_out(b"\x00\x00\x02\x00\0\0\0\0", Icmp { kind: 1, code: 0, data: 0 });
    assert_eq!(decodes(b"\xff\xff\x06\x04\x00\x00\x05\x78"), Ok(unreachable), "reserved");
}

#[test]
fn text_of_763_bytes_is_read_and_longer_is_malformed() {
    let text = "x".repeat(764);
    let (longest, too_long) = (&text.as_bytes()[..763], text.as_bytes());
    assert_eq!(decodes(longest), Ok(Username(&text[..763])));
    assert_eq!(decodes::<Username<'_>>(too_long), Err(Malformed));
    assert_eq!(decodes::<Realm<'_>>(too_long), Err(Malformed));
    assert_eq!(decodes::<Nonce<'_>>(too_long), Err(Malformed));
    assert_eq!(decodes::<Software<'_>>(too_long), Err(Malformed));
}

#[test]
fn reason_of_763_bytes_is_read_and_longer_is_malformed() {
    let value = [b"\x01\x00\x04\x28".to_vec(), vec![b'x'; 764]].concat();
    let (longest, too_long) = (&value[..767], &value[..]);
    assert!(decodes::<ErrorCode<'_>>(longest).is_ok());
    assert!(decodes::<AddressErrorCode>(longest).is_ok());
    assert_eq!(decodes::<ErrorCode<'_>>(too_long), Err(Malformed));
    assert_eq!(decodes::<AddressErrorCode>(too_long), Err(Malformed));
}

#[test]
fn text_must_be_utf8_and_may_be_anything_else() {
    for hostile in ["", "\0", "\r\n", "%n%s", "\u{1b}[2J", "\u{202e}", "{}", "\""] {
        assert_eq!(decodes(hostile.as_bytes()), Ok(Username(hostile)));
    }
    for malformed in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        assert_eq!(decodes::<Username<'_>>(malformed), Err(Malformed));
    }
}

#[test]
fn channel_number_is_followed_by_two_ignored_bytes() {
    let number = ChannelNumberAttribute(ChannelNumber::MIN);
    is_laid_out(b"\x40\x00\x00\x00", number);
    assert_eq!(decodes(b"\x40\x00\xff\xff"), Ok(number));
    assert!(decodes::<ChannelNumberAttribute>(b"\x7f\xff\0\0").is_ok(), "of RFC 5766");
    for outside in [b"\x3f\xff\0\0", b"\x80\x00\0\0", b"\x00\x00\0\0"] {
        assert_eq!(decodes::<ChannelNumberAttribute>(outside), Err(Malformed));
    }
}

#[test]
fn lifetime_is_seconds_in_network_order() {
    is_laid_out(b"\x00\x00\x02\x58", Lifetime(600));
    is_laid_out(b"\xff\xff\xff\xff", Lifetime(u32::MAX));
}

#[test]
fn family_is_followed_by_three_ignored_bytes() {
    is_laid_out(b"\x02\0\0\0", RequestedAddressFamily(AddressFamily::Ipv6));
    is_laid_out(b"\x02\0\0\0", AdditionalAddressFamily(AddressFamily::Ipv6));
    let read = decodes(b"\x01\xff\xff\xff");
    assert_eq!(read, Ok(RequestedAddressFamily(AddressFamily::Ipv4)));
    for family in [0, 3, 255] {
        assert_eq!(decodes::<RequestedAddressFamily>(&[family, 0, 0, 0]), Err(Malformed));
    }
}

#[test]
fn even_port_is_one_bit_and_seven_ignored_ones() {
    is_laid_out(b"\x80", EvenPort { reserve: true });
    is_laid_out(b"\x00", EvenPort { reserve: false });
    assert_eq!(decodes(b"\x7f"), Ok(EvenPort { reserve: false }));
    assert_eq!(decodes(b"\xff"), Ok(EvenPort { reserve: true }));
}

#[test]
fn requested_transport_is_followed_by_three_ignored_bytes() {
    is_laid_out(b"\x11\0\0\0", RequestedTransport::UDP);
    assert_eq!(decodes(b"\x11\xff\xff\xff"), Ok(RequestedTransport::UDP));
    is_laid_out(b"\x06\0\0\0", RequestedTransport(6));
}

#[test]
fn xor_addresses_are_masked_and_plain_ones_are_not() {
    let address: SocketAddr = "192.0.2.1:32853".parse().unwrap();
    let plain = b"\x00\x01\x80\x55\xc0\x00\x02\x01";
    let masked = b"\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    is_laid_out(plain, MappedAddress(address));
    is_laid_out(plain, AlternateServer(address));
    is_laid_out(masked, XorMappedAddress(address));
    is_laid_out(masked, XorPeerAddress(address));
    is_laid_out(masked, XorRelayedAddress(address));
}

#[test]
fn ipv6_is_masked_with_the_transaction_id_behind_the_cookie() {
    let mut wire = b"\x00\x02\x21\x12\x21\x12\xa4\x42".to_vec();
    wire.extend(ID.0);
    is_laid_out(&wire, XorPeerAddress("[::]:0".parse().unwrap()));
}

#[test]
fn password_algorithm_without_parameters_has_four_bytes() {
    is_laid_out(b"\x00\x02\x00\x00", PasswordAlgorithm { number: 2, parameters: b"" });
}

#[test]
fn password_algorithm_shorter_than_announced_is_malformed() {
    for value in [&b""[..], b"\x00\x01\x00", b"\x00\x01\x00\x01", b"\x00\x01\xff\xff1234"] {
        assert_eq!(decodes::<PasswordAlgorithm<'_>>(value), Err(Malformed), "{value:?}");
    }
}

#[test]
fn password_algorithm_has_nothing_behind_its_parameters_but_their_padding() {
    is_laid_out(b"\x00\x03\x00\x01x\0\0\0", PasswordAlgorithm { number: 3, parameters: b"x" });
    let unpadded = PasswordAlgorithm { number: 3, parameters: b"x" };
    assert_eq!(decodes(b"\x00\x03\x00\x01x"), Ok(unpadded));
    for value in
        [&b"\x00\x01\x00\x00\x00\x02\x00\x00"[..], b"\x00\x01\x00\x00x", b"\x00\x03\x00\x01xyz"]
    {
        assert_eq!(decodes::<PasswordAlgorithm<'_>>(value), Err(Malformed), "{value:?}");
    }
}

#[test]
fn unknown_attributes_are_pairs_of_bytes() {
    let types = [AttributeType(0x7F00), AttributeType(0x7F02)];
    let mut wire = Vec::new();
    UnknownAttributes(&types).encode(&mut wire);
    assert_eq!(wire, b"\x7f\x00\x7f\x02");
    assert_eq!(UnknownAttributes::types(&wire), Ok(types.to_vec()));
    assert_eq!(UnknownAttributes::types(b""), Ok(vec![]));
    assert_eq!(UnknownAttributes::types(b"\x7f\x00\x7f"), Err(Malformed));
}
