//! JSON Web Tokens (RFC 7519): who a client is, in the words of whoever holds the key.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use crate::signal::{Grant, MAX_USER_BYTES, Rooms, SEPARATOR};

/// What clocks may differ by.
const LEEWAY: Duration = Duration::from_secs(30);
/// RFC 7518 §3.2: as many bytes as the hash has.
pub(crate) const MIN_SECRET_BYTES: usize = 32;
/// A longer token is none: it is read before anything is known of who sent it.
const MAX_TOKEN_BYTES: usize = 4096;
/// In `rooms`: any room.
const ANY_ROOM: &str = "*";
/// No connection lives longer, and no clock overflows.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The keys that verify tokens, and for whom and by whom these must be. Each key knows its algorithm:
/// a token does not choose.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<(DecodingKey, Validation)>,
    has_public: bool,
    /// One of the `aud` of each token; `None`: it does not matter.
    audience: Option<String>,
    /// The `iss` of each token; `None`: it does not matter.
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    rooms: Option<Vec<String>>,
    /// RFC 7519 §2: seconds since 1970, and not always whole ones.
    exp: f64,
    nbf: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
}

/// RFC 7519 §4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn includes(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}

impl Keys {
    /// None yet. Tokens must be for this audience and by this issuer; `None`: for or by anybody.
    #[must_use]
    pub fn new(audience: Option<String>, issuer: Option<String>) -> Self {
        Self { audience, issuer, ..Self::default() }
    }

    /// Whom tokens must be for, and whom by.
    #[must_use]
    pub fn demands(&self) -> (Option<&str>, Option<&str>) {
        (self.audience.as_deref(), self.issuer.as_deref())
    }

    /// A shared secret for HS256.
    pub fn add_secret(&mut self, secret: &[u8]) {
        self.add(DecodingKey::from_secret(secret), Algorithm::HS256);
    }

    /// A public key in PEM: Ed25519 for EdDSA, or RSA for RS256.
    ///
    /// # Errors
    /// When it is neither.
    pub fn add_public(&mut self, pem: &[u8]) -> Result<(), &'static str> {
        self.has_public = true;
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            self.add(key, Algorithm::EdDSA);
            return Ok(());
        }
        let key = DecodingKey::from_rsa_pem(pem)
            .map_err(|_| "is not a public key of Ed25519 or RSA in PEM")?;
        self.add(key, Algorithm::RS256);
        Ok(())
    }

    fn add(&mut self, key: DecodingKey, algorithm: Algorithm) {
        let mut validation = Validation::new(algorithm);
        // Times are compared here, with the clock that everything else is told by.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        self.keys.push((key, validation));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no token can be verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a token may be good here that was made for another service: who holds the private
    /// key to a public one often makes tokens for many.
    #[must_use]
    pub fn may_be_for_others(&self) -> bool {
        self.has_public && self.audience.is_none()
    }

    /// What a token says of its holder; `None` where it is not good.
    pub(super) fn verify(&self, token: &str, unix_secs: u64) -> Option<Grant> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut keys = self.keys.iter();
        let claims = keys.find_map(|(key, validation)| {
            decode::<Claims>(token, key, validation).ok().map(|data| data.claims)
        })?;
        let now = unix_secs as f64;
        let leeway = LEEWAY.as_secs_f64();
        let left = claims.exp + leeway - now;
        // Written so that what is no number fails too.
        let is_current = left > 0.0 && claims.nbf.is_none_or(|nbf| nbf <= now + leeway);
        (is_current && self.is_meant(&claims) && is_user(&claims.sub)).then(|| Grant {
            user: claims.sub,
            rooms: match claims.rooms {
                None => Rooms::None,
                Some(rooms) if rooms.iter().any(|room| room == ANY_ROOM) => Rooms::All,
                Some(rooms) => Rooms::Only(rooms),
            },
            valid_for: Duration::try_from_secs_f64(left).map_or(FOREVER, |left| left.min(FOREVER)),
        })
    }

    /// Whether a token is for this service, and by whom its tokens must be.
    fn is_meant(&self, claims: &Claims) -> bool {
        let is_for =
            |wanted: &str| claims.aud.as_ref().is_some_and(|audience| audience.includes(wanted));
        let is_by = |wanted: &str| claims.iss.as_deref() == Some(wanted);
        self.audience.as_deref().is_none_or(is_for) && self.issuer.as_deref().is_none_or(is_by)
    }
}

