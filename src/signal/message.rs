//! What is said: JSON in and out. `payload` is carried, not read.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{MAX_DEPTH, MAX_META_BYTES, MAX_NAME_BYTES, SERVER, Text};

/// Types that only the hub sends: from a peer they would deceive.
const RESERVED: [&str; 7] =
    ["bye", "error", "peer-joined", "peer-left", "peers", "pong", "welcome"];

/// What a client said.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    /// The id wished for, in a join; the hub knows who speaks.
    #[serde(default)]
    pub(super) from: Option<String>,
    #[serde(default)]
    pub(super) to: Option<String>,
    #[serde(default)]
    pub(super) room: Option<String>,
    /// Carried to the letter: `null` is a payload, too.
    #[serde(borrow, default, deserialize_with = "as_it_is")]
    pub(super) payload: Option<&'a RawValue>,
}

fn as_it_is<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// The payload of a join, the only one that the hub reads.
#[derive(Debug, Default, Deserialize)]
pub(super) struct JoinPayload<'a> {
    #[serde(default)]
    pub(super) token: Option<String>,
    #[serde(default)]
    pub(super) secret: Option<String>,
    #[serde(borrow, default)]
    pub(super) meta: Option<&'a RawValue>,
}

impl<'a> Incoming<'a> {
    /// Reads a message. Empty names are names left out.
    pub(super) fn parse(text: &'a str) -> Result<Self, Problem> {
        if !is_shallow(text) {
            return Err(Problem::Malformed);
        }
        let mut incoming: Self = serde_json::from_str(text).map_err(|_| Problem::Malformed)?;
        for name in [&mut incoming.from, &mut incoming.to, &mut incoming.room] {
            *name = name.take().filter(|name| !name.is_empty());
        }
        let names = [&incoming.from, &incoming.to, &incoming.room].into_iter().flatten();
        if !is_name(&incoming.kind) || !names.into_iter().all(|name| is_name(name)) {
            return Err(Problem::Malformed);
        }
        Ok(incoming)
    }

    /// Whether only the hub may say so.
    pub(super) fn is_reserved(&self) -> bool {
        RESERVED.contains(&&*self.kind)
    }

    pub(super) fn join_payload(&self) -> Result<JoinPayload<'a>, Problem> {
        let Some(raw) = self.payload else { return Ok(JoinPayload::default()) };
        let payload: Option<JoinPayload<'a>> =
            serde_json::from_str(raw.get()).map_err(|_| Problem::Malformed)?;
        let payload = payload.unwrap_or_default();
        if payload.meta.is_some_and(|meta| meta.get().len() > MAX_META_BYTES) {
            return Err(Problem::Malformed);
        }
        Ok(payload)
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Counts brackets outside of strings. Whether they match is the parser's business.
fn is_shallow(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    true
}

/// What is said to a client.
#[derive(Debug, Serialize)]
pub(super) struct Outgoing<'a, P> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<P>,
}

impl<'a, P: Serialize> Outgoing<'a, P> {
    /// From the hub.
    pub(super) fn server(kind: &'a str, payload: P) -> Self {
        Self { kind, from: SERVER, to: None, room: None, payload: Some(payload) }
    }

    pub(super) fn to(mut self, to: Option<&'a str>) -> Self {
        self.to = to;
        self
    }

    pub(super) fn room(mut self, room: &'a str) -> Self {
        self.room = Some(room);
        self
    }

    pub(super) fn text(&self) -> Text {
        serde_json::to_string(self).expect("strings, numbers and JSON make JSON").into()
    }
}

/// The payload of `welcome`.
#[derive(Debug, Serialize)]
pub(super) struct Welcome<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    #[serde(rename = "iceServers")]
    pub(super) ice_servers: &'a RawValue,
    /// Of the ICE servers, in seconds.
    pub(super) ttl: u64,
    /// Of pings, in seconds.
    pub(super) heartbeat: u64,
    pub(super) resumed: bool,
}

/// The payload of `ice-servers`.
#[derive(Debug, Serialize)]
pub(super) struct Ice<'a> {
    #[serde(rename = "iceServers")]
    pub(super) ice_servers: &'a RawValue,
    pub(super) ttl: u64,
}

/// The payload of `peers`.
#[derive(Debug, Serialize)]
pub(super) struct Peers<'a> {
    pub(super) peers: Vec<PeerEntry<'a>>,
}

/// One peer as another one sees it: the payload of `peer-joined`.
#[derive(Debug, Serialize)]
pub(super) struct PeerEntry<'a> {
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meta: Option<&'a RawValue>,
    /// Whether the reader is the polite one of the two.
    pub(super) polite: bool,
}

/// The payload of `peer-left`.
#[derive(Debug, Serialize)]
pub(super) struct Left<'a> {
    pub(super) id: &'a str,
}

