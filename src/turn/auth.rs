//! Who may use the relay: the long-term credential mechanism (RFC 8489 §9.2), with static users
//! and time-limited ones side by side.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use ahash::RandomState;
use zeroize::Zeroizing;

use super::Now;
use super::allocation::FiveTuple;
use super::nonce::{Features, Nonces};
use super::rest;
use crate::stun::attribute::{
    AttributeType, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, UserHash, Username,
};
use crate::stun::integrity::{IntegrityKind, user_hash};
use crate::stun::{Builder, Code, Integrity, Key, Malformed, Message};

/// SHA-256, then MD5, neither with parameters (RFC 8489 §14.11): what we offer, best first.
const OFFERED_ALGORITHMS: PasswordAlgorithms<'_> = PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0]);

/// Whom to trust, and what to tell the others.
#[derive(Clone)]
pub struct Config {
    /// Names the credentials' domain; sent with each challenge, so short is good.
    pub realm: String,
    /// Static users and their passwords.
    pub users: BTreeMap<String, Password>,
    /// TURN REST shared secrets; each verifies, the first one mints.
    pub secrets: Vec<String>,
    /// Keys the nonces. Shared by all shards, and by a fleet that shares clients.
    pub nonce_key: [u8; 32],
    /// How long a nonce is good.
    pub nonce_lifetime: Duration,
    /// Whether to offer SHA-256 through PASSWORD-ALGORITHMS.
    pub sha256: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// A user's password: never shown, and wiped from memory when dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The text that keys are derived from. Do not copy it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Which of the two key derivations a request uses (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Algorithm {
    /// The client names none, as before RFC 8489.
    ImplicitMd5,
    Md5,
    Sha256,
}

/// Both keys of one user; the password itself is not kept (RFC 8656 §6).
struct Keys {
    md5: Key,
    sha256: Key,
}

impl Keys {
    fn derive(username: &str, realm: &str, password: &str) -> Self {
        Self {
            md5: Key::md5(username, realm, password),
            sha256: Key::sha256(username, realm, password),
        }
    }

    fn key(&self, algorithm: Algorithm) -> &Key {
        match algorithm {
            Algorithm::ImplicitMd5 | Algorithm::Md5 => &self.md5,
            Algorithm::Sha256 => &self.sha256,
        }
    }
}

/// Someone whose request is authentic.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: Box<str>,
    /// Where in the name the account's name begins: behind the expiry of a time-limited one.
    account_at: usize,
    /// What the response is signed with.
    pub(super) signer: Signer,
}

impl User {
    /// Whom quotas count against: the name, without the expiry that makes each credential new.
    pub(super) fn account(&self) -> &str {
        self.name.get(self.account_at..).unwrap_or(&self.name)
    }
}

/// Key and attribute of a response's integrity (RFC 8489 §9.2.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Signer {
    pub(super) key: Key,
    pub(super) kind: IntegrityKind,
}

/// Why a request is not authentic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Denial {
    /// 400: attributes are missing or contradict each other.
    Malformed,
    /// 401: no credentials, or wrong ones.
    Unauthenticated,
    /// 438: the nonce is not, or no longer, one of ours for this client.
    StaleNonce,
}

impl Denial {
    pub(super) fn code(self) -> Code {
        match self {
            Self::Malformed => Code::BadRequest,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::StaleNonce => Code::StaleNonce,
        }
    }
}

impl From<Malformed> for Denial {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Verifies credentials and writes challenges. Remembers nothing about anybody.
pub(super) struct Authenticator {
    realm: String,
    nonces: Nonces,
    users: HashMap<Box<str>, Keys, RandomState>,
    names_by_hash: HashMap<[u8; 32], Box<str>, RandomState>,
    secrets: Vec<String>,
    sha256: bool,
    /// Verified against where a name is unknown, so that it takes as long as a wrong password.
    nobody: Keys,
}

impl Authenticator {
    pub(super) fn new(config: Config, hasher: RandomState) -> Self {
        let Config { realm, users, secrets, nonce_key, nonce_lifetime, sha256 } = config;
        // A time-limited name cannot be found by its hash, so anonymity is offered only where
        // all names are known.
        let username_anonymity = sha256 && secrets.is_empty() && !users.is_empty();
        let features = Features { password_algorithms: sha256, username_anonymity };
        let mut keys = HashMap::with_hasher(hasher.clone());
        let mut names_by_hash = HashMap::with_hasher(hasher);
        for (name, password) in &users {
            keys.insert(Box::from(name.as_str()), Keys::derive(name, &realm, password.as_str()));
            names_by_hash.insert(user_hash(name, &realm), Box::from(name.as_str()));
        }
        Self {
            nonces: Nonces::new(&nonce_key, nonce_lifetime, features),
            users: keys,
            names_by_hash,
            secrets,
            sha256,
            nobody: Keys::derive("", &realm, ""),
            realm,
        }
    }

