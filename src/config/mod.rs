//! The operator's settings: TOML in, the validated settings of each module out.
//!
//! Every default lives in `file`, every rule about one value in `value`, every rule about several
//! in `build`. Nobody else sees the whole file.

mod alternates;
mod build;
mod discovery;
mod error;
mod external;
mod file;
mod host;
mod opaque;
mod secrets;
mod signaling;
mod tls;
mod value;

use std::env::{self, VarError};
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use build::MAX_USERNAME_BYTES;
pub use error::ConfigError;
pub(crate) use host::PublicHost;
pub(crate) use value::{Bandwidth, Lifetime, Wait};

use ipnet::IpNet;

use crate::http::credentials::Source;
use crate::net::certificates::Pair;
use crate::net::clock;
use crate::turn::rest::Credentials;
use crate::{http, logging, net, turn};

/// Where the configuration is looked for when the command line names none.
const PLACES: [&str; 2] = ["config.toml", "/etc/hairpin/config.toml"];
/// Adds a TURN REST secret behind those of the file; without any there, it is the one that mints.
const SECRET_VARIABLE: &str = "HAIRPIN_AUTH_SECRET";
/// With a longer realm the refusal of an unauthenticated request is more than 2.3 times as large
/// as the request, and the server a help to whoever floods others.
const SHORT_REALM_BYTES: usize = 20;
/// RFC 8656 §5: a nonce should not be good for longer.
const LONGEST_NONCE_LIFETIME: Duration = Duration::from_secs(3600);

/// What `--dev` runs: everything on this machine, nothing reachable from another one.
const DEV: &str = r#"
realm = "localhost"
listen = ["127.0.0.1:3478"]

[relay]
tcp = true

[auth]
users = { dev = "dev" }

[peers]
allow = [
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    "::1/128", "fc00::/7",
]

[limits]
unauthenticated_per_source = 0 # everything comes from one address

[turn]
drain_for = "0s" # who develops does not wait

[http]
listen = ["127.0.0.1:8080"]
pages = true

[signaling]
enabled = true
open = true
"#;

/// What the certificate of `--dev` is for.
const DEV_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// A certificate that expires sooner should have been replaced by now.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * SECS_PER_DAY);
/// What days are counted in.
pub(crate) const SECS_PER_DAY: u64 = 24 * 3600;

/// The settings of each module. Shows neither passwords nor secrets in `Debug`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The protocol core.
    pub turn: turn::server::Config,
    /// Sockets and shards.
    pub net: net::Config,
    /// The name or address that clients reach the server by, where one is configured.
    pub public_host: Option<String>,
    /// The admin plane.
    pub http: http::Config,
    /// Logging.
    pub log: logging::Config,
    /// How long a server that has been told to end waits for its last allocation; 0 is not at all.
    pub drain_for: Duration,
}

/// Where the settings came from. Displayed as the name of the file.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The file, or `None` for the built-in defaults.
    pub file: Option<PathBuf>,
    /// Files with passwords or secrets that every user of this machine can read.
    pub exposed: Vec<PathBuf>,
}

impl Config {
    /// Reads the configuration: `explicit`, or else `./config.toml`, or else
    /// `/etc/hairpin/config.toml`, or else the defaults.
    ///
    /// # Errors
    /// Where a file is named and not there, is there and cannot be read, or says anything that
    /// could not be carried out to the letter.
    pub fn load(explicit: Option<&Path>) -> Result<(Self, Origin), ConfigError> {
        let places = explicit.map_or_else(|| PLACES.map(Path::new).to_vec(), |file| vec![file]);
        let secret = environment_secret()?;
        for file in places {
            let text = match fs::read_to_string(file) {
                // It may hold passwords, which a server has no need to keep.
                Ok(text) => Zeroizing::new(text),
                Err(error)
                    if explicit.is_none() && error.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => return Err(ConfigError::of(file, format!("cannot read: {error}"))),
            };
            let (config, exposed) = parse(file, &text, secret)?;
            return Ok((config, Origin { file: Some(file.to_owned()), exposed }));
        }
        let (config, exposed) = parse(Path::new("defaults"), "", secret)?;
        Ok((config, Origin { file: None, exposed }))
    }

    /// What `serve --dev` runs: user `dev` with password `dev`, loopback and private peers
    /// allowed, listening on 127.0.0.1 only, with a certificate made anew. No file and no variable
    /// changes it.
    #[must_use]
    pub fn dev() -> Self {
        let (mut config, _) = parse(Path::new("--dev"), DEV, None).expect("a constant, and tested");
        let pair = Pair::self_signed(&DEV_NAMES).expect("the system has randomness");
        let tls = net::tls::Config { pairs: vec![pair], listen: Vec::new(), dtls: true };
        config.net.tls = Some(tls);
        if let Some(signaling) = &mut config.http.signaling {
            signaling.origins.local = true;
            signaling.source = Source::Fixed(Credentials {
                username: "dev".to_owned(),
                password: "dev".to_owned(),
            });
        }
        config
    }

    /// Lets clients reach this machine's own addresses too: in development, the other browser is
    /// likely to be on the same machine.
    #[must_use]
    pub fn allowing_this_machine(mut self) -> Self {
        self.turn.policy.allow.extend(net::own_addresses().0.into_iter().map(IpNet::from));
        self
    }

    /// The host in the URLs that clients are given: the configured one, or the first address of
    /// the listeners that is no wildcard.
    #[must_use]
    pub fn public_host(&self) -> Option<String> {
        let listened_on = || PublicHost::listened_on(&self.net.listen);
        self.public_host.clone().or_else(|| Some(listened_on()?.to_string()))
    }

