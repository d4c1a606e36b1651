//! Which pages may speak to this server: a browser says where its page is from, and no page can
//! make it lie.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

/// The origins that are let in.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Besides the server's own, exactly these: `https://example.org`, `http://localhost:5173`.
    pub allowed: Vec<String>,
    /// The name that makes an origin with the same `Host` the server's own.
    ///
    /// Without it only IP addresses and `localhost` do. For a `Host` is what the client says, and
    /// whoever owns a name can let it lead here (DNS rebinding): then their page's origin is as
    /// good as its `Host`.
    pub public_host: Option<String>,
    /// Every page of this machine: for development.
    pub local: bool,
}

impl Origins {
    /// The origin of a request, if it is let in. Without an origin none is. `encrypted` says whether
    /// the request came over TLS that ends here.
    pub(super) fn allowed<'h>(&self, headers: &'h HeaderMap, encrypted: bool) -> Option<&'h str> {
        let origin = only(headers, ORIGIN.as_str())?;
        let is_allowed = self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            || self.is_own(origin, headers, encrypted)
            || (self.local && host_of(origin).is_some_and(is_local));
        is_allowed.then_some(origin)
    }

    /// Whether scheme, host and port are those that the request came to. Whoever is on the way can
    /// put words into a page that came without TLS, and it is not the one that came with it.
    /// Without TLS here it may still be `https`, with a proxy in front.
    fn is_own(&self, origin: &str, headers: &HeaderMap, encrypted: bool) -> bool {
        if encrypted && !origin.starts_with("https://") {
            return false;
        }
        let (Some(authority), Some(host)) = (authority(origin), only(headers, HOST.as_str()))
        else {
            return false;
        };
        let Some(name) = host_of(origin) else { return false };
        let is_known = ip(name).is_some()
            || name.eq_ignore_ascii_case("localhost")
            || self.public_host.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        is_known && authority.eq_ignore_ascii_case(host)
    }
}

/// Whether `text` is what a browser sends as an origin.
pub(crate) fn is_origin(text: &str) -> bool {
    host_of(text).is_some_and(|host| !host.is_empty())
}

/// The value of a header that is there exactly once.
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn authority(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
    };
    (matches!(scheme, "http" | "https") && authority.bytes().all(is_plain)).then_some(authority)
}

fn host_of(origin: &str) -> Option<&str> {
    let authority = authority(origin)?;
    // Behind the brackets of an IPv6 address.
    let colon = authority.rfind(':').filter(|&at| !authority[at..].contains(']'));
    let Some(at) = colon else { return Some(authority) };
    authority[at + 1..].parse::<u16>().ok()?;
    Some(&authority[..at])
}

fn ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

fn is_local(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || ip(host).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_origins_are_let_in_to_the_letter() {
        let origins = Origins {
            allowed: vec!["https://example.org".to_owned(), "http://app.test:8443".to_owned()],
            ..Origins::default()
        };
        for origin in ["https://example.org", "https://EXAMPLE.org", "http://app.test:8443"] {
            assert_eq!(origins.allowed(&asked(&[origin], "turn.test"), false), Some(origin));
        }
        for origin in [
            "null",
            "",
            "*",
            "http://example.org",
            "https://example.org:444",
            "https://example.org/",
            "https://example.org.evil.test",
            "https://evil-example.org",
            "https://sub.example.org",
            "https://example.org@evil.test",
            "https://evil.test?https://example.org",
            "http://app.test",
        ] {
            assert_eq!(origins.allowed(&asked(&[origin], "turn.test"), false), None, "{origin}");
        }
    }

    #[test]
    fn an_origin_that_is_missing_or_said_twice_is_none() {
        let origins =
            Origins { allowed: vec!["https://example.org".to_owned()], ..Origins::default() };
        assert_eq!(origins.allowed(&asked(&[], "turn.test"), false), None);
        let twice = ["https://example.org", "https://example.org"];
        assert_eq!(origins.allowed(&asked(&twice, "turn.test"), false), None);
    }

    #[test]
    fn the_servers_own_pages_are_let_in() {
        let origins = Origins { public_host: Some("turn.test".to_owned()), ..Origins::default() };
        for (origin, host) in [
            ("https://turn.test", "turn.test"),
            ("http://turn.test:8080", "turn.test:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://localhost", "localhost"),
        ] {
            assert_eq!(origins.allowed(&asked(&[origin], host), false), Some(origin));
        }
        for (origin, host) in [
            ("https://turn.test:444", "turn.test"),
            ("https://127.0.0.2:8080", "127.0.0.1:8080"),
            ("ftp://turn.test", "turn.test"),
        ] {
            assert_eq!(origins.allowed(&asked(&[origin], host), false), None, "{origin}");
        }
    }

    /// What comes without TLS may have been changed on the way.
    #[test]
    fn over_tls_only_the_own_pages_that_came_over_tls_are_let_in() {
        let origins = Origins {
            allowed: vec!["http://app.test".to_owned()],
            public_host: Some("turn.test".to_owned()),
            local: false,
        };
        for (origin, encrypted, expected) in [
            ("https://turn.test", true, true),
            ("http://turn.test", true, false),
            ("http://turn.test", false, true),
            // A proxy in front has ended the TLS.
            ("https://turn.test", false, true),
            ("http://app.test", true, true),
        ] {
            let asked = asked(&[origin], "turn.test");
            let is_allowed = origins.allowed(&asked, encrypted).is_some();
            assert_eq!(is_allowed, expected, "{origin}, TLS: {encrypted}");
        }
    }

    /// A name that somebody else owns may lead to this address.
    #[test]
    fn a_rebound_name_is_not_our_own() {
        let origins = Origins { public_host: Some("turn.test".to_owned()), ..Origins::default() };
        let headers = asked(&["http://evil.test:8080"], "evil.test:8080");
        assert_eq!(origins.allowed(&headers, false), None);
    }

    #[test]
    fn in_development_every_page_of_this_machine_is_let_in() {
        let origins = Origins { local: true, ..Origins::default() };
        for origin in [
            "http://localhost:5173",
            "http://127.0.0.1:9000",
            "http://[::1]:1",
            "http://a.localhost",
        ] {
            assert_eq!(origins.allowed(&asked(&[origin], "localhost:8080"), false), Some(origin));
        }
        for origin in ["http://192.0.2.1", "http://localhost.evil.test", "null"] {
            assert_eq!(
                origins.allowed(&asked(&[origin], "localhost:8080"), false),
                None,
                "{origin}"
            );
        }
    }

    fn asked(origins: &[&str], host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        headers.insert(HOST, host.parse().unwrap());
        headers
    }
}