    /// Adds what a 401 or 438 carries: REALM, a fresh NONCE and the offer of algorithms.
    pub(super) fn challenge<'b>(
        &self,
        builder: Builder<'b>,
        client: &FiveTuple,
        now: Now,
    ) -> Builder<'b> {
        let nonce = self.nonces.mint(client, now.unix_secs);
        builder
            .put(&Realm(&self.realm))
            .put(&Nonce(&nonce))
            .put_some(self.sha256.then_some(&OFFERED_ALGORITHMS))
    }

    /// The checks of RFC 8489 §9.2.4, except that the nonce comes before the password: a forged
    /// flood then costs one HMAC, and no credentials are looked at for a client that has not
    /// shown that it receives what we send.
    pub(super) fn authenticate(
        &self,
        message: &Message<'_>,
        client: &FiveTuple,
        now: Now,
    ) -> Result<User, Denial> {
        let integrity = message.integrity().ok_or(Denial::Unauthenticated)?;
        let name = self.name(message)?;
        let realm = message.read::<Realm<'_>>()?.ok_or(Denial::Malformed)?;
        let nonce = message.read::<Nonce<'_>>()?.ok_or(Denial::Malformed)?;
        if !self.nonces.verify(nonce.0, client, now.unix_secs) {
            return Err(Denial::StaleNonce);
        }
        let algorithm = self.algorithm(message)?;
        if realm.0 != self.realm {
            return Err(Denial::Unauthenticated);
        }
        let (key, account_at) = self.verify(&integrity, name, algorithm, now)?;
        let kind = match algorithm {
            Algorithm::ImplicitMd5 => IntegrityKind::Sha1,
            Algorithm::Md5 | Algorithm::Sha256 => IntegrityKind::Sha256,
        };
        Ok(User { name: name.into(), account_at, signer: Signer { key, kind } })
    }

    /// The name in clear; that of an unknown hash is empty, which nobody has.
    fn name<'m>(&'m self, message: &Message<'m>) -> Result<&'m str, Denial> {
        if let Some(Username(name)) = message.read()? {
            return Ok(name);
        }
        let UserHash(hash) = message.read()?.ok_or(Denial::Malformed)?;
        Ok(self.names_by_hash.get(&hash).map_or("", |name| name))
    }

    /// RFC 8489 §9.2.4: the list must come back as it was sent, which keeps an attacker from
    /// removing the better algorithm from it.
    fn algorithm(&self, message: &Message<'_>) -> Result<Algorithm, Denial> {
        if !self.sha256 {
            return Ok(Algorithm::ImplicitMd5);
        }
        let offered = message.read::<PasswordAlgorithms<'_>>()?;
        let chosen = message.has(AttributeType::PASSWORD_ALGORITHM);
        if offered.is_none() && !chosen {
            return Ok(Algorithm::ImplicitMd5);
        }
        let chosen = message.read::<PasswordAlgorithm<'_>>()?.ok_or(Denial::Malformed)?;
        if offered != Some(OFFERED_ALGORITHMS) || !chosen.parameters.is_empty() {
            return Err(Denial::Malformed);
        }
        match chosen.number {
            1 => Ok(Algorithm::Md5),
            2 => Ok(Algorithm::Sha256),
            _ => Err(Denial::Malformed),
        }
    }

    /// A static user, or a time-limited one under any of the secrets: the key, and where the
    /// account begins in the name.
    fn verify(
        &self,
        integrity: &Integrity<'_>,
        name: &str,
        algorithm: Algorithm,
        now: Now,
    ) -> Result<(Key, usize), Denial> {
        let known = self.users.get(name);
        let key = known.unwrap_or(&self.nobody).key(algorithm);
        if integrity.verify(key) && known.is_some() {
            return Ok((*key, 0));
        }
        if !rest::is_valid_at(name, now.unix_secs) {
            return Err(Denial::Unauthenticated);
        }
        self.secrets
            .iter()
            .map(|secret| Keys::derive(name, &self.realm, &rest::password(secret, name)))
            .map(|keys| *keys.key(algorithm))
            .find(|key| integrity.verify(key))
            .map(|key| (key, rest::account_at(name)))
            .ok_or(Denial::Unauthenticated)
    }
}
