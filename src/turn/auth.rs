//! Who may use the relay: the long-term credential mechanism (RFC 8489 §9.2).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Whom to trust, and what to tell the others.
#[derive(Clone)]
pub struct Config {
    /// Names the credentials' domain; sent with each challenge, so short is good.
    pub realm: String,
    /// Static users and their passwords.
    pub users: BTreeMap<String, String>,
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
