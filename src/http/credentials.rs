//! `/ice-servers`: working ICE servers with fresh credentials, for pages and for web services.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::RandomState;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::Client;
use super::origin::only;
use super::signaling::Shared;
use super::token::{Keys, is_user};
use crate::signal::{Account, Authority, Grant, IceServers, Rates};
use crate::turn::Now;
use crate::turn::rest::Credentials;

/// How long credentials are good, at most.
const TTL: Duration = Duration::from_secs(3600);
/// How often one user gets credentials, on average.
const ISSUE_INTERVAL: Duration = Duration::from_secs(6);
/// How many it gets at once: a page that is loaded again and again.
const ISSUE_BURST: u32 = 30;
/// How often guests of one source get some, on average: all of an office may be behind its NAT, and it
/// is one account in any case.
const GUEST_INTERVAL: Duration = Duration::from_secs(1);
/// How many they get at once.
const GUEST_BURST: u32 = 120;
/// What the account of guests begins with, and no user's name: see [`is_user`].
const GUEST: &str = "guest#";

/// What credentials are made of.
#[derive(Clone, Default)]
pub enum Source {
    /// Nothing: clients get STUN only.
    #[default]
    None,
    /// The shared secret that mints.
    Secret(String),
    /// The same user for everybody: for development.
    Fixed(Credentials),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Secret(_) => "Secret",
            Self::Fixed(_) => "Fixed",
        })
    }
}

/// What a web service proves itself with.
#[derive(Clone)]
pub struct ApiToken(String);

impl ApiToken {
    /// The token as it stands in its file.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken")
    }
}

/// Makes credentials, and knows who may have them.
pub(super) struct Issuer {
    pub(super) keys: Keys,
    pub(super) source: Source,
    pub(super) urls: Vec<String>,
    pub(super) clock: fn() -> Now,
    rates: Mutex<IssueRates>,
}

/// Two tables, so that however many guests come, none of them shares a slot with a user.
struct IssueRates {
    users: Rates,
    guests: Rates,
}

impl Issuer {
    pub(super) fn new(
        keys: Keys,
        source: Source,
        urls: Vec<String>,
        clock: fn() -> Now,
        hasher: RandomState,
    ) -> Self {
        let users = Rates::new(ISSUE_INTERVAL, ISSUE_BURST, hasher.clone());
        let guests = Rates::new(GUEST_INTERVAL, GUEST_BURST, hasher);
        let rates = Mutex::new(IssueRates { users, guests });
        Self { keys, source, urls, clock, rates }
    }

    /// Credentials for an account that has not asked too often.
    fn issue(
        &self,
        account: Account<'_>,
        at_most: Duration,
    ) -> Result<(Source, Duration), TooOften> {
        let now = (self.clock)();
        if !self.admits(account, now.instant) {
            return Err(TooOften);
        }
        let user = match account {
            Account::User(user) => Cow::Borrowed(user),
            Account::Guest(source) => Cow::Owned(format!("{GUEST}{}", subscriber(source))),
        };
        let ttl = TTL.min(at_most);
        let expires = now.unix_secs.saturating_add(ttl.as_secs());
        let made = match &self.source {
            Source::Secret(secret) => Source::Fixed(Credentials::mint(secret, &user, expires)),
            other => other.clone(),
        };
        Ok((made, ttl))
    }

