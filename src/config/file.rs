//! The configuration file as it is written: every key, and every default.

use std::time::Duration;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::alternates::Other;
use super::external::External;
use super::value::{Bandwidth, Count, FileNames, Host, Lifetime, Listen, Network, Ports, Wait};
use crate::logging::{Filter, Format};
use crate::turn::auth::Password;
use crate::turn::limits;

/// The whole file. A key that is absent has its default; a key that is unknown is an error.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) realm: String,
    pub(super) listen: Vec<Listen>,
    /// Empty: the first of `listen` that is no wildcard.
    pub(super) public_host: String,
    pub(super) threads: Count,
    pub(super) tls: Tls,
    pub(super) proxy: Proxy,
    pub(super) relay: Relay,
    pub(super) auth: Auth,
    pub(super) peers: Peers,
    pub(super) limits: Limits,
    pub(super) turn: Turn,
    pub(super) stun: Stun,
    pub(super) mobility: Mobility,
    pub(super) http: Http,
    pub(super) signaling: Signaling,
    pub(super) log: Log,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    /// As many as keys; the first is the default.
    pub(super) cert: FileNames,
    pub(super) key: FileNames,
    pub(super) listen: Vec<Listen>,
    pub(super) dtls: bool,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Proxy {
    pub(super) sources: Vec<Network>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) ports: Ports,
    pub(super) addresses: Vec<Host>,
    pub(super) external: Vec<External>,
    /// Empty: none.
    pub(super) external_stun: String,
    pub(super) tcp: bool,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) users: BTreeMap<String, Password>,
    pub(super) secrets: Vec<String>,
    /// Empty: none.
    pub(super) secret_file: String,
    pub(super) nonce_lifetime: Lifetime,
    /// Empty: a random key.
    pub(super) nonce_secret_file: String,
    pub(super) sha256: bool,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Peers {
    pub(super) allow: Vec<Network>,
    pub(super) deny: Vec<Network>,
    pub(super) only_allowed: bool,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) allocations_per_user: Count,
    pub(super) allocations: Count,
    pub(super) permissions_per_allocation: Count,
    pub(super) channels_per_allocation: Count,
    pub(super) user_bandwidth: Bandwidth,
    pub(super) unauthenticated_per_source: Count,
    pub(super) default_lifetime: Lifetime,
    pub(super) max_lifetime: Lifetime,
    pub(super) permission_lifetime: Lifetime,
    pub(super) channel_lifetime: Lifetime,
    pub(super) unauthenticated_idle: Lifetime,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Turn {
    pub(super) alternate_servers: Vec<Other>,
    pub(super) drain_for: Wait,
    pub(super) drain_to: Vec<Other>,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mobility {
    pub(super) enabled: bool,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Stun {
    pub(super) nat_discovery: bool,
    /// Empty: none.
    pub(super) alternate: String,
    pub(super) rfc5766_channels: bool,
    pub(super) software: bool,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    pub(super) listen: Vec<Listen>,
    pub(super) shared: bool,
    pub(super) shared_admin: bool,
    pub(super) pages: bool,
    /// Empty: none.
    pub(super) api_token_file: String,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Signaling {
    pub(super) enabled: bool,
    pub(super) origins: Vec<String>,
    pub(super) open: bool,
    /// Empty: none.
    pub(super) jwt_secret_file: String,
    pub(super) jwt_public_key_file: FileNames,
    /// Empty: any.
    pub(super) jwt_audience: String,
    /// Empty: any.
    pub(super) jwt_issuer: String,
    pub(super) replace: Replace,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Replace {
    #[default]
    Secret,
    Always,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Filter,
    pub(super) format: Format,
}

/// What is written here is checked by the test that reads the commented `config.toml`.
fn literal<T: std::str::FromStr<Err = String>>(text: &str) -> T {
    text.parse().expect("the defaults are valid")
}

impl Default for File {
    fn default() -> Self {
        Self {
            realm: "hairpin".to_owned(),
            listen: vec![literal("0.0.0.0:3478"), literal("[::]:3478")],
            public_host: String::new(),
            threads: Count(0),
            tls: Tls::default(),
            proxy: Proxy::default(),
            relay: Relay::default(),
            auth: Auth::default(),
            peers: Peers::default(),
            limits: Limits::default(),
            turn: Turn::default(),
            stun: Stun::default(),
            mobility: Mobility::default(),
            http: Http::default(),
            signaling: Signaling::default(),
            log: Log::default(),
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            ports: literal("49152-65535"),
            addresses: Vec::new(),
            external: Vec::new(),
            external_stun: String::new(),
            tcp: false,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            secrets: Vec::new(),
            secret_file: String::new(),
            nonce_lifetime: literal("1h"),
            nonce_secret_file: String::new(),
            sha256: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let core = limits::Config::default();
        Self {
            allocations_per_user: Count(64),
            allocations: Count(0),
            permissions_per_allocation: Count(core.permissions_per_allocation as u32),
            channels_per_allocation: Count(core.channels_per_allocation as u32),
            user_bandwidth: Bandwidth(0),
            unauthenticated_per_source: Count(core.unauthenticated_per_source),
            default_lifetime: Lifetime(core.default_lifetime),
            max_lifetime: Lifetime(core.max_lifetime),
            permission_lifetime: Lifetime(core.permission_lifetime),
            channel_lifetime: Lifetime(core.channel_lifetime),
            unauthenticated_idle: Lifetime(Duration::from_secs(30)),
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self { alternate_servers: Vec::new(), drain_for: literal("10m"), drain_to: Vec::new() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: vec![literal("127.0.0.1:8080")],
            shared: false,
            shared_admin: false,
            pages: false,
            api_token_file: String::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: literal("info"), format: Format::Text }
    }
}
