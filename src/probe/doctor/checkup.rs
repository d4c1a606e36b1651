//! The steps that STUN and TURN servers have in common: from the name to the first answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::stun::message::METHOD_BINDING;
use ::turn::auth::generate_long_term_credentials;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::cause;
use super::client::{Client, Failure, elapsed};
use super::dtls;
use super::relaying;
use super::report::{Fault, Report, State, Step, Visit};
use super::tls::{self, Secured, Trust};
use super::traffic::Tally;
use super::uri::{Transport, Uri};
use super::wire::Wire;
use crate::net::clock;
use crate::probe::message::{Answer, Request};
use crate::probe::resolve::wildcard;

/// Between two Binding requests whose round trips are measured.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long credentials made of a secret are good.
pub(super) const CREDENTIALS: Duration = Duration::from_secs(3600);

/// Who asks for an allocation.
#[derive(Clone)]
pub enum Credentials {
    /// A user of the server.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Whoever knows the shared secret: TURN REST.
    Secret(String),
}

/// Without what is secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Secret(_) => f.write_str("Secret"),
        }
    }
}

impl Credentials {
    /// User name and password, good for so long.
    pub(super) fn login(&self, lifetime: Duration) -> (String, String) {
        match self {
            Self::Password { user, password } => (user.clone(), password.clone()),
            // It fails before 1970.
            Self::Secret(secret) => {
                generate_long_term_credentials(secret, lifetime).unwrap_or_default()
            }
        }
    }
}

/// How to examine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for each answer.
    pub limit: Duration,
    /// Datagrams to send through the relay.
    pub count: usize,
    /// For TURN.
    pub credentials: Option<Credentials>,
    /// The realm that the server should have.
    pub realm: Option<String>,
    /// For TLS.
    pub trust: Option<Trust>,
}

/// What is going on.
#[derive(Clone, Debug)]
pub struct Doing {
    /// With which address; none while it is looked up.
    pub address: Option<SocketAddr>,
    /// The step.
    pub step: &'static str,
    /// How long it may take.
    pub limit: Duration,
}

/// Goes through all steps with all addresses of a URI's host.
pub async fn examine(uri: &Uri, options: &Options, mut doing: impl FnMut(Doing)) -> Report {
    doing(Doing { address: None, step: "resolve", limit: options.limit });
    let start = clock::now().instant;
    let found = uri.host.resolve(uri.port(), options.limit).await;
    let list = |addresses: &[SocketAddr]| {
        addresses.iter().map(|it| it.ip().to_string()).collect::<Vec<_>>().join(", ")
    };
    let (addresses, outcome) = match found {
        Ok(addresses) => {
            let detail = list(&addresses);
            (addresses, Ok(detail))
        }
        Err(error) => {
            let cause = "the name has no address: it is misspelt, or not in DNS, or DNS is not \
                         reached from here";
            (Vec::new(), Err(Fault::new(error, cause, "see the name, and the DNS of its domain")))
        }
    };
    let resolve = step("resolve", outcome, elapsed(start), options.limit);
    let is_alone = addresses.len() < 2;
    let mut visits = Vec::new();
    for address in addresses {
        let mut log = Log { address, steps: Vec::new(), doing: &mut doing };
        visit(&mut log, uri, options, address, is_alone).await;
        visits.push(Visit { address, steps: log.steps });
    }
    Report { uri: uri.clone(), resolve, visits }
}

/// Writes down how steps end.
pub(super) struct Log<'f> {
    address: SocketAddr,
    steps: Vec<Step>,
    doing: &'f mut dyn FnMut(Doing),
}

/// A step under way.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    name: &'static str,
    at: Instant,
    limit: Duration,
}

