//! From what was seen to causes, and to what should be changed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::client::Failure;
use super::report::Fault;
use super::uri::Transport;
use crate::probe::scope::Scope;

const SECS_PER_DAY: u64 = 24 * 3600;

/// The server cannot be reached at all.
pub(super) fn unreachable(
    error: &io::Error,
    server: SocketAddr,
    transport: Transport,
    limit: Duration,
) -> Fault {
    let port = server.port();
    let over = transport.carrier();
    match error.kind() {
        ErrorKind::ConnectionRefused => Fault::new(
            "refused",
            format!(
                "nothing listens on {over} port {port} of {}: the server is down, or listens \
                     elsewhere",
                server.ip()
            ),
            "start the server; see its `listen`, and that the URI has the right port",
        ),
        ErrorKind::TimedOut => silence(server, transport, limit),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Fault::new(
            error.to_string(),
            format!("there is no route from this machine to {}", server.ip()),
            "see that this machine has a network of that family, and that the address is right",
        ),
        ErrorKind::PermissionDenied => Fault::new(
            error.to_string(),
            "a firewall of this machine forbids to send there",
            format!("let {over} to port {port} out"),
        ),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Fault::new(
                error.to_string(),
                "the server, or something in front of it, closed the connection",
                "see that a TURN server and no web server or proxy is behind this port",
            )
        }
        ErrorKind::InvalidData => Fault::new(
            error.to_string(),
            "what listens there is no STUN server",
            "see that the URI has the right port, and that turns: is used where TLS is spoken",
        ),
        _ => Fault::new(
            error.to_string(),
            format!("{server} cannot be reached"),
            "see that the address is right",
        ),
    }
}

/// Nobody answered.
pub(super) fn silence(server: SocketAddr, transport: Transport, limit: Duration) -> Fault {
    let port = server.port();
    let over = transport.carrier();
    Fault::new(
        format!("no answer within {limit:?}"),
        format!(
            "{over} port {port} is filtered by a firewall, or the host {} is down",
            server.ip()
        ),
        format!(
            "open {over} port {port} in the server's firewall and in its provider's security group; \
             see that this network lets {over} out"
        ),
    )
}

/// An answer came, but not from where it was asked for.
pub(super) fn elsewhere(server: SocketAddr, from: SocketAddr) -> Fault {
    Fault::new(
        format!("UDP answered from {from}"),
        format!(
            "the server was asked at {server} and answers from another address, which clients and \
             their NATs take for a stranger"
        ),
        "let the server listen on this very address instead of the wildcard; see that no NAT in \
         front of it rewrites answers",
    )
}

/// A request failed, for reasons that have nothing to do with what it asked for.
pub(super) fn failure(
    failure: &Failure,
    server: SocketAddr,
    transport: Transport,
    limit: Duration,
) -> Fault {
    match failure {
        Failure::Silence => Fault::new(
            format!("no answer within {limit:?}"),
            "the server answered before and not to this request: it dropped it, or the answer was \
             lost",
            "look into the server's log for this time",
        ),
        Failure::Io(error) => unreachable(error, server, transport, limit),
        Failure::Refused { code, reason, .. } => refused(*code, reason),
        Failure::Stale => Fault::new(
            "438 every time",
            "no nonce is valid for longer than a request: requests reach different instances \
             without a shared nonce key, or come from changing addresses",
            "give all instances the same auth.nonce_secret_file, or let the load balancer keep a \
             client on one of them",
        ),
        Failure::Unsigned => Fault::new(
            "a success response without a valid MESSAGE-INTEGRITY",
            "something between here and the server changes messages, or the server does not sign \
             them (RFC 8489 §9.2)",
            "look for a firewall or router with an application gateway for STUN, and turn it off",
        ),
        Failure::Empty(what) => Fault::new(
            format!("a success response without {what}"),
            "the server's answer is against RFC 8656",
            "update the server",
        ),
    }
}

