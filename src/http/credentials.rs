//! `/ice-servers`: working ICE servers with fresh credentials, for pages and for web services.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
use crate::signal::{Authority, Grant, IceServers, Rates};
use crate::turn::Now;
use crate::turn::rest::Credentials;

/// How long credentials are good, at most.
const TTL: Duration = Duration::from_secs(3600);
/// How often one user gets credentials, on average.
const ISSUE_INTERVAL: Duration = Duration::from_secs(6);
/// How many it gets at once: a page that is loaded again and again.
const ISSUE_BURST: u32 = 30;

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
    rates: Mutex<Rates>,
}

impl Issuer {
    pub(super) fn new(
        keys: Keys,
        source: Source,
        urls: Vec<String>,
        clock: fn() -> Now,
        hasher: RandomState,
    ) -> Self {
        let rates = Mutex::new(Rates::new(ISSUE_INTERVAL, ISSUE_BURST, hasher));
        Self { keys, source, urls, clock, rates }
    }

    /// Credentials for a user that has not asked too often.
    fn issue(&self, user: &str, at_most: Duration) -> Result<(Source, Duration), TooOften> {
        let now = (self.clock)();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if !rates.admit(user, now.instant) {
            return Err(TooOften);
        }
        let ttl = TTL.min(at_most);
        let expires = now.unix_secs.saturating_add(ttl.as_secs());
        let made = match &self.source {
            Source::Secret(secret) => Source::Fixed(Credentials::mint(secret, user, expires)),
            other => other.clone(),
        };
        Ok((made, ttl))
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

struct TooOften;

impl Authority for Issuer {
    fn grant(&self, token: &str) -> Option<Grant> {
        self.keys.verify(token, (self.clock)().unix_secs)
    }

    fn ice_servers(&self, user: &str, at_most: Duration) -> Option<IceServers> {
        let (made, ttl) = self.issue(user, at_most).ok()?;
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
    let mut response = match answer(&shared, &headers, origin, &wish) {
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
    headers: &HeaderMap,
    origin: Option<&str>,
    wish: &Wish,
) -> Result<Value, Refusal> {
    // A web service has no origin; a page always has one.
    if headers.contains_key(ORIGIN) && origin.is_none() {
        return Err(Refusal::Origin);
    }
    let (user, at_most) = who(shared, headers, wish)?;
    let (made, ttl) = shared.issuer.issue(&user, at_most).map_err(|TooOften| Refusal::TooOften)?;
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

/// Whom the credentials are for, and how long they may be good.
fn who(shared: &Shared, headers: &HeaderMap, wish: &Wish) -> Result<(String, Duration), Refusal> {
    let named = || match &wish.username {
        Some(name) if !is_user(name) => Err(Refusal::Username),
        name => Ok(name.clone()),
    };
    let bearer = only(headers, AUTHORIZATION.as_str()).and_then(bearer);
    let Some(token) = bearer else {
        if !shared.open {
            return Err(Refusal::Unauthorized);
        }
        return Ok((named()?.unwrap_or_else(|| "guest".to_owned()), Duration::MAX));
    };
    let is_ours = |own: &ApiToken| bool::from(own.0.as_bytes().ct_eq(token.as_bytes()));
    if shared.api_token.as_ref().is_some_and(is_ours) {
        return Ok((named()?.ok_or(Refusal::Username)?, Duration::MAX));
    }
    let grant = shared.issuer.grant(token).ok_or(Refusal::Unauthorized)?;
    Ok((grant.user, grant.valid_for))
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
