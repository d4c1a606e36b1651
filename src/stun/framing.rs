//! Where messages end in a byte stream (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! A datagram says how long it is; over TCP and TLS only the length fields do, so whatever is
//! neither a STUN header nor ChannelData leaves no way to find the next message.

use super::channel::{self, ChannelRange};
use super::error::ParseError;
use super::message::{self, MAGIC_COOKIE};

/// How many bytes of a stream the first message takes, its padding included. `None` while too few
/// have arrived to tell.
///
/// The length is at most 65,555 bytes. An error means that the stream cannot be read any further.
pub fn frame_len(stream: &[u8], channels: ChannelRange) -> Result<Option<usize>, ParseError> {
    match stream.first() {
        None => Ok(None),
        Some(0x00..=0x03) => stun_len(stream),
        Some(&first) if channels.begins_with(first) => Ok(channel_data_len(stream)),
        Some(_) => Err(ParseError::NotStun),
    }
}

/// The cookie is checked as far as it has arrived: nothing else tells STUN from chance.
fn stun_len(stream: &[u8]) -> Result<Option<usize>, ParseError> {
    let cookie = stream.get(4..).unwrap_or_default();
    if !cookie.iter().zip(MAGIC_COOKIE.to_be_bytes()).all(|(&got, wanted)| got == wanted) {
        return Err(ParseError::MagicCookie);
    }
    let Some(&[_, _, l0, l1]) = stream.first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length % 4 != 0 {
        return Err(ParseError::Length);
    }
    Ok(Some(message::HEADER_LEN.saturating_add(length)))
}

fn channel_data_len(stream: &[u8]) -> Option<usize> {
    let &[_, _, l0, l1] = stream.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    Some(channel::HEADER_LEN.saturating_add(length.next_multiple_of(4)))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const RFC8656: ChannelRange = ChannelRange::Rfc8656;
    const BINDING: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";

    #[test]
    fn a_stun_message_is_its_header_and_its_length() {
        assert_eq!(frame_len(&BINDING, RFC8656), Ok(Some(20)));
        let mut long = BINDING;
        long[2..4].copy_from_slice(&0xFFFC_u16.to_be_bytes());
        assert_eq!(frame_len(&long, RFC8656), Ok(Some(65_552)));
    }

    #[test]
    fn channel_data_is_padded_to_four() {
        for (length, frame) in [(0, 4), (1, 8), (3, 8), (4, 8), (5, 12), (65_535, 65_540)] {
            let [l0, l1] = u16::to_be_bytes(length);
            assert_eq!(frame_len(&[0x40, 0, l0, l1], RFC8656), Ok(Some(frame)), "{length}");
        }
    }

    #[test]
    fn four_bytes_tell_and_fewer_do_not() {
        for stream in [&BINDING[..], b"\x4f\xff\x00\x00"] {
            for length in 0..4 {
                assert_eq!(frame_len(&stream[..length], RFC8656), Ok(None), "{length} bytes");
            }
            assert!(frame_len(&stream[..4], RFC8656).unwrap().is_some());
        }
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for first in (0x04..=0x3F).chain(0x50..=0xFF) {
            assert_eq!(frame_len(&[first], RFC8656), Err(ParseError::NotStun), "{first:#04x}");
        }
        let mut odd = BINDING;
        odd[3] = 2;
        assert_eq!(frame_len(&odd, RFC8656), Err(ParseError::Length));
    }

    #[test]
    fn channels_of_rfc5766_end_the_stream_unless_they_are_accepted() {
        for first in 0x50..=0x7F {
            let stream = [first, 0, 0, 1];
            assert_eq!(frame_len(&stream, ChannelRange::Rfc5766), Ok(Some(8)), "{first:#04x}");
        }
        assert_eq!(frame_len(&[0x80], ChannelRange::Rfc5766), Err(ParseError::NotStun));
    }

    #[test]
    fn a_wrong_cookie_is_seen_at_its_first_wrong_byte() {
        for at in 4..8 {
            let mut wrong = BINDING;
            wrong[at] ^= 1;
            assert_eq!(frame_len(&wrong[..=at], RFC8656), Err(ParseError::MagicCookie));
            assert_eq!(frame_len(&wrong[..at], RFC8656), Ok(Some(20)), "not seen yet");
        }
    }
}
