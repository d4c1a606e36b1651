//! One client's session: which of its records OpenSSL may see, and what comes of them.
//!
//! OpenSSL keeps what arrives early: records of the next epoch, and messages in fragments of the
//! size they announce, a hundred kilobytes each. So it is given nothing that an honest client
//! would not send, and nothing at all of a handshake once there has been one.

use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, SslContext, SslStream};

use super::engine::{self, Wire};
use super::hello::ClientHello;
use super::record::{self, ContentType, Record};
use crate::net::egress::Route;
use crate::net::stream::Counted;
use crate::net::work::SocketKey;
use crate::turn::{DropReason, FiveTuple};

/// From the verified ClientHello to the end of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How often OpenSSL may look whether the client has been silent for too long, and send again.
/// It waits for one second, then two, then four.
const RETRANSMISSION_LOOK: Duration = Duration::from_secs(1);
/// The longest message of a handshake: a client that shows no certificate has nothing to say that
/// is longer than a public key.
const MESSAGE_LEN_MAX: usize = 1024;
/// The longest record with a Finished message, which is the only one that comes encrypted.
const FINISHED_RECORD_LEN_MAX: usize = 128;
/// How often the end of a handshake may be repeated, by the client and then by us.
const FINISHED_REPEATS_MAX: u8 = 8;

/// How far a session has come.
#[derive(Debug)]
enum Stage {
    Handshake {
        deadline: Instant,
        /// Encrypted records that OpenSSL may still see before it has the keys.
        sealed_left: u8,
        /// Its place among the handshakes, free when there are keys.
        _counted: Counted,
    },
    /// The client may have missed the end of the handshake, as it has not sent anything since.
    Unconfirmed {
        last_flight: Vec<u8>,
        repeats_left: u8,
    },
    Established,
}

/// What came of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// A message of this length.
    Message(usize),
    /// Nothing for TURN.
    Nothing,
    /// The client has closed the session, or it cannot go on.
    End,
}

/// See the module.
pub(super) struct Session {
    stream: SslStream<Wire>,
    wire: Wire,
    stage: Stage,
    pub(super) client: FiveTuple,
    pub(super) back: Route<SocketKey>,
    /// Of the ClientHello that began it, to know its retransmissions.
    pub(super) random: [u8; 32],
    /// What to add to the numbers of OpenSSL's unencrypted records, so that the first one has the
    /// number of the ClientHello (RFC 6347 §4.2.1). It begins with 1.
    sequence_shift: u64,
    /// When to look at it.
    pub(super) due: Instant,
    /// When the client last sent a message.
    heard: Instant,
    _counted: Counted,
}

/// Who begins a session, and how.
pub(super) struct Beginning<'h> {
    pub(super) client: FiveTuple,
    pub(super) back: Route<SocketKey>,
    /// The one whose cookie is good.
    pub(super) hello: &'h ClientHello<'h>,
    /// Its place among the sessions, and among the handshakes.
    pub(super) counted: (Counted, Counted),
}

impl Session {
    /// A session before its handshake.
    pub(super) fn new(
        context: &SslContext,
        wire: &Wire,
        beginning: Beginning<'_>,
        now: Instant,
    ) -> Result<Self, ErrorStack> {
        let Beginning { client, back, hello, counted: (counted, handshake) } = beginning;
        Ok(Self {
            stream: engine::open(context, wire)?,
            wire: wire.clone(),
            stage: Stage::Handshake {
                deadline: now + HANDSHAKE_DEADLINE,
                sealed_left: FINISHED_REPEATS_MAX,
                _counted: handshake,
            },
            client,
            back,
            random: *hello.random,
            sequence_shift: hello.record_sequence.saturating_sub(1),
            due: now + RETRANSMISSION_LOOK,
            heard: now,
            _counted: counted,
        })
    }

    /// Answers the ClientHello, which fills this record.
    pub(super) fn greet(&mut self, record: &[u8]) -> Heard {
        self.wire.feed(record);
        self.shake_hands()
    }

    fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Handshake { .. })
    }

    /// Takes in one record of a datagram. A message is written to the front of the datagram's part
    /// from `filled` to the end of the record, where there is always room for it.
    pub(super) fn hear(
        &mut self,
        record: &Record,
        datagram: &mut [u8],
        filled: usize,
        now: Instant,
    ) -> Result<Heard, DropReason> {
        if !self.has_use_for(record, datagram) {
            return Err(DropReason::DtlsStray);
        }
        self.wire.feed(&datagram[record.range.clone()]);
        if self.is_handshaking() {
            return Ok(self.shake_hands());
        }
        match self.stream.ssl_read(&mut datagram[filled..record.range.end]) {
            Ok(length) => {
                self.stage = Stage::Established;
                // Of what belongs to TURN, as on a stream: junk keeps no session.
                if matches!(datagram[filled..filled + length].first(), Some(0..=3 | 64..=79)) {
                    self.heard = now;
                }
                Ok(Heard::Message(length))
            }
            // Damaged, forged or a repetition; or an alert that is only a warning.
            Err(error) if error.code() == ErrorCode::WANT_READ => Err(DropReason::DtlsStray),
            Err(_) => Ok(Heard::End),
        }
    }

    /// Whether OpenSSL may see a record; see the module.
    fn has_use_for(&mut self, record: &Record, datagram: &[u8]) -> bool {
        use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake};

        match (&mut self.stage, record.content, record.epoch) {
            (Stage::Handshake { .. }, Handshake, 0) => is_modest(record.payload(datagram)),
            (Stage::Handshake { .. }, ChangeCipherSpec, 0) => record.payload(datagram).len() == 1,
            (Stage::Handshake { sealed_left, .. }, Handshake, 1) => {
                let has_use = *sealed_left > 0 && record.range.len() <= FINISHED_RECORD_LEN_MAX;
                *sealed_left = sealed_left.saturating_sub(1);
                has_use
            }
            (Stage::Unconfirmed { last_flight, repeats_left }, Handshake, 1) => {
                // The client repeats the end of the handshake, so ours was lost (RFC 6347 §4.2.4).
                if *repeats_left > 0 {
                    *repeats_left -= 1;
                    self.wire.push(last_flight);
                }
                false
            }
            (Stage::Unconfirmed { .. } | Stage::Established, ApplicationData | Alert, 1) => true,
            // An alert in the clear could be anybody's.
            _ => false,
        }
    }

    fn shake_hands(&mut self) -> Heard {
        match self.stream.do_handshake() {
            Ok(()) => {
                let last_flight = self.wire.output();
                self.stage = Stage::Unconfirmed { last_flight, repeats_left: FINISHED_REPEATS_MAX };
                Heard::Nothing
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Encrypts a message.
    pub(super) fn say(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.stream.ssl_write(message).map_err(|_| DropReason::SendFailed)?;
        Ok(())
    }

    /// Tells the client that nothing follows, if there is a session to tell it in.
    pub(super) fn close(&mut self) {
        // An error means that there is none, or that the client has closed it first.
        let _ = self.stream.shutdown();
    }

    /// Looks after a session that is due: sends again what a handshake waits for, and says whether
    /// the session goes on.
    pub(super) fn look(&mut self, is_allocated: bool, idle: Duration, now: Instant) -> bool {
        if let Stage::Handshake { deadline, .. } = self.stage {
            self.due = deadline.min(now + RETRANSMISSION_LOOK);
            return now < deadline && self.shake_hands() != Heard::End;
        }
        if is_allocated {
            self.due = now + idle;
            return true;
        }
        self.due = self.heard + idle;
        now < self.due
    }

    /// Gives each datagram that OpenSSL has written to `send`, in order.
    pub(super) fn drain(&self, mut send: impl FnMut(&[u8])) {
        self.wire.drain(|datagram| {
            record::shift_sequence(datagram, self.sequence_shift);
            send(datagram);
        });
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// Whether the messages that a record has parts of are all of a reasonable size.
fn is_modest(mut payload: &[u8]) -> bool {
    while !payload.is_empty() {
        match record::take_fragment(&mut payload) {
            Some(fragment) if fragment.message_len <= MESSAGE_LEN_MAX => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_of_long_messages_are_not_modest() {
        let fragment = |announced: u32| {
            let mut fragment = announced.to_be_bytes().to_vec();
            fragment[0] = 16;
            fragment.extend([0, 2, 0, 0, 0, 0, 0, 1, 0xAA]);
            fragment
        };
        assert!(is_modest(&fragment(1024)));
        assert!(!is_modest(&fragment(1025)));
        assert!(!is_modest(&fragment(650_000)));
        assert!(is_modest(&[fragment(66), fragment(66)].concat()));
        assert!(!is_modest(&[fragment(66), fragment(650_000)].concat()), "nor behind others");
        assert!(!is_modest(&fragment(66)[..12]), "cut");
    }
}