impl Log<'_> {
    pub(super) fn begin(&mut self, name: &'static str, limit: Duration) -> Begun {
        (self.doing)(Doing { address: Some(self.address), step: name, limit });
        Begun { name, at: clock::now().instant, limit }
    }

    /// Ends a step with what it found and what to say of it.
    pub(super) fn end<T>(
        &mut self,
        begun: Begun,
        outcome: Result<(T, String), Fault>,
    ) -> Option<T> {
        let (value, outcome) = match outcome {
            Ok((value, detail)) => (Some(value), Ok(detail)),
            Err(fault) => (None, Err(fault)),
        };
        self.steps.push(step(begun.name, outcome, elapsed(begun.at), begun.limit));
        value
    }

    pub(super) fn skip(&mut self, begun: Begun, why: String) {
        let mut skipped = step(begun.name, Ok(why), elapsed(begun.at), begun.limit);
        skipped.state = State::Skipped;
        self.steps.push(skipped);
    }

    /// Turns the last step into one that somebody should know of.
    pub(super) fn warn(&mut self, cause: String, change: String) {
        if let Some(last) = self.steps.last_mut() {
            last.state = State::Warning;
            (last.cause, last.change) = (Some(cause), Some(change));
        }
    }
}

fn step(
    name: &'static str,
    outcome: Result<String, Fault>,
    took: Duration,
    limit: Duration,
) -> Step {
    let (state, detail, advice) = match outcome {
        Ok(detail) => (State::Fine, detail, None),
        Err(fault) => (State::Failed, fault.detail, Some((fault.cause, fault.change))),
    };
    let (cause, change) = advice.unzip();
    Step { name, state, detail, cause, change, took, limit }
}

async fn visit(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    server: SocketAddr,
    is_alone: bool,
) -> Option<()> {
    if !is_alone && has_no_route(server).await {
        let begun = log.begin("connect", options.limit);
        log.skip(begun, format!("this machine has no route to {}", server.ip()));
        return None;
    }
    let wire = connect(log, uri, options, server).await?;
    let mut client = Client::new(wire, options.limit);
    binding(log, uri, options, server, &mut client).await?;
    match uri.relays {
        true => relaying::examine(log, uri, options, server, client).await,
        false => round_trips(log, options, &mut client).await,
    }
}

async fn has_no_route(server: SocketAddr) -> bool {
    let connected = Wire::udp(server).await;
    connected.is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
}

