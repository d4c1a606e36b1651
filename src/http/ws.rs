//! WebSocket (RFC 6455): the handshake, and one task for each connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, Stream, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};
use tracing::debug;

use super::origin::only;
use super::signaling::{Attachment, End, Outbound, Shared};
use super::{CLOSE_TIMEOUT, Client};
use crate::signal::{Authority, CloseReason, MAX_MESSAGE_BYTES, Refused};

/// RFC 6455 §1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocol that is spoken, whether it is asked for or not.
const SUBPROTOCOL: &str = "hairpin";
/// What a token in the list of subprotocols begins with.
const TOKEN_PREFIX: &str = "hairpin.token.";
/// Read at a time. Most messages are small, and every idle connection has such a buffer.
const READ_BUFFER_BYTES: usize = 4096;
/// Written at a time.
const WRITE_BUFFER_BYTES: usize = 4096;
/// What may come in between two messages: one message in any number of frames. Without it
/// fragments without content would never end.
const INFLOW_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// The handshake is answered; so long may it take until the connection is ours.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);
/// What is thrown away at the end. Without reading it, the system would tear the connection down
/// before the client has seen why.
const DISCARDED_BYTES: u64 = 16 * 1024 * 1024;
/// RFC 6455 §7.4.2: private codes begin here.
const REPLACED: u16 = 4000;

#[derive(Deserialize)]
pub(super) struct Parameters {
    token: Option<String>,
}

/// Answers the opening handshake, and goes on as a connection of the hub.
pub(super) async fn upgrade(
    State(shared): State<Shared>,
    Extension(client): Extension<Client>,
    Query(parameters): Query<Parameters>,
    mut request: Request,
) -> Response {
    let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let headers = request.headers();
    if shared.origins.allowed(headers, client.encrypted).is_none() {
        count(&shared.refused.origin);
        return (StatusCode::FORBIDDEN, "origin not allowed\n").into_response();
    }
    let accept = match accept_key(headers, request.version()) {
        Ok(accept) => accept,
        Err(refusal) => {
            count(&shared.refused.handshake);
            return refusal.into_response();
        }
    };
    let (subprotocol, token) = subprotocols(headers);
    let token = parameters.token.as_deref().or(token);
    let grant = token.and_then(|token| shared.issuer.grant(token));
    if token.is_some() && grant.is_none() && !shared.open {
        count(&shared.refused.token);
        return (StatusCode::UNAUTHORIZED, "the token is not good\n").into_response();
    }
    let attachment = match shared.connect(client.address.ip(), grant) {
        Ok(attachment) => attachment,
        Err(refused) => {
            count(match refused {
                Refused::Full => &shared.refused.full,
                Refused::SourceFull => &shared.refused.source_full,
            });
            return (StatusCode::SERVICE_UNAVAILABLE, "too many connections\n").into_response();
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(upgrade, attachment));
    let mut response = (
        StatusCode::SWITCHING_PROTOCOLS,
        [(UPGRADE, "websocket"), (CONNECTION, "upgrade"), (SEC_WEBSOCKET_ACCEPT, &accept)],
    )
        .into_response();
    if subprotocol && let Ok(value) = SUBPROTOCOL.parse() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    response
}

/// Why a handshake is none.
enum NoHandshake {
    Request(&'static str),
    Upgrade,
    Version,
}

impl IntoResponse for NoHandshake {
    fn into_response(self) -> Response {
        match self {
            Self::Request(text) => (StatusCode::BAD_REQUEST, text).into_response(),
            Self::Upgrade => {
                let upgrade = [(UPGRADE, "websocket")];
                let text = "WebSocket is spoken here\n";
                (StatusCode::UPGRADE_REQUIRED, upgrade, text).into_response()
            }
            Self::Version => {
                let version = [(SEC_WEBSOCKET_VERSION, "13")];
                (StatusCode::UPGRADE_REQUIRED, version, "version 13\n").into_response()
            }
        }
    }
}

/// Checks the handshake of RFC 6455 §4.2.1, and makes the answer to its key.
fn accept_key(headers: &HeaderMap, version: Version) -> Result<String, NoHandshake> {
    let names = |header: HeaderName, wanted: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    if version != Version::HTTP_11 || only(headers, HOST.as_str()).is_none() {
        return Err(NoHandshake::Request("WebSocket needs HTTP/1.1 and a host\n"));
    }
    if !names(UPGRADE, "websocket") || !names(CONNECTION, "upgrade") {
        return Err(NoHandshake::Upgrade);
    }
    if only(headers, SEC_WEBSOCKET_VERSION.as_str()) != Some("13") {
        return Err(NoHandshake::Version);
    }
    let key = only(headers, SEC_WEBSOCKET_KEY.as_str())
        .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
        .ok_or(NoHandshake::Request("the key must be 16 bytes in base64\n"))?;
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SUFFIX);
    Ok(STANDARD.encode(hash.finalize()))
}

/// Whether our subprotocol is asked for, and the token in the list.
fn subprotocols(headers: &HeaderMap) -> (bool, Option<&str>) {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let items: Vec<_> = values.flat_map(|list| list.split(',')).map(str::trim).collect();
    let token = items.iter().find_map(|item| item.strip_prefix(TOKEN_PREFIX));
    (items.contains(&SUBPROTOCOL), token)
}

/// How a connection ends.
enum Ending {
    /// The client said goodbye, for good or not, and has its answer.
    Left(CloseReason),
    /// Without a word.
    Gone,
    /// It broke the rules.
    Fault(CloseCode),
    /// The hub wants it.
    Hub,
}

async fn serve(upgrade: OnUpgrade, mut attachment: Attachment) {
    let Ok(Ok(upgraded)) = timeout(UPGRADE_TIMEOUT, upgrade).await else {
        return debug!("the handshake was answered, and the client gone");
    };
    let inflow = Arc::new(AtomicUsize::new(0));
    let stream = Inflow { stream: TokioIo::new(upgraded), bytes: Arc::clone(&inflow) };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let ending = tokio::select! {
        // The hub's word first: what comes in behind it is nobody's.
        biased;
        () = attachment.bell.end.notified() => Ending::Hub,
        ending = write(&mut sink, &attachment) => ending,
        ending = read(&mut source, &inflow, &attachment) => ending,
    };
    attachment.reason = match &ending {
        Ending::Left(reason) => *reason,
        Ending::Gone | Ending::Hub => CloseReason::Gone,
        Ending::Fault(_) => CloseReason::ProtocolError,
    };
    if let Ok(socket) = sink.reunite(source) {
        let _ = timeout(CLOSE_TIMEOUT, close(socket, ending, attachment)).await;
    }
}

/// Sends what waits, whenever there is something.
async fn write(
    sink: &mut (impl futures_util::Sink<Message> + Unpin),
    attachment: &Attachment,
) -> Ending {
    loop {
        let Some(item) = attachment.pop() else {
            if sink.flush().await.is_err() {
                return Ending::Gone;
            }
            attachment.bell.send.notified().await;
            continue;
        };
        if sink.feed(item.into()).await.is_err() {
            return Ending::Gone;
        }
    }
}

/// Hands the hub what comes in.
async fn read(
    source: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    inflow: &AtomicUsize,
    attachment: &Attachment,
) -> Ending {
    while let Some(message) = source.next().await {
        // The hub counts messages, and so it bounds this too.
        inflow.store(0, Ordering::Relaxed);
        match message {
            Ok(Message::Text(text)) => attachment.handle_text(&text),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                attachment.handle_control();
            }
            Ok(Message::Binary(_)) => return Ending::Fault(CloseCode::Unsupported),
            Ok(Message::Close(frame)) => return Ending::Left(goodbye(frame.as_ref())),
            Err(error) => return ending_of(&error),
        }
    }
    Ending::Gone
}