    /// What an operator should know although it is allowed, each on one line.
    #[must_use]
    pub fn warnings(&self, origin: &Origin) -> Vec<String> {
        let auth = &self.turn.auth;
        let limits = &self.turn.limits;
        let rfc = turn::limits::Config::default();
        let mut warnings = Vec::new();
        if auth.users.is_empty() && auth.secrets.is_empty() {
            warnings.push(
                "auth: neither users nor secrets: the server answers STUN and relays nothing"
                    .to_owned(),
            );
        }
        if auth.realm.len() > SHORT_REALM_BYTES {
            warnings.push(format!(
                "realm: {} bytes make refusals more than 2.3 times as large as requests, which \
                 attackers can use against others; {SHORT_REALM_BYTES} bytes or fewer do not",
                auth.realm.len()
            ));
        }
        if auth.nonce_lifetime > LONGEST_NONCE_LIFETIME {
            warnings.push("auth.nonce_lifetime: RFC 8656 advises one hour or less".to_owned());
        }
        if limits.permission_lifetime != rfc.permission_lifetime {
            warnings.push("limits.permission_lifetime: RFC 8656 demands 5m".to_owned());
        }
        if limits.channel_lifetime != rfc.channel_lifetime {
            warnings.push("limits.channel_lifetime: RFC 8656 demands 10m".to_owned());
        }
        warnings.extend(self.discovery_warning());
        warnings.extend(self.signaling_warnings());
        warnings.extend(self.expiry_warnings(clock::now().unix_secs));
        warnings.extend(origin.exposed.iter().map(|file| {
            format!("{}: every user of this machine can read the secrets in it", file.display())
        }));
        warnings
    }
}

impl Config {
    /// Behind 1:1 NAT both addresses of NAT behaviour discovery must be known from outside.
    fn discovery_warning(&self) -> Option<String> {
        let [primary, .., alternate] = self.turn.discovery?.addresses().map(|own| own.ip());
        let relays_from = self.net.relays_from();
        let external = &self.net.external;
        let (aliases, asked) = (external.aliases(&relays_from), external.unknown(&relays_from));
        let is_shown = |ip| asked.contains(&ip) || aliases.iter().any(|alias| alias.local == ip);
        let (shown, hidden) = match (is_shown(primary), is_shown(alternate)) {
            (true, false) => (primary, alternate),
            (false, true) => (alternate, primary),
            _ => return None,
        };
        turn::policy::is_special_purpose(hidden).then(|| {
            format!(
                "stun.nat_discovery: relay.external knows {shown} from outside and not {hidden}: \
                 clients are told an address that they cannot reach; add \"…/{hidden}\""
            )
        })
    }

    fn signaling_warnings(&self) -> Vec<String> {
        let Some(signaling) = &self.http.signaling else { return Vec::new() };
        let mut warnings = Vec::new();
        match signaling.source {
            Source::None => warnings.push(
                "signaling: no auth.secrets to make credentials with: clients get STUN only"
                    .to_owned(),
            ),
            Source::Secret(_) if signaling.hub.open => warnings
                .push("signaling.open: everybody who reaches it gets TURN credentials".to_owned()),
            Source::Secret(_) | Source::Fixed(_) => {}
        }
        if signaling.keys.may_be_for_others() {
            warnings.push(
                "signaling.jwt_audience: not set, so tokens are good here that the holder of the \
                 private key made for other services"
                    .to_owned(),
            );
        }
        warnings
    }

    fn expiry_warnings(&self, unix_secs: u64) -> Vec<String> {
        let pairs = self.net.tls.iter().flat_map(|tls| &tls.pairs).enumerate();
        let warning = |(at, pair): (usize, &Pair)| {
            let names = pair.certificate.names().join(", ");
            let left = pair.certificate.not_after().saturating_sub(unix_secs);
            let days = left / SECS_PER_DAY;
            (Duration::from_secs(left) < EXPIRES_SOON)
                .then(|| format!("tls.cert: certificate {at} ({names}) expires in {days} days"))
        };
        pairs.filter_map(warning).collect()
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display()),
            None => f.write_str("built-in defaults"),
        }
    }
}

/// Reads one file's text; also says which files with secrets everyone can read.
fn parse(
    name: &Path,
    text: &str,
    environment_secret: Option<String>,
) -> Result<(Config, Vec<PathBuf>), ConfigError> {
    let deserializer =
        toml::Deserializer::parse(text).map_err(|error| ConfigError::syntax(name, text, &error))?;
    let file: file::File = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| ConfigError::schema(name, text, &error))?;
    let mut reader = secrets::Reader::new(name.parent().unwrap_or(Path::new("")));
    if !file.auth.users.is_empty() || !file.auth.secrets.is_empty() {
        reader.note_exposed(name);
    }
    let config = build::config(file, &mut reader, environment_secret)
        .map_err(|fault| ConfigError::at(name, text, fault))?;
    Ok((config, reader.exposed))
}

/// The secret in the environment. An empty one counts as none, for that is what a compose file
/// makes of a variable nobody set.
fn environment_secret() -> Result<Option<String>, ConfigError> {
    let refuse = |problem: String| ConfigError::of(format!("${SECRET_VARIABLE}"), problem);
    match env::var(SECRET_VARIABLE) {
        Ok(secret) if secret.is_empty() => Ok(None),
        Ok(secret) => secrets::long_enough(&secret).map(|()| Some(secret)).map_err(refuse),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(refuse("is not UTF-8".to_owned())),
    }
}

#[cfg(test)]
mod tests;