async fn connect(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    server: SocketAddr,
) -> Option<Wire> {
    let fault = |error| cause::unreachable(&error, server, uri.transport, options.limit);
    let begun = log.begin("connect", options.limit);
    if uri.transport == Transport::Dtls {
        return secure_datagrams(log, uri, options, server).await;
    }
    if uri.transport == Transport::Udp {
        // Sends nothing: there is only something to say where it fails.
        return match Wire::udp(server).await {
            Ok(wire) => Some(wire),
            Err(error) => log.end(begun, Err(fault(error))),
        };
    }
    let connected = timeout(options.limit, TcpStream::connect(server)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.and_then(|it| it.set_nodelay(true).map(|()| it));
    let stream = log.end(begun, stream.map(|it| (it, "TCP".to_owned())).map_err(fault))?;
    if uri.transport == Transport::Tcp {
        return Some(Wire::tcp(stream));
    }
    secure(log, uri, options, stream).await
}

async fn secure(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    stream: TcpStream,
) -> Option<Wire> {
    let begun = log.begin("tls", options.limit);
    let Some(trust) = &options.trust else {
        log.skip(begun, "nobody to trust".to_owned());
        return None;
    };
    let now = clock::now().unix_secs;
    let secured = timeout(options.limit, tls::secure(stream, &uri.host.name, trust, now)).await;
    let secured = secured.unwrap_or_else(|_| {
        Err(Fault::new(
            format!("no answer within {:?}", options.limit),
            "the server does not answer the handshake: this port may not speak TLS",
            "use the server's TLS port; in hairpin, TLS needs [tls] cert and key",
        ))
    });
    accept(log, begun, secured).map(Wire::tls)
}

async fn secure_datagrams(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    server: SocketAddr,
) -> Option<Wire> {
    let limit = options.limit;
    // For the handshake, and, where nobody answers it, for whoever else is there.
    let begun = log.begin("dtls", limit * 2);
    let Some(trust) = &options.trust else {
        log.skip(begun, "nobody to trust".to_owned());
        return None;
    };
    let now = clock::now().unix_secs;
    let secured = match timeout(limit, dtls::secure(server, &uri.host.name, trust, now)).await {
        Ok(Ok(secured)) => Ok(secured),
        Ok(Err(dtls::Failure::Fault(fault))) => Err(fault),
        Ok(Err(dtls::Failure::Io(error))) => {
            Err(cause::unreachable(&error, server, uri.transport, limit))
        }
        Err(_) => Err(dtls::silence(server, limit, speaks_stun(server, limit).await)),
    };
    accept(log, begun, secured).map(Wire::dtls)
}

/// Ends the step of a handshake.
fn accept<S>(log: &mut Log<'_>, begun: Begun, secured: Result<Secured<S>, Fault>) -> Option<S> {
    let secured = log.end(begun, secured.map(|it| ((it.stream, it.warning), it.detail)))?;
    let (stream, warning) = secured;
    if let Some((cause, change)) = warning {
        log.warn(cause, change);
    }
    Some(stream)
}

/// Whether the port answers a Binding request without DTLS around it.
async fn speaks_stun(server: SocketAddr, limit: Duration) -> bool {
    let Ok(wire) = Wire::udp(server).await else { return false };
    Client::new(wire, limit).ask(METHOD_BINDING, |request| request).await.is_ok()
}

async fn binding(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    server: SocketAddr,
    client: &mut Client,
) -> Option<()> {
    // Once as usual, and once more for an answer from elsewhere.
    let begun = log.begin("binding", options.limit * 2);
    let answer = client.ask(METHOD_BINDING, |request| request).await;
    let outcome = match answer {
        Ok(answer) => match (answer.mapped(), answer.error()) {
            (Some(mapped), None) => Ok(((), seen_as(mapped, &answer))),
            // Some TURN servers answer no strangers.
            (_, Some((401, _))) => Ok(((), "401: the server tells no stranger its address".into())),
            (_, Some((code, reason))) => {
                let refused = Failure::Refused { code, reason, alternate: None };
                Err(cause::failure(&refused, server, uri.transport, options.limit))
            }
            (None, None) => {
                let empty = Failure::Empty("XOR-MAPPED-ADDRESS");
                Err(cause::failure(&empty, server, uri.transport, options.limit))
            }
        },
        Err(Failure::Io(error)) => {
            Err(cause::unreachable(&error, server, uri.transport, options.limit))
        }
        Err(_) if uri.transport == Transport::Udp => {
            match answers_from_elsewhere(server, options.limit).await {
                Some(from) => Err(cause::elsewhere(server, from)),
                None => Err(cause::silence(server, uri.transport, options.limit)),
            }
        }
        Err(_) => Err(Fault::new(
            format!("no answer within {:?}", options.limit),
            "what listens there takes the connection and does not speak STUN",
            "see that a TURN server and no web server or proxy is behind this port",
        )),
    };
    log.end(begun, outcome)
}

fn seen_as(mapped: SocketAddr, answer: &Answer) -> String {
    let software = answer.software().map(|name| format!("; the server is {name:?}"));
    format!("you are {mapped}{}", software.unwrap_or_default())
}

/// Who else answers what is sent to the server.
async fn answers_from_elsewhere(server: SocketAddr, limit: Duration) -> Option<SocketAddr> {
    let socket = UdpSocket::bind(wildcard(server)).await.ok()?;
    let id = rand::random();
    socket.send_to(&Request::binding(id).bytes(), server).await.ok()?;
    let mut buffer = [0; 2048];
    let answered = async {
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.ok()?;
            let answer = Answer::parse(&buffer[..length]);
            if answer.is_some_and(|answer| answer.id() == id && answer.is_response()) {
                return Some(from);
            }
        }
    };
    timeout(limit, answered).await.ok().flatten().filter(|from| *from != server)
}

/// Round trips of Binding requests, one after another.
async fn round_trips(log: &mut Log<'_>, options: &Options, client: &mut Client) -> Option<()> {
    let begun = log.begin("round trips", options.limit);
    let mut round_trips = Vec::new();
    let mut sent = 0;
    while sent < options.count && elapsed(begun.at) < options.limit {
        let start = clock::now().instant;
        let left = options.limit.saturating_sub(elapsed(begun.at));
        sent += 1;
        let asked = timeout(left, client.ask(METHOD_BINDING, |request| request)).await;
        if let Ok(Ok(_)) = asked {
            round_trips.push(elapsed(start));
        }
        sleep(INTERVAL).await;
    }
    let tally = Tally::of(sent, round_trips);
    log.end(begun, Ok(((), tally.words())))
}
