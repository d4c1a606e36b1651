//! ChannelData: a channel number, a length, and bytes for the peer (RFC 8656 §12.4).

use super::error::{Malformed, ParseError};

/// Bytes in front of the application data.
pub const HEADER_LEN: usize = 4;

/// A channel number that RFC 8656 §12 allows: 0x4000 to 0x4FFF.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The lowest number.
    pub const MIN: Self = Self(0x4000);
    /// The highest number.
    pub const MAX: Self = Self(0x4FFF);

    /// Accepts 0x4000 to 0x4FFF.
    pub fn new(number: u16) -> Result<Self, Malformed> {
        let number = Self(number);
        (Self::MIN..=Self::MAX).contains(&number).then_some(number).ok_or(Malformed)
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A ChannelData message, borrowed from the datagram it came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelData<'a> {
    /// The number as sent; it need not be bound, nor lie in the range that can be.
    pub number: u16,
    /// The application data, without padding.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads one datagram. Bytes past the announced length are padding and not part of `data`
    /// (RFC 8656 §12.6); fewer bytes than announced are an error.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let (&[n0, n1, l0, l1], rest) =
            datagram.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let data = rest.get(..length).ok_or(ParseError::Length)?;
        Ok(Self { number: u16::from_be_bytes([n0, n1]), data })
    }
}

/// The four bytes in front of `length` bytes of data.
#[must_use]
pub fn header(number: ChannelNumber, length: u16) -> [u8; HEADER_LEN] {
    let [n0, n1] = number.0.to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    [n0, n1, l0, l1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_numbers_outside_4000_to_4fff_are_refused() {
        for number in [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF] {
            assert_eq!(ChannelNumber::new(number), Err(Malformed), "{number:#06x}");
        }
        assert_eq!(ChannelNumber::new(0x4000), Ok(ChannelNumber::MIN));
        assert_eq!(ChannelNumber::new(0x4FFF), Ok(ChannelNumber::MAX));
    }

    #[test]
    fn bytes_past_the_length_are_padding() {
        let parsed = ChannelData::parse(b"\x40\x01\x00\x02ab\0\0").unwrap();
        assert_eq!(parsed, ChannelData { number: 0x4001, data: b"ab" });
    }

    #[test]
    fn shorter_than_announced_is_refused() {
        assert_eq!(ChannelData::parse(b"\x40\x01\x8a\xb6abc"), Err(ParseError::Length));
        assert_eq!(ChannelData::parse(b"\x40\x00"), Err(ParseError::Truncated));
    }

    #[test]
    fn empty_data_is_legal() {
        assert_eq!(ChannelData::parse(b"\x40\x01\x00\x00").unwrap().data, b"");
    }
}