/// An error response, whatever was asked for.
fn refused(code: u16, reason: &str) -> Fault {
    let detail = format!("{code} {reason:?}");
    let (cause, change) = match code {
        400 => ("the server finds the request malformed", "look into the server's log"),
        401 => ("the server does not accept these credentials", "see user name and password"),
        403 => ("the server's rules forbid it", "see the server's peers.allow and peers.deny"),
        420 => {
            ("the server does not know an attribute every TURN server knows", "update the server")
        }
        437 => (
            "the server has lost the allocation, or has another one for this address",
            "see whether the server was restarted, and whether all packets of a client reach one \
             instance",
        ),
        440 | 443 => (
            "the server has no relay address of this family",
            "add one of this family to relay.addresses",
        ),
        441 => ("the allocation belongs to other credentials", "use the same for all requests"),
        442 => ("the server relays no UDP", "allow UDP relaying"),
        486 => (
            "the allocation quota is reached: this user has as many allocations as the server allows",
            "raise limits.allocations_per_user, or close old allocations (refresh with lifetime 0, \
             or wait ten minutes); let each user have a name of its own",
        ),
        508 => (
            "the server has no relay port left",
            "widen relay.ports, or add relay.addresses; see whether allocations of gone clients fill \
             it",
        ),
        500 => ("the server failed", "look into the server's log"),
        _ => ("the server refuses it", "look into the server's log"),
    };
    Fault::new(detail, cause, change)
}

/// The server's clock, beside ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Clock {
    /// Not so far ahead that credentials fail for it.
    NotAhead,
    /// Ahead, by so much where that could be found out.
    Ahead(Option<Duration>),
}

/// 401 after signing.
#[derive(Clone, Copy)]
pub(super) struct Denied<'d> {
    pub(super) user: &'d str,
    pub(super) realm: &'d str,
    pub(super) expected_realm: Option<&'d str>,
    /// The realm a key was made for with which it works.
    pub(super) works_for_realm: Option<&'d str>,
    /// Whether the credentials were made of a secret.
    pub(super) from_secret: bool,
    /// What such credentials have told of the server's clock.
    pub(super) clock: Clock,
    pub(super) unix_secs: u64,
}

impl Denied<'_> {
    /// Why, as far as it can be told from outside: a server must not say whether it was the name or
    /// the password.
    pub(super) fn fault(&self) -> Fault {
        let Self { user, realm, unix_secs, .. } = self;
        let detail = format!("401 after authentication, realm {realm:?}");
        if let Some(stored) = self.works_for_realm {
            return Fault::new(
                detail,
                format!(
                    "the realm is wrong: the server stores this user's key for the realm {stored:?} \
                     and announces {realm:?}"
                ),
                format!("set the server's realm to {stored:?}, or make the stored keys again"),
            );
        }
        if let Some(expected) = self.expected_realm.filter(|expected| expected != realm) {
            return Fault::new(
                detail,
                format!("the realm is wrong: {realm:?} instead of {expected:?}"),
                format!(
                    "set the server's realm to {expected:?}; see that this is the right server"
                ),
            );
        }
        if let Clock::Ahead(by) = self.clock {
            let by = by.map(|by| format!(" by {}", about(by))).unwrap_or_default();
            return Fault::new(
                detail,
                format!(
                    "the server's clock is ahead{by} of this machine's: it takes credentials for \
                     expired that are not"
                ),
                "set the clocks of the server and of this machine (NTP)",
            );
        }
        if self.from_secret {
            return Fault::new(
                detail,
                "the secret differs from the server's, or the server takes no credentials made of \
                 secrets, or its clock is far off",
                "compare it with the server's auth.secrets; see both clocks",
            );
        }
        if let Some(expired) = expiry(user).filter(|expiry| expiry < unix_secs) {
            return Fault::new(
                detail,
                format!(
                    "the credentials have expired: the user name says until {expired}, which was {} \
                     ago",
                    ago(unix_secs - expired)
                ),
                "get new ones (hairpin credentials); let the web application make them when they \
                 are needed, and see its clock",
            );
        }
        if expiry(user).is_some() {
            return Fault::new(
                detail,
                "the password does not belong to this time-limited user name: the secret it was \
                 made with differs from the server's",
                "compare the web application's secret with the server's auth.secrets",
            );
        }
        Fault::new(
            detail,
            format!("the password is wrong, or there is no user {user:?}"),
            "compare both with the server's auth.users; a password that is stored as a hash is good \
             for one realm only (--realm tries another one)",
        )
    }
}

/// The end of a time-limited user name, in seconds since 1970.
fn expiry(user: &str) -> Option<u64> {
    /// Shorter numbers are names.
    const DIGITS: usize = 9;
    let digits = user.split(':').next().unwrap_or(user);
    let is_time = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_time { digits.parse().ok() } else { None }
}

fn ago(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} seconds"),
        120..7_200 => format!("{} minutes", secs / 60),
        7_200..172_800 => format!("{} hours", secs / 3600),
        _ => format!("{} days", secs / SECS_PER_DAY),
    }
}

/// To the minute.
fn about(duration: Duration) -> String {
    let minutes = (duration.as_secs() + 30) / 60;
    match (minutes / 60, minutes % 60) {
        (hours @ 0..48, minutes) => format!("{hours} h {minutes} min"),
        (hours, _) => format!("{} days", hours / 24),
    }
}