    /// Whether this account has not asked too often. Loopback may at any time: there, a proxy on this
    /// machine stands for everybody.
    fn admits(&self, account: Account<'_>, now: Instant) -> bool {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        match account {
            Account::User(user) => rates.users.admit(user, now),
            Account::Guest(source) if source.is_loopback() => true,
            Account::Guest(source) => rates.guests.admit(subscriber(source), now),
        }
    }

    /// An `iceServers` array.
    fn ice_servers(&self, made: &Source) -> Value {
        match made {
            Source::Fixed(credentials) => json!([credentials.ice_server(&self.urls)]),
            Source::None | Source::Secret(_) => {
                let stun = self.urls.iter().filter(|url| url.starts_with("stun:"));
                json!([{ "urls": stun.collect::<Vec<_>>() }])
            }
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What the addresses of one subscriber have in common: an IPv4 address, or the /64 of IPv6.
fn subscriber(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[derive(Debug)]
struct TooOften;

impl Authority for Issuer {
    fn grant(&self, token: &str) -> Option<Grant> {
        self.keys.verify(token, (self.clock)().unix_secs)
    }

    fn ice_servers(&self, account: Account<'_>, at_most: Duration) -> Option<IceServers> {
        let (made, ttl) = self.issue(account, at_most).ok()?;
        let json = serde_json::value::to_raw_value(&self.ice_servers(&made)).ok()?;
        Some(IceServers { json, ttl })
    }
}

/// What may be asked for in the query.
#[derive(Deserialize)]
pub(super) struct Wish {
    /// Of the TURN REST API: `turn`, for its form of the answer.
    service: Option<String>,
    /// Whom the credentials are for, where a web service asks.
    username: Option<String>,
}

/// Answers `GET` and `POST /ice-servers`.
pub(super) async fn ice_servers(
    State(shared): State<Shared>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Query(wish): Query<Wish>,
) -> Response {
    let origin = shared.origins.allowed(&headers, client.encrypted);
    let source = client.address.ip();
    let mut response = match answer(&shared, source, &headers, origin, &wish) {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with_cors(origin, response)
}

/// Answers the question of a browser whether a page may ask.
pub(super) async fn preflight(
    State(shared): State<Shared>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    let origin = shared.origins.allowed(&headers, client.encrypted);
    if origin.is_none() {
        return with_cors(origin, Refusal::Origin.into_response());
    }
    let allowed = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    with_cors(origin, (StatusCode::NO_CONTENT, allowed).into_response())
}

/// Lets the page of an origin that is let in read the response.
fn with_cors(origin: Option<&str>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.and_then(|origin| origin.parse().ok()) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn answer(
    shared: &Shared,
    source: IpAddr,
    headers: &HeaderMap,
    origin: Option<&str>,
    wish: &Wish,
) -> Result<Value, Refusal> {
    // A web service has no origin; a page always has one.
    if headers.contains_key(ORIGIN) && origin.is_none() {
        return Err(Refusal::Origin);
    }
    let (user, at_most) = who(shared, headers, wish)?;
    let account = user.as_deref().map_or(Account::Guest(source), Account::User);
    let (made, ttl) =
        shared.issuer.issue(account, at_most).map_err(|TooOften| Refusal::TooOften)?;
    let ttl = ttl.as_secs();
    match (wish.service.as_deref(), made) {
        (None, made) => Ok(json!({ "iceServers": shared.issuer.ice_servers(&made), "ttl": ttl })),
        (Some("turn"), Source::Fixed(Credentials { username, password })) => {
            let uris = shared.issuer.urls.iter().filter(|url| url.starts_with("turn"));
            let uris: Vec<_> = uris.collect();
            Ok(json!({ "username": username, "password": password, "ttl": ttl, "uris": uris }))
        }
        (Some("turn"), _) => Err(Refusal::NoSecret),
        (Some(_), _) => Err(Refusal::Service),
    }
}

/// Whom the credentials are for, and how long they may be good. A guest, who is `None`, has no name of
/// its own choice: each would be a new account, with all that one account may have, or another's.
fn who(
    shared: &Shared,
    headers: &HeaderMap,
    wish: &Wish,
) -> Result<(Option<String>, Duration), Refusal> {
    let bearer = only(headers, AUTHORIZATION.as_str()).and_then(bearer);
    let Some(token) = bearer else {
        if !shared.open {
            return Err(Refusal::Unauthorized);
        }
        return Ok((None, Duration::MAX));
    };
    let is_ours = |own: &ApiToken| bool::from(own.0.as_bytes().ct_eq(token.as_bytes()));
    if shared.api_token.as_ref().is_some_and(is_ours) {
        let named = wish.username.clone().filter(|name| is_user(name));
        return Ok((Some(named.ok_or(Refusal::Username)?), Duration::MAX));
    }
    let grant = shared.issuer.grant(token).ok_or(Refusal::Unauthorized)?;
    Ok((Some(grant.user), grant.valid_for))
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

enum Refusal {
    NoSecret,
    Origin,
    Service,
    TooOften,
    Unauthorized,
    Username,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NoSecret => {
                let text = "no auth.secrets to make credentials with\n";
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
            }
            Self::Origin => (StatusCode::FORBIDDEN, "origin not allowed\n").into_response(),
            Self::Service => (StatusCode::BAD_REQUEST, "service must be turn\n").into_response(),
            Self::TooOften => {
                let wait = [(RETRY_AFTER, HeaderValue::from(ISSUE_INTERVAL.as_secs()))];
                (StatusCode::TOO_MANY_REQUESTS, wait, "too often\n").into_response()
            }
            Self::Unauthorized => {
                let how = [(WWW_AUTHENTICATE, "Bearer")];
                (StatusCode::UNAUTHORIZED, how, "a bearer token is needed\n").into_response()
            }
            Self::Username => {
                let text = "username must be a name of at most 96 bytes, without #\n";
                (StatusCode::BAD_REQUEST, text).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Now {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
        let instant = *START.get_or_init(Instant::now);
        Now { instant, unix_secs: 1000 }
    }

    #[test]
    fn guests_of_one_subscriber_are_one_account_and_leave_users_theirs() {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let secret = Source::Secret("secret".to_owned());
        let issuer = Issuer::new(Keys::default(), secret, Vec::new(), clock, hasher);
        let issue = |account| {
            issuer.issue(account, TTL).ok().map(|(made, _)| match made {
                Source::Fixed(credentials) => credentials.username,
                Source::None | Source::Secret(_) => panic!("nothing was made"),
            })
        };
        let at = |source: &str| Account::Guest(source.parse().unwrap());
        assert_eq!(issue(at("192.0.2.1")).as_deref(), Some("4600:guest#192.0.2.1"));
        let prefix = "4600:guest#2001:db8:0:1::";
        assert_eq!(issue(at("2001:db8:0:1::7")).as_deref(), Some(prefix));
        assert_eq!(issue(at("2001:db8:0:1:ffff::1")).as_deref(), Some(prefix));
        assert!(!is_user("guest#192.0.2.1"), "no token and no web service can name it");
        let more = (0..1000).filter(|_| issue(at("192.0.2.1")).is_some()).count();
        assert_eq!(more as u32, GUEST_BURST - 1);
        // More sources than there are slots.
        for source in 0..100_000_u32 {
            issue(Account::Guest(IpAddr::from(source.to_be_bytes())));
        }
        assert_eq!(issue(Account::User("alice")).as_deref(), Some("4600:alice"));
        assert!((0..1000).all(|_| issue(at("127.0.0.1")).is_some()), "it may be a proxy");
    }
}
