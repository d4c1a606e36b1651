//! ChannelData: a channel number, a length, and bytes for the peer (RFC 8656 §12.4).

use super::error::{Malformed, ParseError};

/// Bytes in front of the application data.
pub const HEADER_LEN: usize = 4;

/// Which channel numbers there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ChannelRange {
    /// 0x4000 to 0x4FFF (RFC 8656 §12).
    #[default]
    Rfc8656,
    /// 0x4000 to 0x7FFF, as clients from before RFC 8656 have them (RFC 5766 §11).
    Rfc5766,
}

impl ChannelRange {
    /// The highest number.
    fn last(self) -> u16 {
        match self {
            Self::Rfc8656 => ChannelNumber::MAX.0,
            Self::Rfc5766 => 0x7FFF,
        }
    }

    /// A number of this range.
    pub fn number(self, number: u16) -> Result<ChannelNumber, Malformed> {
        let range = ChannelNumber::MIN.0..=self.last();
        range.contains(&number).then_some(ChannelNumber(number)).ok_or(Malformed)
    }

    /// Whether a message that begins with this byte is ChannelData.
    #[must_use]
    pub fn begins_with(self, first: u8) -> bool {
        let [low, _] = ChannelNumber::MIN.0.to_be_bytes();
        let [high, _] = self.last().to_be_bytes();
        (low..=high).contains(&first)
    }
}

/// A channel number: of RFC 8656 §12, or of the wider range of RFC 5766 where that is accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The lowest number.
    pub const MIN: Self = Self(0x4000);
    /// The highest number of RFC 8656.
    pub const MAX: Self = Self(0x4FFF);

    /// Accepts 0x4000 to 0x4FFF.
    pub fn new(number: u16) -> Result<Self, Malformed> {
        ChannelRange::Rfc8656.number(number)
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
    fn numbers_of_rfc5766_go_up_to_7fff() {
        for number in [0x0000, 0x3FFF, 0x8000, 0xFFFF] {
            assert_eq!(ChannelRange::Rfc5766.number(number), Err(Malformed), "{number:#06x}");
        }
        for number in [0x4000, 0x4FFF, 0x5000, 0x7FFF] {
            assert_eq!(ChannelRange::Rfc5766.number(number).unwrap().number(), number);
        }
        let begins =
            |range: ChannelRange| (0..=255).filter(|&byte| range.begins_with(byte)).count();
        assert_eq!(begins(ChannelRange::Rfc8656), 16);
        assert_eq!(begins(ChannelRange::Rfc5766), 64);
        assert!(
            !ChannelRange::Rfc5766.begins_with(0x80) && !ChannelRange::Rfc8656.begins_with(0x50)
        );
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