/// Whether a goodbye is for good. Codes from 4000 are for programs (RFC 6455 §7.4.2); here they mean
/// that the client will be back, as after a change of networks.
fn goodbye(frame: Option<&CloseFrame>) -> CloseReason {
    match frame.map(|frame| u16::from(frame.code)) {
        Some(4000..=4999) => CloseReason::Gone,
        _ => CloseReason::Left,
    }
}

fn ending_of(error: &Error) -> Ending {
    match error {
        Error::Capacity(_) => Ending::Fault(CloseCode::Size),
        Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Ending::Fault(CloseCode::Size)
        }
        Error::Utf8(_) => Ending::Fault(CloseCode::Invalid),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Gone,
        Error::Protocol(_) => Ending::Fault(CloseCode::Protocol),
        _ => Ending::Gone,
    }
}

/// Says goodbye in the way that fits, and lets the other side have the time to hear it.
async fn close(
    mut socket: WebSocketStream<Inflow>,
    ending: Ending,
    attachment: Attachment,
) -> Result<(), Error> {
    let (code, bye) = match ending {
        Ending::Gone => return Ok(()),
        // The answer to the client's goodbye waits in the codec.
        Ending::Left(_) => return socket.flush().await,
        Ending::Fault(code) => (code, None),
        Ending::Hub => match attachment.end() {
            Some(End { reason, bye }) => (code_of(reason), Some(bye)),
            None => (CloseCode::Away, None),
        },
    };
    while let Some(item) = attachment.pop() {
        socket.feed(item.into()).await?;
    }
    if let Some(bye) = bye {
        socket.feed(Outbound::Text(bye).into()).await?;
    }
    socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() })).await?;
    // All is said; its place is free from here on.
    drop(attachment);
    let stream = &mut socket.get_mut().stream;
    stream.shutdown().await.map_err(Error::Io)?;
    let mut rest = stream.take(DISCARDED_BYTES);
    let mut scratch = [0; READ_BUFFER_BYTES];
    while rest.read(&mut scratch).await.map_err(Error::Io)? > 0 {}
    Ok(())
}

fn code_of(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Gone | CloseReason::Left | CloseReason::Shutdown => CloseCode::Away,
        CloseReason::ProtocolError => CloseCode::Protocol,
        CloseReason::Replaced => CloseCode::from(REPLACED),
        CloseReason::NotJoined
        | CloseReason::RateLimited
        | CloseReason::Silent
        | CloseReason::Slow
        | CloseReason::TokenExpired => CloseCode::Policy,
    }
}

impl From<Outbound> for Message {
    fn from(item: Outbound) -> Self {
        match item {
            Outbound::Text(text) => Self::Text(Utf8Bytes::from(&*text)),
            Outbound::Ping => Self::Ping(Bytes::new()),
        }
    }
}

/// A stream that fails when more comes in than a message can be made of.
#[derive(Debug)]
struct Inflow {
    stream: TokioIo<Upgraded>,
    /// Since the last message; whoever gets the messages sets it back.
    bytes: Arc<AtomicUsize>,
}

impl AsyncRead for Inflow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.load(Ordering::Relaxed) > INFLOW_BYTES {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.bytes.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Inflow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