/// The payload of `error` and `bye`.
#[derive(Debug, Serialize)]
pub(super) struct Said<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// Whom the message that failed was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<&'a str>,
}

/// What a client did wrong, or could not have. The connection stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Problem {
    /// The id is not one that this client may have.
    IdForbidden,
    /// Another connection holds the id, and the secret was not its own.
    IdTaken,
    /// No JSON object with a type, or fields that are not what they should be.
    Malformed,
    /// Neither `to` nor `room`.
    MissingTarget,
    /// Before the first join.
    NotJoined,
    /// Nobody of this name can be reached by this client.
    PeerOffline,
    /// More often than allowed.
    RateLimited,
    /// A type that only the hub sends.
    ReservedType,
    /// Unknown, full or forbidden: which one is nobody's business.
    RoomUnavailable,
    /// As many rooms as a peer may be in.
    TooManyRooms,
    /// No token, or one that is not good.
    Unauthorized,
}

impl Problem {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::IdForbidden,
        Self::IdTaken,
        Self::Malformed,
        Self::MissingTarget,
        Self::NotJoined,
        Self::PeerOffline,
        Self::RateLimited,
        Self::ReservedType,
        Self::RoomUnavailable,
        Self::TooManyRooms,
        Self::Unauthorized,
    ];

    /// For programs, and the label of the metric.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.words().0
    }

    pub(super) fn message(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::IdForbidden => ("id-forbidden", "This id is not yours to have"),
            Self::IdTaken => ("id-taken", "This id is taken"),
            Self::Malformed => ("malformed", "Not a message of this protocol"),
            Self::MissingTarget => ("missing-target", "Needs a \"to\" or a \"room\""),
            Self::NotJoined => ("not-joined", "Join first"),
            Self::PeerOffline => ("peer-offline", "Target peer not online"),
            Self::RateLimited => ("rate-limited", "Too often, try again later"),
            Self::ReservedType => ("reserved-type", "Only the server sends this type"),
            Self::RoomUnavailable => ("room-unavailable", "Room not available"),
            Self::TooManyRooms => ("too-many-rooms", "In as many rooms as one may be"),
            Self::Unauthorized => ("unauthorized", "A valid token is needed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_numbered_as_they_are_listed() {
        for (at, problem) in Problem::ALL.into_iter().enumerate() {
            assert_eq!(problem as usize, at, "{problem:?}");
        }
    }

    #[test]
    fn brackets_in_strings_are_not_depth() {
        let deep = |by: usize| format!("{}{}", "[".repeat(by), "]".repeat(by));
        assert!(is_shallow(&deep(MAX_DEPTH)));
        assert!(!is_shallow(&deep(MAX_DEPTH + 1)));
        assert!(is_shallow(&format!("\"{}\"", deep(10_000))));
        assert!(is_shallow(&format!("\"\\\"{}\"", deep(10_000))));
        assert!(!is_shallow(&format!("\"\\\\\"{}", deep(10_000))));
    }

    #[test]
    fn what_is_not_read_is_carried_to_the_letter() {
        let text = r#"{"type":"x","to":"b","payload": { "a" : 1e400, "b":"\u0000" } ,"more":[]}"#;
        let incoming = Incoming::parse(text).unwrap();
        assert_eq!(incoming.payload.unwrap().get(), r#"{ "a" : 1e400, "b":"\u0000" }"#);
        let null = Incoming::parse(r#"{"type":"x","to":"b","payload":null}"#).unwrap();
        assert_eq!(null.payload.unwrap().get(), "null");
        assert!(Incoming::parse(r#"{"type":"x","to":"b"}"#).unwrap().payload.is_none());
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for text in [
            "",
            "null",
            "[]",
            "{}",
            "\"join\"",
            r#"{"type":""}"#,
            r#"{"type":1}"#,
            r#"{"type":1e400}"#,
            r#"{"type":"x","to":1}"#,
            r#"{"type":"x","to":["a"]}"#,
            r#"{"type":"x","type":"y"}"#,
            r#"{"type":"x","from":"a","from":"b"}"#,
            r#"{"type":"x","to":"a\nb"}"#,
            r#"{"type":"x"} {"#,
            r#"{"type":"x","payload":}"#,
            r#"{"type":"x","payload":[}"#,
            &format!(r#"{{"type":"{long}"}}"#),
            &format!(r#"{{"type":"x","room":"{long}"}}"#),
            &format!(r#"{{"type":"x","payload":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)),
        ] {
            assert_eq!(Incoming::parse(text).unwrap_err(), Problem::Malformed, "{text}");
        }
        assert!(Incoming::parse(r#"{"type":"x","__proto__":{},"constructor":1}"#).is_ok());
    }
}