/// Whether this can be the name of a user.
pub(super) fn is_user(name: &str) -> bool {
    (1..=MAX_USER_BYTES).contains(&name.len())
        && !name.contains(|char: char| char == SEPARATOR || char.is_control())
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::PublicKeyData as _;
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_700_000_000;
    const SECRET: &[u8] = b"thirty-two bytes of a test secret";

    #[test]
    fn a_token_says_who_and_where() {
        let good = |rooms: Value| {
            let claims = json!({ "sub": "alice", "exp": NOW + 60, "rooms": rooms, "more": 1 });
            keys().verify(&signed(&claims), NOW)
        };
        let grant = |rooms| Grant {
            user: "alice".to_owned(),
            rooms,
            valid_for: Duration::from_secs(60) + LEEWAY,
        };
        assert_eq!(good(json!(["a", "b"])), Some(grant(Rooms::Only(vec!["a".into(), "b".into()]))));
        assert_eq!(good(json!(["a", "*"])), Some(grant(Rooms::All)));
        assert_eq!(good(json!([])), Some(grant(Rooms::Only(vec![]))));
        assert_eq!(good(json!(null)), Some(grant(Rooms::None)));
        assert_eq!(good(json!("a")), None);
    }

    #[test]
    fn a_token_is_good_between_its_times() {
        let at = |claims: Value| keys().verify(&signed(&claims), NOW).is_some();
        assert!(at(json!({ "sub": "a", "exp": NOW + 1 })));
        assert!(at(json!({ "sub": "a", "exp": NOW as f64 + 1.5 })));
        assert!(at(json!({ "sub": "a", "exp": 1e300 })));
        assert!(at(json!({ "sub": "a", "exp": NOW + 60, "nbf": NOW })));
        assert!(!at(json!({ "sub": "a", "exp": NOW - 31 })));
        assert!(!at(json!({ "sub": "a", "exp": NOW + 60, "nbf": NOW + 31 })));
        assert!(!at(json!({ "sub": "a", "exp": -1e300 })));
        assert!(!at(json!({ "sub": "a" })));
        assert!(!at(json!({ "sub": "a", "exp": "later" })));
    }

    #[test]
    fn a_token_for_others_or_by_others_is_refused_where_that_matters() {
        let verify = |keys: &Keys, more: Value| {
            let mut claims = json!({ "sub": "alice", "exp": NOW + 60 });
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            keys.verify(&signed(&claims), NOW).is_some()
        };
        let mut own = keys();
        assert!(verify(&own, json!({ "aud": "mail", "iss": "login" })));
        own.audience = Some("turn".to_owned());
        for (aud, is_good) in [
            (json!("turn"), true),
            (json!(["mail", "turn"]), true),
            (json!("mail"), false),
            (json!("turn "), false),
            (json!(["mail"]), false),
            (json!([]), false),
            (json!(null), false),
            (json!(1), false),
        ] {
            assert_eq!(verify(&own, json!({ "aud": aud })), is_good, "{aud}");
        }
        assert!(!verify(&own, json!({})), "for nobody");
        own.issuer = Some("login".to_owned());
        for (iss, is_good) in [(json!("login"), true), (json!("mail"), false), (json!(null), false)]
        {
            assert_eq!(verify(&own, json!({ "aud": "turn", "iss": iss })), is_good, "{iss}");
        }
    }

    #[test]
    fn names_that_could_be_another_users_peer_are_refused() {
        let long = "x".repeat(MAX_USER_BYTES + 1);
        for sub in ["", "a#b", "a\nb", &long] {
            assert_eq!(keys().verify(&signed(&json!({ "sub": sub, "exp": NOW + 9 })), NOW), None);
        }
        assert!(keys().verify(&signed(&json!({ "exp": NOW + 9 })), NOW).is_none());
    }

    #[test]
    fn a_token_that_was_changed_or_signed_by_another_key_is_refused() {
        let token = signed(&json!({ "sub": "alice", "exp": NOW + 60 }));
        assert!(keys().verify(&token, NOW).is_some());
        let mut other = Keys::default();
        other.add_secret(b"another secret of thirty-two bytes");
        assert!(other.verify(&token, NOW).is_none());
        let parts: Vec<_> = token.split('.').collect();
        let forged = signed(&json!({ "sub": "bob", "exp": NOW + 60 }));
        let forged: Vec<_> = forged.split('.').collect();
        for token in [
            format!("{}.{}.{}", parts[0], forged[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            "x".repeat(MAX_TOKEN_BYTES + 1),
            String::new(),
        ] {
            assert!(keys().verify(&token, NOW).is_none(), "{token}");
        }
    }

    /// Two old tricks: no algorithm at all, and a public key taken for a secret.
    #[test]
    fn the_key_chooses_the_algorithm_and_not_the_token() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pem = public_pem(&pair);
        let mut keys = Keys::default();
        keys.add_public(pem.as_bytes()).unwrap();
        let claims = json!({ "sub": "alice", "exp": NOW + 60 });
        let key = EncodingKey::from_ed_der(pair.serialized_der());
        let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        assert_eq!(keys.verify(&token, NOW).unwrap().user, "alice");

        let as_secret = EncodingKey::from_secret(pem.as_bytes());
        for algorithm in [Algorithm::HS256, Algorithm::HS512] {
            let forged = encode(&Header::new(algorithm), &claims, &as_secret).unwrap();
            assert!(keys.verify(&forged, NOW).is_none());
        }
        let body = token.split('.').nth(1).unwrap();
        // {"alg":"none"} and {"alg":"none","typ":"JWT"}
        for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"] {
            assert!(keys.verify(&format!("{head}.{body}."), NOW).is_none());
        }
        let wide =
            encode(&Header::new(Algorithm::HS512), &claims, &EncodingKey::from_secret(SECRET));
        assert!(super::tests::keys().verify(&wide.unwrap(), NOW).is_none());
    }

    #[test]
    fn rsa_keys_verify_rs256() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let mut keys = Keys::default();
        keys.add_public(public_pem(&pair).as_bytes()).unwrap();
        let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", pair.serialized_der()).as_bytes())
            .unwrap();
        let claims = json!({ "sub": "alice", "exp": NOW + 60 });
        let token = encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap();
        assert!(keys.verify(&token, NOW).is_some());
        let other = encode(&Header::new(Algorithm::PS256), &claims, &key).unwrap();
        assert!(keys.verify(&other, NOW).is_none());
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        for pem in [
            "",
            "secret",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            &public_pem(&pair),
        ] {
            assert!(Keys::default().add_public(pem.as_bytes()).is_err(), "{pem}");
        }
    }

    fn public_pem(pair: &rcgen::KeyPair) -> String {
        pem("PUBLIC KEY", &pair.subject_public_key_info())
    }

    fn pem(kind: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
    }

    fn keys() -> Keys {
        let mut keys = Keys::default();
        keys.add_secret(SECRET);
        keys
    }

    fn signed(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }
}
