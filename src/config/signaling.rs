//! Signaling: who may come, by what proof, and what credentials are made of.

use super::error::{Fault, Key};
use super::file::{File, Replace};
use super::host::PublicHost;
use super::secrets::Reader;
use crate::http::credentials::{ApiToken, Source};
use crate::http::origin::{Origins, is_origin};
use crate::http::signaling::Config;
use crate::http::token::{Keys, MIN_SECRET_BYTES};
use crate::signal;

/// The settings; none where it is not enabled.
///
/// `public_host` is the name in the URLs, if there is one; `secret` the one that mints.
pub(super) fn config(
    file: &File,
    reader: &mut Reader<'_>,
    public_host: Option<&PublicHost>,
    secret: Option<&String>,
) -> Result<Option<Config>, Fault> {
    let own = &file.signaling;
    if !own.enabled {
        if !file.http.api_token_file.is_empty() {
            let message = "is of no use without signaling.enabled, which has /ice-servers";
            return Err(Fault::new([Key::new("http.api_token_file")], message));
        }
        return Ok(None);
    }
    if file.http.listen.is_empty() && !file.http.shared {
        let message = "needs an address in http.listen, or http.shared";
        return Err(Fault::new([Key::new("signaling.enabled")], message));
    }
    let Some(host) = public_host else {
        let message = "needs public_host, because `listen` has only wildcards: the name or IP \
                       address that clients reach this server by";
        return Err(Fault::new([Key::new("signaling.enabled")], message));
    };
    let keys = keys(file, reader)?;
    if keys.is_empty() && !own.open {
        let message = "needs jwt_secret_file or jwt_public_key_file, or open = true";
        return Err(Fault::new([Key::new("signaling.enabled")], message));
    }
    for (at, origin) in own.origins.iter().enumerate() {
        if !is_origin(origin) {
            let message = format!(
                "{origin:?} is not an origin; write it like \"https://example.org\", without a path"
            );
            return Err(Fault::new([Key::new("signaling.origins").index(at)], message));
        }
    }
    let api_token = match file.http.api_token_file.as_str() {
        "" => None,
        name => {
            let tokens = reader.secrets(name, &Key::new("http.api_token_file"))?;
            tokens.into_iter().next().map(ApiToken::new)
        }
    };
    Ok(Some(Config {
        hub: signal::Config {
            open: own.open,
            replace: match own.replace {
                Replace::Secret => signal::Replace::Secret,
                Replace::Always => signal::Replace::Always,
            },
            connections_per_source: signal::CONNECTIONS_PER_SOURCE,
            outbound_bytes_in_all: signal::OUTBOUND_BYTES_IN_ALL,
        },
        origins: Origins {
            allowed: own.origins.clone(),
            public_host: Some(host.to_string()),
            local: false,
        },
        keys,
        source: secret.cloned().map_or(Source::None, Source::Secret),
        api_token,
    }))
}

fn keys(file: &File, reader: &mut Reader<'_>) -> Result<Keys, Fault> {
    let own = &file.signaling;
    let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
    let mut keys = Keys::new(named(&own.jwt_audience), named(&own.jwt_issuer));
    if !own.jwt_secret_file.is_empty() {
        let key = Key::new("signaling.jwt_secret_file");
        for secret in reader.secrets(&own.jwt_secret_file, &key)? {
            if secret.len() < MIN_SECRET_BYTES {
                let message = format!("a secret for HS256 needs at least {MIN_SECRET_BYTES} bytes");
                return Err(Fault::new([key], message));
            }
            keys.add_secret(secret.as_bytes());
        }
    }
    for (at, name) in own.jwt_public_key_file.0.iter().enumerate() {
        let key = Key::new("signaling.jwt_public_key_file");
        let pem = reader.public(name, &key)?;
        keys.add_public(&pem).map_err(|problem| {
            Fault::new([key.clone().index(at), key.clone()], format!("{name:?} {problem}"))
        })?;
    }
    Ok(keys)
}