/// A relayed address that peers cannot reach although they reach the server.
pub(super) fn relayed(relayed: SocketAddr, server: SocketAddr) -> Option<Fault> {
    let scope = Scope::of(relayed.ip());
    if relayed.port() == 0 || scope < Scope::of(server.ip()) {
        return Some(Fault::new(
            format!("relayed address {relayed}"),
            format!(
                "relayed address {} is {}, and the server's {} is {}: peers cannot reach it",
                relayed.ip(),
                scope.word(),
                server.ip(),
                Scope::of(server.ip()).word()
            ),
            format!("set relay.external to the public address, such as {:?}", server.ip()),
        ));
    }
    None
}

/// Every peer that was tried is refused.
pub(super) fn forbidden(peers: &[SocketAddr]) -> Fault {
    let list: Vec<_> = peers.iter().map(|peer| peer.ip().to_string()).collect();
    let list = list.join(" and ");
    Fault::new(
        "403 for every peer that could be tried",
        format!("the server forbids peers at {list}"),
        format!(
            "where clients are meant to reach it, add {} to peers.allow; see peers.deny and \
             peers.only_allowed",
            peers.first().map_or_else(String::new, |peer| peer.ip().to_string())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_names() {
        assert_eq!(expiry("1700000000:alice"), Some(1_700_000_000));
        assert_eq!(expiry("1700000000"), Some(1_700_000_000));
        for name in ["alice", "12345678:a", ":1700000000", "1700000000x:a", ""] {
            assert_eq!(expiry(name), None, "{name}");
        }
        assert_eq!(expiry("99999999999999999999:a"), None);
    }

    const DENIED: Denied<'_> = Denied {
        user: "alice",
        realm: "a.test",
        expected_realm: None,
        works_for_realm: None,
        from_secret: false,
        clock: Clock::NotAhead,
        unix_secs: 2_000_000_000,
    };

    #[test]
    fn denied_users_are_told_the_likeliest_cause() {
        let secret = Denied { from_secret: true, ..DENIED };
        let ahead = |secs| {
            let clock = Clock::Ahead(Some(Duration::from_secs(secs)));
            Denied { clock, ..secret }
        };
        for (denied, cause) in [
            (DENIED, "the password is wrong, or there is no user \"alice\""),
            (Denied { works_for_realm: Some("b.test"), ..DENIED }, "for the realm \"b.test\""),
            (
                Denied { expected_realm: Some("b.test"), ..DENIED },
                "\"a.test\" instead of \"b.test\"",
            ),
            (Denied { expected_realm: Some("a.test"), ..DENIED }, "the password is wrong"),
            (Denied { clock: Clock::Ahead(None), ..secret }, "the server's clock is ahead of this"),
            (ahead(10_789), "the server's clock is ahead by 3 h 0 min of this machine's"),
            (ahead(5 * SECS_PER_DAY), "ahead by 5 days"),
            (secret, "the secret differs"),
            (Denied { user: "1999999940:a", ..DENIED }, "which was 60 seconds ago"),
            (Denied { user: "1999990000:a", ..DENIED }, "which was 2 hours ago"),
            (Denied { user: "1900000000", ..DENIED }, "which was 1157 days ago"),
            (Denied { user: "2000000001:a", ..DENIED }, "the secret it was made with differs"),
        ] {
            let fault = denied.fault();
            assert!(fault.cause.contains(cause), "{fault:?}");
        }
    }

    #[test]
    fn relayed_addresses_reach_as_far_as_the_server() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        for (relay, server) in [
            ("10.0.0.4:50000", "203.0.113.4:3478"),
            ("127.0.0.1:50000", "192.168.1.2:3478"),
            ("0.0.0.0:50000", "127.0.0.1:3478"),
            ("203.0.113.4:0", "203.0.113.4:3478"),
            ("[fd00::1]:50000", "[2001:db8::1]:3478"),
        ] {
            assert!(relayed(at(relay), at(server)).is_some(), "{relay} {server}");
        }
        for (relay, server) in [
            ("203.0.113.5:50000", "203.0.113.4:3478"),
            ("203.0.113.5:50000", "10.0.0.4:3478"),
            ("10.0.0.5:50000", "192.168.0.4:3478"),
            ("127.0.0.1:50000", "127.0.0.1:3478"),
        ] {
            assert_eq!(relayed(at(relay), at(server)), None, "{relay} {server}");
        }
    }
}
